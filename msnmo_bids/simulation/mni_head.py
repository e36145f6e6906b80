"""A head built on the MNI152 tissue maps that nilearn ships, for use after a bare install.

The maps hold the brain only. Ventricles and infratentorial tissue are told from the rest by their
place in MNI space; skull, scalp, eyes and soft tissue are drawn around the brain. It is one head
of ordinary shape, good for tests and demonstrations; real label maps (`load_head`) vary more.
"""

from __future__ import annotations

from importlib.resources import files

import nibabel as nib
import numpy as np
from scipy import ndimage

from msnmo_bids.simulation.anatomy import Head, Tissue, closed, head_from_tissue

_PADDING = 24  # voxels around the maps, for skull and scalp
#: MNI152 is larger than people's heads: with this factor its brain has 1.5 l, as adults' do.
PERSON_SIZE = 0.92
_EYES = ((-33.0, 66.0, -33.0), (33.0, 66.0, -33.0))  # MNI mm


def mni_head(size: float = 1.0) -> Head:
    """Build the head (RAS, 1 mm), its lengths times `size`; with 1 it lies in MNI space."""
    tissue, affine = mni_tissue()
    if size != 1:
        tissue = ndimage.zoom(tissue, size, order=0, grid_mode=True, mode="nearest")
        affine[:3, 3] = size * affine[:3, 3] + (1 - size) / 2  # of the centre of the first voxel
    return head_from_tissue(tissue, affine, "MNI152")


def mni_tissue() -> tuple[np.ndarray, np.ndarray]:
    """Tell the tissues of the MNI152 maps: values of `Tissue`, (X, Y, Z) uint8, RAS, 1 mm.

    The affine, (4, 4), brings the index to MNI mm.
    """
    t1, grey, white = (_load(name) for name in ("t1", "gm", "wm"))
    affine = _affine()
    place = np.meshgrid(*(np.arange(n) for n in t1.shape), indexing="ij", sparse=True)
    x, y, z = (axis + affine[i, 3] for i, axis in enumerate(place))
    brain = ndimage.binary_fill_holes(closed(t1 > 30, 3.0))
    depth = ndimage.distance_transform_edt(brain)
    tissue = _brain_tissue(t1, grey, white, brain, depth, (x, y, z))
    _add_outside(tissue, brain, (x, y, z))
    return tissue, affine


def _load(name: str) -> np.ndarray:
    file = files("nilearn.datasets.data") / f"mni_icbm152_{name}_tal_nlin_sym_09a_converted.nii.gz"
    data = np.asarray(nib.Nifti1Image.from_filename(str(file)).dataobj)
    return np.pad(data, _PADDING)


def _affine() -> np.ndarray:
    file = files("nilearn.datasets.data") / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
    affine = nib.Nifti1Image.from_filename(str(file)).affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ np.full(3, _PADDING)
    return affine


def _brain_tissue(
    t1: np.ndarray,
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
    cerebellum = (y < -36) & (z < -12 - 0.30 * (np.abs(x) - 5).clip(0) + 0.10 * (-60 - y).clip(0))
    solid = (tissue == Tissue.WHITE_MATTER) | (tissue == Tissue.CORTEX) | deep
    tissue[cerebellum & solid & (white > grey)] = Tissue.CEREBELLAR_WHITE
    tissue[cerebellum & solid & (white <= grey)] = Tissue.CEREBELLAR_CORTEX
    tissue[stem & solid] = Tissue.BRAINSTEM
    return tissue


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
