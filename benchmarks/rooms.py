"""Count what the rooms hold, in two commits: files, lines, long functions, parameters, booleans, tuples, docstrings.

    python -m benchmarks.rooms                  # since version 0.7
    python -m benchmarks.rooms v1 HEAD          # between any two commits

A commit is read as git has it; `.` is the working tree. Tests, benchmarks, examples and documentation are left out.
A function is a `def`, nested ones and methods among them. Its parameters are all but `self` and `cls`, keyword-only
ones among them; its lines are those from `def` to its end, its docstring among them. A positional boolean is a
parameter annotated `bool` or `bool | None` that may be given without its name. A returned tuple is one of fixed length
in the annotation of what is returned, also within another type; what is not annotated is not seen.
"""

import argparse
import ast
import io
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from core.packages import PACKAGES

ROOT = Path(__file__).resolve().parents[1]
BEFORE = "8860e5f"
"""the last commit of version 0.7"""
MANY_PARAMETERS = 8
LEFT_OUT = frozenset({"tests", "benchmarks", "examples", "docs", "deploy"})
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Count:
    """What some files hold."""

    files: int = 0
    lines: int = 0
    longest_file: int = 0
    functions: int = 0
    longest_function: tuple[int, str] = (0, "")
    many_parameters: int = 0
    booleans: int = 0
    tuples: Counter[int] = field(default_factory=Counter)
    verbs: Counter[str] = field(default_factory=Counter)

    @property
    def long_tuples(self) -> int:
        """Functions that return a tuple of three and more."""
        return self.tuples.total() - self.tuples[2]

    def add(self, name: str, text: str) -> None:
        """Count a file."""
        lines = len(text.splitlines())
        self.files, self.lines, self.longest_file = self.files + 1, self.lines + lines, max(self.longest_file, lines)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, Function):
                self._add_function(name, node)

    def _add_function(self, name: str, node: Function) -> None:
        self.functions += 1
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        self.longest_function = max(self.longest_function, (length, f"{name}: {node.name}"))
        self.many_parameters += len(parameters(node)) >= MANY_PARAMETERS
        self.booleans += len(positional_booleans(node))
        if (length_of := returned_tuple(node)) is not None:
            self.tuples[length_of] += 1
        if words := (ast.get_docstring(node) or "").split():
            self.verbs[words[0].rstrip(".,:;")] += 1


def parameters(node: Function) -> list[str]:
    """List a function's parameters but `self`, `cls` and those that take any number."""
    given = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    return [one.arg for one in given if one.arg not in ("self", "cls")]


def positional_booleans(node: Function) -> list[str]:
    """List the boolean parameters that may be given without their names."""
    given = (*node.args.posonlyargs, *node.args.args)
    return [one.arg for one in given if one.annotation and ast.unparse(one.annotation) in ("bool", "bool | None")]


def returned_tuple(node: Function) -> int | None:
    """Return the length of the longest tuple of fixed length in what a function returns; None: there is none."""
    lengths = [
        len(one.slice.elts)
        for one in (ast.walk(node.returns) if node.returns else ())
        if isinstance(one, ast.Subscript) and ast.unparse(one.value) == "tuple" and isinstance(one.slice, ast.Tuple)
        if not any(isinstance(element, ast.Constant) and element.value is ... for element in one.slice.elts)
    ]
    return max(lengths, default=None)


def sources(commit: str) -> Iterator[tuple[str, str]]:
    """Yield the name and text of each Python file of a commit, or of the working tree (`.`)."""
    if commit == ".":
        listed = [*ROOT.glob("*.py"), *(path for room in PACKAGES for path in sorted((ROOT / room).rglob("*.py")))]
        yield from ((str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in listed)
        return
    packed = subprocess.run(
        ["git", "archive", "--format=tar", commit], cwd=ROOT, capture_output=True, check=True
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        for member in archive:
            if member.name.endswith(".py") and (file := archive.extractfile(member)) is not None:
                yield member.name, file.read().decode()


def count(commit: str) -> dict[str, Count]:
    """Count each room, by its name; files beside the rooms are those of `.`."""
    rooms: dict[str, Count] = {}
    for name, text in sources(commit):
        first, *inner = PurePosixPath(name).parts
        if first not in LEFT_OUT:
            rooms.setdefault(first if inner else ".", Count()).add(name, text)
    return rooms


def whole(rooms: dict[str, Count]) -> Count:
    """Add up the rooms."""
    total = Count()
    for room in rooms.values():
        total.files, total.lines = total.files + room.files, total.lines + room.lines
        total.functions += room.functions
        total.longest_file = max(total.longest_file, room.longest_file)
        total.longest_function = max(total.longest_function, room.longest_function)
        total.many_parameters += room.many_parameters
        total.booleans += room.booleans
        total.tuples += room.tuples
        total.verbs += room.verbs
    return total


def table(before: dict[str, Count], after: dict[str, Count]) -> Iterator[str]:
    """Yield the lines of both tables, in Markdown."""
    yield "| room | files | lines | longest function | 8 parameters and more | positional booleans |"
    yield "|---|---|---|---|---|---|"
    for room in sorted({*before, *after}):
        pair = before.get(room, Count()), after.get(room, Count())
        cells = (
            " → ".join(str(value) if one.files else "–" for one, value in zip(pair, values, strict=True))
            for values in (
                [one.files for one in pair],
                [one.lines for one in pair],
                [one.longest_function[0] for one in pair],
                [one.many_parameters for one in pair],
                [one.booleans for one in pair],
            )
        )
        yield f"| `{room}` | {' | '.join(cells)} |"
    then, now = whole(before), whole(after)
    yield ""
    yield "| all rooms | before | after |"
    yield "|---|---|---|"
    rows = {
        "files": lambda one: one.files,
        "lines": lambda one: one.lines,
        "longest file, lines": lambda one: one.longest_file,
        "functions": lambda one: one.functions,
        "longest function, lines": lambda one: one.longest_function[0],
        "functions of 8 parameters and more": lambda one: one.many_parameters,
        "positional booleans": lambda one: one.booleans,
        "functions that return a pair": lambda one: one.tuples[2],
        "functions that return a tuple of 3 and more": lambda one: one.long_tuples,
        "docstrings of functions": lambda one: one.verbs.total(),
        "of these, beginning with `Give`": lambda one: one.verbs["Give"] + one.verbs["Gives"],
        "of these, beginning with `Return`": lambda one: one.verbs["Return"],
    }
    for name, value in rows.items():
        yield f"| {name} | {value(then)} | {value(now)} |"
    yield ""
    yield "Most frequent first words of docstrings:"
    for name, one in (("before", then), ("after", now)):
        yield f"- {name}: {', '.join(f'{word} {times}' for word, times in one.verbs.most_common(12))}"


def main() -> int:
    """Print the tables; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", nargs="?", default=BEFORE, help="a commit")
    parser.add_argument("after", nargs="?", default=".", help="a commit, or . for the working tree")
    asked = parser.parse_args()
    print("\n".join(table(count(asked.before), count(asked.after))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
