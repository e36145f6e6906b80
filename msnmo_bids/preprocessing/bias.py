"""Bias field correction by N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908).

A coil's field is smooth, so N4 sees the image on a coarse grid, whose size depends on the head and
not on the matrix: `shrink`, then N4 of whatever package, then `apply_field` on the image's own
grid. The field is interpolated in the logarithm, in which N4 models it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.interpolate import make_interp_spline

from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.geometry import with_equal_forms

GRID_MM = 4.0
#: The most of each level, coarse to fine. The two coarse ones only prepare the fine ones: 50 in
#: each of the four change the field by .001 and take 1.7 times as long.
N_ITERATIONS = (10, 10, 50, 50)
CONVERGENCE_THRESHOLD = 1e-7
#: On every machine, however many cores it has: the digits of N4 depend on it, and on nothing else.
N4_THREADS = 2
ITK_THREADS = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
_OWN_FIELD = "Try --bias-correction skip for this scan"


def shrink(
    image: Path, mask: Path, coarse: Path, coarse_mask: Path, *, grid_mm: float = GRID_MM
) -> None:
    """Write an image and its brain mask on a coarse grid, for the fit of the bias field.

    FLAIR and mask are on the same RAS grid; `coarse` (float32) and `coarse_mask` (uint8) are
    written. A coarse voxel is one voxel of about ``grid_mm`` (mm) on each side (a thicker slice
    stays one). What is not above 0 has no logarithm: it is left out of the fit, not of the image.

    Raises
    ------
    BadInputError
        No brain is left.
    """
    source = nib.Nifti1Image.from_filename(image)
    some = _coarse_voxels(source, grid_mm)
    values = np.array(source.dataobj[some], dtype=np.float32)
    inside = np.asarray(nib.Nifti1Image.from_filename(mask).dataobj[some]) > 0
    inside &= values > 0
    if not inside.any():
        raise BadInputError("no brain is left for the bias field", file=image, remedy=_OWN_FIELD)
    affine = source.affine.copy()
    affine[:3, 3] = nib.affines.apply_affine(affine, [axis.start for axis in some])
    affine[:3, :3] *= [axis.step for axis in some]
    nib.save(with_equal_forms(values, affine), coarse)
    nib.save(with_equal_forms(inside.astype(np.uint8), affine), coarse_mask)


def n4_antspyx(image: Path, mask: Path, field: Path, *, n_iterations: Sequence[int]) -> Path:
    """Fit the bias field to what `shrink` wrote, with the N4 of the Python package antspyx.

    `field` is written and returned (a factor, float32, the same grid). `n_iterations` are the most
    of each level.
    """
    os.environ[ITK_THREADS] = str(N4_THREADS)  # read at its first use
    import ants

    source = nib.Nifti1Image.from_filename(image)
    zooms = tuple(float(size) for size in source.header.get_zooms()[:3])
    inside = np.asarray(nib.Nifti1Image.from_filename(mask).dataobj, dtype=np.float32)
    found = ants.n4_bias_field_correction(
        ants.from_numpy(np.asarray(source.dataobj, dtype=np.float32), spacing=zooms),
        mask=ants.from_numpy(inside, spacing=zooms),
        shrink_factor=1,
        convergence={"iters": list(n_iterations), "tol": CONVERGENCE_THRESHOLD},
        rescale_intensities=False,
        return_bias_field=True,
    ).numpy()
    nib.save(with_equal_forms(found.astype(np.float32), source.affine), field)
    return field


def apply_field(image: Path, mask: Path, field: Path | None, out: Path) -> Path:
    """Divide an image by its bias field, and set everything outside of the mask to 0.

    `field` is a factor on a grid of `shrink`; None leaves the image as it is. `out` is written
    (float32) and returned; values below 0 stay below 0.

    Raises
    ------
    BadInputError
        The shapes differ, or the field is not finite or not positive.
    """
    source, inside = nib.Nifti1Image.from_filename(image), nib.Nifti1Image.from_filename(mask)
    if source.shape != inside.shape:
        raise BadInputError(
            f"brain mask of shape {inside.shape} for an image of shape {source.shape}", file=mask
        )
    result = np.zeros(source.shape, dtype=np.float32)
    logarithm, weights = (None, None) if field is None else _log_field(field, source, image)
    for k in range(source.shape[2]):
        plane = np.asarray(source.dataobj[..., k], dtype=np.float32)
        if logarithm is not None and weights is not None:
            plane = plane / np.exp(logarithm @ weights[k])  # all at once would be large
        brain = np.asarray(inside.dataobj[..., k]) > 0
        result[..., k][brain] = plane[brain]
    nib.save(with_equal_forms(result, source.affine), out)
    return out


def _coarse_voxels(image: nib.Nifti1Image, grid_mm: float) -> tuple[slice, ...]:
    """Return the voxels of the coarse grid, as ITK's shrink filter would take them."""
    some = []
    for n, size in zip(image.shape, nib.affines.voxel_sizes(image.affine), strict=True):
        step = min(max(1, round(grid_mm / float(size))), n)
        start = (n - 1 - (n // step - 1) * step + 1) // 2
        some.append(slice(start, start + (n // step - 1) * step + 1, step))
    return tuple(some)


def _log_field(field: Path, image: nib.Nifti1Image, name: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return a field's logarithm at the image's columns and rows, (X, Y, z), and weights (Z, z)."""
    coarse = nib.Nifti1Image.from_filename(field)
    values = np.asarray(coarse.dataobj, dtype=np.float64)
    if not np.all(np.isfinite(values)) or not np.all(values > 0):
        raise BadInputError("N4 gave a bias field with holes", file=name, remedy=_OWN_FIELD)
    to_image = np.linalg.inv(image.affine) @ coarse.affine
    weights = [
        _spline_weights(to_image[axis, 3] + to_image[axis, axis] * np.arange(n_coarse), n)
        for axis, (n_coarse, n) in enumerate(zip(coarse.shape, image.shape, strict=True))
    ]
    along_x = np.tensordot(weights[0], np.log(values), axes=(1, 0))
    both = np.einsum("yj,xjz->xyz", weights[1], along_x, optimize=True)
    return both.astype(np.float32), weights[2].astype(np.float32)


def _spline_weights(places: np.ndarray, n: int) -> np.ndarray:
    """Return the matrix, (n, places), that interpolates from places (voxels) to 0, 1, … n - 1."""
    degree = min(3, len(places) - 1)
    if degree == 0:
        return np.ones((n, 1))
    return np.asarray(make_interp_spline(places, np.eye(len(places)), k=degree)(np.arange(n)))
