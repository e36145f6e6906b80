"""How often lesions of MS lie at a place of the brain, brought from MNI space to a head.

Lesions of MS do not scatter over the white matter: they gather at the horns, the trigones and the
bodies of the lateral ventricles, at like places on both sides. A library of real lesions in MNI
space shows where; an affine registration of tissue maps brings that to each head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from scipy import ndimage

from msnmo_bids.lesions.registration import register_affine
from msnmo_bids.simulation.anatomy import BRAIN, Head, Tissue
from msnmo_bids.simulation.mni_head import mni_tissue

_SPACING = 3.0  # mm
_BLUR = 4.0  # mm, s.d.
_LOW, _HIGH = np.array((-93.0, -129.0, -75.0)), np.array((93.0, 93.0, 111.0))  # MNI mm
_REGISTERED_AT = 2.0  # mm
_FLUID = (
    Tissue.LATERAL_VENTRICLE,
    Tissue.THIRD_VENTRICLE,
    Tissue.FOURTH_VENTRICLE,
    Tissue.CSF,
    Tissue.CHOROID_PLEXUS,
)
_GREY = (Tissue.CORTEX, Tissue.DEEP_GREY, Tissue.CEREBELLAR_CORTEX)


@dataclass(frozen=True)
class LesionFrequency:
    """How often lesions of MS lie at a place.

    Parameters
    ----------
    values : ndarray, (X, Y, Z), float32
        0 to 1, relative to the most frequent place; the same on both sides.
    affine : ndarray, (4, 4)
        Index to MNI mm.
    """

    values: np.ndarray
    affine: np.ndarray


def lesion_frequency(lesions: Iterable[np.ndarray]) -> LesionFrequency:
    """Sum up where lesions lie.

    Parameters
    ----------
    lesions : iterable of ndarray, (n, 3)
        Voxels of each lesion (MNI mm). A lesion counts by the square root of its volume: the few
        confluent ones, which hold most voxels, shall not be all that is seen.

    Returns
    -------
    LesionFrequency
    """
    shape = tuple(np.rint((_HIGH - _LOW) / _SPACING).astype(int) + 1)
    total = np.zeros(shape)
    for points in lesions:
        index = np.rint((points - _LOW) / _SPACING).astype(int)
        inside = ((index >= 0) & (index < shape)).all(axis=1)
        np.add.at(total, tuple(index[inside].T), len(points) ** -0.5)
    total = ndimage.gaussian_filter(total + total[::-1], _BLUR / _SPACING)
    affine = np.diag([_SPACING] * 3 + [1.0])
    affine[:3, 3] = _LOW
    return LesionFrequency((total / max(total.max(), 1e-12)).astype(np.float32), affine)


def with_frequency(head: Head, frequency: LesionFrequency) -> Head:
    """Return a head that knows how often lesions of MS lie at its places.

    Parameters
    ----------
    head : Head
        Undeformed.
    frequency : LesionFrequency
        In MNI space.

    Returns
    -------
    Head
        With another `Head.frequency`.
    """
    matrix = np.linalg.inv(frequency.affine) @ mni_affine(head)
    values = ndimage.affine_transform(
        frequency.values, matrix[:3, :3], matrix[:3, 3], head.tissue.shape, order=1
    )
    return replace(head, frequency=np.rint(255 * values).clip(0, 255).astype(np.uint8))


def mni_affine(head: Head) -> np.ndarray:
    """Register a head to the MNI152 brain.

    Parameters
    ----------
    head : Head
        Undeformed.

    Returns
    -------
    ndarray, (4, 4)
        Index of the head to MNI mm.
    """
    step = max(1, round(_REGISTERED_AT / head.spacing))
    reference, affine = _reference()
    mni_zooms = np.linalg.norm(affine[:3, :3], axis=0)
    found = register_affine(
        _contrast(head.tissue[::step, ::step, ::step]),
        (step * head.spacing,) * 3,
        reference,
        mni_zooms,
    )
    return affine @ found @ np.diag([1 / step] * 3 + [1.0])


@cache
def _reference() -> tuple[np.ndarray, np.ndarray]:
    tissue, affine = mni_tissue()
    step = round(_REGISTERED_AT)
    return _contrast(tissue[::step, ::step, ::step]), affine @ np.diag([step] * 3 + [1.0])


def _contrast(tissue: np.ndarray) -> np.ndarray:
    """Render the brain with the contrast of a T1w image, 0 outside."""
    brightness = np.zeros(len(Tissue), np.float32)
    brightness[list(BRAIN)] = 1.0
    brightness[list(_GREY)] = 0.75
    brightness[list(_FLUID)] = 0.3
    return brightness[tissue]
