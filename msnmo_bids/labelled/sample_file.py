"""Training samples, and the file of a prepared scan: cube, lesions, the way back to its own grid.

An ``.npz`` without pickled objects:

========== ==================== =========================================================
image      (D, H, W) float16    z-scores, background 0: the network's input
lesions    (D, H, W) uint8      manual lesion mask on the cube; missing without a mask
brain      (n,) uint8           brain mask on the scan's RAS grid, 8 voxels per byte
transform  text                 `CubeTransform` as JSON
zooms      (3,) float           voxel size of the RAS grid (mm)
record     text                 tools, flags, version: JSON
========== ==================== =========================================================

Reading a file that is missing or damaged is a MsnmoError.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.preprocessing.cube import CubeTransform, from_cube, labels_to_cube


@dataclass(frozen=True)
class Sample:
    """One scan as a network sees it, and what is known of it: None for what is not.

    `image`, (D, H, W) float16, holds z-scores with a background of 0; `lesions`, (D, H, W) uint8,
    is the lesion mask (0, 1), `diagnosis` the index of the class, `name`
    ``"dataset/sub-01_ses-1"``.
    """

    image: np.ndarray
    lesions: np.ndarray | None
    diagnosis: int | None
    name: str = ""


@dataclass(frozen=True)
class NativeGrid:
    """The grid of a scan in RAS order, and its brain mask, (X, Y, Z) bool.

    `transform` says where the cube lies on the grid; `zooms` is the voxel size (mm).
    """

    transform: CubeTransform
    brain: np.ndarray
    zooms: tuple[float, float, float]

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel (mm³)."""
        return float(np.prod(self.zooms))

    def to_native(self, probability: np.ndarray) -> np.ndarray:
        """Bring a probability, (D, H, W) or (C, D, H, W), back from the cube, as the app does.

        The result is float32, (X, Y, Z) or (C, X, Y, Z) in RAS order: trilinear, and 0 outside of
        the brain.

        Raises
        ------
        ValueError
            The probability has another shape than the cube.
        """
        return from_cube(probability, self.transform) * self.brain


def write_sample_file(
    target: Path,
    *,
    image: np.ndarray,
    grid: NativeGrid,
    lesions: np.ndarray | None,
    record: dict[str, Any],
) -> None:
    """Write the ``.npz`` file of a prepared scan, whole or not at all.

    `image`, (D, H, W), holds z-scores; `lesions`, (X, Y, Z) uint8, is the mask on the scan's RAS
    grid, `record` what it was made with, JSON-ready.
    """
    content: dict[str, Any] = {
        "image": image.astype(np.float16),
        "brain": np.packbits(grid.brain),
        "transform": grid.transform.to_json(),
        "zooms": np.asarray(grid.zooms, dtype=float),
        "record": json.dumps(record),
    }
    if lesions is not None:
        content["lesions"] = labels_to_cube(lesions, grid.transform)
    with atomic_path(target) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **content)


def read_cubes(file: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """Return image (D, H, W; float16) and lesions (D, H, W; uint8, or None) of a prepared scan."""
    content = _read(file, "image", "lesions")
    return content["image"], content.get("lesions")


def read_grid(file: Path) -> NativeGrid:
    """Return the grid of a prepared scan."""
    content = _read(file, "transform", "brain", "zooms")
    transform = CubeTransform.from_json(str(content["transform"]))
    count = int(np.prod(transform.source_shape))
    brain = np.unpackbits(content["brain"], count=count).astype(bool)
    x, y, z = (float(size) for size in content["zooms"])
    return NativeGrid(transform, brain.reshape(transform.source_shape), (x, y, z))


def read_record(file: Path) -> dict[str, Any]:
    """Return what a prepared scan was made with."""
    return json.loads(str(_read(file, "record")["record"]))


def _read(file: Path, *names: str) -> dict[str, np.ndarray]:
    """Read some of the arrays; a missing one that may be missing is left out."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in names if name in archive.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise MsnmoError(
            f"this prepared scan cannot be read ({error})",
            file=file,
            remedy="Remove the file: the next run prepares the scan again",
            exit_code=ExitCode.IO_ERROR,
        ) from error
