"""Folders and globs: what media lie in them, in a stable order, without going round in links."""

import glob
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from curation.inputs.names import OTHER_SUFFIXES
from curation.inputs.outputs import OWN_FOLDERS, Outputs, is_output
from curation.inputs.passed import Passing
from media.content import look_into
from media.names import is_media_name, suffix_of

Tree = Iterator[tuple[str, list[os.DirEntry[str]] | None]]


class Searcher:
    """Searches folders for media and counts what it passes over.

    Args:
        passing: where that is counted.
        with_outputs: whether what an output of `curate` holds is taken where it is named: its `train/`, say.
    """

    def __init__(self, passing: Passing, *, with_outputs: bool = False):
        self._passing, self._with_outputs = passing, with_outputs
        self._outputs = Outputs()

    def walk(self, folder: str, *, is_word: bool = False) -> Iterator[str]:
        """Yield the media files below a folder, sorted, and the folders that cannot be read.

        Args:
            folder: absolute.
            is_word: it was named by itself: footage beside the folders of an output is meant, as with `--output .`.
        """
        if self.is_ours(folder, is_word=is_word):
            return
        for place, files in self._tree(folder, self._passing):
            if files is None:
                yield place
                continue
            is_new = self._passing.begin(place)
            for entry in files:
                if _is_source(entry.path):
                    yield entry.path
                elif is_new:
                    self._passing.file(entry.name)

    def expand(self, pattern: str) -> Iterator[str]:
        """Yield what an absolute glob matches, folders as well; `**` does not go round in links that lead back."""
        parts = pattern.split("/")
        if "**" not in parts:
            yield from glob.iglob(pattern)
            return
        at = parts.index("**")
        after = "/".join(part for i, part in enumerate(parts[at + 1 :], at + 1) if part != "**" or parts[i - 1] != "**")
        for base in filter(os.path.isdir, glob.glob("/".join(parts[:at]) or "/")):
            if self.is_ours(base):
                continue
            if not after:
                yield base
                continue
            for folder, files in self._tree(base, None):
                if files is None:
                    yield folder
                else:
                    yield from self.expand(os.path.join(glob.escape(folder), after))

    def takes(self, file: str) -> bool:
        """Return whether a file that a glob matches is media, by its name or its first bytes; others are counted."""
        if _is_source(file):
            return True
        if not self._passing.has_counted(os.path.dirname(file)) and self._passing.begin(file):
            self._passing.file(file)
        return False

    @staticmethod
    def is_readable(folder: str) -> bool:
        """Return whether a folder can be listed."""
        try:
            os.scandir(folder).close()
        except OSError:
            return False
        return True

    def is_ours(self, folder: str, *, is_word: bool = False) -> bool:
        """Return whether all in a folder is of an output of `curate`, and note an output that it is or lies in."""
        if self._with_outputs:
            return False
        output = self._outputs.holding(folder)
        if output is None:
            return False
        self._passing.output(output)
        return not is_word or self._outputs.owning(folder) is not None

    def is_in_ours(self, file: str) -> bool:
        """Return whether a file is of an output of `curate`, and note the output."""
        if self._with_outputs:
            return False
        folder = os.path.dirname(file)
        output = self._outputs.holding(folder)
        if output is None or (os.path.realpath(folder) == output and is_media_name(file)):
            return False  # beside the table, as with `--output .`
        self._passing.output(output)
        return True

    def _tree(self, folder: str, passing: Passing | None) -> Tree:
        """Yield each folder from one on down with what it holds besides folders; None where it cannot be read.

        Hidden ones, links to folders above and outputs of `curate` (whose clips would come in again) are left out.
        """
        top = os.path.realpath(folder)
        seen = {top}
        waiting = [(folder, top)]
        while waiting:  # no recursion: a tree may be deeper than Python's stack
            place, real = waiting.pop()
            try:
                with os.scandir(place) as listing:
                    listed = list(listing)
            except OSError:
                yield place, None
                continue
            entries = sorted((e for e in listed if not e.name.startswith(".")), key=lambda entry: entry.name)
            if passing is not None and passing.begin(f"{place}/."):
                passing.hidden += len(listed) - len(entries)
            files, folders = [], []
            for entry in entries:
                if not _is_folder(entry):
                    files.append(entry)
                    continue
                target = os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(real, entry.name)
                if target not in seen and not is_at_or_below(top, target) and not self._is_output(entry, target, real):
                    seen.add(target)
                    folders.append((entry.path, target))
            yield place, files
            waiting += reversed(folders)

    def _is_output(self, entry: os.DirEntry[str], target: str, above: str) -> bool:
        """Return whether a folder within another is an output, or one of an output's own; notes the output."""
        if self._with_outputs:
            output = target if is_output(target) else None
        elif entry.is_symlink():
            output = self._outputs.holding(target)
        elif self._outputs.is_one(target):
            output = target
        else:
            output = above if entry.name in OWN_FOLDERS and self._outputs.is_one(above) else None
        if output is not None:
            self._passing.output(output)
        return output is not None


def is_at_or_below(path: str, folder: str) -> bool:
    """Return whether an absolute path is a folder or lies in it."""
    return f"{path}/".startswith(f"{folder.rstrip('/')}/")


def fixed_part(pattern: str) -> str:
    """Return the folder part of a glob before its first wildcard."""
    parts = Path(os.path.expanduser(pattern)).parts
    fixed = []
    for part in parts:
        if glob.has_magic(part):
            break
        fixed.append(part)
    return os.path.join(*fixed) if fixed else "."


def _is_source(file: str) -> bool:
    """Return whether a file is a source, by its name or, where that says nothing, by its first bytes.

    A broken link of such a name, and what is out of reach, is one: it fails. Named pipes and the like are none.
    """
    if not is_media_name(file):
        return suffix_of(file) not in OTHER_SUFFIXES and look_into(file) is not None
    try:
        return stat.S_ISREG(os.stat(file).st_mode)
    except OSError:
        return True


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or out of reach
        return False
