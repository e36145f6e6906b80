"""The recipe of the shipped weights, with tiny stages."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tiny_training import NETWORK

from msnmo_bids.errors import ExitCode
from msnmo_bids.model.config import CLASSIFICATION, SEGMENTATION
from msnmo_bids.training import simulated
from msnmo_bids.training.curves import Curves, read_curves
from msnmo_bids.training.engine import Trainer


@pytest.fixture
def tiny_recipe(ball_head, monkeypatch, tmp_path):
    """Two stages of two steps on cubes of 32, and the arguments of the command."""
    crops, *_, classifier = simulated.STAGES
    stages = (
        replace(crops, side=32, config=replace(crops.config, steps=2, side=16)),
        replace(classifier, side=32, config=replace(classifier.config, steps=2, accumulate=2)),
    )
    monkeypatch.setattr(simulated, "STAGES", stages)
    monkeypatch.setattr(simulated, "NETWORK", NETWORK)
    monkeypatch.setattr(simulated, "load_heads", lambda *_: [ball_head])
    monkeypatch.setattr(simulated, "load_shapes", lambda *_: None)
    monkeypatch.setattr(Curves, "draw", lambda self: None)
    source = simulated.SimulatedSource
    monkeypatch.setattr(
        simulated, "SimulatedSource", lambda *args, **more: source(*args, fill=2, **more)
    )
    paths = {"anatomy": tmp_path, "lesion-shapes": tmp_path, "out": tmp_path / "out"}
    words = [word for name, path in paths.items() for word in (f"--{name}", str(path))]
    monkeypatch.setattr("sys.argv", ["simulated", *words, "--threads", "1"])
    return tmp_path / "out"


def test_the_stages_follow_each_other_and_done_ones_are_kept(tiny_recipe, monkeypatch):
    assert simulated.main() == ExitCode.OK
    averaged = [
        torch.load(tiny_recipe / f"{name}.averaged.pt", weights_only=True)
        for name in ("crops", "classifier")
    ]
    for key, value in averaged[0].items():
        frozen = key.startswith(("sharing.", "segmentation."))
        assert torch.equal(value, averaged[1][key]) or not frozen, key
    assert not all(torch.equal(averaged[0][key], averaged[1][key]) for key in averaged[0])
    for name in ("crops", "classifier"):
        assert len(read_curves(tiny_recipe / name / "curves.csv")) == 2
    monkeypatch.setattr(Trainer, "run", pytest.fail)
    assert simulated.main() == ExitCode.OK


def test_an_error_ends_with_its_exit_code(tiny_recipe, caplog):
    (tiny_recipe / "crops").mkdir(parents=True)
    (tiny_recipe / "crops" / "checkpoint.pt").write_text("nothing")
    assert simulated.main() == ExitCode.BAD_DATA
    assert "Delete it" in caplog.text


def test_the_stages_are_those_of_the_model_card():
    rows = [
        (s.name, s.config.side or s.side, s.config.steps, s.config.samples_per_step)
        for s in simulated.STAGES
    ]
    assert rows == [
        ("crops", 80, 360, 1), ("whole-112", 112, 80, 1), ("whole-96", 96, 990, 1),
        ("classifier", 96, 120, 4),
    ]  # fmt: skip
    assert [s.config.tasks for s in simulated.STAGES] == [(SEGMENTATION,)] * 3 + [(CLASSIFICATION,)]
    assert [s.config.frozen_trunk for s in simulated.STAGES] == [False] * 3 + [True]
