"""Temperature, and the chain from simulated scans to logits."""

from __future__ import annotations

import numpy as np
import pytest

from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import WeightsMetadata, save_weights
from msnmo_bids.training.calibration import (
    THRESHOLDS,
    classify_simulated,
    fit_temperature,
)


@pytest.mark.parametrize("true", [0.5, 1.0, 4.0])
def test_the_temperature_that_scaled_the_logits_is_found(true):
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, (20_000, 2))
    chance = 1 / (1 + np.exp(honest[:, 0] - honest[:, 1]))
    labels = (rng.random(len(honest)) < chance).astype(int)
    assert fit_temperature(honest * true, labels) == pytest.approx(true, rel=0.06)


def test_logits_that_tell_nothing_get_a_high_temperature():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 5, (200, 2))
    labels = (logits[:, 0] > logits[:, 1]).astype(int)  # worse than nothing: always wrong
    assert fit_temperature(logits, labels) > 50


def test_classify_simulated(tiny_config, ball_head, tmp_path):
    path = tmp_path / "tiny.safetensors"
    metadata = WeightsMetadata("tiny", "1", cube_shape=(32, 32, 32))
    save_weights(path, JointNetwork(tiny_config), metadata)
    found, again = (classify_simulated(path, [ball_head], None, scans=4, seed=9) for _ in range(2))
    assert found["labels"].tolist() == [0, 1, 0, 1]
    assert found["logits"].shape == (4, 2)
    assert found["volume"].shape == (4,)
    assert found["dice"].shape == (4, len(THRESHOLDS))
    assert (found["dice"] >= 0).all()
    assert (found["dice"] <= 1).all()
    np.testing.assert_array_equal(found["logits"], again["logits"])
