"""Smooth random fields; with them the deformation of a head, affine and nonlinear; its ageing."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from scipy import ndimage

from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Head, Tissue

#: How far a head may be turned about each axis (degrees), scaled (relative) and sheared; share of
#: the heads that are mirrored.
ROTATION, SCALING, SHEAR, MIRRORED = 8.0, 0.12, 0.03, 0.5
#: Nonlinear displacement at its control points (mm, s.d.), and their distance (mm).
DISPLACEMENT, CONTROL_POINTS = 3.0, 28.0
#: How far the walls of the lateral ventricles may move out, and the brain's surface recede (mm).
VENTRICLES, ATROPHY = 3.0, 2.0
_COARSE = 4.0  # mm: grid of the displacement before it is interpolated
_FADING = 12.0  # mm: over which the moves of ventricles and surface fade in the brain,
_FADING_OUTSIDE = 3.0  # and outside of it, so that the skull stays
_WIDER = (0.5, 4.0)  # by how much atrophy of age widens the lateral ventricles (mm)
_SEPTUM = 4.0  # mm from the median plane: what parts the ventricles stays


Vector = TypeVar("Vector", np.ndarray, torch.Tensor)


def resize_linear(volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resize the last three axes, of three or four: trilinear, voxel faces aligned, float32."""
    fields = np.asarray(volume, dtype=np.float32).reshape((-1, *volume.shape[-3:]))
    resized = np.empty((len(fields), *shape), np.float32)
    for field, out in zip(fields, resized, strict=True):
        _resize_linear(field, out)
    return resized.reshape((*volume.shape[:-3], *shape))


def resize_nearest(volume: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Resize a volume to a shape, voxel faces aligned, by the nearest neighbour of each centre."""
    index = [
        np.minimum(((np.arange(new) + 0.5) * old / new).astype(int), old - 1)
        for old, new in zip(volume.shape, shape, strict=True)
    ]
    return volume[np.ix_(*index)]


def smooth_noise(
    shape: tuple[int, ...], scale: float, rng: np.random.Generator, *, channels: int = 0
) -> np.ndarray:
    """Draw a smooth Gaussian random field with unit variance at its control points.

    `scale` is their distance (voxels): the larger, the smoother. Several independent fields
    (`channels`) lie along a first axis; 0 gives one without that axis.
    """
    coarse = tuple(max(2, round(n / scale) + 1) for n in shape)
    size = (channels, *coarse) if channels else coarse
    return resize_linear(rng.standard_normal(size, dtype=np.float32), shape)


def _resize_linear(field: np.ndarray, out: np.ndarray) -> None:
    """Resize one volume axis by axis; the planes of the first axis, the largest part, come last."""
    for axis in (2, 1):
        lower, upper, share = _neighbours(field.shape[axis], out.shape[axis])
        below = np.take(field, lower, axis)
        field = below + along(share, axis) * (np.take(field, upper, axis) - below)
    for plane, low, high, part in zip(out, *_neighbours(len(field), len(out)), strict=True):
        np.subtract(field[high], field[low], out=plane)
        plane *= part
        plane += field[low]


def along(values: Vector, axis: int) -> Vector:
    """Bring a vector to an axis of three."""
    return values.reshape([-1 if k == axis else 1 for k in range(3)])


def _neighbours(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels below and above each new voxel's centre, and how far it lies from the lower one."""
    place = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1)
    lower = np.minimum(place.astype(int), old - 1)
    return lower, np.minimum(lower + 1, old - 1), (place - lower).astype(np.float32)


def _random_matrix(rng: np.random.Generator) -> np.ndarray:
    angles = np.deg2rad(rng.uniform(-ROTATION, ROTATION, 3))
    matrix = np.diag(1 + rng.uniform(-SCALING, SCALING, 3))
    for (i, j), angle in zip(((1, 2), (0, 2), (0, 1)), angles, strict=True):
        turn, cos, sin = np.eye(3), np.cos(angle), np.sin(angle)
        turn[[i, i, j, j], [i, j, i, j]] = cos, -sin, sin, cos
        matrix = turn @ matrix
    shear = np.eye(3) + np.triu(rng.uniform(-SHEAR, SHEAR, (3, 3)), 1)
    if rng.random() < MIRRORED:
        shear = shear @ np.diag([-1.0, 1.0, 1.0])
    return matrix @ shear


def _tissue_loss(head: Head, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Displacement of ventricles and surface, (3, *shape) voxels: where tissue comes from."""
    step = [head.spacing * old / new for old, new in zip(head.tissue.shape, shape, strict=True)]
    total = np.zeros((3, *shape), np.float32)
    moves = (
        (head.to_lateral, -rng.uniform(0, VENTRICLES)),
        (head.to_surface, rng.uniform(0, ATROPHY)),
    )
    outside = resize_nearest(head.to_surface, shape).astype(np.float32) * DISTANCE_STEP
    for distance, far in moves:
        if not far:
            continue
        mm = resize_nearest(distance, shape).astype(np.float32) * DISTANCE_STEP
        slope = np.stack(np.gradient(ndimage.gaussian_filter(mm, 0.7), *step))
        fading = np.where(outside > 0, np.exp(-outside / _FADING_OUTSIDE), 1.0)
        total += slope * (far * fading * np.exp(-np.abs(mm) / _FADING)).astype(np.float32)
    return total / head.spacing


def deform(head: Head, rng: np.random.Generator) -> Head:
    """Deform a head: random affine map, smooth displacement, width of the ventricles, atrophy.

    The deformed head is on the same grid, nearest neighbour.
    """
    shape = head.tissue.shape
    matrix = _random_matrix(rng)
    centre = (np.asarray(shape, dtype=np.float32) - 1) / 2
    spacing = head.spacing
    coarse = tuple(max(2, round(n * spacing / _COARSE)) for n in shape)
    field = smooth_noise(coarse, CONTROL_POINTS / _COARSE, rng, channels=3)
    field *= DISPLACEMENT / spacing
    field = resize_linear(field + _tissue_loss(head, rng, coarse), shape)
    index = torch.zeros(shape, dtype=torch.int64)
    axes = [torch.arange(n, dtype=torch.float32) - c for n, c in zip(shape, centre, strict=True)]
    for row in range(3):
        source = torch.from_numpy(field[row]) + float(centre[row])
        for column in range(3):
            source += float(matrix[row, column]) * along(axes[column], column)
        source = source.round_().clamp_(0, shape[row] - 1).to(torch.int64)
        index = index * shape[row] + source
    flat = index.reshape(-1).numpy()
    moved = [np.take(m.reshape(-1), flat).reshape(shape) for m in head.maps]
    return head.with_maps(moved, head.affine)


def aged(head: Head, rng: np.random.Generator) -> Head:
    """Return a head with wide lateral ventricles, as of age: what lay beside them is fluid."""
    wider = rng.uniform(*_WIDER) / DISTANCE_STEP
    beside = (head.tissue == Tissue.WHITE_MATTER) | (head.tissue == Tissue.DEEP_GREY)
    away = np.abs(np.arange(len(beside)) - head.median_plane) * head.spacing
    septum = head.septum & (away < _SEPTUM).reshape(-1, 1, 1)
    fluid = beside & (head.to_lateral <= wider) & ~septum
    tissue = np.where(fluid, np.uint8(Tissue.LATERAL_VENTRICLE), head.tissue)
    nearer = np.maximum(head.to_lateral.astype(np.float32) - wider, 0).astype(np.uint8)
    return replace(head, tissue=tissue, to_lateral=nearer)
