"""Brains that a training draws crops from: image, lesions and where they lie, in one file each.

A file is an ``.npz`` without pickled objects, uncompressed, so that a crop is read from it in a
millisecond:

======== ================= =====================================================================
image    (D, H, W) float16 FLAIR of the brain, "robust" normalisation; background exactly 0
lesions  (D, H, W) uint8   lesion mask
contrast (D, H, W) float16 what the lesions add to the image; simulated brains only
centres  (n, 3) int16      a voxel of each lesion (26 neighbours), in its middle
sizes    (n,) int32        voxels of each lesion
======== ================= =====================================================================
"""

from __future__ import annotations

import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage

from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.lesions.threshold import CONNECTIVITY_26


@dataclass(frozen=True)
class Brain:
    """A brain on its cube; the arrays are those of the module's docstring."""

    image: np.ndarray
    lesions: np.ndarray
    centres: np.ndarray
    sizes: np.ndarray
    contrast: np.ndarray | None = None


def make_brain(image: np.ndarray, lesions: np.ndarray, contrast: np.ndarray | None = None) -> Brain:
    """Find the lesions of a mask and put everything into the types of a file."""
    labels, count = ndimage.label(lesions > 0, CONNECTIVITY_26)
    centres = np.zeros((count, 3), np.int16)
    sizes = np.zeros(count, np.int32)
    for number, box in enumerate(ndimage.find_objects(labels)):
        voxels = np.argwhere(labels[box] == number + 1)
        middle = voxels[np.abs(voxels - voxels.mean(axis=0)).sum(axis=1).argmin()]
        centres[number] = middle + [part.start for part in box]
        sizes[number] = len(voxels)
    added = None if contrast is None else contrast.astype(np.float16)
    return Brain(image.astype(np.float16), (lesions > 0).astype(np.uint8), centres, sizes, added)


def write_brain(target: Path, brain: Brain) -> None:
    """Write a brain, whole or not at all."""
    content = {name: value for name, value in vars(brain).items() if value is not None}
    with atomic_path(target) as temporary:
        np.savez(temporary, allow_pickle=False, **content)


def read_brain(file: Path) -> Brain:
    """Open what `write_brain` wrote, its arrays mapped: a crop reads only what it shows."""
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(file) as archive, file.open("rb") as stream:
        for member in archive.infolist():
            stream.seek(member.header_offset + 26)  # where a zip tells the length of name and extra
            name, extra = struct.unpack("<HH", stream.read(4))
            stream.seek(name + extra, 1)
            np.lib.format.read_magic(stream)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            array = np.zeros(shape, dtype)
            if array.size:
                array = np.memmap(
                    file, dtype, "r", stream.tell(), shape, order="F" if fortran else "C"
                )
            arrays[member.filename.removesuffix(".npy")] = array
    return Brain(**arrays)
