"""Where a lesion lies: its region, and locations within it such as the corpus callosum.

A probabilistic atlas, averaged from whole-head label maps in MNI space, is brought to the scan by
an affine registration of FLAIR to FLAIR; the scan's own dark fluid then corrects the ventricles.
An affine map does not follow the folds of a cortex, so regions are approximate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from typing import NamedTuple

import nibabel as nib
import numpy as np
from scipy import ndimage

from msnmo_bids.lesions.registration import register_affine
from msnmo_bids.preprocessing.geometry import enlarged

REGIONS = ("periventricular", "infratentorial", "juxtacortical", "deep")

OUTSIDE, VENTRICLE, INFRATENTORIAL, CORTEX, DEEP, FOURTH_VENTRICLE = range(6)
#: Structures of the atlas that make up each map, in the order of the codes 1 to 5.
ATLAS_MAPS = {
    "ventricle": ("lateral_ventricle", "third_ventricle"),
    "infratentorial": ("brainstem", "cerebellum"),
    "cortex": ("cortex",),
    "deep": ("deep_grey", "white_matter"),
    "fourth_ventricle": ("fourth_ventricle",),
}
#: Structures of the atlas, in the order of its file.
STRUCTURES = tuple(name for structures in ATLAS_MAPS.values() for name in structures)

#: BIDS' name of the atlas's space.
MNI_SPACE = "MNI152NLin2009aSym"

#: The atlas's file holds whole numbers: probabilities and contrast times these.
ATLAS_STEPS, FLAIR_STEPS = 64, 32

_FLUID = 0.65  # fluid is darker than this share of the brain's median
_HALF_FLUID = 0.85  # a voxel at the ventricle's wall is darker than this
_PRIOR_CORE = 0.3  # fluid is ventricle where the atlas gives it this probability,
_PRIOR_REACH = 0.08  # and from there on to where it gives it this
_CORTEX_SHARE = 0.2  # of a lesion and its neighbourhood in the cortex, to be juxtacortical
_THICK = 2.5  # voxels longer than this (mm) are not dilated across

#: A lesion lies at a location with this much of it there (mm³: a sphere of 3 mm) or with a half; at
#: one that passes through tissue in which lesions of any kind lie, with a half.
LEAST_VOLUME, LEAST_SHARE = 14.0, 0.5


@lru_cache(maxsize=1)
def load_structures() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the atlas, structure by structure, as float32.

    That is the probability of each of the `STRUCTURES`, (8, X, Y, Z), the mean FLAIR contrast of
    the brain, (X, Y, Z), 0 outside, and the affine, (4, 4), from index to MNI mm.
    """
    with (
        (files("msnmo_bids.lesions") / "data" / "region_atlas.npz").open("rb") as stream,
        np.load(stream, allow_pickle=False) as stored,
    ):
        maps = stored["maps"].astype(np.float32) / ATLAS_STEPS
        return maps, stored["flair"].astype(np.float32) / FLAIR_STEPS, stored["affine"]


@lru_cache(maxsize=1)
def load_atlas() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the atlas as `load_structures`, with the probability of the `ATLAS_MAPS` (5)."""
    structures, flair, affine = load_structures()
    by_name = dict(zip(STRUCTURES, structures, strict=True))
    maps = [sum(by_name[name] for name in names) for names in ATLAS_MAPS.values()]
    return np.stack(maps), flair, affine


class Regions(NamedTuple):
    """The regions of a scan, and where it lies.

    Codes, (X, Y, Z), int8: 0 outside of the brain, 1 lateral or third ventricle, 2 brainstem or
    cerebellum, 3 cortex, 4 deep white and grey matter, 5 fourth ventricle. ``to_mni``, (4, 4), goes
    from the scan's index to MNI mm (affine registration) and multiplies column vectors.
    """

    codes: np.ndarray
    to_mni: np.ndarray


def locate_regions(values: np.ndarray, brain: np.ndarray, zooms: Sequence[float]) -> Regions:
    """Map the regions of a scan, and say where it lies in MNI space.

    FLAIR and brain mask (bool) are (X, Y, Z), in RAS order, of voxels of `zooms` mm. No random
    number is drawn: equal input gives equal output.

    Raises
    ------
    ValueError
        The brain is empty.
    """
    _, atlas, atlas_affine = load_atlas()
    # The arrays' own axes, not the scanner's: slices are tilted to lie as the atlas's do.
    matrix = register_affine(values * brain, zooms, atlas, nib.affines.voxel_sizes(atlas_affine))
    codes = np.zeros(values.shape, np.int8)
    [box] = ndimage.find_objects(brain.astype(np.uint8))
    inside = nib.affines.from_matvec(np.eye(3), [part.start for part in box])
    prior = atlas_on_grid(matrix @ inside, values[box].shape)
    codes[box] = refine(prior, values[box], brain[box], zooms)
    return Regions(codes, atlas_affine @ matrix)


def atlas_on_grid(matrix: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Sample the atlas's probabilities on the grid of a scan: (5, X, Y, Z), float32.

    `matrix`, (4, 4), brings the scan's index to the atlas's; `shape` is the scan's, (X, Y, Z).
    """
    way = {"matrix": matrix[:3, :3], "offset": matrix[:3, 3], "output_shape": tuple(shape)}
    return np.stack([ndimage.affine_transform(m, order=1, **way) for m in load_atlas()[0]])


def refine(
    prior: np.ndarray, values: np.ndarray, brain: np.ndarray, zooms: Sequence[float]
) -> np.ndarray:
    """Turn atlas probabilities into region codes of `Regions`, the ventricles by dark fluid.

    Fluid is ventricle where it joins, through fluid in the atlas's wider reach, a place that the
    atlas holds to be ventricle: so ventricles wider than the atlas's are followed, and sulci beside
    it are not. The rim of half-filled voxels belongs to them, so that a lesion at the wall touches
    them. `prior`, (5, X, Y, Z), has the probabilities of the `ATLAS_MAPS` on the scan's grid; FLAIR
    and brain mask (bool) are (X, Y, Z), of voxels of `zooms` mm.
    """
    codes = np.zeros(values.shape, np.int8)
    tissue = prior[INFRATENTORIAL - 1 : DEEP].copy()
    tissue[0] += prior[FOURTH_VENTRICLE - 1]  # without fluid it is infratentorial tissue
    likeliest = tissue.argmax(axis=0) + INFRATENTORIAL
    # Beyond the atlas, where it knows no class, lies what skull stripping left at the surface.
    codes[brain] = np.where(prior.any(axis=0), likeliest, CORTEX)[brain]
    relative = values / max(float(np.median(values[brain])), 1e-12)
    for code in (FOURTH_VENTRICLE, VENTRICLE):
        reach = brain & (prior[code - 1] > _PRIOR_REACH)
        fluid = reach & (relative < _FLUID)
        core = fluid & (prior[code - 1] > _PRIOR_CORE)
        ventricle = ndimage.binary_propagation(core, mask=fluid)  # through faces only
        rim = ndimage.binary_dilation(ventricle, _neighbours(_reach(zooms)))
        codes[ventricle | (rim & reach & (relative < _HALF_FLUID))] = code
    return codes


def assign_regions(
    labels: np.ndarray, region_codes: np.ndarray, zooms: Sequence[float]
) -> dict[int, str]:
    """Assign each lesion to one region, by its label.

    A lesion is periventricular when it touches a lateral or the third ventricle after dilation by
    one voxel; else infratentorial when most of it is; else juxtacortical (or cortical) when a fifth
    of it and its neighbourhood is cortex; else deep. Labels, 1 to n, and codes of `Regions` are
    (X, Y, Z), of voxels of `zooms` mm; axes with thick slices are not dilated across.
    """
    structure = _neighbours(_reach(zooms))
    assigned: dict[int, str] = {}
    for number, found in enumerate(ndimage.find_objects(labels), start=1):
        if found is None:
            continue
        box = enlarged(found, 1, labels.shape)
        lesion = labels[box] == number
        codes = region_codes[box]
        around = codes[ndimage.binary_dilation(lesion, structure)]
        if (around == VENTRICLE).any():
            region = "periventricular"
        elif np.isin(codes[lesion], (INFRATENTORIAL, FOURTH_VENTRICLE)).mean() > 0.5:
            region = "infratentorial"
        elif (around == CORTEX).mean() >= _CORTEX_SHARE:
            region = "juxtacortical"
        else:
            region = "deep"
        assigned[number] = region
    return assigned


def _reach(zooms: Sequence[float]) -> tuple[int, ...]:
    """One voxel along each axis, none across thick slices (unless all axes are thick)."""
    reach = tuple(int(size <= _THICK) for size in zooms)
    return reach if any(reach) else (1, 1, 1)


def _neighbours(reach: Sequence[int]) -> np.ndarray:
    return np.ones([2 * steps + 1 for steps in reach], dtype=bool)


@dataclass(frozen=True)
class Location:
    """A place within the regions: a tube around a line in MNI space.

    The tube is wide enough for what an affine registration misses. A lesion can lie at several
    locations, and lies in its region all the same.

    Straight lines join the points (MNI mm); what is nearer than ``radius`` (mm) belongs to the
    location, with ``both_sides`` on the mirrored side too. ``half_width`` (mm) across the
    midsagittal plane is free: a sheet instead of a tube. ``nmosd``: it is typical of NMOSD;
    ``with_half``: a lesion must have half of itself there, however large it is.
    """

    line: tuple[tuple[float, float, float], ...]
    radius: float
    half_width: float = 0.0
    both_sides: bool = False
    nmosd: bool = True
    with_half: bool = False

    def holds(self, places: np.ndarray) -> np.ndarray:
        """Say which places, (..., 3) in MNI mm, lie in the location: bool, (...)."""
        points = np.array(places, dtype=float)
        if self.both_sides:
            points[..., 0] = np.abs(points[..., 0])
        across = points[..., 0]
        points[..., 0] = np.sign(across) * np.maximum(np.abs(across) - self.half_width, 0)
        nearest = [_distance(points, *ends) for ends in pairwise(np.array(self.line))]
        return np.min(nearest, axis=0) <= self.radius


LOCATIONS = {
    "corpus_callosum": Location(
        ((0, 22, -4), (0, 29, 6), (0, 20, 20), (0, 0, 26), (0, -22, 25), (0, -36, 16), (0, -37, 8)),
        radius=6.0,
        half_width=9.0,
        nmosd=False,
    ),
    "periaqueductal_fourth_ventricle": Location(
        ((0, -29, -4), (0, -34, -14), (0, -39, -24), (0, -43, -34), (0, -43, -44)), radius=9.0
    ),
    "area_postrema": Location(((0, -42, -48), (0, -43, -56)), radius=6.0),
    "hypothalamus_third_ventricle": Location(
        ((0, 2, -10), (0, -5, -6), (0, -14, 0), (0, -25, 1)), radius=8.0
    ),
    "corticospinal_tract": Location(
        ((34, -24, 54), (27, -22, 32), (23, -19, 10), (15, -17, -12), (7, -23, -32), (4, -36, -54)),
        radius=5.0,
        both_sides=True,
        with_half=True,
    ),
}
NMOSD_LOCATIONS = tuple(name for name, location in LOCATIONS.items() if location.nmosd)


def lesion_locations(
    labels: np.ndarray, to_mni: np.ndarray, voxel_volume: float
) -> dict[int, dict[str, float]]:
    """Find the locations at which each lesion, 1 to n of the labels, (X, Y, Z), lies.

    `to_mni`, (4, 4), brings the index to MNI mm; the volumes of a voxel, and within each location
    at which a lesion lies (none: empty), are in mm³.
    """
    found: dict[int, dict[str, float]] = {}
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        if box is None:
            continue
        index = np.argwhere(labels[box] == number) + [part.start for part in box]
        places = nib.affines.apply_affine(to_mni, index)
        volumes = {
            name: float(np.count_nonzero(location.holds(places))) * voxel_volume
            for name, location in LOCATIONS.items()
        }
        half = LEAST_SHARE * len(index) * voxel_volume
        found[number] = {
            name: volume
            for name, volume in volumes.items()
            if volume >= (half if LOCATIONS[name].with_half else min(LEAST_VOLUME, half)) > 0
        }
    return found


def _distance(points: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Return the distance of points (..., 3) from the line between two points."""
    along = end - start
    share = np.clip((points - start) @ along / (along @ along), 0, 1)
    return np.linalg.norm(points - start - share[..., None] * along, axis=-1)
