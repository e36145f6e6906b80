"""What the classifier is told of each lesion: its size, shape and place as a row of numbers.

Training, app and report take them from here. They need the labels of the lesions and the regions of
the scan: the registered atlas, corrected by the ventricles found in the scan. What tells multiple
sclerosis from NMOSD is which surface a lesion lies at, and whether it stands on it or follows it
(Matthews et al. 2013, Neurology 80:1330-1337; Kim et al. 2015, Neurology 84:1165-1173).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import nibabel as nib
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from msnmo_bids.lesions.regions import (
    CORTEX,
    FOURTH_VENTRICLE,
    LOCATIONS,
    OUTSIDE,
    STRUCTURES,
    VENTRICLE,
    Regions,
    load_structures,
)

#: Name and meaning of each descriptor, in the order of the columns. The ventricles below the
#: lateral ones ("lower") are the third and the fourth with the aqueduct between them.
DESCRIPTORS = {
    "log_volume": "natural logarithm of the volume (mm³)",
    "mni_x": "distance of the centre from the midsagittal plane (MNI mm)",
    "mni_y": "centre, to the front (MNI mm)",
    "mni_z": "centre, upwards (MNI mm)",
    "lateral_least": "least distance to a lateral ventricle (mm)",
    "lateral_mean": "mean distance to the lateral ventricles (mm)",
    "lateral_most": "greatest distance to the lateral ventricles (mm)",
    "lower_least": "least distance to the lower ventricles (mm)",
    "ventricle_mean": "mean distance to the nearest ventricle (mm)",
    "cortex_least": "least depth below the cortex (mm)",
    "cortex_mean": "mean depth below the cortex (mm)",
    "brainstem": "share in the brainstem",
    "cerebellum": "share in the cerebellum",
    "deep_grey": "share in the deep grey matter",
    "cortex": "share in the cortex",
    "callosum": "share in the corpus callosum",
    "long_axis": "length of the longest axis (mm)",
    "middle_axis": "length of the middle axis (mm)",
    "short_axis": "length of the shortest axis (mm)",
    "middle_ratio": "middle axis over longest",
    "short_ratio": "shortest axis over longest",
    "standing": "angle of the long axis to the ventricle's surface (degrees; 90: stands on it)",
    "thickness": "of its thickest part (mm)",
    "fill": "volume over that of an ellipsoid with the same axes",
    "near_lateral": "share within 3 mm of the lateral ventricles",
    "near_lower": "share within 3 mm of the lower ventricles",
    "midline": "least distance from the midsagittal plane (MNI mm)",
}

_NEAR = 3.0  # mm
_FARTHEST = 100.0  # mm: what lies farther, or outside of the field of view, is as far
_AQUEDUCT = ((0.0, -26, -1), (0.0, -29, -5), (0.0, -33, -13), (0.0, -37, -21))  # MNI mm
_SHARES = ("brainstem", "cerebellum", "deep_grey", "cortex")
_ATLAS_CORE = 0.5  # of a structure's highest probability: where the atlas itself puts it


def describe_lesions(labels: np.ndarray, regions: Regions, zooms: Sequence[float]) -> np.ndarray:
    """Describe each lesion of a scan: (n, 27), float32, a row per lesion, columns `DESCRIPTORS`.

    Labels are 1 to n, 0 elsewhere, (X, Y, Z), on the grid of the regions, of voxels of `zooms` mm.

    Raises
    ------
    ValueError
        A label between 1 and n has no voxel.
    """
    if not labels.any():
        return np.zeros((0, len(DESCRIPTORS)), np.float32)
    lesions = _Lesions(labels)
    places = nib.affines.apply_affine(regions.to_mni, lesions.index)
    size = np.asarray(zooms, dtype=float)
    columns = _place(lesions, places) | _surfaces(lesions, regions, size)
    columns |= _shape(lesions, labels, size)
    return np.column_stack([columns[name] for name in DESCRIPTORS]).astype(np.float32)


class _Lesions:
    """The voxels of all lesions, sorted by lesion, and what is summed up over each."""

    def __init__(self, labels: np.ndarray) -> None:
        index = np.argwhere(labels)
        numbers = labels[tuple(index.T)]
        self.index = index[np.argsort(numbers, kind="stable")]
        self.sizes = np.bincount(numbers)[1:]
        if not self.sizes.all():
            raise ValueError("lesions must be labelled 1 to n without a gap")
        self._starts = np.cumsum(self.sizes) - self.sizes

    def least(self, values: np.ndarray) -> np.ndarray:
        return np.minimum.reduceat(values, self._starts)

    def most(self, values: np.ndarray) -> np.ndarray:
        return np.maximum.reduceat(values, self._starts)

    def mean(self, values: np.ndarray) -> np.ndarray:
        return (np.add.reduceat(values, self._starts).T / self.sizes).T


def _place(lesions: _Lesions, places: np.ndarray) -> dict[str, np.ndarray]:
    """Where lesions lie in the atlas; ``places`` are their voxels, (N, 3), MNI mm."""
    centre = lesions.mean(places)
    shares = dict(zip(_SHARES, _probabilities(places, _SHARES), strict=True))
    shares["callosum"] = LOCATIONS["corpus_callosum"].holds(places).astype(float)
    return {
        "mni_x": np.abs(centre[:, 0]),
        "mni_y": centre[:, 1],
        "mni_z": centre[:, 2],
        "midline": lesions.least(np.abs(places[:, 0])),
        **{name: lesions.mean(share) for name, share in shares.items()},
    }


def _surfaces(lesions: _Lesions, regions: Regions, zooms: np.ndarray) -> dict[str, np.ndarray]:
    """How far lesions are from ventricles and cortex, and how they stand on the ventricle."""
    points = lesions.index * zooms
    lateral, lower = _ventricles(regions, zooms)
    to_lateral, at_lateral = _nearest(points, lateral)
    to_lower, at_lower = _nearest(points, lower)
    nearer = np.where((to_lateral <= to_lower)[:, None], at_lateral, at_lower)
    depth, _ = _nearest(points, _inner_cortex(regions.codes) * zooms)
    depth[regions.codes[tuple(lesions.index.T)] == CORTEX] = 0.0
    away = lesions.mean(points - nearer)
    _, axes = _axes(lesions, zooms)
    away /= np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    along = np.abs(np.einsum("ni,ni->n", away, axes)).clip(0, 1)
    return {
        "lateral_least": lesions.least(to_lateral),
        "lateral_mean": lesions.mean(to_lateral),
        "lateral_most": lesions.most(to_lateral),
        "lower_least": lesions.least(to_lower),
        "ventricle_mean": lesions.mean(np.minimum(to_lateral, to_lower)),
        "cortex_least": lesions.least(depth),
        "cortex_mean": lesions.mean(depth),
        "near_lateral": lesions.mean((to_lateral <= _NEAR).astype(float)),
        "near_lower": lesions.mean((to_lower <= _NEAR).astype(float)),
        "standing": np.degrees(np.arcsin(along)),
    }


def _shape(lesions: _Lesions, labels: np.ndarray, zooms: np.ndarray) -> dict[str, np.ndarray]:
    """Size and shape; an axis is that of the ellipsoid with the same second moments."""
    volume = lesions.sizes * zooms.prod()
    lengths, _ = _axes(lesions, zooms)
    long, middle, short = lengths.T
    return {
        "log_volume": np.log(volume),
        "long_axis": long,
        "middle_axis": middle,
        "short_axis": short,
        "middle_ratio": middle / long,
        "short_ratio": short / long,
        "thickness": _thickness(labels, zooms),
        "fill": volume / (np.pi / 6 * long * middle * short),
    }


def _axes(lesions: _Lesions, zooms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lengths of the axes (mm), (n, 3), longest first, and direction of the longest, (n, 3).

    A voxel is as long as it is: its own second moment is added.
    """
    points = lesions.index * zooms
    offset = points - np.repeat(lesions.mean(points), lesions.sizes, axis=0)
    moments = lesions.mean(offset[:, :, None] * offset[:, None, :]) + np.diag(zooms**2 / 12)
    variances, directions = np.linalg.eigh(moments)
    return 2 * np.sqrt(5 * variances[:, ::-1]), directions[:, :, -1]


def _thickness(labels: np.ndarray, zooms: np.ndarray) -> np.ndarray:
    """Twice the greatest depth of each lesion, (n,), mm, to half a voxel."""
    depths = [
        ndimage.distance_transform_edt(np.pad(labels[box] == number, 1), sampling=zooms).max()
        for number, box in enumerate(ndimage.find_objects(labels), start=1)
    ]
    return 2 * np.array(depths) - zooms.min() / 2


def _ventricles(regions: Regions, zooms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points (mm) of the lateral ventricles, and of third and fourth with the aqueduct.

    A ventricle that was not found in the scan, as one that flow makes bright, lies where the atlas
    puts it.
    """
    found = np.argwhere(regions.codes == VENTRICLE)
    names = ("lateral_ventricle", "third_ventricle")
    is_lateral, is_third = _probabilities(nib.affines.apply_affine(regions.to_mni, found), names)
    third = is_third > is_lateral
    voxels = {
        "lateral_ventricle": found[~third],
        "third_ventricle": found[third],
        "fourth_ventricle": np.argwhere(regions.codes == FOURTH_VENTRICLE),
    }
    structures, _, affine = load_structures()
    from_mni = np.linalg.inv(regions.to_mni)
    for name, index in voxels.items():
        if not len(index):
            atlas = structures[STRUCTURES.index(name)]
            core = np.argwhere(atlas > _ATLAS_CORE * atlas.max())
            voxels[name] = nib.affines.apply_affine(from_mni @ affine, core)
    line = [np.linspace(start, end, 8) for start, end in pairwise(_AQUEDUCT)]
    aqueduct = nib.affines.apply_affine(from_mni, np.concatenate(line))
    lateral, *lower = voxels.values()
    return lateral * zooms, np.concatenate([*lower, aqueduct]) * zooms


def _inner_cortex(codes: np.ndarray) -> np.ndarray:
    """Voxels of the cortex, (N, 3), beside other tissue of the brain."""
    cortex = codes == CORTEX
    return np.argwhere(cortex & ndimage.binary_dilation((codes != OUTSIDE) & ~cortex))


def _nearest(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance (mm) of points, (N, 3), to the nearest of others, and which that is, (N, 3)."""
    if not len(others):
        return np.full(len(points), _FARTHEST), points
    distance, nearest = cKDTree(others, balanced_tree=False).query(points)
    return np.minimum(distance, _FARTHEST), others[nearest]


def _probabilities(places: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
    """Return the atlas's probability of each structure, (N,), at places, (N, 3), MNI mm."""
    structures, _, affine = load_structures()
    index = nib.affines.apply_affine(np.linalg.inv(affine), places).T
    return [
        ndimage.map_coordinates(structures[STRUCTURES.index(name)], index, order=1)
        for name in names
    ]
