"""Who may import whom: rooms from the door down, without circles, and the network on its own."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = "msnmo_bids"

#: Rooms and single modules, from the door down: each imports those below it, and none of its row.
ROWS = (
    ("cli",),
    ("run",),
    ("group", "training"),
    ("meta",),
    ("evaluation", "workflows"),
    ("labelled", "reports", "simulation", "visits"),
    ("bids", "model"),
    ("decision", "settings"),
    ("quality",),
    ("lesions",),
    ("preprocessing",),
    ("errors", "text", "version", "vocabulary"),
)
#: What a room must not know: the network works on arrays, the rest of the house on files.
UNKNOWN = {
    "model": ("nibabel", "nipype", "msnmo_bids.lesions.regions"),
    "lesions": ("nipype", "torch"),
    "preprocessing": ("nipype",),
    "run": ("argparse",),
    "": ("dev", "benchmarks", "tests"),
}


@cache
def graph() -> dict[str, frozenset[str]]:
    """What each module imports, at its top or later: modules of the package and all others."""
    files = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): file
        for file in (ROOT / PACKAGE).rglob("*.py")
    }
    return {module: frozenset(_imports(file, set(files))) for module, file in files.items()}


def _imports(file: Path, modules: set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None, f"{file}: a relative import"
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                yield inner if inner in modules else node.module


def room(module: str) -> str:
    """Return the room of a module of the package; "" for the package itself."""
    return [*module.split("."), ""][1]


def test_no_module_needs_itself():
    inside = {module: found & graph().keys() for module, found in graph().items()}
    list(TopologicalSorter(inside).static_order())  # CycleError names the circle


def test_rooms_import_only_those_below_them():
    depth = {name: row for row, names in enumerate(ROWS) for name in names}
    assert set(depth) == {room(module) for module in graph()} - {""}
    wrong = [
        f"{module} imports {other}"
        for module, found in graph().items()
        for other in sorted(found & graph().keys())
        if room(module) != room(other) and depth[room(module)] >= depth.get(room(other), 99)
    ]
    assert not wrong


@pytest.mark.parametrize("place", UNKNOWN)
def test_what_a_room_does_not_know(place):
    unknown = tuple(f"{name}." for name in UNKNOWN[place])
    wrong = [
        f"{module} imports {other}"
        for module, found in graph().items()
        for other in sorted(found)
        if place in ("", room(module)) and f"{other}.".startswith(unknown)
    ]
    assert not wrong
