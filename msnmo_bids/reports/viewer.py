"""What the page's interactive viewer shows: FLAIR, lesions and class activation, packed as text.

The viewer is a small canvas script of our own (`templates/viewer.js`): a library such as NiiVue
would bring WebGL and workers into every page, and would need a laxer content
security policy; three planes with two overlays need neither.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import nibabel as nib
import numpy as np
from scipy import ndimage

from msnmo_bids.bids.names import CAM_PREFIX, derivative_paths
from msnmo_bids.bids.records import ScanRecord
from msnmo_bids.errors import BadInputError
from msnmo_bids.reports.figures import relative_activation
from msnmo_bids.reports.slices import bounding_box, load_ras, window

#: All viewers of a page together (characters); the page itself stays under 15 MB.
PAGE_BUDGET = 9_000_000
FINEST_MM = 0.7  # smaller voxels are averaged
CAM_MM = 3.0
GREYS = 63  # fewer grey values pack better, and no screen shows more of so narrow a window
_COARSER = 1.25
_CAM_STEPS = 127


@dataclass(frozen=True)
class Viewer:
    """A scan for the viewer: arrays with x fastest, gzip, base64.

    ``about`` is JSON: shape, affine (index to RAS mm), voxel size, CAM grid and reach, and the
    place of each lesion. FLAIR: uint8 grey values; lesions: uint16 (little endian) numbers; CAMs,
    by class: int8 relative activation, on a grid of their own.
    """

    about: str
    flair: str
    lesions: str
    cams: dict[str, str]
    greys: ClassVar[int] = GREYS + 1

    @property
    def size(self) -> int:
        """Characters in the page."""
        texts = (self.about, self.flair, self.lesions, *self.cams.values())
        return sum(len(text) for text in texts)


def scan_viewer(output_dir: Path, record: ScanRecord, budget: int) -> Viewer | None:
    """Pack a scan with results for the viewer; coarser, if it would exceed `budget` characters.

    None when an image is missing or cannot be read.
    """
    classes = list(record.diagnosis["Probabilities"])
    paths = derivative_paths(record.folder, record.prefix, classes)
    try:
        flair = load_ras(output_dir / paths["preproc"])
        labels = load_ras(output_dir / paths["lesion_labels"]).data.astype(np.uint16)
        cams = {name: load_ras(output_dir / paths[f"{CAM_PREFIX}{name}"]).data for name in classes}
    except BadInputError:
        return None
    box = bounding_box(flair.data > 0, flair.zooms, 3.0)
    affine = flair.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ np.array([part.start for part in box])
    volumes = flair.data[box], labels[box], {name: cam[box] for name, cam in cams.items()}
    finest = FINEST_MM
    viewer = _packed(*volumes, affine, finest)
    while viewer.size > budget and finest < 10:
        finest *= _COARSER
        viewer = _packed(*volumes, affine, finest)
    return viewer


def _packed(
    flair: np.ndarray,
    labels: np.ndarray,
    cams: Mapping[str, np.ndarray],
    affine: np.ndarray,
    finest: float,
) -> Viewer:
    zooms = nib.affines.voxel_sizes(affine)
    steps = _steps(zooms, finest)
    cam_steps = _steps(zooms, CAM_MM)
    low, high = window(flair[flair > 0])
    grey = np.rint(np.clip((_means(flair, steps) - low) / (high - low), 0, 1) * GREYS)
    numbers = _blocks(labels, steps).max(axis=(1, 3, 5))
    relative = {n: _means(cam, cam_steps) for n, cam in relative_activation(cams).items()}
    strong = [np.percentile(np.abs(cam[cam != 0]), 99.5) for cam in relative.values() if cam.any()]
    reach = float(max(strong, default=1.0))
    coarse = affine @ np.diag([*steps, 1.0])
    coarse[:3, 3] = affine[:3, 3] + affine[:3, :3] @ ((np.array(steps) - 1) / 2)
    about = {
        "shape": list(grey.shape),
        "zooms": [round(float(z * s), 4) for z, s in zip(zooms, steps, strict=True)],
        "affine": [[round(float(value), 4) for value in row] for row in coarse[:3]],
        "camShape": [-(-n // s) for n, s in zip(flair.shape, cam_steps, strict=True)],
        "camPerVoxel": [a / b for a, b in zip(steps, cam_steps, strict=True)],
        "camReach": round(reach, 3),
        "places": _places(numbers),
    }
    return Viewer(
        about=json.dumps(about, separators=(",", ":")),
        flair=_text((grey * (255 // GREYS)).astype(np.uint8)),
        lesions=_text(numbers.astype("<u2")),
        cams={
            name: _text(np.rint(np.clip(cam / reach, -1, 1) * _CAM_STEPS).astype(np.int8))
            for name, cam in relative.items()
        },
    )


def _steps(zooms: np.ndarray, finest: float) -> tuple[int, ...]:
    """How many voxels to join along each axis so that none is smaller than `finest`."""
    return tuple(max(1, int(np.ceil(finest / float(zoom) - 0.05))) for zoom in zooms)


def _blocks(data: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
    """Split into blocks, (X, a, Y, b, Z, c); the last ones are filled up with zeros."""
    pad = [(0, -n % s) for n, s in zip(data.shape, steps, strict=True)]
    shape = [part for n, s in zip(data.shape, steps, strict=True) for part in (-(-n // s), s)]
    return np.pad(data, pad).reshape(shape)


def _means(data: np.ndarray, steps: tuple[int, ...]) -> np.ndarray:
    return _blocks(data, steps).mean(axis=(1, 3, 5), dtype=np.float32)


def _places(numbers: np.ndarray) -> dict[str, list[int]]:
    """Return for each lesion the voxel of its own that is nearest to its centroid."""
    places = {}
    for number, box in enumerate(ndimage.find_objects(numbers.astype(np.int32)), start=1):
        if box is None:
            continue
        index = np.argwhere(numbers[box] == number)
        nearest = index[((index - index.mean(axis=0)) ** 2).sum(axis=1).argmin()]
        places[str(number)] = [int(n + part.start) for n, part in zip(nearest, box, strict=True)]
    return places


def _text(array: np.ndarray) -> str:
    return b64encode(gzip.compress(array.tobytes(order="F"), 9, mtime=0)).decode("ascii")
