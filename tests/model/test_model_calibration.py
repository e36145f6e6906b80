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
POWERS = st.tuples(*(st.floats(0, 5),) * 3)
SHIFTS = st.tuples(*(st.floats(-5, 5),) * 3)


@given(LOGITS, st.floats(0.2, 10))
def test_the_temperature_alone_is_a_softmax(logits, temperature):
    found = Calibration(temperature).probabilities(logits)
    np.testing.assert_allclose(found, softmax(logits / temperature, axis=1), atol=1e-12)


@given(LOGITS, POWERS, SHIFTS)
def test_probabilities_add_up_to_one(logits, powers, shifts):
    found = Calibration(0.5, powers=powers, shifts=shifts).probabilities(logits)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(
        found[2], Calibration(0.5, "", "", powers, shifts).probabilities(logits[2])
    )


@given(st.tuples(st.floats(0.1, 5), st.floats(0, 5)), st.floats(-5, 5))
def test_more_evidence_for_a_class_never_lowers_its_probability(powers, shift):
    margins = np.linspace(-10, 10, 21)
    logits = np.stack([margins, -margins], axis=1)
    found = Calibration(powers=powers, shifts=(0.0, shift)).probabilities(logits)
    assert (np.diff(found[:, 0]) >= 0).all()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"powers": (1.0, 1.0)}, "differ in length"),
        ({"powers": (-0.1, 1.0), "shifts": (0.0, 0.0)}, "powers must be 0 or above"),
    ],
)
def test_what_is_no_calibration_is_refused(entries, message):
    with pytest.raises(ValueError, match=message):
        Calibration(**entries)
