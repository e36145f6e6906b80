"""Class probabilities of logits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.special import softmax

from msnmo_bids.model.calibration import Calibration

LOGITS = arrays(float, (7, 3), elements=st.floats(-50, 50))
CHANCES = st.lists(st.floats(0, 1), min_size=1, max_size=9).map(sorted)


@given(LOGITS, st.floats(0.2, 10))
def test_the_temperature_alone_is_a_softmax(logits, temperature):
    found = Calibration(temperature).probabilities(logits)
    np.testing.assert_allclose(found, softmax(logits / temperature, axis=1), atol=1e-12)


@given(CHANCES)
def test_a_curve_goes_through_its_points_and_never_falls(chances):
    margins = np.arange(len(chances)) - 2.0
    curve = Calibration(margins=tuple(margins), chances=tuple(chances))
    at_points = curve.probabilities(np.stack([-margins / 2, margins / 2], axis=1))
    np.testing.assert_allclose(at_points[:, 1], chances, atol=1e-12)
    wide = np.linspace(-20, 20, 81)
    found = curve.probabilities(np.stack([np.zeros(81), wide], axis=1))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert (np.diff(found[:, 1]) >= 0).all()
    assert (found[0, 1], found[-1, 1]) == (chances[0], chances[-1])


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"margins": (1.0, 2.0)}, "2 margins, but 0 chances"),
        ({"margins": (1.0, 1.0), "chances": (0.1, 0.2)}, "margins must rise"),
        ({"margins": (0.0, 1.0), "chances": (0.2, 0.1)}, "chances must not fall"),
        ({"margins": (0.0, 1.0), "chances": (0.2, 1.1)}, "chances must be from 0 to 1"),
    ],
)
def test_what_is_no_calibration_is_refused(entries, message):
    with pytest.raises(ValueError, match=message):
        Calibration(**entries)
