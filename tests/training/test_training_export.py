"""Weights for the app from a training's checkpoint."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from msnmo_bids.model.config import SEGMENTATION, JointConfig, LossConfig
from msnmo_bids.model.inference import predict
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import LesionNetwork, WeightsError, load_weights, read_metadata
from msnmo_bids.training import export
from msnmo_bids.training.recipe import Recipe


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Export a tiny network with some options."""
    config = JointConfig(pooling="lesion", lesion_prior=0.02).scaled(0.25)
    torch.manual_seed(0)
    torch.save(JointNetwork(config).state_dict(), tmp_path / "trained.pt")
    monkeypatch.setattr(export, "read_recipe", lambda _: Recipe(config, LossConfig(), ()))

    def start(name, *options):
        file = tmp_path / f"{name}.safetensors"
        words = ["--checkpoint", tmp_path / "trained.pt", "--version", "1", "--out", file]
        words += ["--side", "32", "--name", name, *options]
        monkeypatch.setattr("sys.argv", ["export", *map(str, words)])
        export.main()
        return file

    return start


def test_a_lesion_network_only_segments(run):
    whole, second = run("whole"), run("second", "--segmentation-only")
    network, metadata = load_weights(second)
    assert metadata.name == "second"
    assert network.config.tasks == (SEGMENTATION,)
    assert second.stat().st_size < whole.stat().st_size
    cube = np.random.default_rng(0).standard_normal((32, 32, 32)).astype(np.float32)
    found, expected = predict(cube, second), predict(cube, whole)
    np.testing.assert_array_equal(found.probability, expected.probability)
    assert found.class_probabilities is None


def test_weights_name_a_lesion_network(run):
    options = ["--segmentation-only", "--normalization", "robust", "--real-data", "9 scans, CC0"]
    second = run("second", *options)
    assert read_metadata(second).normalization == "robust"
    named = read_metadata(run("first", "--lesion-network", second))
    assert named.lesion_network == LesionNetwork("second.safetensors", read_metadata(second).sha256)
    assert named.normalization == "z-score"
    assert named.trained_on[-1] == "second: 9 scans, CC0"
    assert read_metadata(run("alone")).lesion_network is None
    with pytest.raises(WeightsError, match="has the segmentation task, and no other"):
        run("whole", "--lesion-network", run("alone"))


def test_weights_know_how_they_were_calibrated(run):
    options = ["--margins", -1, 0.5, "--chances", 0.1, 0.7, "--calibrated-on", "700 scans"]
    calibration = read_metadata(run("curve", *options)).calibration
    assert (calibration.method, calibration.data) == ("isotonic calibration", "700 scans")
    assert (calibration.margins, calibration.chances) == ((-1.0, 0.5), (0.1, 0.7))
    alone = read_metadata(run("alone", "--temperature", 0.6, "--calibrated-on", "scans"))
    assert (alone.calibration.method, alone.calibration.margins) == ("temperature scaling", ())
    assert read_metadata(run("none")).calibration.method == "none"
