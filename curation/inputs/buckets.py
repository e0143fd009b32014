"""Inputs that lie in buckets or on web servers: objects, prefixes and globs."""

import posixpath
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from core.errors import UserError
from core.storage.object_store import object_at, open_object_store
from core.storage.staging import version_number
from core.storage.store import Entry, MissingError
from core.storage.urls import place_of
from curation.inputs.names import OTHER_SUFFIXES
from curation.inputs.outputs import HEADER, OWN_FOLDERS, RECIPE
from curation.inputs.passed import Passing
from media.content import HEAD_BYTES, kind_of
from media.names import is_media_name, suffix_of

AT_ONCE = 32
"""requests for single objects under way at a time"""
_MAGIC = re.compile(r"[*?[]")

Named = tuple[str, str, str]
"""root, file and what is missing (or nothing), as `curation.inputs.sources` has them"""


@dataclass
class Buckets:
    """Looks for sources in buckets, and remembers sizes and versions of what it has seen.

    Attributes:
        passing: where is counted what is no source.
        with_outputs: whether clips of an output that is named are taken.
    """

    passing: Passing
    with_outputs: bool = False
    _seen: dict[str, Entry | None] = field(default_factory=dict)

    def state(self, url: str) -> tuple[int, int]:
        """Return size and number of version of an object that was found; zeros of one that is not there."""
        entry = self._seen.get(url)
        return (entry.size_bytes, version_number(entry.version)) if entry else (0, 0)

    def named(self, url: str) -> Iterator[Named]:
        """Yield the sources that a URL names: an object, all below a prefix, or what a glob matches.

        Raises:
            UserError: there is nothing of this name, or the storage refuses.
        """
        if _MAGIC.search(url):
            yield from self._glob(url)
            return
        place = place_of(url)
        if place.key and not url.endswith("/") and self._look(url) is not None:
            yield posixpath.dirname(url), url, ""
            return
        if place.is_web:
            raise UserError(f"{url}: no such file on the server")
        root = url.rstrip("/")
        yield from ((root, file, "") for file in self._below(root, "", is_word=True))

    def of_list(self, urls: Sequence[str]) -> dict[str, list[Named]]:
        """Return what each entry of a list names: an object, or all below a prefix; what cannot be read says why."""
        plain = [url for url in dict.fromkeys(urls) if not url.endswith("/") and place_of(url).key]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            refused = dict(zip(plain, pool.map(self._refused, plain), strict=True))
        found: dict[str, list[Named]] = {}
        for url in dict.fromkeys(urls):
            folder = posixpath.dirname(url.rstrip("/"))
            if self._seen.get(url) is not None:
                found[url] = [(folder, url, "")]
                continue
            is_none = place_of(url).is_web or refused.get(url)
            below = [] if is_none else list(self._below(url.rstrip("/"), "", is_word=False))
            found[url] = [(url.rstrip("/"), file, "") for file in below] or [
                (folder, url, refused.get(url) or f"no such object: {url}")
            ]
        return found

    def fetch(self, url: str) -> bytes:
        """Return the content of an object, such as a list."""
        store, name = object_at(url)
        return store.read(name)

    def is_there(self, url: str) -> bool:
        """Return whether an object is there; where nobody can say, it is."""
        try:
            return self._look(url) is not None
        except UserError:
            return True

    def _refused(self, url: str) -> str | None:
        """Look for an object; return what the storage says where it refuses: then its source fails, not the run."""
        try:
            self._look(url)
        except UserError as error:
            return str(error)
        return None

    def _look(self, url: str) -> Entry | None:
        if url not in self._seen:
            store, name = object_at(url)
            try:
                self._seen[url] = store.stat(name)
            except MissingError:
                self._seen[url] = None
        return self._seen[url]

    def _glob(self, url: str) -> Iterator[Named]:
        place = place_of(url)
        if _MAGIC.search(place.bucket):
            raise UserError(f"{url}: a bucket is named without wildcards")
        parts = place.key.split("/")
        fixed = parts[: next(i for i, part in enumerate(parts) if _MAGIC.search(part))]
        root = "/".join([place.root, *fixed])
        rest = parts[len(fixed) :]
        prefix = _MAGIC.split(rest[0], maxsplit=1)[0]
        pattern = re.compile(_pattern("/".join(rest)), re.DOTALL)
        matches = [f for f in self._below(root, prefix, is_word=False) if pattern.fullmatch(f[len(root) + 1 :])]
        if not matches:
            raise UserError(f"{url}: matches no video or image")
        yield from ((root, file, "") for file in matches)

    def _below(self, root: str, prefix: str, *, is_word: bool) -> Iterator[str]:
        """Yield the media below a URL.

        Args:
            root: URL without a slash at the end.
            prefix: how their keys begin.
            is_word: an output that `root` itself is may have footage beside its own folders.
        """
        store = open_object_store(root)
        entries = {entry.key: entry for entry in store.list(prefix)}
        outputs = [] if self.with_outputs else [
            posixpath.dirname(key)
            for key in entries
            if posixpath.basename(key) == RECIPE and store.read(key, 0, len(HEADER)) == HEADER.encode()
        ]  # fmt: skip
        for folder in outputs:
            self.passing.output(f"{root}/{folder}".rstrip("/"))
        doubtful = []
        for key, entry in entries.items():
            if not any(_is_of_output(key, folder, is_word=is_word) for folder in outputs):
                self._seen[f"{root}/{key}"] = entry
                if not is_media_name(key) and suffix_of(key) not in OTHER_SUFFIXES:
                    doubtful.append(key)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            heads = dict(zip(doubtful, pool.map(lambda key: store.read(key, 0, HEAD_BYTES), doubtful), strict=True))
        for key in entries:
            url = f"{root}/{key}"
            if url not in self._seen:
                continue
            if is_media_name(key) or (key in heads and kind_of(heads[key]) is not None):
                yield url
            elif self.passing.begin(url):
                self.passing.file(posixpath.basename(key))


def _is_of_output(key: str, folder: str, *, is_word: bool) -> bool:
    """Return whether an object is of an output in a folder; beside the folders of a named one lies footage."""
    below = key.removeprefix(f"{folder}/") if folder else key
    if below == key and folder:
        return False
    return not (is_word and not folder) or below.partition("/")[0] in OWN_FOLDERS


def _pattern(glob: str) -> str:
    """Return a glob as a regular expression: `**` any folders, `*` and `?` none, `[…]` one character."""
    out, place = "", 0
    while place < len(glob):
        if glob.startswith("**/", place):
            out, place = f"{out}(?:.*/)?", place + 3
        elif glob.startswith("**", place):
            out, place = f"{out}.*", place + 2
        elif glob[place] == "[" and (end := glob.find("]", place + 2)) > 0:
            inside = glob[place + 1 : end].replace("\\", "\\\\").replace("[", "\\[")
            out, place = f"{out}[{'^' + inside[1:] if inside[0] == '!' else inside}]", end + 1
        else:
            out += {"*": "[^/]*", "?": "[^/]"}.get(glob[place], re.escape(glob[place]))
            place += 1
    return out
