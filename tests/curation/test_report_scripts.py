"""The page's scripts are plain JavaScript with types in their comments, which TypeScript's compiler holds them to."""

import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "curation" / "report" / "page"
COMPILER = ["npx", "--yes", "--package", "typescript@7.0.2", "tsc"]


@pytest.mark.browser
@pytest.mark.parametrize("config", ["tsconfig.json", "tsconfig.compare.json"])
def test_the_scripts_of_a_page_agree_with_their_types(config: str) -> None:
    if shutil.which("npx") is None:
        pytest.skip("no npx: install Node.js")
    there = subprocess.run([*COMPILER, "--version"], cwd=PAGE, capture_output=True, text=True, check=False)
    if not there.stdout.startswith("Version"):
        pytest.skip("no TypeScript: npx cannot fetch typescript@7.0.2")
    done = subprocess.run([*COMPILER, "-p", config], cwd=PAGE, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
