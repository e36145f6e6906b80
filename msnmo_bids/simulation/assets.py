"""What simulated scans are made of: heads, and single lesions: real ones of a library, or ovoids.

Lesions of MS do not scatter over the white matter: they gather at the horns, the trigones and the
bodies of the lateral ventricles, at like places on both sides. A library of real lesions in MNI
space shows where; an affine registration of tissue maps brings that to each head.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from msnmo_bids.errors import BadInputError
from msnmo_bids.lesions.registration import register_affine
from msnmo_bids.simulation.anatomy import BRAIN, Head, Tissue, load_heads
from msnmo_bids.simulation.mni_head import mni_head, mni_tissue

#: Grid of the frequency of lesions in MNI space, and its blur.
_SPACING = 3.0  # mm
_BLUR = 4.0  # mm, s.d.
_LOW, _HIGH = np.array((-93.0, -129.0, -75.0)), np.array((93.0, 93.0, 111.0))  # MNI mm
_REGISTERED_AT = 2.0  # mm
_FLUID = (
    Tissue.LATERAL_VENTRICLE,
    Tissue.THIRD_VENTRICLE,
    Tissue.FOURTH_VENTRICLE,
    Tissue.CSF,
    Tissue.CHOROID_PLEXUS,
)
_GREY = (Tissue.CORTEX, Tissue.DEEP_GREY, Tissue.CEREBELLAR_CORTEX)

#: Real shapes beyond these volumes (mm³) are specks or whole confluent brains.
SINGLE_LESION_RANGE = (40, 6000)
#: Largest factor that a real shape is magnified by, along each axis.
LARGEST_MAGNIFICATION = 1.7


@dataclass(frozen=True)
class LesionFrequency:
    """How often lesions of MS lie at a place.

    Parameters
    ----------
    values : ndarray, (X, Y, Z), float32
        0 to 1, relative to the most frequent place; the same on both sides.
    affine : ndarray, (4, 4)
        Index to MNI mm.
    """

    values: np.ndarray
    affine: np.ndarray


def lesion_frequency(lesions: Iterable[np.ndarray]) -> LesionFrequency:
    """Sum up where lesions lie, by the voxels of each, (n, 3) in MNI mm.

    A lesion counts by the square root of its volume: the few confluent ones, which hold most
    voxels, shall not be all that is seen.
    """
    shape = tuple(np.rint((_HIGH - _LOW) / _SPACING).astype(int) + 1)
    total = np.zeros(shape)
    for points in lesions:
        index = np.rint((points - _LOW) / _SPACING).astype(int)
        inside = ((index >= 0) & (index < shape)).all(axis=1)
        np.add.at(total, tuple(index[inside].T), len(points) ** -0.5)
    total = ndimage.gaussian_filter(total + total[::-1], _BLUR / _SPACING)
    affine = np.diag([_SPACING] * 3 + [1.0])
    affine[:3, 3] = _LOW
    return LesionFrequency((total / max(total.max(), 1e-12)).astype(np.float32), affine)


def with_frequency(head: Head, frequency: LesionFrequency) -> Head:
    """Return an undeformed head that knows how often lesions of MS lie at its places."""
    matrix = np.linalg.inv(frequency.affine) @ mni_affine(head)
    values = ndimage.affine_transform(
        frequency.values, matrix[:3, :3], matrix[:3, 3], head.tissue.shape, order=1
    )
    return replace(head, frequency=np.rint(255 * values).clip(0, 255).astype(np.uint8))


def mni_affine(head: Head) -> np.ndarray:
    """Register an undeformed head to the MNI152 brain: (4, 4), index of the head to MNI mm."""
    step = max(1, round(_REGISTERED_AT / head.spacing))
    reference, affine = _reference()
    mni_zooms = np.linalg.norm(affine[:3, :3], axis=0)
    found = register_affine(
        _contrast(head.tissue[::step, ::step, ::step]),
        (step * head.spacing,) * 3,
        reference,
        mni_zooms,
    )
    return affine @ found @ np.diag([1 / step] * 3 + [1.0])


@cache
def _reference() -> tuple[np.ndarray, np.ndarray]:
    tissue, affine = mni_tissue()
    step = round(_REGISTERED_AT)
    return _contrast(tissue[::step, ::step, ::step]), affine @ np.diag([step] * 3 + [1.0])


def _contrast(tissue: np.ndarray) -> np.ndarray:
    """Render the brain with the contrast of a T1w image, 0 outside."""
    brightness = np.zeros(len(Tissue), np.float32)
    brightness[list(BRAIN)] = 1.0
    brightness[list(_GREY)] = 0.75
    brightness[list(_FLUID)] = 0.3
    return brightness[tissue]


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
        """Draw a shape that need not be magnified much to a volume (mm³), or its voxels would show.

        The shape's 1 mm voxels, (n, 3) float32; None when all of them are too small.
        """
        fit = np.flatnonzero(self._sizes * LARGEST_MAGNIFICATION**3 >= volume)
        return self.points[rng.choice(fit)] if fit.size else None

    @cached_property
    def _sizes(self) -> np.ndarray:
        return np.array([len(shape) for shape in self.points])


def load_shapes(path: Path) -> ShapeLibrary:
    """Read a library of lesion shapes: an ``.npz`` with ``voxels``, ``start`` and ``affine``.

    The voxels are (n, 3), start (lesions + 1), and the affine (4, 4) brings them to MNI mm.

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
    """Make an ellipsoid of a volume (mm³) with the axis ratios of MS lesions.

    `elongation` is a factor on the long axis, x (a streak: 3). The result, (n, 3) float32, are the
    half-millimetre lattice points inside, centred at 0 (mm).
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
    """Draw a rotation matrix, (3, 3), uniform over all orientations."""
    q, r = np.linalg.qr(rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    if np.linalg.det(q) < 0:
        q[:, 0] = -q[:, 0]
    return q


@dataclass(frozen=True)
class SimulationAssets:
    """What simulated scans are made of.

    Parameters
    ----------
    heads : list of Head
        Anatomies to deform; with a library they know how often its lesions lie at a place.
    shapes : ShapeLibrary or None
        Real lesion shapes; None: ovoids.
    """

    heads: list[Head]
    shapes: ShapeLibrary | None = None


def load_assets(
    anatomy: Path | None, shapes: Path | None = None, cache: Path | None = None
) -> SimulationAssets:
    """Read heads of a folder of whole-head label maps, and a library of lesion shapes (.npz).

    Without the first there is the one head built from the MNI maps, without the second there are
    ovoids. `cache` is a folder for prepared heads.

    Raises
    ------
    MsnmoError
        If a folder or file is missing or holds something else.
    """
    heads = [mni_head()] if anatomy is None else load_heads(anatomy, cache)
    return assets_with(heads, shapes)


def assets_with(heads: list[Head], shapes: Path | None) -> SimulationAssets:
    """Add the library of lesion shapes (.npz), if there is one, to heads that were read.

    Raises
    ------
    BadInputError
        If the file is not such a library.
    """
    if shapes is None:
        return SimulationAssets(heads)
    library = load_shapes(shapes)
    if library.frequency is not None:
        heads = [with_frequency(head, library.frequency) for head in heads]
    return SimulationAssets(heads, library)
