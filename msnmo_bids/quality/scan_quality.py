"""The quality of a scan from its files and its place in the atlas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from msnmo_bids.lesions.regions import (
    CORTEX,
    DEEP,
    VENTRICLE,
    atlas_on_grid,
    load_atlas,
)
from msnmo_bids.quality.measures import QualityImages, quality

_BRAIN_PRIOR = 0.5
_EVERY = 7  # voxels of the atlas's brain are enough for its coverage


def scan_quality(raw: Path, corrected: Path, mask: Path, to_mni: np.ndarray) -> dict[str, Any]:
    """Measure and judge a scan.

    Parameters
    ----------
    raw, corrected, mask : Path
        FLAIR as it came, FLAIR after bias correction, and brain mask, RAS, on the same grid.
    to_mni : ndarray, (4, 4)
        Index of the scan to MNI mm, from :func:`msnmo_bids.lesions.regions.locate_regions`.

    Returns
    -------
    dict
        As :func:`msnmo_bids.quality.measures.quality` gives it.
    """
    image = nib.Nifti1Image.from_filename(raw)
    values, after = (_values(path, np.float32) for path in (raw, corrected))
    _, _, atlas_affine = load_atlas()
    prior = atlas_on_grid(np.linalg.inv(atlas_affine) @ to_mni, values.shape)
    x, y, z = np.ogrid[tuple(slice(size) for size in values.shape)]
    images = QualityImages(
        raw=values,
        corrected=after,
        brain=_values(mask) > 0,
        zooms=[float(size) for size in nib.affines.voxel_sizes(image.affine)],
        ventricle=prior[VENTRICLE - 1],
        cortex=prior[CORTEX - 1],
        white=prior[DEEP - 1],
        across=to_mni[0, 0] * x + to_mni[0, 1] * y + to_mni[0, 2] * z + to_mni[0, 3],
        coverage=atlas_coverage(to_mni, values.shape),
    )
    return quality(images)


def _values(path: Path, dtype: type | None = None) -> np.ndarray:
    return np.asanyarray(nib.Nifti1Image.from_filename(path).dataobj, dtype=dtype)


def atlas_coverage(to_mni: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return which share of the atlas's brain lies within a scan's field of view.

    Parameters
    ----------
    to_mni : ndarray, (4, 4)
        Index of the scan to MNI mm.
    shape : tuple of int
        Shape of the scan.

    Returns
    -------
    float
        0 to 1.
    """
    maps, _, atlas_affine = load_atlas()
    places = nib.affines.apply_affine(
        np.linalg.inv(to_mni) @ atlas_affine,
        np.argwhere(maps.sum(axis=0) > _BRAIN_PRIOR)[::_EVERY],
    )
    within = (places > -0.5) & (places < np.asarray(shape) - 0.5)
    return float(within.all(axis=1).mean())
