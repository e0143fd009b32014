"""The documentation: generated pages are what the code says, links lead somewhere, commands exist."""

import re
from pathlib import Path

import pytest

from cli.main import COMMANDS
from curation.schema import COLUMNS
from docs.generate import PAGES, stale

ROOT = Path(__file__).resolve().parents[1]
TEXTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")])


def links_of(path: Path) -> list[str]:
    """Return the targets of Markdown's links and pictures that are files of the project."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]


def test_generated_pages_are_what_the_code_says() -> None:
    assert stale() == []


def test_a_changed_page_is_seen_as_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PAGES, "columns.md", lambda: "another")
    assert stale() == ["columns.md"]


def test_every_column_is_on_the_page_once() -> None:
    lines = (ROOT / "docs" / "columns.md").read_text(encoding="utf-8").splitlines()
    names = [line.split("`")[1] for line in lines if line.startswith("| `")]
    assert sorted(names) == sorted(column.name for column in COLUMNS)


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(path: Path) -> None:
    for target in links_of(path):
        assert (path.parent / target).exists(), target


def test_every_page_is_in_the_navigation() -> None:
    listed = set(re.findall(r": (\w+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE))
    assert listed == {path.name for path in (ROOT / "docs").glob("*.md")}


@pytest.mark.parametrize("path", TEXTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_and_modules_that_are_named_exist(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    for command in re.findall(r"(?:^ +(?:\$ )?|`)selects ([a-z]+)\b", text, re.MULTILINE):
        assert command in COMMANDS, command
    for module in re.findall(r"python -m (benchmarks\.\w+|docs\.\w+)", text):
        place = ROOT / module.replace(".", "/")
        assert place.with_suffix(".py").is_file() or (place / "__main__.py").is_file(), module
    for file in re.findall(
        r"`((?:tests|configs|examples|captioners|operators|models|curation|train_bridge)/[\w/.]+)`", text
    ):
        assert (ROOT / file).exists(), file


def test_both_readmes_have_the_same_length_output_and_links() -> None:
    english, chinese = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md"))
    assert abs(len(english.splitlines()) - len(chinese.splitlines())) <= 6 and len(english.splitlines()) <= 130
    assert english.count("](docs/") == chinese.count("](docs/")
    printed = [
        [line.partition(" # ")[0].rstrip() for line in text.splitlines() if line.startswith("    $")]
        for text in (english, chinese)
    ]
    assert printed[0] == printed[1]
