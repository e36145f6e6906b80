"""Read and write the images that nodes hand to each other (RAS, uncompressed)."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np

from msnmo_bids.preprocessing.geometry import with_equal_forms


def load_array(path: Path, dtype: type | None = None) -> np.ndarray:
    """Return an image's values, (X, Y, Z), in its own dtype unless one is given."""
    return np.asanyarray(nib.Nifti1Image.from_filename(path).dataobj, dtype=dtype)


def write_like(array: np.ndarray, reference: Path, out: Path) -> Path:
    """Write an array on the grid of another image.

    Parameters
    ----------
    array : ndarray, (X, Y, Z)
        Values; the dtype is kept.
    reference : Path
        Image with the same shape, whose affine is taken.
    out : Path
        File to write.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    grid = nib.Nifti1Image.from_filename(reference)
    if array.shape != grid.shape[:3]:
        raise ValueError(f"an array of shape {array.shape} does not fit {reference} {grid.shape}")
    return write_array(array, grid.affine, out)


def write_array(array: np.ndarray, affine: np.ndarray, out: Path) -> Path:
    """Write an array on a grid of its own.

    Parameters
    ----------
    array : ndarray, (X, Y, Z)
        Values; the dtype is kept.
    affine : ndarray, (4, 4)
        Index to mm.
    out : Path
        File to write.

    Returns
    -------
    Path
        ``out``.
    """
    nib.save(with_equal_forms(array, affine), out)
    return out
