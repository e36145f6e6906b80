"""Smooth random fields, the raw material of deformations, bias fields and textures."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional


def resize_linear(volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resize the last three axes by trilinear interpolation, voxel faces aligned.

    Parameters
    ----------
    volume : ndarray, (X, Y, Z) or (C, X, Y, Z)
        Values on the old grid.
    shape : tuple of int
        The new (X', Y', Z').

    Returns
    -------
    ndarray, float32
        Values on the new grid, with the leading axis of the input.
    """
    batch = torch.from_numpy(np.ascontiguousarray(volume, dtype=np.float32))
    batch = batch.reshape((1, -1, *volume.shape[-3:]))
    out = functional.interpolate(batch, size=tuple(shape), mode="trilinear", align_corners=False)
    return out.numpy().reshape((*volume.shape[:-3], *shape))


def resize_nearest(volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sample a volume at the centres of the voxels of another grid of the same extent.

    Parameters
    ----------
    volume : ndarray, (X, Y, Z)
        Values on the old grid.
    shape : tuple of int
        The new (X', Y', Z').

    Returns
    -------
    ndarray
        Values on the new grid, nearest neighbour, in the dtype of the input.
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
        Number of independent fields; 0 gives one without a channel axis.

    Returns
    -------
    ndarray, float32
        ``shape`` or ``(channels, *shape)``.
    """
    coarse = tuple(max(2, round(n / scale) + 1) for n in shape)
    size = (channels, *coarse) if channels else coarse
    return resize_linear(rng.standard_normal(size, dtype=np.float32), tuple(shape))
