"""The invariants of the derivatives, on scans in every kind of geometry."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from phantoms import AFFINE, head
from scipy import ndimage

from msnmo_bids.bids.names import derivative_paths, sidecar
from msnmo_bids.bids.scans import Scan
from msnmo_bids.bids.sink import ScanResults, write_scan_derivatives
from msnmo_bids.decision import decide
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.lesions.threshold import LesionCriteria, find_lesions
from msnmo_bids.preprocessing.geometry import conform
from msnmo_bids.workflows.nodes import write_like

CLASSES = ("MS", "NMOSD")
THRESHOLD, MINIMUM = 0.3, 700.0  # two voxels of 7 mm are too small, three are not
TOOL = {"Tool": "none", "Version": "n/a", "Settings": {}}
PROVENANCE: dict[str, Any] = {
    "SkullStripping": TOOL,
    "BiasCorrection": TOOL,
    "Threshold": THRESHOLD,
    "MinimumLesionVolume": MINIMUM,
    "Model": {"Name": "tiny", "Version": "0", "SHA256": "0" * 64, "TrainedOn": []},
    "Device": "cpu",
    "Precision": "fp32",
    "RandomSeed": 0,
    "Flags": ["weights_simulated_only"],
}
PROBABILITIES = {"MS": 0.123456789, "NMOSD": 1 - 0.123456789}


def _rotation(degrees: float) -> np.ndarray:
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) @ np.array(
        [[1, 0, 0, 0], [0, c, -s, 0], [0, s, c, 0], [0, 0, 0, 1]]
    )


def _geometries() -> dict[str, tuple[np.ndarray, np.ndarray | None]]:
    las = AFFINE @ np.diag([-1, 1, 1, 1])
    permuted = AFFINE[:, [2, 0, 1, 3]] @ np.diag([-1, 1, -1, 1])
    thick = AFFINE @ np.diag([0.8, 0.9, 1.3, 1])
    return {
        "ras": (AFFINE, None),
        "las": (las, None),
        "permuted": (permuted, None),
        "anisotropic": (thick, None),
        "oblique": (_rotation(15) @ thick, None),
        "q is not s": (las, _rotation(20) @ las),
        "NIfTI-2": (AFFINE, AFFINE),
    }


@pytest.fixture(params=_geometries())
def scan(request: pytest.FixtureRequest, make_scan: Callable[..., Scan]) -> Scan:
    affine, qform = _geometries()[request.param]
    scan = make_scan(affine=affine)
    if qform is not None:
        image = nib.load(scan.path)
        data = image.get_fdata(dtype=np.float32)
        kind = nib.Nifti2Image if request.param == "NIfTI-2" else nib.Nifti1Image
        image = kind(data, affine)
        image.set_sform(affine, 1)
        image.set_qform(qform, 1)
        nib.save(image, scan.path)
    return scan


GREEN = {"Level": "green", "Reasons": [], "Contrast": "FLAIR", "Figures": {}}
RED = {**GREEN, "Level": "red", "Reasons": ["it is a T1w", "it is cut"], "Contrast": "T1w"}


def results_for(
    scan: Scan, folder: Path, lesions: bool = True, quality: dict[str, Any] = GREEN
) -> tuple[ScanResults, np.ndarray]:
    """Make what the workflow would find: three lesions, of which one is too small."""
    folder.mkdir(exist_ok=True)
    flair = folder / "flair_ras.nii"
    conform(scan.path, flair)
    image = nib.load(flair)
    rng = np.random.default_rng(1)
    raw = rng.uniform(0, 0.29, image.shape)
    if lesions:
        raw[10:12, 10:12, 10:12] = 0.9
        raw[16, 15, 9:14] = 0.7
        raw[5, 15, 15] = 0.95
    voxel = float(np.prod(image.header.get_zooms()))
    found = find_lesions(raw, voxel, LesionCriteria(THRESHOLD, MINIMUM))
    sizes = np.bincount(found.labels.ravel())
    table = [
        {
            "index": k,
            "volume_mm3": sizes[k] * voxel,
            "x_mm": 1.0 * k,
            "y_mm": 0.0,
            "z_mm": -3.25,
            "region": "deep",
            "diameter_mm": 10.0,
            "mean_probability": 0.75,
            "small": 0,
            "sites": {"area_postrema": 20.0} if k == 1 else {},
        }
        for k in range(1, len(sizes))
    ]
    brain = (head() > 50).astype(np.uint8)
    brain = brain if brain.shape == image.shape else (image.get_fdata() > 50).astype(np.uint8)
    arrays = {
        "brain_mask": brain,
        "lesion_mask": found.mask,
        "lesion_probability": found.probability,
        "lesion_labels": found.labels,
        "cam_MS": rng.normal(0, 1, image.shape).astype(np.float32),
        "cam_NMOSD": rng.normal(0, 1, image.shape).astype(np.float32),
    }
    files = {name: write_like(a, flair, folder / f"{name}.nii") for name, a in arrays.items()}
    figure = folder / "lesions.svg"
    figure.write_text("<svg/>")
    summary = {
        "LesionCount": len(table),
        "LesionCountSmall": 0,
        "LesionVolume": sum(row["volume_mm3"] for row in table) / 1000,
        "Regions": {"deep": {"Count": len(table), "Volume": 1.2346}},
    }
    results = ScanResults(
        images={"preproc": flair, **files},
        table=table,
        summary=summary,
        decision=decide(PROBABILITIES, lesions=len(table), quality=quality),
        quality=quality,
        distance=1.23456789,
        figures={"lesions": figure},
        flags=("thick_slices",),
    )
    return results, brain


def write(scan: Scan, out: Path, **options: Any) -> dict[str, Path]:
    results, _ = results_for(scan, out.parent / "between", **options)
    write_scan_derivatives(scan, results, output_dir=out, provenance=PROVENANCE)
    paths = derivative_paths(scan.folder, scan.prefix, CLASSES)
    return {kind: out / path for kind, path in paths.items()}


def test_images_are_on_the_native_grid(scan, tmp_path):
    paths = write(scan, tmp_path / "out")
    native = nib.load(scan.path)
    expected = {
        "preproc": np.float32,
        "brain_mask": np.uint8,
        "lesion_mask": np.uint8,
        "lesion_probability": np.float32,
        "lesion_labels": np.int16,
        "cam_MS": np.float32,
        "cam_NMOSD": np.float32,
    }
    for kind, dtype in expected.items():
        image = nib.load(paths[kind])
        assert image.shape == native.shape, kind
        assert np.array_equal(image.affine, native.affine), kind
        qform, sform = image.get_qform(coded=True), image.get_sform(coded=True)
        assert qform[1] == sform[1] > 0, kind
        assert np.allclose(qform[0], sform[0], atol=1e-3), kind
        assert image.get_data_dtype() == dtype, kind
        assert image.header.get_slope_inter() in ((None, None), (1.0, 0.0)), kind
    assert np.allclose(nib.load(paths["preproc"]).get_fdata(), native.get_fdata(), atol=1e-4)


def test_mask_probability_labels_and_tables_agree(scan, tmp_path):
    paths = write(scan, tmp_path / "out")
    mask = np.asarray(nib.load(paths["lesion_mask"]).dataobj)
    labels = np.asarray(nib.load(paths["lesion_labels"]).dataobj)
    image = nib.load(paths["lesion_probability"])
    probability = np.asarray(image.dataobj)
    assert np.array_equal(mask, probability > THRESHOLD)
    assert np.array_equal(mask, image.get_fdata() > THRESHOLD)  # as float64 too
    found, count = ndimage.label(probability > THRESHOLD, np.ones((3, 3, 3)))
    voxel = float(np.prod(image.header.get_zooms()))
    assert (np.bincount(found.ravel())[1:] * voxel >= MINIMUM).all()
    assert np.array_equal(labels > 0, mask > 0)
    assert set(np.unique(labels)) == set(range(count + 1))
    rows = list(csv.DictReader(paths["morphometry"].open(), delimiter="\t"))
    names = list(csv.DictReader(paths["lesion_table"].open(), delimiter="\t"))
    assert [row["index"] for row in rows] == [row["index"] for row in names] == ["1", "2"]
    volumes = [float(row["volume_mm3"]) for row in rows]
    assert np.allclose(volumes, np.bincount(labels.ravel())[1:] * voxel, atol=1e-3)
    assert volumes == sorted(volumes, reverse=True)
    assert np.isclose(sum(volumes), mask.sum() * voxel)


def test_the_diagnosis_lists_what_was_written_and_comes_last(make_scan, tmp_path, monkeypatch):
    import msnmo_bids.bids.dataset as dataset

    order: list[str] = []
    replace = Path.replace
    monkeypatch.setattr(
        dataset.Path,
        "replace",
        lambda self, to: (order.append(Path(to).name), replace(self, to))[1],
    )
    scan = make_scan()
    paths = write(scan, tmp_path / "out")
    diagnosis = json.loads(paths["diagnosis"].read_text())
    assert order[-1] == paths["diagnosis"].name
    written = {
        path.relative_to(tmp_path / "out").as_posix()
        for path in (tmp_path / "out").rglob("*")
        if path.is_file()
    }
    assert (
        set(diagnosis["Outputs"])
        | {derivative_paths(scan.folder, scan.prefix, CLASSES)["diagnosis"]}
        == written
    )
    assert diagnosis["Diagnosis"] == "NMOSD"
    assert diagnosis["Reason"] is None
    assert diagnosis["OutOfDistributionScore"] == 1.2346
    assert sum(diagnosis["Probabilities"].values()) == pytest.approx(1, abs=1e-12)
    assert diagnosis["Flags"] == ["thick_slices", "weights_simulated_only"]
    assert diagnosis["Sources"] == ["bids:raw:sub-01/anat/sub-01_FLAIR.nii.gz"]
    assert diagnosis["SkullStripping"] == TOOL
    assert diagnosis["VoxelSize"] == [7.0, 7.0, 7.0]
    assert str(tmp_path) not in paths["diagnosis"].read_text()


def test_every_image_and_table_has_a_sidecar_with_its_provenance(make_scan, tmp_path):
    paths = write(make_scan(), tmp_path / "out")
    for kind, path in paths.items():
        if path.suffix == ".json":
            continue
        content = json.loads(Path(sidecar(str(path))).read_text())
        assert content["Sources"], kind
        assert content["Description"], kind
    mask = json.loads(Path(sidecar(str(paths["lesion_mask"]))).read_text())
    assert mask["Threshold"] == THRESHOLD
    assert mask["Model"]["SHA256"] == "0" * 64
    assert mask["SkullStripping"] == TOOL


def test_without_lesions_the_diagnosis_is_indeterminate(make_scan, tmp_path):
    paths = write(make_scan(), tmp_path / "out", lesions=False)
    diagnosis = json.loads(paths["diagnosis"].read_text())
    assert diagnosis["Diagnosis"] == "indeterminate"
    assert "No lesion" in diagnosis["Reason"]
    assert "no_lesion_found" in diagnosis["Flags"]
    assert sum(diagnosis["Probabilities"].values()) == pytest.approx(1, abs=1e-12)
    assert paths["morphometry"].read_text().count("\n") == 1
    assert not np.asarray(nib.load(paths["lesion_labels"]).dataobj).any()


def test_red_quality_withholds_the_diagnosis(make_scan, tmp_path):
    paths = write(make_scan(), tmp_path / "out", quality=RED)
    diagnosis = json.loads(paths["diagnosis"].read_text())
    assert diagnosis["Diagnosis"] == "indeterminate"
    assert "quality is red: it is a T1w, it is cut" in diagnosis["Reason"]
    assert "quality_red" in diagnosis["Flags"]
    assert diagnosis["Quality"]["Contrast"] == "T1w"
    written = json.loads(paths["quality"].read_text())
    assert written["Reasons"] == RED["Reasons"]


def test_sites_are_written_by_name(make_scan, tmp_path):
    paths = write(make_scan(), tmp_path / "out")
    with paths["morphometry"].open() as file:
        sites = [row["sites"] for row in csv.DictReader(file, delimiter="\t")]
    assert sites == ["area_postrema", "n/a"]


def test_two_runs_write_the_same_bytes(make_scan, tmp_path):
    scan = make_scan()
    sums = []
    for name in ("first", "second"):
        out = tmp_path / name
        write(scan, out)
        sums.append(
            {
                path.relative_to(out): hashlib.sha256(path.read_bytes()).hexdigest()
                for path in out.rglob("*")
                if path.is_file()
            }
        )
    assert sums[0] == sums[1]


def test_a_full_disk_is_an_error_of_its_own_and_leaves_no_diagnosis(
    make_scan, tmp_path, monkeypatch
):
    import msnmo_bids.bids.sink as sink

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr(sink, "write_tsv", full)
    scan = make_scan()
    with pytest.raises(MsnmoError, match="No space left on device") as caught:
        write(scan, tmp_path / "out")
    assert caught.value.exit_code is ExitCode.IO_ERROR
    assert not list((tmp_path / "out").rglob("*diagnosis*"))
    assert not list((tmp_path / "out").rglob("*tmp*"))
