"""Where packages lie: ours, which worker processes are told so that they import the same code, and those of others."""

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

HOME = Path(__file__).resolve().parents[1]
"""folder that holds every package of ours"""
CODE_SUFFIXES = frozenset({".py", ".txt", ".yaml"})
"""of files that decide what is computed: code, prompts, recipes"""
PACKAGES = (
    *("core", "media", "models", "curation", "operators", "controls", "captioners", "configs"),
    *("sampling", "train_bridge", "evaluation", "demo", "serving", "integrations", "cli"),
)


def package_folders(module: str) -> list[Path]:
    """Return the folders of an installed package; none where it is not installed. It is located, not imported."""
    spec = importlib.util.find_spec(module)
    return [Path(folder) for folder in (spec.submodule_search_locations or ())] if spec else []


@cache
def code_digests() -> tuple[tuple[str, str], ...]:
    """Return each package of ours that this process finds, with a hash of its code, prompts and recipes."""
    found = []
    for name in PACKAGES:
        every = ((folder, file) for folder in package_folders(name) for file in folder.rglob("*"))
        files = sorted((file.relative_to(folder).as_posix(), file) for folder, file in every if _is_code(file))
        digest = hashlib.blake2b(digest_size=12)
        for path, file in files:
            digest.update(f"{path}\0".encode())
            digest.update(hashlib.blake2b(file.read_bytes()).digest())
        if files:
            found.append((name, digest.hexdigest()))
    return tuple(found)


def _is_code(file: Path) -> bool:
    return file.suffix in CODE_SUFFIXES and file.is_file()


def code_digest() -> str:
    """Return one hash of all of our code as this process finds it."""
    return hashlib.blake2b(repr(code_digests()).encode(), digest_size=12).hexdigest()
