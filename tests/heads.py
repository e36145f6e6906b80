"""A head with one bright block at a known place, in many geometries, and what an SVG shows."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from msnmo_bids.bids.records import ScanRecord, Status
from msnmo_bids.model.weights import WeightsMetadata

CLASSES = ("MS", "NMOSD")
#: Of the program and the weights that hand-made derivatives are made by.
VERSION, WEIGHTS = "9.9.9", WeightsMetadata("tiny", "1", sha256="a" * 64)
BRAIN_RADII = np.array([60.0, 75.0, 55.0])
# RAS mm: at the person's left, in front of the middle, above it.
BLOCK = np.array([[-45.0, -25.0], [18.0, 42.0], [10.0, 30.0]])


def rotation(degrees: float, axis: int) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.eye(3)
    one, other = [k for k in range(3) if k != axis]
    turn[one, one] = turn[other, other] = np.cos(angle)
    turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
    return turn


GEOMETRIES = {
    "RAS": (np.diag([3.0, 3, 3]), (60, 66, 54)),
    "LAS": (np.diag([-3.0, 3, 3]), (60, 66, 54)),
    "LPS anisotropic": (np.diag([-1.5, -1.5, 7]), (120, 132, 22)),
    "oblique": (rotation(14, 0) @ rotation(9, 2) @ np.diag([2.0, 2, 5]), (90, 100, 34)),
    "sagittal slices": (np.array([[0, 0, -6.0], [-2, 0, 0], [0, -2, 0]]), (100, 84, 28)),
}


@dataclass(frozen=True)
class Head:
    """Files of one head."""

    flair: Path
    brain: Path
    lesions: Path
    labels: Path
    cams: dict[str, Path]


def write_head(folder: Path, geometry: str = "RAS", *, empty: bool = False) -> Head:
    """Write an ellipsoid brain with a bright block, centred at the origin."""
    axes, shape = GEOMETRIES[geometry]
    affine = np.eye(4)
    affine[:3, :3] = axes
    affine[:3, 3] = -axes @ ((np.array(shape) - 1) / 2)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    place = nib.affines.apply_affine(affine, index)
    brain = np.linalg.norm(place / BRAIN_RADII, axis=-1) < 1
    block = ((place >= BLOCK[:, 0]) & (place <= BLOCK[:, 1])).all(axis=-1)
    block &= not empty
    ventricle = np.linalg.norm(place, axis=-1) < 15
    flair = np.where(block, 300.0, np.where(ventricle, 20.0, 100.0)) * brain
    arrays = {
        "flair": flair.astype(np.float32),
        "brain": brain.astype(np.uint8),
        "lesions": block.astype(np.uint8),
        "labels": block.astype(np.int16),
        "MS": (2.0 * block - 0.5 * brain).astype(np.float32),
        "NMOSD": (-1.0 * block).astype(np.float32),
    }
    files = {}
    for name, array in arrays.items():
        files[name] = folder / f"{name}.nii"
        nib.save(nib.Nifti1Image(array, affine), files[name])
    cams = {name: files.pop(name) for name in CLASSES}
    return Head(**files, cams=cams)


@dataclass(frozen=True)
class Picture:
    """An embedded picture: grey pixels and where they lie in the SVG (points)."""

    pixels: np.ndarray
    left: float
    top: float
    scale: tuple[float, float]

    def place(self, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return x and y of pixel centres."""
        return self.left + (columns + 0.5) * self.scale[0], self.top + (rows + 0.5) * self.scale[1]

    def extent(self, threshold: int) -> tuple[float, float, float, float]:
        """Return left, right, top and bottom of the pixels above a threshold."""
        rows, columns = np.nonzero(self.pixels > threshold)
        x, y = self.place(rows, columns)
        half = np.array(self.scale) / 2
        return (x.min() - half[0], x.max() + half[0], y.min() - half[1], y.max() + half[1])


IMAGE = re.compile(
    r'<image xlink:href="data:image/png;base64,([^"]+)"[^>]*transform="matrix\(([^)]*)\)"'
)
TEXT = re.compile(r'<text[^>]* x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]*)</text>')
PATH = re.compile(r'<path d="([^"]+)"[^>]*style="([^"]*)"')


def pictures(svg: str) -> list[Picture]:
    found = []
    for data, matrix in IMAGE.findall(svg):
        a, b, c, d, e, f = map(float, matrix.replace(",", " ").split())
        assert (b, c) == (0, 0)
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L"))
        found.append(Picture(pixels, e, f, (a, d)))
    return found


def texts(svg: str, content: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y, text in TEXT.findall(svg) if text == content]


def outlines(svg: str, colour: str) -> list[np.ndarray]:
    """Return the vertices (n, 2) of every path drawn in a colour."""
    paths = []
    for path, style in PATH.findall(svg):
        if f"stroke: {colour.lower()}" in style:
            numbers = [float(number) for number in re.findall(r"[\d.]+", path)]
            paths.append(np.array(numbers).reshape(-1, 2))
    return paths


def entry(relative: str, status: str = "pending", **problem: str) -> ScanRecord:
    """Return what the latest run said of a scan."""
    path = Path(relative)
    prefix = path.name.removesuffix(".nii.gz").removesuffix("_FLAIR")
    entities = dict(part.split("-", 1) for part in prefix.split("_"))
    return ScanRecord(
        relative, entities["sub"], entities.get("ses"), prefix, path.parent.as_posix(),
        Status(status), **problem,
    )  # fmt: skip


def diagnosis(relative: str, **changes: Any) -> dict[str, Any]:
    """Return the content of a diagnosis file."""
    return {
        "Sources": [f"bids:raw:{relative}"],
        "Description": "Diagnosis",
        "Diagnosis": "MS",
        "Reason": None,
        "Probabilities": {"MS": 0.75, "NMOSD": 0.25},
        "Calibration": {"Temperature": 1.5, "Method": "temperature scaling", "Data": "simulated"},
        "LesionCount": 2,
        "LesionCountSmall": 1,
        "LesionVolume": 1.25,
        "BrainVolume": 1234.5,
        "Regions": {"periventricular": {"Count": 2, "Volume": 1.25}},
        "Flags": ["thick_slices"],
        "Threshold": 0.5,
        "MinimumLesionVolume": 3.0,
        "Model": {"Name": "joint", "Version": "1", "SHA256": "c" * 64, "TrainedOn": ["simulated"]},
        "Device": "cpu",
        "Precision": "bf16",
        "RandomSeed": 0,
        "SkullStripping": {"Tool": "deepbet", "Version": "1.0.2", "Settings": {"threshold": 0.5}},
        "BiasCorrection": {"Tool": "antspyx N4", "Version": "0.6.3", "Settings": {}},
        "VoxelSize": [0.9, 0.9, 6.0],
        "Shape": [256, 256, 20],
        "Settings": {"skull_strip": "deepbet"},
        "Fingerprint": "d" * 64,
        "GeneratedBy": {"Name": "msnmo", "Version": "1.2.3"},
        "Methods": "The skull was removed [@deepbet] and lesions were found [@joint_model].",
        "Outputs": [],
        "Disclaimer": "none",
        **changes,
    }
