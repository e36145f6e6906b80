"""The chance that a finding is a lesion, fitted to simulated scans."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from evidence import evidence_above

from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.model.config import SEGMENTATION, JointConfig
from msnmo_bids.model.findings import FEATURES
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import WeightsMetadata, save_weights
from msnmo_bids.simulation.material import Material
from msnmo_bids.training import confirmation
from msnmo_bids.training.confirmation import (
    LESION_SHARE,
    ScanFindings,
    findings_of,
    fit_evidence,
    read_evidence,
)
from msnmo_bids.training.simulated_test import plan_cases, simulate_case

_COUNT = len(FEATURES)


def made_up(rng: np.random.Generator, findings: int) -> ScanFindings:
    """Return findings that are lesions where the first feature is far from 0, on either side."""
    features = rng.normal(size=(findings, _COUNT))
    return ScanFindings(features, (np.abs(features[:, 0]) > 1).astype(float))


def test_a_square_is_learnt_and_told_of_scans_that_were_left_out():
    rng = np.random.default_rng(0)
    scans = [made_up(rng, count) for count in rng.integers(0, 30, 100)]
    scans[0].features[:, -1] = np.nan  # the atlas does not fit
    evidence, chances = fit_evidence(scans, "made up")
    assert evidence.data == "made up"
    assert [len(values) for values in chances] == [len(scan.features) for scan in scans]
    right = [
        (values > 0.5) == (scan.lesion_shares > LESION_SHARE)
        for values, scan in zip(chances, scans, strict=True)
    ]
    assert np.concatenate(right).mean() > 0.9
    other = made_up(rng, 500)
    assert np.mean((evidence.chances(other.features) > 0.5) == other.lesion_shares) > 0.9


def test_beyond_the_range_of_the_scans_the_chance_stays():
    rng = np.random.default_rng(0)
    evidence, _ = fit_evidence([made_up(rng, 20) for _ in range(20)], "made up")
    edge = np.array([evidence.highest, evidence.lowest])
    np.testing.assert_allclose(evidence.chances(10 * edge), evidence.chances(edge))


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """Two files of weights; both networks mark what is bright."""
    torch.manual_seed(0)
    for name in ("first", "second"):
        network = JointNetwork(JointConfig(tasks=(SEGMENTATION,)).scaled(0.25))
        metadata = WeightsMetadata(name, "1", cube_shape=(32, 32, 32), threshold=0.6)
        save_weights(tmp_path / name, network, metadata)
    monkeypatch.setattr(
        confirmation, "segment_cube", lambda _, image: torch.sigmoid(2 * (image - 1.5))
    )
    return tmp_path / "first.safetensors", tmp_path / "second.safetensors"


def test_findings_on_a_scan_are_compared_with_its_lesions(weights, ball_head):
    case = next(plan_cases(1))
    scans = [simulate_case(case, Material([ball_head]), np.random.default_rng(7)) for _ in range(2)]
    found = findings_of(scans[0], weights, np.random.default_rng(0))
    assert found.features.shape == (len(found.lesion_shares), _COUNT)
    assert 0 <= found.lesion_shares.min() <= found.lesion_shares.max() <= 1
    assert found.lesion_shares.max() > 0.5
    scans[1].lesion_mask[...] = 0
    without = findings_of(scans[1], weights, np.random.default_rng(0))
    np.testing.assert_array_equal(without.features, found.features)
    assert not without.lesion_shares.any()


def test_evidence_is_fitted_from_the_command_line(
    weights, ball_head, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(confirmation, "_material", lambda *_: Material([ball_head]))
    first, second = weights
    paths = {"weights": first, "confirmed-by": second, "anatomy": tmp_path, "out": tmp_path / "out"}
    words = [f"--{name}={value}" for name, value in paths.items()]
    words += [f"--lesion-shapes={tmp_path}", "--scans=8", "--processes=1"]
    monkeypatch.setattr("sys.argv", ["confirmation", *words])
    assert confirmation.main() == ExitCode.OK
    told = json.loads(capsys.readouterr().out)
    assert told["scans"] == 8
    assert 0 < told["lesions"] < told["findings"]
    evidence = read_evidence(tmp_path / "out" / "evidence.json")
    assert evidence.data == "8 simulated scans"
    monkeypatch.setattr(confirmation, "simulate_case", pytest.fail)
    assert confirmation.main() == ExitCode.OK  # what is known of the scans was kept
    assert read_evidence(tmp_path / "out" / "evidence.json") == evidence


def test_missing_weights_are_named(tmp_path, monkeypatch, ball_head, caplog):
    monkeypatch.setattr(confirmation, "_material", lambda *_: Material([ball_head]))
    paths = ("weights", "confirmed-by", "anatomy", "lesion-shapes", "out")
    words = [f"--{name}={tmp_path / name}" for name in paths]
    monkeypatch.setattr("sys.argv", ["confirmation", *words, "--scans=1", "--processes=1"])
    assert confirmation.main() == ExitCode.INPUT_MISSING
    assert str(tmp_path / "weights") in caplog.text


def test_evidence_is_read_as_it_was_written(tmp_path):
    file = tmp_path / "evidence.json"
    file.write_text(json.dumps(asdict(evidence_above(0.5))), encoding="utf-8")
    assert read_evidence(file) == evidence_above(0.5)
    file.unlink()
    with pytest.raises(MsnmoError, match="cannot be read"):
        read_evidence(file)
