"""One command makes the weights: what it calls exists and leaves out what it should."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from dev import make_weights
from dev.make_weights import (
    ALL,
    START,
    WEIGHTS,
    Places,
    Recipe,
    scoring,
    shipping,
    store,
    train,
    training,
)
from dev.sources import SOURCES

PLACES, RECIPE = Places(Path("/work"), Path("/data")), Recipe()
COMMANDS = [
    store(PLACES, RECIPE, 1, 2),
    scoring(PLACES),
    training(PLACES, RECIPE, START)[4:],
    training(PLACES, RECIPE, "1.5T"),
    *shipping(PLACES, RECIPE, "1"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_the_programs_know_the_options(command, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [command[0], "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(command[0], run_name="__main__")
    assert ended.value.code == 0
    said = capsys.readouterr().out.split()
    for option in command:
        if option.startswith("--"):
            assert {option, option + ","} & {*said}, option


def test_the_start_is_trained_by_two_processes_on_simulated_brains_alone():
    start = training(PLACES, RECIPE, START)
    launched = start[start.index("-m") + 1 :]
    assert start[: start.index("-m")] == ["torch.distributed.run", "--nproc-per-node", "2"]
    assert launched[:2] == [*training(PLACES, RECIPE, "x")[:1], str(PLACES.runs / START)]
    assert not {"--prepared", "--start", "--without"} & {*launched}


@pytest.mark.parametrize("source", SOURCES)
def test_a_fold_leaves_out_its_source_and_begins_with_the_start(source):
    arguments = training(PLACES, RECIPE, source)
    assert arguments[arguments.index("--without") + 1] == source
    assert arguments[arguments.index("--start") + 1] == str(PLACES.runs / START / WEIGHTS)
    assert "--without" not in training(PLACES, RECIPE, ALL)


def test_each_program_reads_what_the_one_before_writes():
    lesions, fit, diagnosis = shipping(PLACES, RECIPE, "1")
    assert lesions[1] == training(PLACES, RECIPE, ALL)[1]
    assert fit[fit.index("--weights") + 1] == lesions[2]
    assert (diagnosis[1], diagnosis[diagnosis.index("--weights") + 1]) == (fit[1], lesions[2])


def test_what_is_trained_is_not_trained_again(tmp_path, monkeypatch):
    places, ran = Places(tmp_path, Path("/data")), []
    monkeypatch.setattr(make_weights, "run", lambda arguments: ran.append(Path(arguments[1])))
    done = places.runs / "1.5T"
    done.mkdir(parents=True)
    (done / WEIGHTS).touch()
    train(places, RECIPE, ("1.5T", ALL), jobs=1)
    assert ran == [places.runs / ALL]
