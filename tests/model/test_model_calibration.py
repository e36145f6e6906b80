"""Class probabilities of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, logit, softmax

from msnmo_bids.model.calibration import Calibration

LOGITS = arrays(float, (7, 3), elements=st.floats(-50, 50))


@given(LOGITS, st.floats(0.2, 10))
def test_the_temperature_alone_is_a_softmax(logits, temperature):
    found = Calibration(temperature).probabilities(logits)
    np.testing.assert_allclose(found, softmax(logits / temperature, axis=1), atol=1e-12)


@given(st.floats(0, 3), st.floats(0, 3), st.floats(-2, 2))
def test_beta_calibration_never_falls_and_is_platts_with_equal_slopes(below, above, offset):
    margins = np.linspace(-20, 20, 81)
    logits = np.stack([np.zeros(81), margins], axis=1)
    found = Calibration(beta=(below, above, offset)).probabilities(logits)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (np.diff(found[:, 1]) >= 0).all()
    platt = Calibration(beta=(above, above, offset)).probabilities(logits)[:, 1]
    np.testing.assert_allclose(platt, expit(above * margins + offset), atol=1e-12)


def test_far_from_the_middle_each_side_has_its_own_slope():
    log_odds = logit(
        Calibration(beta=(0.5, 0.2, 0.1)).probabilities(
            np.array([[0.0, -30.0], [0.0, -20.0], [0.0, 20.0], [0.0, 30.0]])
        )[:, 1]
    )
    np.testing.assert_allclose(np.diff(log_odds)[[0, 2]], (5.0, 2.0), atol=1e-6)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"beta": (1.0, 1.0)}, "beta must be"),
        ({"beta": (1.0, -0.1, 0.0)}, "beta must be"),
    ],
)
def test_what_is_no_calibration_is_refused(entries, message):
    with pytest.raises(ValueError, match=message):
        Calibration(**entries)
