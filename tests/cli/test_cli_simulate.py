"""The command line of the simulator."""

from __future__ import annotations

import pytest

from msnmo_bids.cli import simulate
from msnmo_bids.errors import ExitCode


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MS,NMOSD", ("MS", "NMOSD")),
        ("HC", ("HC",)),
        ("MS:2, HC:1", ("MS", "MS", "HC")),
        ("MS:2,HC", ("MS", "MS", "HC")),
    ],
)
def test_diagnoses(text, expected):
    assert simulate.one_each(text) == expected


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--sessions", "0"], "'0' is not a whole number of 1 or more"),
        (["--sessions", "2,0"], "'0' is not a whole number of 1 or more"),
        (["--load", "80"], "'80' is not a number from 0 to 70"),
        (["--n-cpus", "0"], "'0' is not a whole number of 1 or more"),
        (["--typicality", "1.5"], "'1.5' is not a number from 0 to 1"),
        (["--seed", "-1"], "'-1' is not a whole number of 0 or more"),
        (["--diagnosis", "MS,MOGAD"], "unknown diagnosis 'MOGAD' (there are MS, NMOSD, SVD, HC)"),
        (["--diagnosis", ""], "unknown diagnosis ''"),
        (["--diagnosis", "MS:0"], "'MS:0' has no number above 0"),
        (["--diagnosis", "MS:x"], "'MS:x' has no number above 0"),
        (["--diagnosis", "MS:"], "'MS:' has no number above 0"),
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
