"""What the class activation map of a prediction shows: where it lies, and what it counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from msnmo_bids.evaluation.cam import (
    cam_scores,
    contrast,
    marked,
    mirrored_elsewhere,
    remove_tissue,
)
from msnmo_bids.model.inference import Prediction


def compare_activation(
    found: Prediction,
    to_native: Callable[[np.ndarray], np.ndarray],
    lesions: np.ndarray,
    brain: np.ndarray,
    zooms: Sequence[float],
) -> dict[str, float | None]:
    """Compare the class activation map of the likeliest class with the lesions.

    Parameters
    ----------
    found : Prediction
        Of a network that classifies.
    to_native : callable
        Brings an array, (D, H, W), from the cube to the scan's own grid, (X, Y, Z).
    lesions, brain : ndarray of bool, (X, Y, Z)
        True lesions; brain.
    zooms : sequence of float, (3,)
        Voxel size (mm).

    Returns
    -------
    dict
        Of :func:`~msnmo_bids.evaluation.cam.cam_scores`.
    """
    cams, likeliest = _likeliest(found)
    return cam_scores(to_native(contrast(cams, likeliest)), lesions, brain, zooms)


def delete_activated(
    cube: np.ndarray, found: Prediction, apply: Callable[[np.ndarray], Prediction]
) -> dict[str, float]:
    """Tell how the logit margin of the likeliest class falls when tissue is removed.

    Parameters
    ----------
    cube : ndarray, (D, H, W)
        Network input, 0 outside of the brain.
    found : Prediction
        What a network that classifies says of it.
    apply : callable
        Applies that network to a volume.

    Returns
    -------
    dict
        ``fall_without_marked``: without what the class activation map marks most
        (:func:`~msnmo_bids.evaluation.cam.marked`); ``fall_without_mirrored``: without as much on
        the other side of the head.
    """
    cams, likeliest = _likeliest(found)
    brain = cube != 0
    where = marked(contrast(cams, likeliest), brain)
    parts = {"marked": where, "mirrored": mirrored_elsewhere(where, brain)}
    before = _margin(found, likeliest)
    without = {name: apply(remove_tissue(cube, part, brain)) for name, part in parts.items()}
    return {
        f"fall_without_{name}": before - _margin(left, likeliest) for name, left in without.items()
    }


def _likeliest(found: Prediction) -> tuple[np.ndarray, int]:
    assert found.cams is not None
    assert found.class_probabilities is not None
    return found.cams, int(np.argmax(found.class_probabilities))


def _margin(found: Prediction, index: int) -> float:
    assert found.class_logits is not None
    return float(found.class_logits[index] - np.delete(found.class_logits, index).max())
