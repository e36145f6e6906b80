"""Whole heads as tissue maps: from FreeSurfer-style label maps or from the MNI tissue maps.

The heads are in RAS order with 1 mm voxels. Beside the tissue they carry distances to the
structures that lesions keep to; a deformed head takes its distances along, which is exact enough
for placing lesions and spares a distance transform a sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy import ndimage

from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.geometry import box_around
from msnmo_bids.preprocessing.nifti_file import read_nifti
from msnmo_bids.settings import hash_file


class Tissue(IntEnum):
    """Tissue classes of a simulated head."""

    AIR = 0
    WHITE_MATTER = 1
    CORTEX = 2
    DEEP_GREY = 3
    LATERAL_VENTRICLE = 4
    THIRD_VENTRICLE = 5
    FOURTH_VENTRICLE = 6
    CSF = 7
    CEREBELLAR_WHITE = 8
    CEREBELLAR_CORTEX = 9
    BRAINSTEM = 10
    CHOROID_PLEXUS = 11
    SOFT_TISSUE = 12
    SCALP = 13
    BONE = 14
    MARROW = 15
    EYE = 16
    VESSEL = 17


BRAIN = tuple(range(Tissue.WHITE_MATTER, Tissue.CHOROID_PLEXUS + 1))
INFRATENTORIAL = (Tissue.CEREBELLAR_WHITE, Tissue.CEREBELLAR_CORTEX, Tissue.BRAINSTEM)

#: FreeSurfer's labels, and those that SynthSeg's whole-head maps use outside the brain.
FREESURFER_TISSUE = {
    **dict.fromkeys((2, 41, 25, 57, 77, 251, 252, 253, 254, 255), Tissue.WHITE_MATTER),
    **dict.fromkeys((3, 42, 17, 53, 18, 54), Tissue.CORTEX),
    **dict.fromkeys(
        (10, 49, 11, 50, 12, 51, 13, 52, 26, 58, 28, 60, 85, 136, 137, 163, 164), Tissue.DEEP_GREY
    ),
    **dict.fromkeys((4, 43, 5, 44, 72), Tissue.LATERAL_VENTRICLE),
    14: Tissue.THIRD_VENTRICLE,
    15: Tissue.FOURTH_VENTRICLE,
    24: Tissue.CSF,
    **dict.fromkeys((7, 46), Tissue.CEREBELLAR_WHITE),
    **dict.fromkeys((8, 47), Tissue.CEREBELLAR_CORTEX),
    16: Tissue.BRAINSTEM,
    **dict.fromkeys((31, 63), Tissue.CHOROID_PLEXUS),
    **dict.fromkeys((30, 62, 502, 514), Tissue.VESSEL),
    **dict.fromkeys((507, 508, 509, 512, 530), Tissue.SOFT_TISSUE),
    506: Tissue.EYE,
    511: Tissue.SCALP,
    515: Tissue.BONE,
    516: Tissue.MARROW,
}

#: Distances are stored in quarters of a millimetre, as one byte.
DISTANCE_STEP = 0.25

_SEPTUM_WIDTH = 7  # mm
_NECK = 35.0  # mm, kept under the brain of a whole head


@dataclass(frozen=True)
class Head:
    """A head on an isotropic grid in RAS order, of 1 mm unless it was resampled.

    Parameters
    ----------
    tissue : ndarray, (X, Y, Z), uint8
        Values of `Tissue`.
    to_lateral, to_lower, to_cortex : ndarray, (X, Y, Z), uint8
        Distance to the lateral ventricles, to the third and fourth ventricle, and to the cortex
        (quarters of a millimetre, at most 255).
    to_surface : ndarray, (X, Y, Z), int8
        Distance to the brain's surface, positive outside (quarters of a millimetre).
    frequency : ndarray, (X, Y, Z), uint8
        How often lesions of MS lie here: 255 at the most frequent place, all 0 when unknown.
    affine : ndarray, (4, 4)
        Index to RAS mm.
    name : str
        Where the head comes from.
    """

    tissue: np.ndarray
    to_lateral: np.ndarray
    to_lower: np.ndarray
    to_cortex: np.ndarray
    to_surface: np.ndarray
    frequency: np.ndarray
    affine: np.ndarray
    name: str

    @property
    def maps(self) -> tuple[np.ndarray, ...]:
        """The voxel-wise arrays, in the order of the constructor."""
        distances = (self.to_lateral, self.to_lower, self.to_cortex, self.to_surface)
        return (self.tissue, *distances, self.frequency)

    @property
    def spacing(self) -> float:
        """Voxel size (mm)."""
        return float(np.linalg.norm(self.affine[:3, 0]))

    @cached_property
    def septum(self) -> np.ndarray:
        """White matter between the lateral ventricles, (X, Y, Z), bool: no place for lesions."""
        ventricle = (self.tissue == Tissue.LATERAL_VENTRICLE).astype(np.float32)
        around = ndimage.uniform_filter(ventricle, round(_SEPTUM_WIDTH / self.spacing))
        return (around > 0.45) & (self.tissue == Tissue.WHITE_MATTER)

    @cached_property
    def median_plane(self) -> float:
        """First index of the plane between both lateral ventricles."""
        ventricle = (self.tissue == Tissue.LATERAL_VENTRICLE).any(axis=(1, 2))
        across = np.flatnonzero(ventricle)
        return float(across.mean()) if across.size else (len(ventricle) - 1) / 2

    def resampled(self, spacing: float) -> Head:
        """Return the head on a coarser or finer grid (mm), nearest neighbour.

        A sample for a small cube needs no 1 mm head: time and memory go with the voxels.
        """
        if abs(spacing - self.spacing) < 1e-6:
            return self
        factor = spacing / self.spacing
        shape = [max(1, int(n / factor)) for n in self.tissue.shape]
        maps = [
            m[np.ix_(*(((np.arange(n) + 0.5) * factor).astype(int) for n in shape))]
            for m in self.maps
        ]
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ np.full(3, factor / 2 - 0.5)
        affine[:3, :3] *= factor
        return self.with_maps(maps, affine)

    def with_maps(self, maps: Sequence[np.ndarray], affine: np.ndarray) -> Head:
        """Return a head of the same name with other maps, in the order of `maps`."""
        tissue, lateral, lower, cortex, surface, frequency = map(np.ascontiguousarray, maps)
        return Head(tissue, lateral, lower, cortex, surface, frequency, affine, self.name)

    def cropped(self, margin: int) -> Head:
        """Return the part around the brain with ``margin`` voxels on each side."""
        return self.part(box_around(self.to_surface <= 0, margin))

    def part(self, box: tuple[slice, ...]) -> Head:
        """Return what lies in a box of voxels."""
        affine = self.affine.copy()
        affine[:3, 3] += affine[:3, :3] @ [s.start or 0 for s in box]
        return self.with_maps([m[box] for m in self.maps], affine)


def _distance(mask: np.ndarray) -> np.ndarray:
    if not mask.any():
        return np.full(mask.shape, 255, np.uint8)
    return np.minimum(ndimage.distance_transform_edt(~mask) / DISTANCE_STEP, 255).astype(np.uint8)


def closed(mask: np.ndarray, radius: float) -> np.ndarray:
    """Close a mask, (X, Y, Z), bool, with a ball of a radius (voxels).

    The mask should keep the radius away from the border.
    """
    dilated = ndimage.distance_transform_edt(~mask) <= radius
    return ndimage.distance_transform_edt(dilated) > radius


def _brain_mask(tissue: np.ndarray) -> np.ndarray:
    """Parenchyma and ventricles, sulci closed, cut 10 mm under the cerebellum."""
    parenchyma = np.isin(tissue, [t for t in BRAIN if t != Tissue.CSF])
    brain = ndimage.binary_fill_holes(closed(parenchyma, 4.0))
    cerebellum = np.flatnonzero((tissue == Tissue.CEREBELLAR_CORTEX).any(axis=(0, 1)))
    if cerebellum.size:
        brain[:, :, : max(0, cerebellum[0] - 10)] = False
    return brain


def head_from_tissue(tissue: np.ndarray, affine: np.ndarray, name: str) -> Head:
    """Add the distances to a tissue map, (X, Y, Z) uint8 of `Tissue`, RAS, 1 mm.

    `affine`, (4, 4), brings its index to RAS mm; the name says where the head comes from.
    """
    brain = _brain_mask(tissue)
    inside = ndimage.distance_transform_edt(brain)
    outside = ndimage.distance_transform_edt(~brain)
    surface = np.clip((outside - inside) / DISTANCE_STEP, -127, 127).astype(np.int8)
    return Head(
        tissue=tissue,
        to_lateral=_distance(tissue == Tissue.LATERAL_VENTRICLE),
        to_lower=_distance(np.isin(tissue, (Tissue.THIRD_VENTRICLE, Tissue.FOURTH_VENTRICLE))),
        to_cortex=_distance(tissue == Tissue.CORTEX),
        to_surface=surface,
        frequency=np.zeros_like(tissue),
        affine=affine,
        name=name,
    )


def load_head(path: Path) -> Head:
    """Read a whole-head map (NIfTI) with FreeSurfer labels; it is resampled to 1 mm.

    Raises
    ------
    BadInputError
        When it cannot be read, or has no white matter or no lateral ventricle.
    """
    image = nib.as_closest_canonical(read_nifti(path))
    labels = np.asarray(image.dataobj).astype(np.int32)
    lookup = np.full(max(int(labels.max()), 600) + 1, Tissue.SOFT_TISSUE, np.uint8)
    lookup[0] = Tissue.AIR
    for label, kind in FREESURFER_TISSUE.items():
        lookup[label] = kind
    tissue = lookup[labels]
    for needed in (Tissue.WHITE_MATTER, Tissue.LATERAL_VENTRICLE):
        if not (tissue == needed).any():
            problem = f"the label map has no {needed.name.lower().replace('_', ' ')}"
            remedy = "Give whole-head maps with FreeSurfer's labels"
            raise BadInputError(problem, file=path, remedy=remedy)
    zooms = np.asarray(image.header.get_zooms()[:3])
    affine = image.affine
    if np.abs(zooms - 1).max() > 0.01:
        tissue = ndimage.zoom(tissue, zooms, order=0, grid_mode=True, mode="nearest")
        scale = labels.shape / np.asarray(tissue.shape)
        affine = affine @ np.diag([*scale, 1])
        affine[:3, 3] += image.affine[:3, :3] @ (scale / 2 - 0.5)
    found = box_around(tissue > 0, 0)
    affine = affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [s.start for s in found]
    return head_from_tissue(np.ascontiguousarray(tissue[found]), affine, _stem(path))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _label_maps(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise BadInputError("there is no such folder of label maps", file=folder)
    paths = sorted(p for p in folder.glob("*.nii*") if p.name.endswith((".nii", ".nii.gz")))
    if not paths:
        raise BadInputError("no label map (*.nii.gz) in this folder", file=folder)
    return paths


def whole_heads(folder: Path, most: int) -> list[Head]:
    """Read up to `most` label maps of a folder as whole heads, for scans with a skull.

    Raises
    ------
    BadInputError
        When the folder has no label map.
    """
    heads = []
    for path in _label_maps(folder)[:most]:
        head = load_head(path)
        low = np.flatnonzero((head.to_surface <= 0).any(axis=(0, 1)))[0]
        heads.append(head.part((slice(None), slice(None), slice(max(0, int(low - _NECK)), None))))
    return heads


def load_heads(folder: Path, cache: Path | None = None) -> list[Head]:
    """Read all label maps, ``*.nii.gz`` or ``*.nii``, cropped to the surroundings of the brain.

    `cache` keeps the prepared heads, since the distances take seconds per head.

    Raises
    ------
    BadInputError
        When the folder has no label map.
    """
    heads = []
    for path in _label_maps(folder):
        kept = None if cache is None else cache / f"{path.name}-{hash_file(path)[:16]}.npz"
        if kept is not None and kept.is_file():
            with np.load(kept) as stored:
                tissue, *distances, affine = (stored[f"arr_{i}"] for i in range(6))
            known = {"frequency": np.zeros_like(tissue), "affine": affine, "name": _stem(path)}
            heads.append(Head(tissue, *distances, **known))
            continue
        head = load_head(path).cropped(margin=12)
        if kept is not None:
            with atomic_path(kept) as temporary:
                np.savez(temporary, *head.maps[:-1], head.affine)
        heads.append(head)
    return heads
