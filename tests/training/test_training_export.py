"""Weights for the app from a training's checkpoint."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from evidence import evidence_above

from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.model.config import SEGMENTATION, JointConfig, LossConfig
from msnmo_bids.model.inference import predict
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import load_weights, read_metadata
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


def test_a_network_that_confirms_only_segments(run):
    whole, second = run("whole"), run("second", "--segmentation-only")
    network, metadata = load_weights(second)
    assert metadata.name == "second"
    assert network.config.tasks == (SEGMENTATION,)
    assert second.stat().st_size < whole.stat().st_size
    cube = np.random.default_rng(0).standard_normal((32, 32, 32)).astype(np.float32)
    found, expected = predict(cube, second), predict(cube, whole)
    np.testing.assert_array_equal(found.probability, expected.probability)
    assert found.class_probabilities is None


def test_weights_know_which_others_confirm_their_lesions(run, tmp_path):
    second = run("second", "--segmentation-only")
    evidence = tmp_path / "evidence.json"
    evidence.write_text(json.dumps(asdict(evidence_above(0.5))), encoding="utf-8")
    asked = ["--confirmed-by", second, "--confirmed-evidence", evidence, "--confirmed-chance", 0.3]
    asked += ["--confirmed-surely", 0.6]
    first = run("first", *asked, "--outline", "contrast")
    assert read_metadata(first).outline == "contrast"
    confirmation = read_metadata(first).confirmation
    assert confirmation.file == "second.safetensors"
    assert confirmation.sha256 == read_metadata(second).sha256
    assert confirmation.evidence == evidence_above(0.5)
    assert (confirmation.least_chance, confirmation.sure_chance) == (0.3, 0.6)
    assert read_metadata(run("alone")).confirmation is None


def test_confirmation_needs_evidence(run, tmp_path):
    second = run("second", "--segmentation-only")
    with pytest.raises(MsnmoError, match="needs --confirmed-evidence"):
        run("first", "--confirmed-by", second)
    evidence = tmp_path / "evidence.json"
    for content, problem in ((None, "cannot be read"), ("{}", "no evidence of findings")):
        if content:
            evidence.write_text(content, encoding="utf-8")
        with pytest.raises(MsnmoError, match=problem) as error:
            run("first", "--confirmed-by", second, "--confirmed-evidence", evidence)
        assert error.value.file == str(evidence)
        assert "msnmo_bids.training.confirmation" in str(error.value)
    evidence.write_text(json.dumps(asdict(evidence_above(0.5))), encoding="utf-8")
    unlikely = ["--confirmed-evidence", evidence, "--confirmed-chance", 0.9]
    with pytest.raises(MsnmoError, match=r"not 0\.9 and 0\.75") as error:
        run("first", "--confirmed-by", second, *unlikely)
    assert error.value.exit_code == ExitCode.USAGE


def test_weights_know_how_they_were_calibrated(run):
    options = ["--margins", -1, 0.5, "--chances", 0.1, 0.7, "--calibrated-on", "700 scans"]
    calibration = read_metadata(run("curve", *options)).calibration
    assert (calibration.method, calibration.data) == ("isotonic calibration", "700 scans")
    assert (calibration.margins, calibration.chances) == ((-1.0, 0.5), (0.1, 0.7))
    alone = read_metadata(run("alone", "--temperature", 0.6, "--calibrated-on", "scans"))
    assert (alone.calibration.method, alone.calibration.margins) == ("temperature scaling", ())
    assert read_metadata(run("none")).calibration.method == "none"
