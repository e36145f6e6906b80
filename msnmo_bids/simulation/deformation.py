"""Random affine and nonlinear deformation of a head."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from msnmo_bids.simulation.anatomy import Head
from msnmo_bids.simulation.random_fields import smooth_noise


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
    """

    rotation: float = 8.0
    scaling: float = 0.12
    shear: float = 0.03
    displacement: float = 3.0
    spacing: float = 28.0
    flip: bool = True


def _random_matrix(limits: DeformationRange, rng: np.random.Generator) -> np.ndarray:
    angles = np.deg2rad(rng.uniform(-limits.rotation, limits.rotation, 3))
    matrix = np.diag(1 + rng.uniform(-limits.scaling, limits.scaling, 3))
    for (i, j), angle in zip(((1, 2), (0, 2), (0, 1)), angles, strict=True):
        turn = np.eye(3)
        turn[[i, i, j, j], [i, j, i, j]] = (
            np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle),
        )  # fmt: skip
        matrix = turn @ matrix
    shear = np.eye(3) + np.triu(rng.uniform(-limits.shear, limits.shear, (3, 3)), 1)
    if limits.flip and rng.random() < 0.5:
        shear = shear @ np.diag([-1.0, 1.0, 1.0])
    return matrix @ shear


def deform(head: Head, rng: np.random.Generator, limits: DeformationRange | None = None) -> Head:
    """Deform a head by a random affine map and a random smooth displacement.

    Parameters
    ----------
    head : Head
        The head; it is not changed.
    rng : numpy.random.Generator
        Source of randomness.
    limits : DeformationRange, optional
        How far.

    Returns
    -------
    Head
        The deformed head on the same grid, nearest neighbour.
    """
    limits = limits or DeformationRange()
    shape = head.tissue.shape
    matrix = _random_matrix(limits, rng)
    centre = (np.asarray(shape, dtype=np.float32) - 1) / 2
    spacing = head.spacing
    field = smooth_noise(shape, limits.spacing / spacing, rng, channels=3)
    field *= limits.displacement / spacing
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
