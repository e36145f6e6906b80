"""The table of inputs in ``docs/robustness.md``: each line names a test that there is."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "robustness.md"
ROW = re.compile(r"\| (?P<input>.+?) \| (?P<outcome>.+?) \| `(?P<file>\S+\.py)::(?P<test>\w+)` \|")
ROWS = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
LINES = [line for line in ROWS if line != "| input | what happens | test |"]


@cache
def names_of_tests(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_line_names_a_test_that_there_is():
    for line in LINES:
        found = ROW.fullmatch(line)
        assert found, line
        assert found["test"].startswith("test_"), line
        assert found["test"] in names_of_tests(found["file"]), line


def test_there_are_sixty_kinds_of_input_each_once():
    inputs = [line.split(" | ")[0] for line in LINES]
    assert len(inputs) == len(set(inputs)) >= 60
