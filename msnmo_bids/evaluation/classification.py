"""Metrics of class probabilities against the diagnosis (Eq. 18 to 21), by scikit-learn.

The class of the largest probability is the predicted one. SN, SP, AUC, the Brier score and the
calibration take one class, the positive one, against all the rest; ACC is over all classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

METRICS = ("acc", "sn", "sp", "auc", "ece", "brier")

#: Bins of equal width for the calibration.
BINS = 10


def classification_metrics(
    labels: np.ndarray, probabilities: np.ndarray, *, positive: int
) -> dict[str, float | None]:
    """Measure a classifier.

    Parameters
    ----------
    labels : ndarray of int, (N,)
        True classes, 0 to K - 1.
    probabilities : ndarray, (N, K)
        Class probabilities of each scan.
    positive : int
        Index of the positive class.

    Returns
    -------
    dict of str to float or None
        By `METRICS`, 0 to 1. None where it has no value: everything without scans, SN and AUC
        without a positive scan, SP and AUC without another one.
    """
    from sklearn.metrics import accuracy_score, brier_score_loss, recall_score

    if not len(labels):
        return dict.fromkeys(METRICS)
    labels, probabilities = np.asarray(labels), np.asarray(probabilities, dtype=float)
    is_positive = labels == positive
    called = probabilities.argmax(axis=1)
    score = probabilities[:, positive]
    both = is_positive.any() and not is_positive.all()
    return {
        "acc": float(accuracy_score(labels, called)),
        "sn": float(recall_score(is_positive, called == positive)) if is_positive.any() else None,
        "sp": (
            None if is_positive.all() else float(recall_score(~is_positive, called != positive))
        ),
        "auc": roc_area(is_positive, score) if both else None,
        "ece": calibration_error(is_positive, score),
        "brier": float(brier_score_loss(is_positive, score, pos_label=1, labels=[False, True])),
    }


def roc_area(labels: np.ndarray, scores: np.ndarray) -> float:
    """Return the area under the ROC curve, 0.5 by chance; a tie counts half.

    `labels` (N,) are 1 (or true) for the positive class, 0 for the rest, and both occur; `scores`
    (N,) are larger for the positive class.

    Examples
    --------
    >>> import numpy as np
    >>> roc_area(np.array([0, 0, 1, 1]), np.array([1.0, 3.0, 2.0, 4.0]))
    0.75
    """
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(labels, scores))


def calibration_bins(
    labels: np.ndarray, scores: np.ndarray, *, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group scans by their score, in bins of equal width.

    Parameters
    ----------
    labels : ndarray, (N,)
        1 (or true) for the positive class.
    scores : ndarray, (N,)
        Its probability.
    bins : int, optional
        Number of bins from 0 to 1; a score on a border belongs to the upper bin, 1 to the last.

    Returns
    -------
    mean_score, observed, count : ndarray, (filled bins,)
        Mean probability, share of the positive class, and scans of each bin that has any.
    """
    which = np.minimum((np.asarray(scores) * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    filled = count > 0
    mean_score = np.bincount(which, weights=scores, minlength=bins)[filled] / count[filled]
    observed = np.bincount(which, weights=labels, minlength=bins)[filled] / count[filled]
    return mean_score, observed, count[filled]


def calibration_error(labels: np.ndarray, scores: np.ndarray, *, bins: int = BINS) -> float:
    """Return the expected calibration error (Guo et al. 2017) of the positive class.

    It is the mean distance of probability and observed share, weighted by the scans of the bins;
    arguments as for `calibration_bins`.
    """
    mean_score, observed, count = calibration_bins(labels, scores, bins=bins)
    return float(np.average(np.abs(mean_score - observed), weights=count))


def probability_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of a scan's row that hold its class probabilities.

    Examples
    --------
    >>> probability_columns(["MS", "NMOSD"])
    ['prob_MS', 'prob_NMOSD']
    """
    return [f"prob_{name}" for name in classes]
