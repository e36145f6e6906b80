"""Metrics of class probabilities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.metrics import calibration_binning

from msnmo_bids.evaluation.classification import (
    METRICS,
    calibration_bins,
    calibration_error,
    classification_metrics,
    roc_area,
)

LABELS = np.array([0, 0, 0, 1, 1])
SCORES = np.array([0.1, 0.4, 0.7, 0.6, 0.9])
PROBABILITIES = np.stack([1 - SCORES, SCORES], axis=1)


def test_two_classes():
    measures = classification_metrics(LABELS, PROBABILITIES, positive=1)
    assert list(measures) == list(METRICS)
    assert measures["acc"] == pytest.approx(4 / 5)
    assert measures["sn"] == 1
    assert measures["sp"] == pytest.approx(2 / 3)
    assert measures["auc"] == pytest.approx(5 / 6)
    assert measures["brier"] == pytest.approx(((SCORES - LABELS) ** 2).mean())


def test_the_other_class_as_positive():
    one = classification_metrics(LABELS, PROBABILITIES, positive=1)
    other = classification_metrics(LABELS, PROBABILITIES, positive=0)
    assert (other["sn"], other["sp"]) == (one["sp"], one["sn"])
    for name in ("acc", "auc", "brier"):
        assert other[name] == pytest.approx(one[name])


def test_three_classes():
    """ACC over all classes, the rest one class against the others."""
    labels = np.array([0, 1, 2, 2])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.5, 0.1, 0.4], [0, 0.1, 0.9]])
    measures = classification_metrics(labels, probabilities, positive=1)
    assert measures["acc"] == pytest.approx(3 / 4)
    assert measures["sn"] == measures["sp"] == measures["auc"] == 1
    assert classification_metrics(labels, probabilities, positive=2)["sn"] == pytest.approx(1 / 2)


@pytest.mark.parametrize(
    ("labels", "missing"), [([1, 1], {"sp", "auc"}), ([0, 0], {"sn", "auc"}), ([], set(METRICS))]
)
def test_what_has_no_value(labels, missing):
    probabilities = np.tile([0.3, 0.7], (len(labels), 1))
    measures = classification_metrics(np.array(labels, int), probabilities, positive=1)
    assert {name for name, value in measures.items() if value is None} == missing


def test_roc_area():
    labels = np.array([0, 0, 1, 1])
    assert roc_area(labels, np.array([1.0, 2.0, 3.0, 4.0])) == 1.0
    assert roc_area(labels, np.array([4.0, 3.0, 2.0, 1.0])) == 0.0
    assert roc_area(labels, np.array([1.0, 1.0, 1.0, 1.0])) == 0.5


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=2, max_size=30))
def test_roc_area_counts_pairs(pairs):
    labels, scores = (np.array(column) for column in zip(*pairs, strict=True))
    if labels.min() == labels.max():
        return
    wins = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    assert roc_area(labels, scores) == pytest.approx(np.mean(wins))


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 0.999)), min_size=1, max_size=40))
def test_calibration_is_that_of_monai(pairs):
    labels, scores = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    if (np.abs(scores * 10 - np.round(scores * 10)) < 1e-6).any():
        return  # on a border of two bins MONAI chooses by its rounding
    found = calibration_bins(labels, scores)
    shape = (1, 1, len(scores))
    expected = calibration_binning(
        torch.tensor(scores).reshape(shape), torch.tensor(labels).reshape(shape), num_bins=10
    )
    filled = expected[2].flatten() > 0
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other.flatten()[filled].numpy(), rtol=1e-5)
    assert 0 <= calibration_error(labels, scores) <= 1


def test_a_sure_classifier_is_calibrated_when_it_is_right():
    assert calibration_error(np.array([0, 1]), np.array([0.0, 1.0])) == 0
    assert calibration_error(np.array([1, 0]), np.array([0.0, 1.0])) == 1
