"""What the class activation map of a prediction shows: where it lies, and what it counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import ndimage

from msnmo_bids.model.inference import Prediction

#: Lesions are widened by this before a map is compared with them (mm).
REACH = 2.0
#: Share of the brain that counts as marked by a map.
MARKED_SHARE = 0.01


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
        Of `cam_scores`.
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
        (`marked`); ``fall_without_mirrored``: without as much on
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


def contrast(cams: np.ndarray, index: int) -> np.ndarray:
    """Return what spoke for a class rather than for the others.

    Parameters
    ----------
    cams : ndarray, (K, X, Y, Z)
        Class activation maps.
    index : int
        The class.

    Returns
    -------
    ndarray, (X, Y, Z)
        Its map minus the mean over the classes.
    """
    return cams[index] - cams.mean(axis=0)


def cam_scores(
    cam: np.ndarray, lesions: np.ndarray, brain: np.ndarray, zooms: Sequence[float]
) -> dict[str, float | None]:
    """Compare a class activation map with the lesions.

    Parameters
    ----------
    cam : ndarray, (X, Y, Z)
        Of one class (`contrast`).
    lesions, brain : ndarray of bool, (X, Y, Z)
        True lesions; brain.
    zooms : sequence of float, (3,)
        Voxel size (mm).

    Returns
    -------
    dict
        ``cam_inside``: share of the map's positive part within the brain that lies on lesions
        widened by `REACH` (Zhou et al. 2016 call it energy); ``cam_hit``: the pointing game (Zhang
        et al. 2018), 1 if the map's maximum lies there; ``cam_expected``: share of the brain's
        volume that does, which both would have by chance. None without lesions.

    Examples
    --------
    >>> import numpy as np
    >>> brain = np.ones((9, 1, 1), bool)
    >>> lesion = np.arange(9).reshape(9, 1, 1) == 4
    >>> cam_scores(lesion * 2.0, lesion, brain, (1, 1, 1))["cam_inside"]
    1.0
    """
    if not lesions.any():
        return {"cam_inside": None, "cam_hit": None, "cam_expected": None}
    near = ndimage.distance_transform_edt(~lesions, sampling=zooms) <= REACH
    near &= brain
    positive = np.where(brain, np.maximum(cam, 0), 0).astype(np.float64)
    total = positive.sum()
    highest = np.unravel_index(np.argmax(np.where(brain, cam, -np.inf)), cam.shape)
    return {
        "cam_inside": float(positive[near].sum() / total) if total else 0.0,
        "cam_hit": float(near[highest]),
        "cam_expected": float(near.sum() / brain.sum()),
    }


def marked(cam: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Return the part of the brain that a map marks most: `MARKED_SHARE` of it.

    Parameters
    ----------
    cam : ndarray, (X, Y, Z)
        Class activation map.
    brain : ndarray of bool, (X, Y, Z)
        Brain.

    Returns
    -------
    ndarray of bool, (X, Y, Z)
    """
    return brain & (cam >= np.quantile(cam[brain], 1 - MARKED_SHARE))


def mirrored_elsewhere(where: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Return the same part on the other side of the head, left to right, without what is marked.

    Parameters
    ----------
    where, brain : ndarray of bool, (X, Y, Z)
        Marked part; brain.

    Returns
    -------
    ndarray of bool, (X, Y, Z)
    """
    return where[::-1] & brain & ~where


def remove_tissue(image: np.ndarray, where: np.ndarray, brain: np.ndarray) -> np.ndarray:
    """Put the median of the brain around it in the place of a part of an image.

    Parameters
    ----------
    image : ndarray, (X, Y, Z)
        Network input.
    where, brain : ndarray of bool, (X, Y, Z)
        What to remove; brain.

    Returns
    -------
    ndarray, (X, Y, Z)
        A copy.
    """
    around = ndimage.binary_dilation(where, iterations=4) & brain & ~where
    if not around.any():
        return image.copy()
    return np.where(where, np.median(image[around]), image).astype(image.dtype)


def _likeliest(found: Prediction) -> tuple[np.ndarray, int]:
    assert found.cams is not None
    assert found.class_probabilities is not None
    return found.cams, int(np.argmax(found.class_probabilities))


def _margin(found: Prediction, index: int) -> float:
    assert found.class_logits is not None
    return float(found.class_logits[index] - np.delete(found.class_logits, index).max())
