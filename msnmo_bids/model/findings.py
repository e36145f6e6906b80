"""What is known of each finding of a network, to tell lesions from what looks like them.

A finding is what is connected above a lesion probability. A second network has seen the same
volume; the image says how far the finding stands out; and a finding in a scan with much lesion
elsewhere is likelier a lesion than the same one in a scan with none. Simulated lesions are less
bright than real ones, so that what is as bright as bright lesions of real scans counts alike. An
atlas that is registered to the volume says what the finding lies in: a doubtful spot in the cortex
is rarer a lesion than one in the white matter.
"""

from __future__ import annotations

from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.special import logit

from msnmo_bids.lesions.contrast import local_mean
from msnmo_bids.lesions.mask import CONNECTIVITY_26
from msnmo_bids.lesions.regions import ATLAS_MAPS, atlas_at, atlas_fits, load_atlas
from msnmo_bids.lesions.registration import register_affine
from msnmo_bids.model.config import SIDE_MULTIPLE

#: Maps of the atlas that tell what a finding lies in.
TISSUES = ("infratentorial", "cortex", "deep")

#: What `describe_findings` tells of each finding, in this order.
FEATURES = (
    "size",  # natural logarithm of the number of voxels
    "first",  # logit of the mean probability of the first network
    "second",  # the same of the second one
    "second_upper",  # logit of the 90th percentile of its probability
    "share_above_0.7",  # of the voxels, by the second network
    "share_above_0.9",
    "contrast",  # mean z-score above that of the brain tissue around, at most 2.5
    "elsewhere",  # logarithm of 10 voxels and those of all others, weighted by "second"
    *TISSUES,  # mean probability by the atlas; NaN where it does not fit
)
#: Mean probability from which on the second network believes a finding.
LEAST_BELIEF = 0.5
_SUREST = 0.99  # probabilities count as at most this, and at least as 1 minus this
_FLUID = -1.5  # z-score: darker voxels are not compared with
_NEIGHBOURHOOD = 4.0  # voxels, s.d. of the Gaussian that the tissue around is weighted by
_REACH = 2  # voxels around findings that are not compared with
_BRIGHT = 2.5  # z-scores; lesions of fifteen real scans had at most 2.4
_BASE = 10.0  # voxels
_BOX_MM = np.array([147.0, 180.0, 160.0])  # of a brain with its margin, as the registration starts
_MEAN = 4.0  # s.d.: about how bright the mean of a brain is, which the z-score took away
_DARKEST = 0.3  # s.d.: brain is not 0 for the registration


class Findings(NamedTuple):
    """The findings of a volume.

    Parameters
    ----------
    labels : ndarray of int, (D, H, W)
        Number of the finding, from 1; 0 elsewhere.
    features : ndarray of float, (N, len(FEATURES))
        Of findings 1 to N.
    """

    labels: np.ndarray
    features: np.ndarray


def describe_findings(
    first: np.ndarray, second: np.ndarray, image: np.ndarray, threshold: float
) -> Findings:
    """Find what a network marks and describe it.

    Parameters
    ----------
    first : ndarray, (D, H, W)
        Lesion probability of the network whose findings they are.
    second : ndarray, (D, H, W)
        That of another network.
    image : ndarray, (D, H, W)
        Its input: z-scores, 0 outside of the brain.
    threshold : float
        Findings are what is connected (26 neighbours) above this probability.

    Returns
    -------
    Findings
        None of them, where nothing is above the threshold.

    Raises
    ------
    ValueError
        If the arrays differ in shape.

    Examples
    --------
    >>> first, second = np.zeros((2, 8, 8, 8))
    >>> image = np.ones((8, 8, 8))
    >>> first[2:4, 2:4, 2:4], second[2:4, 2:4, 2:4], image[2:4, 2:4, 2:4] = 0.9, 0.8, 3.0
    >>> features = describe_findings(first, second, image, 0.6).features
    >>> dict(zip(FEATURES[:8], features[0].round(1).tolist()))  # doctest: +NORMALIZE_WHITESPACE
    {'size': 2.1, 'first': 2.2, 'second': 1.4, 'second_upper': 1.4, 'share_above_0.7': 1.0,
     'share_above_0.9': 0.0, 'contrast': 2.0, 'elsewhere': 2.3}
    """
    if not first.shape == second.shape == image.shape:
        raise ValueError(f"shapes differ: {first.shape}, {second.shape}, {image.shape}")
    labels, count = ndimage.label(first > threshold, structure=CONNECTIVITY_26)
    if not count:
        return Findings(labels, np.zeros((0, len(FEATURES))))
    where = labels > 0
    numbers = labels[where] - 1
    sizes = np.bincount(numbers, minlength=count)

    def mean(values: np.ndarray) -> np.ndarray:
        return np.bincount(numbers, weights=values, minlength=count) / sizes

    marked = second[where]
    confirmed = mean(marked)
    weighted = sizes * confirmed
    order = np.argsort(numbers, kind="stable")
    parts = np.split(marked[order], np.cumsum(sizes)[:-1])
    features = (
        np.log(sizes),
        _logit(mean(first[where])),
        _logit(confirmed),
        _logit(np.array([np.percentile(part, 90) for part in parts])),
        mean(marked > 0.7),
        mean(marked > 0.9),
        np.minimum(mean((image - _tissue_around(image, where))[where]), _BRIGHT),
        np.log(_BASE + weighted.sum() - weighted),
        *(mean(probability) for probability in tissues_at(image, np.argwhere(where))),
    )
    return Findings(labels, np.stack(features, axis=1))


def tissues_at(image: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Register the atlas to a volume and say what its heads have at some voxels.

    Parameters
    ----------
    image : ndarray, (D, H, W)
        z-scores of a brain that fills the volume (RAS order), 0 outside of the brain.
    places : ndarray of int, (N, 3)
        Voxels.

    Returns
    -------
    ndarray of float, (len(TISSUES), N)
        Probability of each of `TISSUES`; NaN if the volume has no brain, or one that the atlas
        does not fit, or is smaller than any that a network takes.
    """
    brain = image != 0
    unknown = np.full((len(TISSUES), len(places)), np.nan)
    if not brain.any() or min(image.shape) < SIDE_MULTIPLE:
        return unknown
    _, flair, atlas_affine = load_atlas()
    values = np.where(brain, np.maximum(image + _MEAN, _DARKEST), 0.0)
    spacing = nib.affines.voxel_sizes(atlas_affine)
    to_atlas = register_affine(values, (_BOX_MM / image.shape).tolist(), flair, spacing)
    if not atlas_fits(to_atlas, brain):
        return unknown
    return atlas_at(to_atlas, places)[[ATLAS_MAPS.index(name) for name in TISSUES]]


def believed(features: np.ndarray) -> np.ndarray:
    """Tell to which findings the second network gives a mean probability of `LEAST_BELIEF` or more.

    Parameters
    ----------
    features : ndarray, (N, F)
        Of `describe_findings`.

    Returns
    -------
    ndarray of bool, (N,)
        Whether the second network believes them.
    """
    return features[:, FEATURES.index("second")] >= logit(LEAST_BELIEF)


def _logit(probability: np.ndarray) -> np.ndarray:
    return logit(np.clip(probability, 1 - _SUREST, _SUREST))


def _tissue_around(image: np.ndarray, findings: np.ndarray) -> np.ndarray:
    """Return the local mean of brain tissue beyond the findings; 0 where there is none."""
    near = ndimage.binary_dilation(findings, CONNECTIVITY_26, iterations=_REACH)
    tissue = (image != 0) & (image > _FLUID) & ~near
    return local_mean(image, tissue, (_NEIGHBOURHOOD,) * 3)[0]
