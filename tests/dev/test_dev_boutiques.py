"""The Boutiques descriptor is the command line's."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from dev.boutiques import descriptor
from msnmo_bids.cli.main import parse_args
from msnmo_bids.errors import MEANINGS, ExitCode

FILE = Path(__file__).parents[2] / "msnmo.json"


def test_the_file_is_up_to_date():
    message = "Run: python -m dev.boutiques > msnmo.json"
    assert json.loads(FILE.read_text()) == descriptor(), message


def test_every_exit_code_has_its_words():
    assert set(MEANINGS) == set(ExitCode)
    codes = [error["code"] for error in descriptor()["error-codes"]]
    assert codes == [code for code in ExitCode if code != ExitCode.OK]


def test_a_command_line_made_from_it_is_understood():
    values = {"Flag": None, "String": "auto", "File": "file"}
    words = []
    for entry in descriptor()["inputs"]:
        values["Number"] = "1" if entry.get("integer") else "0.5"
        value = (entry.get("value-choices") or [values[entry["type"]]])[0]
        words += [word for word in (entry.get("command-line-flag"), value) if word is not None]
    options = asdict(parse_args(words))
    assert {entry["id"] for entry in descriptor()["inputs"]} <= set(options)
    assert options["work_dir"] == Path("auto")
    assert options["nprocs"] == 1
