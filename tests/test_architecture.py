"""The files and names that ``docs/architecture.md`` and ``docs/developing.md`` name are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def place(name: str) -> Path:
    """Return what a page calls so, of the package, the root or the docs; it may be missing."""
    paths = [folder / name for folder in (ROOT / "msnmo_bids", ROOT, DOCS)]
    return next(filter(Path.exists, paths), paths[0])


@pytest.mark.parametrize("page", ["architecture.md", "developing.md"])
def test_files_are_there(page):
    text = (DOCS / page).read_text(encoding="utf-8")
    names = re.findall(r"(?<![\w/])(?:[a-z_]+/[\w/]+\.[\w.]*\w|\w+\.md)", text)
    assert len(names) > 10
    assert [name for name in names if not place(name).is_file()] == []


def test_names_stand_in_their_files():
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    pairs = re.findall(r"`(\w+)` in `([\w/]+\.py)`", text)
    assert len(pairs) > 10
    for name, file in pairs:
        assert re.search(rf"\b{name}\b", place(file).read_text("utf-8")), (name, file)
