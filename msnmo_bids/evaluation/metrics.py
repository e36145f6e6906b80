"""Metrics of lesion masks and of class probabilities against what is true.

Masks against manual ones (the paper's Eq. 15, 16 and those for TPR and VD): what each metric is
when a mask is empty (n/a is ``None`` here and is left out of every mean; the tables give the number
of scans of each mean):

==================  ==========  ====================  ======================
metric              both empty  only the truth empty  only prediction empty
==================  ==========  ====================  ======================
DSC                 1           0                     0
PPV                 n/a         0                     n/a (nothing predicted)
TPR                 n/a         n/a (nothing to find) 0
VD                  n/a         n/a                   1
lesion-wise F1      1           0                     0
lesion-wise TPR     n/a         n/a                   0
lesion-wise FPR     n/a         1                     n/a
HD95, ASSD          n/a         n/a                   n/a
==================  ==========  ====================  ======================

Lesion-wise, a mask without a lesion of the smallest counted size is as an empty one.

Class probabilities against the diagnosis (Eq. 18 to 21; see `msnmo_bids.evaluation.measures`): the
class of the largest probability is the predicted one. SN, SP, AUC, the Brier score and the
calibration take one class, the positive one, against all the rest; ACC is over all classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from msnmo_bids.lesions.threshold import LesionCriteria, label_lesions

#: Columns of a scan's row, in order.
MASK_METRICS = ("dsc", "ppv", "tpr", "vd", "lesion_f1", "lesion_tpr", "lesion_fpr", "hd95", "assd")
VOLUMES = ("true_volume_ml", "predicted_volume_ml")
#: DSC, PPV, TPR and VD over the voxels of all scans together.
POOLED = ("pooled_dsc", "pooled_ppv", "pooled_tpr", "pooled_vd")
CLASS_METRICS = ("acc", "sn", "sp", "auc", "ece", "brier")
METRICS = (*MASK_METRICS, *POOLED, *CLASS_METRICS)
_IN_MM = ("hd95", "assd")
#: Bins of equal width for the calibration.
BINS = 10


def short_name(metric: str) -> str:
    """Return a metric's name as it is shown.

    Examples
    --------
    >>> short_name("lesion_f1"), short_name("brier")
    ('Lesion F1', 'Brier')
    """
    *words, last = metric.split("_")
    names = [word.capitalize() for word in words]
    return " ".join([*names, "Brier" if last == "brier" else last.upper()])


def factor(metric: str) -> float:
    """Return the factor from a metric's value to what is shown: mm, or percent of a share."""
    return 1 if metric in _IN_MM else 100


def heading(metric: str) -> str:
    """Return a metric's name with the unit of what is shown."""
    return f"{short_name(metric)} ({'mm' if metric in _IN_MM else '%'})"


def compare_masks(
    truth: np.ndarray,
    prediction: np.ndarray,
    zooms: Sequence[float],
) -> dict[str, float | None]:
    """Compare two masks, (X, Y, Z), not 0 in a lesion, of voxels of `zooms` mm.

    By `MASK_METRICS` and `VOLUMES`: shares from 0 to 1 (VD from 0), HD95 and ASSD in mm, volumes in
    ml. None where the metric has no value (see the module's table).

    Raises
    ------
    ValueError
        If the shapes differ.

    Examples
    --------
    >>> import numpy as np
    >>> truth, found = np.zeros((2, 4, 4, 4), dtype=bool)
    >>> truth[1, 1, :2] = found[1, 1, 1:4] = True
    >>> measures = compare_masks(truth, found, (1, 1, 1))
    >>> measures["dsc"], measures["tpr"], measures["vd"]
    (0.4, 0.5, 0.5)
    """
    truth, prediction = np.asarray(truth) != 0, np.asarray(prediction) != 0
    if truth.shape != prediction.shape:
        raise ValueError(f"masks on two grids: {truth.shape} and {prediction.shape}")
    true, found = int(truth.sum()), int(prediction.sum())
    both = int((truth & prediction).sum())
    ml = float(np.prod(zooms)) / 1000
    return {
        "dsc": dice(both, true, found),
        "ppv": _share(both, found),
        "tpr": _share(both, true),
        "vd": _share(abs(found - true), true),
        **lesion_wise(truth, prediction, zooms),
        **surface_distances(truth, prediction, zooms),
        "true_volume_ml": true * ml,
        "predicted_volume_ml": found * ml,
    }


def dice(both: float, true: float, found: float) -> float:
    """Return the DSC of two masks from the sizes of their intersection and of each; 1 if empty.

    Examples
    --------
    >>> dice(2, 4, 4), dice(0, 0, 0)
    (0.5, 1.0)
    """
    return 2 * both / (true + found) if true + found else 1.0


def lesion_wise(
    truth: np.ndarray, prediction: np.ndarray, zooms: Sequence[float]
) -> dict[str, float | None]:
    """Count found and false lesions of masks (X, Y, Z) of voxels of `zooms` mm.

    Lesions are connected by 26 neighbours; smaller ones than the app's `LesionCriteria` keep are
    counted in neither mask. A true lesion is found, and a predicted one is true,
    when one of its voxels lies in the other mask; small components of the other mask count too.
    F1 is the harmonic mean of the found share of the true lesions (TPR) and the true share of the
    predicted ones (1 - FPR), as in the MSSEG challenge (Commowick et al. 2018); where one of these
    has no value, it is the other one. FPR is the share of the predicted lesions that are false.
    """
    found, lesions = _hit(truth, prediction, zooms)
    right, predicted = _hit(prediction, truth, zooms)
    sensitivity, precision = _share(found, lesions), _share(right, predicted)
    return {
        "lesion_f1": _harmonic_mean(sensitivity, precision),
        "lesion_tpr": sensitivity,
        "lesion_fpr": None if precision is None else 1 - precision,
    }


def surface_distances(
    truth: np.ndarray, prediction: np.ndarray, zooms: Sequence[float]
) -> dict[str, float | None]:
    """Measure how far the surfaces of two masks (X, Y, Z), bool, are apart (mm; by MONAI).

    HD95 is the larger one of the two 95th percentiles of the distances from a surface voxel to the
    other surface, ASSD the mean of the distances in both directions; None when a mask is empty.
    """
    if not truth.any() or not prediction.any():
        return {"hd95": None, "assd": None}
    from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

    box = ndimage.find_objects((truth | prediction).astype(np.uint8))[0]
    # A margin, for MONAI takes a voxel at the array's border for no edge.
    found, true = (np.pad(mask[box], 1)[None, None] for mask in (prediction, truth))
    how: dict[str, Any] = {"include_background": True, "spacing": [float(size) for size in zooms]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's, about its own calls
        hd95 = compute_hausdorff_distance(found, true, percentile=95, **how)
        assd = compute_average_surface_distance(found, true, symmetric=True, **how)
    return {"hd95": float(hd95), "assd": float(assd)}


def calibration_bins(
    labels: np.ndarray, scores: np.ndarray, *, bins: int = BINS
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group scans by their score, in bins of equal width from 0 to 1.

    `labels` (N,) are 1 (or true) for the positive class, `scores` (N,) its probability; one on a
    border belongs to the upper bin, 1 to the last. Returns mean probability, share of the positive
    class, and number of scans of each bin that has any, each (filled bins,).
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


def _hit(mask: np.ndarray, other: np.ndarray, zooms: Sequence[float]) -> tuple[int, int]:
    """Return how many lesions of a mask the other one meets, and how many there are."""
    labels = label_lesions(mask, float(np.prod(zooms)), LesionCriteria.min_volume)
    return np.unique(labels[other & (labels > 0)]).size, int(labels.max(initial=0))


def _harmonic_mean(sensitivity: float | None, precision: float | None) -> float:
    if sensitivity is None or precision is None:
        known = precision if sensitivity is None else sensitivity
        return 1.0 if known is None else known
    total = sensitivity + precision
    return 2 * sensitivity * precision / total if total else 0.0


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
