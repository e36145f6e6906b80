"""The affine registration: known maps, other contrast, and the same result on any threads."""

from __future__ import annotations

import os
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.eulerangles import euler2mat
from scipy import ndimage

from msnmo_bids.lesions.registration import register_affine

SHAPE = (44, 52, 42)
SPACING = np.array([4.0, 4.0, 4.0])


def phantom() -> np.ndarray:
    """A brain-sized egg with two dark horns and a bright patch on one side, 0 outside."""
    x, y, z = (np.indices(SHAPE) + 0.5 - np.array(SHAPE).reshape(3, 1, 1, 1) / 2) * 4.0
    wide = 66 - 0.1 * y
    brain = (x / wide) ** 2 + (y / 84) ** 2 + ((z - 4) / 62) ** 2 < 1
    image = 1.0 * brain
    for side in (-1, 1):
        horn = ((x - side * 18) / 9) ** 2 + ((y + 5) / 34) ** 2 + ((z - 12 + 0.2 * y) / 10) ** 2 < 1
        image[horn & brain] = 0.35
    image[((x - 35) ** 2 + (y - 30) ** 2 + z**2 < 18**2) & brain] = 1.15
    image[((x / 45) ** 2 + ((y + 50) / 25) ** 2 + ((z + 42) / 16) ** 2 < 1) & brain] = 1.1
    return ndimage.gaussian_filter(image, 0.4).astype(np.float32) * brain


MOVING = phantom()


def scan_of(world: np.ndarray, shape, zooms) -> tuple[np.ndarray, np.ndarray]:
    """Sample the phantom on another grid; return it and the true index map."""
    to_mm = np.diag([*zooms, 1.0])
    to_mm[:3, 3] = -np.asarray(zooms) * (np.array(shape) - 1) / 2
    from_mm = np.diag([*(1 / SPACING), 1.0])
    from_mm[:3, 3] = (np.array(SHAPE) - 1) / 2
    matrix = from_mm @ world @ to_mm
    values = ndimage.affine_transform(
        MOVING, matrix[:3, :3], matrix[:3, 3], output_shape=tuple(shape), order=1
    )
    return np.where(values > 0.2, values, 0), matrix


def error_mm(found: np.ndarray, true: np.ndarray, values: np.ndarray) -> np.ndarray:
    brain = np.argwhere(values > 0)[::97]
    difference = nib.affines.apply_affine(found, brain) - nib.affines.apply_affine(true, brain)
    return np.linalg.norm(difference * SPACING, axis=1)


@settings(deadline=None, max_examples=6)
@given(
    angles=st.tuples(*[st.floats(-12, 12)] * 3),
    scales=st.tuples(*[st.floats(0.88, 1.12)] * 3),
    shift=st.tuples(*[st.floats(-15, 15)] * 3),
)
def test_known_affines(angles, scales, shift):
    world = np.eye(4)
    world[:3, :3] = euler2mat(*np.deg2rad(angles)) @ np.diag(scales)
    world[:3, 3] = shift
    zooms = (3.0, 3.0, 6.0)
    values, true = scan_of(world, (72, 84, 38), zooms)
    found = register_affine(values, zooms, MOVING, SPACING)
    assert error_mm(found, true, values).mean() < 1.5


def test_another_contrast_field_and_lesions():
    """A scanner's units, shading, noise, bright lesions and an eye left by skull stripping."""
    world = np.eye(4)
    world[:3, :3] = euler2mat(0.1, -0.1, 0.12)
    zooms = (3.0, 3.0, 5.0)
    values, true = scan_of(world, (64, 76, 44), zooms)
    brain = values > 0
    rng = np.random.default_rng(0)
    shading = np.linspace(0.85, 1.15, 64)[:, None, None]
    scan = (brain * (150 + 300 * values) * shading + rng.normal(0, 15, values.shape)) * brain
    scan[20:24, 30:36, 24:27] = 900
    scan[24:30, 68:74, 12:15] = 1500
    found = register_affine(scan, zooms, MOVING, SPACING)
    assert error_mm(found, true, values).mean() < 2.5


def test_a_scan_that_ends_above_the_cerebellum():
    values, true = scan_of(np.eye(4), (60, 70, 40), (3.0, 3.0, 4.0))
    values, true = (
        values[:, :, 12:],
        true @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 12], [0, 0, 0, 1]]),
    )
    found = register_affine(values, (3.0, 3.0, 4.0), MOVING, SPACING)
    assert error_mm(found, true, values).mean() < 2.5


def test_empty_image():
    with pytest.raises(ValueError, match="empty"):
        register_affine(np.zeros((9, 9, 9)), (1, 1, 1), MOVING, SPACING)


_PROGRAM = """
import numpy as np
from scipy import ndimage
from msnmo_bids.lesions.registration import register_affine
rng = np.random.default_rng(0)
brain = np.linalg.norm((np.indices((36, 44, 34)).reshape(3, -1).T - (18, 22, 17)) / (15, 19, 14),
                       axis=1).reshape(36, 44, 34) < 1
image = brain * (1 + ndimage.gaussian_filter(rng.normal(0, 1, brain.shape), 2))
turned = ndimage.rotate(image, 7, reshape=False, order=1)
matrix = register_affine(turned * (turned > 0.2), (4, 4, 4), image * brain, (4, 4, 4))
print(matrix.tobytes().hex())
"""


def test_the_number_of_threads_changes_nothing():
    """The regions of a lesion must not depend on --nprocs."""
    results = {
        subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            env={**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for threads in ("1", "2")
    }
    assert len(results) == 1
    assert len(results.pop().strip()) == 16 * 8 * 2
