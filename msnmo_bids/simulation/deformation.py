"""Random affine and nonlinear deformation of a head, and its ageing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Head, Tissue
from msnmo_bids.simulation.random_fields import resize_linear, resize_nearest, smooth_noise

_COARSE = 4.0  # mm: grid of the displacement before it is interpolated
_FADING = 12.0  # mm: over which the moves of ventricles and surface fade in the brain,
_FADING_OUTSIDE = 3.0  # and outside of it, so that the skull stays
_WIDER = (0.5, 4.0)  # by how much atrophy of age widens the lateral ventricles (mm)
_SEPTUM = 4.0  # mm from the median plane: what parts the ventricles stays


@dataclass(frozen=True)
class DeformationRange:
    """How far a head may be deformed.

    Parameters
    ----------
    rotation : float
        Largest rotation about each axis (degrees).
    scaling : float
        Largest relative change of each axis.
    shear : float
        Largest shear.
    displacement : float
        Standard deviation of the nonlinear displacement (mm) at its control points.
    spacing : float
        Distance of the control points (mm).
    flip : bool
        Mirror left and right in half of the samples.
    ventricles : float
        How far the walls of the lateral ventricles may move out (mm).
    atrophy : float
        How far the brain's surface may recede (mm).
    """

    rotation: float = 8.0
    scaling: float = 0.12
    shear: float = 0.03
    displacement: float = 3.0
    spacing: float = 28.0
    flip: bool = True
    ventricles: float = 3.0
    atrophy: float = 2.0


def _random_matrix(limits: DeformationRange, rng: np.random.Generator) -> np.ndarray:
    angles = np.deg2rad(rng.uniform(-limits.rotation, limits.rotation, 3))
    matrix = np.diag(1 + rng.uniform(-limits.scaling, limits.scaling, 3))
    for (i, j), angle in zip(((1, 2), (0, 2), (0, 1)), angles, strict=True):
        turn = np.eye(3)
        turn[[i, i, j, j], [i, j, i, j]] = (
            np.cos(angle),
            -np.sin(angle),
            np.sin(angle),
            np.cos(angle),
        )
        matrix = turn @ matrix
    shear = np.eye(3) + np.triu(rng.uniform(-limits.shear, limits.shear, (3, 3)), 1)
    if limits.flip and rng.random() < 0.5:
        shear = shear @ np.diag([-1.0, 1.0, 1.0])
    return matrix @ shear


def _tissue_loss(
    head: Head, limits: DeformationRange, rng: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray:
    """Displacement of the ventricles' walls and of the surface, (3, *shape), in voxels of `head`.

    It points to where the moved head takes its tissue from and fades with the distance.
    """
    step = [head.spacing * old / new for old, new in zip(head.tissue.shape, shape, strict=True)]
    total = np.zeros((3, *shape), np.float32)
    moves = (
        (head.to_lateral, -rng.uniform(0, limits.ventricles)),
        (head.to_surface, rng.uniform(0, limits.atrophy)),
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


def deform(head: Head, rng: np.random.Generator, limits: DeformationRange | None = None) -> Head:
    """Deform a head: random affine map, smooth displacement, width of the ventricles, atrophy.

    The deformed head is on the same grid, nearest neighbour.
    """
    limits = limits or DeformationRange()
    shape = head.tissue.shape
    matrix = _random_matrix(limits, rng)
    centre = (np.asarray(shape, dtype=np.float32) - 1) / 2
    spacing = head.spacing
    coarse = tuple(max(2, round(n * spacing / _COARSE)) for n in shape)
    field = smooth_noise(coarse, limits.spacing / _COARSE, rng, channels=3)
    field *= limits.displacement / spacing
    field = resize_linear(field + _tissue_loss(head, limits, rng, coarse), shape)
    index = torch.zeros(shape, dtype=torch.int64)
    axes = [torch.arange(n, dtype=torch.float32) - c for n, c in zip(shape, centre, strict=True)]
    for row in range(3):
        source = torch.from_numpy(field[row]) + float(centre[row])
        for column in range(3):
            view = [1, 1, 1]
            view[column] = -1
            source += float(matrix[row, column]) * axes[column].view(view)
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
