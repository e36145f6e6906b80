"""The command line of the simulator."""

from __future__ import annotations

import pytest

from msnmo_bids.cli import simulate
from msnmo_bids.errors import ExitCode, UsageError


@pytest.mark.parametrize(
    ("text", "participants", "expected"),
    [
        ("MS,NMOSD", None, ("MS", "NMOSD")),
        ("MS,NMOSD", 3, ("MS", "NMOSD", "MS")),
        ("HC", 2, ("HC", "HC")),
        ("MS:2, HC:1", None, ("MS", "MS", "HC")),
        ("MS:1,NMOSD:1", 2, ("MS", "NMOSD")),
    ],
)
def test_diagnoses(text, participants, expected):
    assert simulate.parse_diagnoses(text, participants) == expected


@pytest.mark.parametrize(
    ("text", "participants", "problem"),
    [
        ("MS,MOGAD", None, "unknown diagnosis 'MOGAD'"),
        ("", None, "unknown diagnosis ''"),
        ("MS:0", None, "no number above 0"),
        ("MS:x", None, "no number above 0"),
        ("MS:", None, "no number above 0"),
        ("MS:2,HC", None, "some names only"),
        ("MS:2", 3, "has 2 people, --participants 3"),
    ],
)
def test_contradictions(text, participants, problem):
    with pytest.raises(UsageError, match=problem):
        simulate.parse_diagnoses(text, participants)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--participants", "0"], "'0' is not a whole number of 1 or more"),
        (["--sessions", "0"], "'0' is not a whole number of 1 or more"),
        (["--sessions", "2,0"], "'0' is not a whole number of 1 or more"),
        (["--load", "80"], "'80' is not a number from 0 to 70"),
        (["--n-cpus", "0"], "'0' is not a whole number of 1 or more"),
        (["--typicality", "1.5"], "'1.5' is not a number from 0 to 1"),
        (["--seed", "-1"], "'-1' is not a whole number of 0 or more"),
        (["--diagnosis", "MS:2", "--participants", "3"], "--diagnosis has 2 people"),
    ],
)
def test_usage(tmp_path, capsys, arguments, problem):
    assert simulate.main([str(tmp_path / "out"), *arguments]) == ExitCode.USAGE
    said = capsys.readouterr()
    assert problem in said.err + said.out
    assert said.out.endswith("msnmo-simulate: FAILED\n")
    assert not (tmp_path / "out").exists()


def test_a_folder_with_something_in_it_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").touch()
    assert simulate.main([str(tmp_path)]) == ExitCode.USAGE
    assert "the folder is not empty" in capsys.readouterr().out


def test_options_reach_the_data_set(tmp_path, monkeypatch):
    from msnmo_bids.simulation import assets, dataset
    from msnmo_bids.simulation.imaging import PRESETS

    seen = {}
    monkeypatch.setattr(assets, "mni_head", lambda size: f"a head of {size}")
    monkeypatch.setattr(
        dataset, "write_dataset", lambda out, heads, cohort, **more: seen.update(locals())
    )
    out = tmp_path / "out"
    arguments = (
        "--diagnosis MS:2,HC:1 --sessions 3,1 --load 20,0.5 --seed 7 --skull-strip --typicality 0.5"
    )
    presets = ["--scanner-preset", "3T-3D", "--scanner-preset", "1.5T-2D", "--n-cpus", "2"]
    assert simulate.main([str(out), *arguments.split(), *presets]) == 0
    assert seen["out"] == out
    assert seen["heads"] == ["a head of 0.92"]
    assert seen["more"] == {"shapes": None, "processes": 2}
    protocols = (PRESETS["3T-3D"], PRESETS["1.5T-2D"])
    assert seen["cohort"] == dataset.Cohort(
        ("MS", "MS", "HC"), (3, 1), 7, protocols, True, 0.5, (20.0, 0.5)
    )
    assert simulate.main([str(out), "--scanner-preset", "any"]) == 0
    assert seen["cohort"].protocols == ()
    assert simulate.main([str(out)]) == 0
    assert seen["cohort"] == dataset.Cohort(("MS", "NMOSD"))


def test_choices_are_those_of_the_simulator():
    from msnmo_bids.simulation.dataset import DIAGNOSES
    from msnmo_bids.simulation.imaging import PRESETS

    assert tuple(PRESETS) == simulate.PRESETS
    assert tuple(DIAGNOSES) == simulate.DIAGNOSES
