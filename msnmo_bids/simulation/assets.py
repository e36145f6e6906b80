"""What simulated scans are made of: heads, and single lesions: real ones of a library, or ovoids.

Lesions of MS do not scatter over the white matter: they gather at the horns, the trigones and the
bodies of the lateral ventricles, at like places on both sides. A library of real lesions in MNI
space shows where; an affine registration of tissue maps brings that to each head.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from zipfile import BadZipFile

import nibabel as nib
import numpy as np
from scipy import ndimage

from msnmo_bids.errors import BadInputError
from msnmo_bids.lesions.registration import register_affine
from msnmo_bids.simulation.anatomy import BRAIN, Head, Tissue, closed, head_from_tissue, load_heads

_PADDING = 24  # voxels around the MNI maps, for skull and scalp
#: MNI152 is larger than people's heads: with this factor its brain has 1.5 l, as adults' do.
PERSON_SIZE = 0.92
_CORTEX_MM = 3.0  # thickness of the cortex
_RIDGE_MM, _RIDGE_SLOPE = 1.9, 0.5  # least distance to white matter of a sulcus, and its slope
_EYES = ((-33.0, 66.0, -33.0), (33.0, 66.0, -33.0))  # MNI mm

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


def mni_head(size: float = 1.0) -> Head:
    """Build a head (RAS, 1 mm) on the MNI152 tissue maps that nilearn ships.

    Its lengths are those of MNI space times `size`. The maps hold the brain only. Ventricles and
    infratentorial tissue are told from the rest by their place; skull, scalp, eyes and soft tissue
    are drawn around the brain. It is one head of ordinary shape, good for tests and demonstrations;
    real label maps vary more.
    """
    tissue, affine = mni_tissue()
    if size != 1:
        tissue = ndimage.zoom(tissue, size, order=0, grid_mode=True, mode="nearest")
        affine[:3, 3] = size * affine[:3, 3] + (1 - size) / 2  # of the centre of the first voxel
    return head_from_tissue(tissue, affine, "MNI152")


def mni_tissue() -> tuple[np.ndarray, np.ndarray]:
    """Tell the tissues of the MNI152 maps: values of `Tissue`, (X, Y, Z) uint8, RAS, 1 mm.

    The affine, (4, 4), brings the index to MNI mm. The maps are a mean of 152 people, in which
    sulci are blurred: they are drawn where a person has them (`_fold`).
    """
    (t1, affine), (grey, _), (white, _) = (_load(name) for name in ("t1", "gm", "wm"))
    place = np.meshgrid(*(np.arange(n) for n in t1.shape), indexing="ij", sparse=True)
    x, y, z = (axis + affine[i, 3] for i, axis in enumerate(place))
    brain = ndimage.binary_fill_holes(closed(t1 > 30, 3.0))
    depth = ndimage.distance_transform_edt(brain)
    tissue = _brain_tissue(grey, white, brain, depth, (x, y, z))
    [box] = ndimage.find_objects(brain.astype(np.uint8))
    _fold(tissue[box])
    _add_outside(tissue, brain, (x, y, z))
    return tissue, affine


def _load(name: str) -> tuple[np.ndarray, np.ndarray]:
    file = files("nilearn.datasets.data") / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    image = nib.Nifti1Image.from_filename(str(file))
    affine = image.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, _PADDING)
    return np.pad(np.asarray(image.dataobj), _PADDING), affine


def _brain_tissue(
    grey: np.ndarray,
    white: np.ndarray,
    brain: np.ndarray,
    depth: np.ndarray,
    place: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    x, y, z = place
    fluid = brain & (grey.astype(int) + white < 110)
    tissue = np.zeros(brain.shape, np.uint8)
    tissue[brain] = Tissue.CORTEX
    tissue[brain & (white > grey)] = Tissue.WHITE_MATTER
    central = (np.hypot(x / 30, (y + 10) / 45) < 1) & (z > -16) & (z < 22)
    deep = (tissue == Tissue.CORTEX) & central & (depth > 20) & (np.abs(x) < 34)
    tissue[deep] = Tissue.DEEP_GREY
    tissue[fluid] = Tissue.CSF
    inner = fluid & (depth > 12)
    third = inner & (np.abs(x) <= 5) & (y > -32) & (y < 12) & (z > -16) & (z < 12)
    fourth = fluid & (np.abs(x) < 13) & (y > -60) & (y < -34) & (z > -48) & (z < -16)
    lateral = inner & ~third & (np.abs(x) < 44) & (y > -62) & (y < 40) & (z > -20) & (z < 34)
    lateral &= (np.abs(x) < 24) | (y < -10)
    lateral = ndimage.binary_opening(lateral)
    tissue[lateral] = Tissue.LATERAL_VENTRICLE
    tissue[third] = Tissue.THIRD_VENTRICLE
    tissue[fourth] = Tissue.FOURTH_VENTRICLE
    stem = (np.hypot(x / 19, (y + 27 - 0.25 * (z + 35)) / 17) < 1) & (z < -10) & (z > -75)
    cerebellum = z < -12 - 0.30 * (np.abs(x) - 5).clip(0) + 0.10 * (-60 - y).clip(0)
    cerebellum = cerebellum & (np.hypot(x / 56, (y + 66) / 34) < 1)
    solid = (tissue == Tissue.WHITE_MATTER) | (tissue == Tissue.CORTEX) | deep
    tissue[cerebellum & solid & (white > grey)] = Tissue.CEREBELLAR_WHITE
    tissue[cerebellum & solid & (white <= grey)] = Tissue.CEREBELLAR_CORTEX
    tissue[stem & solid] = Tissue.BRAINSTEM
    return tissue


def _fold(tissue: np.ndarray) -> None:
    """Draw sulci and a cortical ribbon into the hemispheres, folia into the cerebellum, in place.

    In the mean of many people the gyri's white matter is sharp and what lies between is grey. A
    sulcus lies where two gyri meet: where the distance to white matter has a ridge. Cortex is what
    lies within 3 mm of fluid.
    """
    hemisphere = np.isin(tissue, (Tissue.WHITE_MATTER, Tissue.CORTEX))
    core = (Tissue.WHITE_MATTER, Tissue.DEEP_GREY, Tissue.LATERAL_VENTRICLE, Tissue.THIRD_VENTRICLE,
            Tissue.BRAINSTEM)  # fmt: skip
    sulcus = _ridge(~np.isin(tissue, core)) & (tissue == Tissue.CORTEX)
    folium = _ridge(tissue != Tissue.CEREBELLAR_WHITE) & (tissue == Tissue.CEREBELLAR_CORTEX)
    parenchyma = np.isin(tissue, [kind for kind in BRAIN if kind != Tissue.CSF])
    depth = ndimage.distance_transform_edt(parenchyma & ~sulcus)
    tissue[hemisphere] = Tissue.WHITE_MATTER
    tissue[hemisphere & (depth < _CORTEX_MM)] = Tissue.CORTEX
    tissue[sulcus | folium] = Tissue.CSF


def _ridge(away: np.ndarray) -> np.ndarray:
    """Return the sheets in the midst of a mask, (X, Y, Z), bool: there its depth has no slope."""
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(away), 0.7)
    slope = np.sqrt(sum(along**2 for along in np.gradient(depth)))
    return ndimage.binary_closing((slope < _RIDGE_SLOPE) & (depth > _RIDGE_MM))


def _add_outside(
    tissue: np.ndarray, brain: np.ndarray, place: tuple[np.ndarray, np.ndarray, np.ndarray]
) -> None:
    """Draw meninges, skull, scalp, soft tissue of face and neck, and eyes, in place."""
    x, y, z = place
    smooth = closed(brain, 12.0)
    away = ndimage.distance_transform_edt(~smooth)
    face = np.hypot(np.hypot(x / 70, (y - 22) / 78), (z + 55) / 75) < 1
    neck = (np.hypot(x / 55, (y + 25) / 58) < 1) & (z < -45)
    tissue[(tissue == 0) & (face | neck)] = Tissue.SOFT_TISSUE
    soft = tissue == Tissue.SOFT_TISSUE
    skin = soft & ~ndimage.binary_erosion(soft, iterations=4) & (away > 9)
    tissue[skin] = Tissue.SCALP
    layers = ((15.0, Tissue.SCALP), (9.5, Tissue.SOFT_TISSUE), (8.0, Tissue.BONE),
              (6.0, Tissue.MARROW), (4.5, Tissue.BONE), (2.5, Tissue.CSF))  # fmt: skip
    for reach, kind in layers:
        above = z > (-62 if kind in (Tissue.BONE, Tissue.CSF) else -48)
        tissue[~brain & (away <= reach) & above] = kind
    for eye in _EYES:
        radius = np.sqrt((x - eye[0]) ** 2 + (y - eye[1]) ** 2 + (z - eye[2]) ** 2)
        tissue[(radius < 12.5) & ~brain] = Tissue.EYE
        fat = (radius >= 12.5) & (radius < 16) & ~brain & (y < eye[1] + 8)
        tissue[fat] = Tissue.SCALP


@dataclass(frozen=True)
class LesionFrequency:
    """How often lesions of MS lie at a place; `affine` is index to MNI mm.

    The values, (X, Y, Z) float32, are 0 to 1, relative to the most frequent place, and the same on
    both sides.
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
    """Real lesion shapes: the 1 mm voxels of each, (n, 3) float32, centred at 0 (mm, RAS).

    `frequency` is how often they lie at a place, when that is known.
    """

    points: tuple[np.ndarray, ...]
    frequency: LesionFrequency | None = None

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
        When it cannot be read, or an array is missing or has another shape.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            voxels, start, affine = stored["voxels"], stored["start"], stored["affine"]
        if voxels.shape[1:] != (3,) or affine.shape != (4, 4) or start.ndim != 1:
            raise ValueError("arrays of other shapes")
    except (OSError, KeyError, TypeError, ValueError, BadZipFile, zlib.error) as error:
        remedy = "It needs the arrays voxels, (n, 3), start, (lesions + 1), and affine, (4, 4)"
        problem = f"not a library of lesion shapes ({error})"
        raise BadInputError(problem, file=path, remedy=remedy) from error
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
    """What simulated scans are made of: anatomies to deform, real lesion shapes (None: ovoids).

    With shapes the heads know how often their lesions lie at a place.
    """

    heads: list[Head]
    shapes: ShapeLibrary | None = None


def load_assets(
    anatomy: Path | None, shapes: Path | None = None, cache: Path | None = None
) -> SimulationAssets:
    """Read heads of a folder of whole-head label maps, and a library of lesion shapes (.npz).

    Without the first there is the one head built from the MNI maps, without the second there are
    ovoids. `cache` is a folder for prepared heads. MsnmoError if something else is there.
    """
    heads = [mni_head()] if anatomy is None else load_heads(anatomy, cache)
    return assets_with(heads, shapes)


def assets_with(heads: list[Head], shapes: Path | None) -> SimulationAssets:
    """Add the library of lesion shapes, if there is one, to heads, as `load_shapes` reads it."""
    if shapes is None:
        return SimulationAssets(heads)
    library = load_shapes(shapes)
    if library.frequency is not None:
        heads = [with_frequency(head, library.frequency) for head in heads]
    return SimulationAssets(heads, library)
