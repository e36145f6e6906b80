"""Shapes of single lesions: real ones from a library, or procedural ovoids."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np

from msnmo_bids.errors import BadInputError
from msnmo_bids.simulation.lesion_frequency import LesionFrequency, lesion_frequency

#: Real shapes beyond these volumes (mm³) are specks or whole confluent brains.
SINGLE_LESION_RANGE = (40, 6000)
#: Largest factor that a real shape is magnified by, along each axis.
LARGEST_MAGNIFICATION = 1.7


@dataclass(frozen=True)
class ShapeLibrary:
    """Real lesion shapes, each centred at 0 (mm, RAS).

    Parameters
    ----------
    points : tuple of ndarray, (n, 3), float32
        The 1 mm voxels of each lesion.
    frequency : LesionFrequency or None
        How often they lie at a place, when that is known.
    """

    points: tuple[np.ndarray, ...]
    frequency: LesionFrequency | None = None

    def __len__(self) -> int:
        return len(self.points)

    def draw(self, volume: float, rng: np.random.Generator) -> np.ndarray | None:
        """Draw a shape that need not be magnified much, or its voxels would show.

        Parameters
        ----------
        volume : float
            Volume (mm³) that the shape will be scaled to.
        rng : numpy.random.Generator
            Source of randomness.

        Returns
        -------
        ndarray, (n, 3), float32, or None
            The shape's 1 mm voxels; None when all of them are too small.
        """
        fit = np.flatnonzero(self._sizes * LARGEST_MAGNIFICATION**3 >= volume)
        return self.points[rng.choice(fit)] if fit.size else None

    @cached_property
    def _sizes(self) -> np.ndarray:
        return np.array([len(shape) for shape in self.points])


def load_shapes(path: Path) -> ShapeLibrary:
    """Read a library of lesion shapes.

    Parameters
    ----------
    path : Path
        ``.npz`` with ``voxels`` (n, 3), ``start`` (lesions + 1) and ``affine`` (4, 4) from them to
        MNI mm.

    Returns
    -------
    ShapeLibrary

    Raises
    ------
    BadInputError
        When an array is missing.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            voxels, start, affine = stored["voxels"], stored["start"], stored["affine"]
    except (OSError, KeyError, ValueError) as error:
        raise BadInputError(
            f"not a library of lesion shapes ({error})",
            file=path,
            remedy="It needs the arrays voxels, start and affine",
        ) from error
    place = (voxels @ affine[:3, :3].T + affine[:3, 3]).astype(np.float32)
    lesions = [place[first:last] for first, last in pairwise(start)]
    low, high = SINGLE_LESION_RANGE
    points = tuple(one - one.mean(axis=0) for one in lesions if low <= len(one) <= high)
    return ShapeLibrary(points, lesion_frequency(lesions))


def ovoid(volume: float, rng: np.random.Generator, *, elongation: float = 1.0) -> np.ndarray:
    """Make an ellipsoid with the axis ratios of MS lesions.

    Parameters
    ----------
    volume : float
        Volume (mm³).
    rng : numpy.random.Generator
        Source of randomness.
    elongation : float, optional
        Factor on the long axis (a streak: 3).

    Returns
    -------
    ndarray, (n, 3), float32
        Half-millimetre lattice points inside, centred at 0 (mm); the long axis is x.
    """
    middle = 1 / rng.uniform(1.4, 1.9)
    minor = 1 / rng.uniform(1.8, 3.2)
    ratios = np.array([elongation, middle, minor])
    major = (volume / (4 / 3 * np.pi * ratios.prod())) ** (1 / 3)
    half = np.maximum(major * ratios, 0.6)
    reach = np.ceil(half * 2).astype(int)
    grid = np.stack(
        np.meshgrid(*(np.arange(-r, r + 1) / 2 for r in reach), indexing="ij"), axis=-1
    ).reshape(-1, 3)
    inside = ((grid / half) ** 2).sum(axis=1) <= 1
    return grid[inside].astype(np.float32)


def random_rotation(rng: np.random.Generator) -> np.ndarray:
    """Draw a rotation matrix, uniform over all orientations.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    ndarray, (3, 3)
    """
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return q
