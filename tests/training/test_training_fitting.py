"""Temperature scaling of a site's own weights."""

from __future__ import annotations

import numpy as np
import pytest

from msnmo_bids.training.fitting import fit_temperature


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
