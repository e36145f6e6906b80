"""Class probabilities of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import expit, log_expit, softmax

from msnmo_bids.model.calibration import Calibration

LOGITS = arrays(float, (7, 3), elements=st.floats(-50, 50))


@given(LOGITS, st.floats(0.2, 10))
def test_the_temperature_alone_is_a_softmax(logits, temperature):
    found = Calibration(temperature).probabilities(logits)
    np.testing.assert_allclose(found, softmax(logits / temperature, axis=1), atol=1e-12)


@given(st.floats(0, 3), st.floats(0, 3), st.floats(-2, 2))
def test_two_classes_are_calibrated_as_beta_calibration_does(below, above, offset):
    margins = np.linspace(-20, 20, 81)
    logits = np.stack([np.zeros(81), margins], axis=1)
    calibration = Calibration(matrix=((above, 0), (0, below)), offset=(0, offset))
    found = calibration.probabilities(logits)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (np.diff(found[:, 1]) >= -1e-15).all()  # a last digit where the slope is 2e-16
    beta = below * log_expit(margins) - above * log_expit(-margins) + offset
    np.testing.assert_allclose(found[:, 1], expit(beta), atol=1e-12)


@given(LOGITS)
def test_the_identity_changes_nothing(logits):
    found = Calibration(matrix=np.eye(3), offset=(0, 0, 0)).probabilities(logits)
    np.testing.assert_allclose(found, softmax(logits, axis=1), atol=1e-12)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"matrix": ((1.0, 0.0), (0.0, 1.0))}, "matrix and offset must fit"),
        ({"matrix": ((1.0, 0.0),), "offset": (0.0, 0.0)}, "matrix and offset must fit"),
        ({"offset": (0.0, 0.0)}, "matrix and offset must fit"),
    ],
)
def test_what_is_no_calibration_is_refused(entries, message):
    with pytest.raises(ValueError, match=message):
        Calibration(**entries)
