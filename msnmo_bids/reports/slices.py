"""Sections of a volume as they are drawn: neurological convention, true proportions.

Everything is reoriented to RAS by permuting and flipping axes (no interpolation), so that the
sections of an oblique scan follow its own slices. A section is an array ``(rows, columns)`` whose
first row is the top of the picture: the person's left is on the left of axial and coronal sections,
the front is on the right of sagittal ones.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.geometry import box_around
from msnmo_bids.reports.panels import Panel

AXIS = {"sagittal": 0, "coronal": 1, "axial": 2}
SIDES = {"axial": ("L", "R"), "coronal": ("L", "R"), "sagittal": ("P", "A")}
_AXIS_NAME = {"sagittal": "x", "coronal": "y", "axial": "z"}
WINDOW_PERCENTILES = (0.5, 10, 50, 99.8)  # black, darkest tenth, median, white

#: A box of voxels: what cuts it out of an array (X, Y, Z).
Box = tuple[slice, ...]


@dataclass(frozen=True)
class Volume:
    """Voxel values, (X, Y, Z), whose axes go right, forward and up.

    The affine, (4, 4), goes from index to RAS mm and multiplies column vectors.
    """

    data: np.ndarray
    affine: np.ndarray

    @property
    def zooms(self) -> tuple[float, ...]:
        """Voxel size (mm) along the three axes."""
        return tuple(np.linalg.norm(self.affine[:3, :3], axis=0).tolist())

    @property
    def obliquity(self) -> float:
        """Largest angle (degrees) between an axis of the image and its axis of the scanner."""
        cosines = np.diag(self.affine[:3, :3]) / np.array(self.zooms)
        return float(np.degrees(np.arccos(np.clip(cosines, -1, 1))).max())


def load_ras(path: Path) -> Volume:
    """Read an image as float32 and put its axes in the order right, forward, up.

    A fourth axis of length one is dropped. BadInputError if the file is missing or damaged.
    """
    try:
        image = nib.as_closest_canonical(nib.squeeze_image(nib.load(path)))
        return Volume(np.asarray(image.dataobj, dtype=np.float32), image.affine)
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        raise BadInputError(f"cannot be read ({error})", file=path) from error


def bounding_box(mask: np.ndarray, zooms: tuple[float, ...], margin_mm: float = 5.0) -> Box:
    """Return the box around a mask, (X, Y, Z), of voxels of `zooms` mm, with a margin.

    It stays inside the array, and is the whole of it when the mask is empty.
    """
    return box_around(mask, [int(np.ceil(margin_mm / zoom)) for zoom in zooms])


def section(data: np.ndarray, plane: str, index: int, box: Box) -> np.ndarray:
    """Cut a section out of a RAS volume (X, Y, Z): (rows, columns), first row on top.

    `index` counts voxels across the plane in the whole volume; `box` is what is kept.
    """
    across = AXIS[plane]
    cut = tuple(index if axis == across else kept for axis, kept in enumerate(box))
    return np.rot90(data[cut])


def flair_panel(
    volume: Volume, plane: str, index: int, box: Box, limits: tuple[float, float]
) -> Panel:
    """Return a section in grey, with its position (mm) as note; `limits` are black and white."""
    values = section(volume.data, plane, index, box)
    grey = np.clip((values - limits[0]) / (limits[1] - limits[0]), 0, 1)
    across = AXIS[plane]
    centre = (np.array(volume.data.shape) - 1) / 2
    centre[across] = index
    position = float((volume.affine @ [*centre, 1])[across])
    lengths = [(k.stop - k.start) * zoom for k, zoom in zip(box, volume.zooms, strict=True)]
    del lengths[across]
    width, height = lengths
    note = f"{_AXIS_NAME[plane]} = {position:.0f} mm"
    return Panel(grey, (height, width), SIDES[plane], note)


def fullest(mask: np.ndarray, plane: str, fallback: np.ndarray) -> int:
    """Return the index of the section with most of a mask; of `fallback` where it is empty."""
    area = area_per_section(mask, plane)
    return int(np.argmax(area if area.any() else area_per_section(fallback, plane)))


def area_per_section(mask: np.ndarray, plane: str) -> np.ndarray:
    """Return the number of voxels of a mask in each section."""
    others = tuple(axis for axis in range(3) if axis != AXIS[plane])
    return np.count_nonzero(mask, axis=others)


def spread(mask: np.ndarray, fallback: np.ndarray, plane: str, count: int, gap: int) -> list[int]:
    """Choose `count` sections, at least `gap` voxels apart, that show most of a mask, increasing.

    Sections evenly over `fallback` fill up what the mask leaves free; there are fewer where there
    is no room.
    """
    area = area_per_section(mask, plane)
    by_area = [int(k) for k in np.argsort(-area, kind="stable") if area[k]]
    chosen: list[int] = []
    for k in by_area + evenly(fallback, plane, count):
        if len(chosen) < count and all(abs(k - other) >= gap for other in chosen):
            chosen.append(k)
    return sorted(chosen)


def evenly(mask: np.ndarray, plane: str, count: int, trim: float = 0.12) -> list[int]:
    """Return the indices of sections at equal distances through a mask, increasing, each once.

    The share `trim` of the extent is left out at either end; a single section is in the middle.
    """
    where = np.flatnonzero(area_per_section(mask, plane))
    if not len(where):
        where = np.arange(mask.shape[AXIS[plane]])
    first, last = where[0], where[-1]
    inset = (trim if count > 1 else 0.5) * (last - first)
    return sorted({round(k) for k in np.linspace(first + inset, last - inset, count)})


def window(values: np.ndarray) -> tuple[float, float]:
    """Return the grey-value window of an image from robust percentiles of some of its voxels.

    Fluid is so much darker than tissue on FLAIR that tissue would be squeezed into the bright end:
    where the median would be brighter than mid-grey, the lower end is raised until it is not, but
    not above the darkest tenth.

    The values may be those in the brain; the ends are never equal.
    """
    if not values.size:
        return 0.0, 1.0
    bottom, tenth, median, top = map(float, np.percentile(values, WINDOW_PERCENTILES))
    raised = min(2 * median - top, tenth)
    if bottom < raised < top:
        bottom = raised
    return bottom, top if top > bottom else bottom + 1.0
