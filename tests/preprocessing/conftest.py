"""Tiny scans that pass the checks of a raw FLAIR."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Save an array as NIfTI with equal forms."""

    def save_array(
        array: np.ndarray, affine: np.ndarray | None = None, name: str = "image.nii.gz"
    ) -> Path:
        affine = np.diag([10.0, 10.0, 10.0, 1.0]) if affine is None else affine
        image = nib.Nifti1Image(array, affine)
        image.set_sform(affine, code=1)
        image.set_qform(affine, code=1)
        path = tmp_path / name
        nib.save(image, path)
        return path

    return save_array


@pytest.fixture
def flair() -> np.ndarray:
    """(10, 11, 12), every voxel different."""
    return np.arange(10 * 11 * 12, dtype=np.float32).reshape(10, 11, 12)
