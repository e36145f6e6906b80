"""One command makes the weights: what it calls exists and leaves out what it should."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from dev import make_weights
from dev.make_weights import (
    ALL,
    NETWORKS,
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
    *(training(PLACES, RECIPE, name, 1) for name in (START, "1.5T")),
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


@pytest.mark.parametrize("source", SOURCES)
def test_a_fold_leaves_out_its_source_and_begins_with_its_network_s_start(source):
    arguments = training(PLACES, RECIPE, source, 1)
    assert arguments[arguments.index("--without") + 1] == source
    start = training(PLACES, RECIPE, START, 1)
    assert arguments[arguments.index("--start") + 1].startswith(start[1])
    assert "--prepared" not in start, "the start of a fold may have seen no real scan"
    assert "--without" not in training(PLACES, RECIPE, ALL, 1)


def test_each_program_reads_what_the_one_before_writes():
    first, second, fit, *diagnoses = shipping(PLACES, RECIPE, "1")
    trained = [training(PLACES, RECIPE, ALL, number) for number in NETWORKS]
    assert [first[1], second[1]] == [arguments[1] for arguments in trained]
    seen = fit.index("--weights")
    assert fit[seen + 1 : seen + 3] == [first[2], second[2]]
    for lesions, diagnosis in zip((first, second), diagnoses, strict=True):
        assert (diagnosis[1], diagnosis[diagnosis.index("--weights") + 1]) == (fit[1], lesions[2])


def test_the_networks_differ_in_their_random_numbers():
    seeds = [training(PLACES, RECIPE, START, number) for number in NETWORKS]
    assert len({arguments[arguments.index("--seed") + 1] for arguments in seeds}) == len(NETWORKS)


def test_what_is_trained_is_not_trained_again(tmp_path, monkeypatch):
    places, ran = Places(tmp_path, Path("/data")), []
    monkeypatch.setattr(make_weights, "run", lambda arguments: ran.append(Path(arguments[1])))
    done = places.runs(1) / "1.5T"
    done.mkdir(parents=True)
    (done / WEIGHTS).touch()
    train(places, RECIPE, ("1.5T", ALL), jobs=1)
    assert ran == [places.runs(1) / ALL, places.runs(2) / "1.5T", places.runs(2) / ALL]
