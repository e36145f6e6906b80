"""Smooth random fields, the raw material of deformations, bias fields and textures."""

from __future__ import annotations

import numpy as np


def resize_linear(volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resize the last three axes by trilinear interpolation, voxel faces aligned.

    From (X, Y, Z) or (C, X, Y, Z) to the `shape` (X', Y', Z') or with the same C before it,
    float32.
    """
    fields = np.asarray(volume, dtype=np.float32).reshape((-1, *volume.shape[-3:]))
    resized = np.empty((len(fields), *shape), np.float32)
    for field, out in zip(fields, resized, strict=True):
        _resize_linear(field, out)
    return resized.reshape((*volume.shape[:-3], *shape))


def resize_nearest(volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sample a volume, (X, Y, Z), at the centres of the voxels of another grid of the same extent.

    Nearest neighbour, to the `shape` (X', Y', Z'); the dtype is kept.
    """
    index = [
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for old, new in zip(volume.shape, shape, strict=True)
    ]
    return volume[np.ix_(*index)]


def smooth_noise(
    shape: tuple[int, ...], scale: float, rng: np.random.Generator, *, channels: int = 0
) -> np.ndarray:
    """Draw a smooth Gaussian random field with unit variance at its control points.

    Parameters
    ----------
    shape : tuple of int
        Grid of the field.
    scale : float
        Distance of the control points (voxels); the larger, the smoother.
    rng : numpy.random.Generator
        Source of randomness.
    channels : int, optional
        Number of independent fields, along a first axis; 0 gives one without that axis.
    """
    coarse = tuple(max(2, round(n / scale) + 1) for n in shape)
    size = (channels, *coarse) if channels else coarse
    return resize_linear(rng.standard_normal(size, dtype=np.float32), shape)


def _resize_linear(field: np.ndarray, out: np.ndarray) -> None:
    """Resize one volume axis by axis; the planes of the first axis, the largest part, come last."""
    for axis in (2, 1):
        lower, upper, share = _neighbours(field.shape[axis], out.shape[axis])
        share = share.reshape([-1 if k == axis else 1 for k in range(3)])
        below = np.take(field, lower, axis)
        field = below + share * (np.take(field, upper, axis) - below)
    for plane, low, high, part in zip(out, *_neighbours(len(field), len(out)), strict=True):
        np.subtract(field[high], field[low], out=plane)
        plane *= part
        plane += field[low]


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels below and above each new voxel's centre, and how far it lies from the lower one."""
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    lower = np.minimum(place.astype(int), old - 1)
    return lower, np.minimum(lower + 1, old - 1), (place - lower).astype(np.float32)
