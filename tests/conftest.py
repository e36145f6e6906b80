"""Tiny raw data sets and hand-made derivatives."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from heads import CLASSES, VERSION, WEIGHTS, diagnosis, entry
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from msnmo_bids.bids.dataset import write_json, write_shared_files, write_tsv
from msnmo_bids.bids.names import derivative_paths, figure_path, report_path
from msnmo_bids.bids.records import ScanRecord, read_scan
from msnmo_bids.bids.resume import RAW_IMAGE, VOXELS, glance, identify
from msnmo_bids.bids.scans import Scan
from msnmo_bids.bids.sidecars import MORPHOMETRY_COLUMNS
from msnmo_bids.bids.sink import ScanResults, write_scan_derivatives
from msnmo_bids.decision import decide
from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.weights import WeightsMetadata
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.simulation.anatomy import Head, Tissue, head_from_tissue

# A busy machine is slow; that is not a failure.
hypothesis_settings.register_profile(
    "steady", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("steady")

# A worker of pytest-xdist ignores Ctrl-C, and so would every program that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

TOOL = {"Tool": "none", "Version": "1", "Settings": {}}
QUALITY = {"Level": "green", "Reasons": [], "Contrast": "FLAIR", "Figures": {}}


@pytest.fixture
def settings() -> ProcessingSettings:
    return ProcessingSettings(skull_strip="deepbet", bias_correction="antspyx")


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Path]:
    """Make a raw data set of tiny images: one file for each relative path."""

    def make(*relatives: str, name: str = "raw") -> Path:
        root = tmp_path / name
        root.mkdir(parents=True, exist_ok=True)
        description = {"Name": "Tiny", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
        (root / "dataset_description.json").write_text(json.dumps(description))
        (root / "README").write_text("A tiny data set for tests, made on the fly.\n" * 5)
        for relative in relatives:
            path = root / relative
            path.parent.mkdir(parents=True, exist_ok=True)
            data = np.arange(8**3, dtype=np.int16).reshape(8, 8, 8)
            data[0, 0, 0] = len(list(root.rglob("*.nii*")))  # no two images are the same
            nib.save(nib.Nifti1Image(data, np.eye(4)), path)
        return root

    return make


@pytest.fixture(scope="session")
def made_images(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Path]]:
    """Make an image of ones on the grid of another one in RAS order, and a figure."""
    folder = tmp_path_factory.mktemp("made")

    def make(like: Path) -> dict[str, Path]:
        grid = nib.as_closest_canonical(nib.load(like))
        ones = nib.Nifti1Image(np.ones(grid.shape, np.float32), grid.affine)
        nib.save(ones, folder / "ones.nii")
        (folder / "figure.svg").write_text("<svg></svg>")
        return {"image": folder / "ones.nii", "figure": folder / "figure.svg"}

    return make


@pytest.fixture
def write_derivatives(
    settings: ProcessingSettings, made_images: Callable[..., dict[str, Path]]
) -> Callable[..., list[Path]]:
    """Write a scan's derivatives, all its images of ones; return the files that it lists."""

    def write(
        scan: Scan,
        output_dir: Path,
        settings: ProcessingSettings = settings,
        metadata: WeightsMetadata = WEIGHTS,
        version: str = VERSION,
    ) -> list[Path]:
        from msnmo_bids.workflows.scan import run_record  # it imports Nipype

        raw_image = identify(scan, glance(scan))
        raw_image[VOXELS] = raw_image["SHA256"]
        stripped = bool(scan.skull_stripped) or settings.skull_strip == "skip"
        made = made_images(scan.path)
        kinds = ("preproc", "brain_mask", "lesion_mask", "lesion_probability", "lesion_labels")
        results = ScanResults(
            images=dict.fromkeys([*kinds, *(f"cam_{one}" for one in CLASSES)], made["image"]),
            table=[{"index": 1, "volume_mm3": 512.0, "region": "deep"}],
            summary={"LesionCount": 1, "LesionCountSmall": 0, "LesionVolume": 0.512, "Regions": {}},
            decision=decide({"MS": 0.75, "NMOSD": 0.25}, lesions=1, quality=QUALITY),
            quality=QUALITY,
            figures={"lesions": made["figure"]},
        )
        provenance = {
            **run_record(settings, metadata, version),
            "Methods": f"Methods (skull stripped: {stripped}).",
            RAW_IMAGE: raw_image,
            "SkullStripping": {**TOOL, "Tool": "msnmo foreground" if stripped else "deepbet"},
            "BiasCorrection": {**TOOL, "Tool": "antspyx"},
        }
        written = write_scan_derivatives(
            scan, results, output_dir=output_dir, provenance=provenance
        )
        return [output_dir / path for path in written[:-1]]

    return write


@pytest.fixture
def make_output(
    write_derivatives: Callable[..., list[Path]], tmp_path: Path
) -> Callable[..., Path]:
    """Make a whole output folder, as both levels leave it."""

    def make(scans: tuple[Scan, ...], bids_dir: Path) -> Path:
        output_dir = tmp_path / "out"
        for scan in scans:
            write_derivatives(scan, output_dir)
            (output_dir / report_path(scan.subject)).write_text("<html></html>")
        write_shared_files(output_dir, bids_dir, CLASSES)
        return output_dir

    return make


@pytest.fixture(scope="session")
def ball_head() -> Head:
    """Scalp around white matter around a ventricle, 48 mm across."""
    radius = np.linalg.norm(np.indices((48, 48, 48)) - 23.5, axis=0)
    tissue = np.zeros((48, 48, 48), np.uint8)
    for limit, kind in ((22, Tissue.SCALP), (19, Tissue.CORTEX), (16, Tissue.WHITE_MATTER),
                        (4, Tissue.LATERAL_VENTRICLE)):  # fmt: skip
        tissue[radius < limit] = kind
    return head_from_tissue(tissue, np.eye(4), "ball")


@pytest.fixture(scope="session")
def tiny_head() -> Head:
    """Nested ellipsoids at 1 mm, with ventricles, brainstem and cerebellum."""
    affine = np.eye(4)
    affine[:3, 3] = (-31, -40, -25)
    return head_from_tissue(_tissue_map(), affine, "tiny")


def _tissue_map() -> np.ndarray:
    """Values of `Tissue`, (64, 64, 64), RAS."""
    side = 64
    x, y, z = (axis - (side - 1) / 2 for axis in np.indices((side,) * 3))

    def ellipsoid(centre, half) -> np.ndarray:
        place = zip((x, y, z), centre, half, strict=True)
        return sum(((axis - c) / h) ** 2 for axis, c, h in place) <= 1

    tissue = np.zeros((side,) * 3, np.uint8)
    layers = (
        ((0, 0, 0), (30, 31, 31), Tissue.SCALP),
        ((0, 0, 0), (28, 29, 29), Tissue.BONE),
        ((0, 0, 0), (26, 27, 27), Tissue.CSF),
        ((0, 0, 2), (24, 25, 23), Tissue.CORTEX),
        ((0, 0, 2), (21, 22, 20), Tissue.WHITE_MATTER),
        ((0, -14, -15), (13, 8, 6), Tissue.CEREBELLAR_CORTEX),
        ((0, -14, -15), (11, 6, 4), Tissue.CEREBELLAR_WHITE),
        ((0, -3, -15), (5, 5, 11), Tissue.BRAINSTEM),
        ((0, -8, -14), (2, 2, 3), Tissue.FOURTH_VENTRICLE),
        ((-8, 3, -2), (4, 5, 4), Tissue.DEEP_GREY),
        ((8, 3, -2), (4, 5, 4), Tissue.DEEP_GREY),
        ((-5, 0, 5), (3, 10, 4), Tissue.LATERAL_VENTRICLE),
        ((5, 0, 5), (3, 10, 4), Tissue.LATERAL_VENTRICLE),
        ((0, 0, -2), (1.5, 4, 4), Tissue.THIRD_VENTRICLE),
    )
    for centre, half, kind in layers:
        tissue[ellipsoid(centre, half)] = kind
    return tissue


@pytest.fixture(scope="session")
def tiny_config() -> JointConfig:
    """The joint network, as narrow as it can be."""
    return JointConfig(
        shared_channels=8,
        embedding_channels=8,
        segmentation_channels=(8, 8, 8),
        decoder_channels=(8, 8, 8),
        classification_channels=(8, 8, 8),
    )


@pytest.fixture
def add_results(tmp_path: Path) -> Callable[..., ScanRecord]:
    """Write the small files of a processed scan; return its record."""

    def add(relative: str, **changes: Any) -> ScanRecord:
        scan = entry(relative)
        paths = derivative_paths(scan.folder, scan.prefix, CLASSES)
        output_dir = tmp_path / "out"
        write_json(output_dir / paths["diagnosis"], diagnosis(relative, **changes))
        row = {"index": 1, "volume_mm3": "1234.5678", "x_mm": -20.04, "region": "periventricular",
               "diameter_mm": 13.3, "mean_probability": 0.9, "small": 0}  # fmt: skip
        write_tsv(output_dir / paths["morphometry"], list(MORPHOMETRY_COLUMNS), [row])
        for kind in ("brainmask", "bias", "lesions", "cam"):
            figure = output_dir / figure_path(scan.subject, scan.prefix, kind)
            figure.parent.mkdir(parents=True, exist_ok=True)
            figure.write_text(
                f"<?xml version='1.0'?>\n<svg xmlns='a'><text>{kind} 5% #1</text></svg>"
            )
        return read_scan(output_dir, scan)

    return add


@pytest.fixture(autouse=True)
def _one_thread():
    """Networks are tiny: one thread each, whatever the test before has set."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture
def output_dir(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def without_onednn():
    """Compute without oneDNN.

    On processors with bf16 arithmetic (avx512_bf16; PyTorch 2.13) the weights' gradients of its 3D
    convolutions in bf16 hold uninitialised memory where a side of the grid is 2, as in tiny cubes.
    """
    import torch

    with torch.backends.mkldnn.flags(enabled=False):
        yield
