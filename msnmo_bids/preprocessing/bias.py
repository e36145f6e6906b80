"""Bias field correction by N4 (Tustison et al. 2010, doi:10.1109/TMI.2010.2046908)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import nibabel as nib
import numpy as np

from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.geometry import with_equal_forms
from msnmo_bids.preprocessing.records import ToolRecord

CONVERGENCE_THRESHOLD = 1e-7


def n4_antspyx(
    image: Path,
    mask: Path,
    corrected: Path,
    *,
    shrink_factor: int = 4,
    n_iterations: Sequence[int] = (50, 50, 50, 50),
    n_threads: int = 1,
) -> ToolRecord:
    """Correct the bias field with the N4 of the Python package antspyx.

    Parameters
    ----------
    image : Path
        FLAIR on a RAS grid.
    mask : Path
        Brain mask on the same grid.
    corrected : Path
        Image to write (float32, the same grid).
    shrink_factor : int
        Subsampling of the fit (voxels).
    n_iterations : sequence of int
        Most iterations of each level.
    n_threads : int
        Threads of ITK; in a process that has loaded ants already, the number it started with.

    Returns
    -------
    ToolRecord
        Tool, version and settings.

    Raises
    ------
    BadInputError
        When the result is not finite.
    """
    os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = str(n_threads)
    import ants

    source = nib.Nifti1Image.from_filename(image)
    values = np.asarray(source.dataobj, dtype=np.float32)
    zooms = tuple(float(z) for z in source.header.get_zooms()[:3])
    inside = (np.asarray(nib.Nifti1Image.from_filename(mask).dataobj) > 0).astype(np.float32)
    field_of = ants.from_numpy(np.maximum(values, 0), spacing=zooms)
    shrink = [min(shrink_factor, max(1, n // 8)) for n in values.shape]
    result = ants.n4_bias_field_correction(
        field_of,
        mask=ants.from_numpy(inside, spacing=zooms),
        shrink_factor=min(shrink),
        convergence={"iters": list(n_iterations), "tol": CONVERGENCE_THRESHOLD},
        rescale_intensities=False,
    ).numpy()
    if not np.isfinite(result).all():
        raise BadInputError(
            "N4 gave values that are not finite",
            file=image,
            remedy="Try --bias-correction skip for this scan",
        )
    with_equal_forms(result.astype(np.float32), source.affine).to_filename(corrected)
    return {
        "Tool": "N4 (antspyx)",
        "Version": version("antspyx"),
        "Settings": {
            "shrink_factor": min(shrink),
            "n_iterations": [int(n) for n in n_iterations],
            "convergence_threshold": CONVERGENCE_THRESHOLD,
        },
    }


def masked(image: Path, mask: Path, out: Path) -> Path:
    """Write an image with everything outside of the mask set to 0.

    Parameters
    ----------
    image, mask : Path
        On the same grid.
    out : Path
        Image to write (float32).

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    BadInputError
        When the grids differ.
    """
    source, inside = nib.Nifti1Image.from_filename(image), nib.Nifti1Image.from_filename(mask)
    if source.shape != inside.shape:
        raise BadInputError(
            f"brain mask of shape {inside.shape} for an image of shape {source.shape}", file=mask
        )
    values = np.asarray(source.dataobj, dtype=np.float32) * (np.asarray(inside.dataobj) > 0)
    with_equal_forms(values.astype(np.float32), inside.affine).to_filename(out)
    return out
