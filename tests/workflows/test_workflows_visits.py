"""Two visits of a phantom, from their derivatives to what is written of the change."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from msnmo_bids.bids.change_files import is_compared, paths_of
from msnmo_bids.bids.comparisons import Comparison
from msnmo_bids.bids.dataset import write_json, write_tsv
from msnmo_bids.bids.names import derivative_paths
from msnmo_bids.bids.scans import Scan
from msnmo_bids.bids.text_files import read_tsv
from msnmo_bids.errors import ExitCode
from msnmo_bids.text import Note
from msnmo_bids.workflows.execution import run_workflow
from msnmo_bids.workflows.step_names import LAST_NODE_OF_VISITS
from msnmo_bids.workflows.visits import init_visits_wf

METHOD = {"version": "1"}
SHAPE, AFFINE = (56, 64, 52), np.diag([2.0, 2.0, 2.0, 1.0])
AFFINE[:3, 3] = [-56, -64, -52]
#: Centre (mm) and radius (mm) of lesions: one stays, one appears.
STABLE, NEW = ((20.0, 10.0, 5.0), 6.0), ((-22.0, -15.0, 8.0), 5.0)


def motion() -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_rotvec([2, -3, 4], degrees=True).as_matrix()
    matrix[:3, 3] = [2, -3, 1.5]
    return matrix


def write_visit(scan: Scan, out: Path, lesions, to_head: np.ndarray) -> None:
    """Write what the comparison reads of a scan, of an egg with horns and lesions."""
    index = np.moveaxis(np.indices(SHAPE), 0, -1)
    place = nib.affines.apply_affine(to_head @ AFFINE, index)
    x, y, z = np.moveaxis(place, -1, 0)
    brain = (x / 42) ** 2 + ((y - 0.1 * x) / 52) ** 2 + (z / 40) ** 2 < 1
    flair = (
        np.where(brain, 100.0, 0) + 4 * np.random.default_rng(len(lesions)).random(SHAPE) * brain
    )
    for side in (-1, 1):
        flair[((x - side * 11) / 5) ** 2 + ((y + 4) / 22) ** 2 + ((z - 6) / 7) ** 2 < 1] = 35
    flair[((x - 25) ** 2 + (y - 30) ** 2 + z**2 < 10**2) & brain] = 115
    mask = np.zeros(SHAPE, np.uint8)
    for centre, radius in lesions:
        mask[np.linalg.norm(place - centre, axis=-1) < radius] = 1
    flair[mask > 0] = 150
    arrays = {
        "preproc": flair.astype(np.float32),
        "brain_mask": brain.astype(np.uint8),
        "lesion_mask": mask,
        "lesion_probability": mask.astype(np.float32),
        "lesion_labels": mask.astype(np.int16),
    }
    paths = derivative_paths(scan.folder, scan.prefix, ())
    for kind, array in arrays.items():
        (out / paths[kind]).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, AFFINE), out / paths[kind])
    write_tsv(out / paths["morphometry"], ("index", "region"), [{"index": 1, "region": "deep"}])
    write_json(out / paths["diagnosis"], {"Made": scan.prefix})


@pytest.fixture
def comparison(tmp_path) -> Comparison:
    scans = [
        Scan(
            path=tmp_path / "bids" / f"sub-01/ses-{k}/anat/sub-01_ses-{k}_FLAIR.nii.gz",
            bids_dir=tmp_path / "bids",
            relative=f"sub-01/ses-{k}/anat/sub-01_ses-{k}_FLAIR.nii.gz",
            subject="01",
            session=str(k),
            prefix=f"sub-01_ses-{k}",
            folder=f"sub-01/ses-{k}/anat",
        )
        for k in (1, 2)
    ]
    write_visit(scans[0], tmp_path / "out", [STABLE], np.eye(4))
    write_visit(scans[1], tmp_path / "out", [STABLE, NEW], np.linalg.inv(motion()))
    notes = (Note("dates that are not read", "a table"),)
    return Comparison(scans[0], scans[1], "sessions.tsv", 365.25, notes)


def run(comparison: Comparison, tmp_path: Path, name: str = "work"):
    workflow = init_visits_wf(
        comparisons=[comparison],
        output_dir=tmp_path / "out",
        work_dir=tmp_path / name,
        method=METHOD,
    )
    return run_workflow(
        workflow, plugin="Linear", crash_dir=tmp_path / "crash", last_node=LAST_NODE_OF_VISITS
    )


def test_a_new_lesion_is_found_and_a_rerun_writes_the_same(comparison, tmp_path):
    out = tmp_path / "out"
    assert run(comparison, tmp_path) == []
    paths = paths_of(comparison)
    record = json.loads((out / paths["record"]).read_text())
    assert record["Counts"]["new"] == record["Counts"]["stable"] == 1
    assert record["RatesPerYear"]["New"] == 1
    assert record["Notes"] == ["dates that are not read: a table"]
    assert "half-way between them [@halfway]" in record["Methods"]
    assert np.abs(np.array(record["Registration"]["EarlierToLater"]) - motion()).max() < 0.5
    rows = read_tsv(out / paths["table"]).rows
    assert {row["change"] for row in rows} == {"stable", "new"}
    [new] = [row for row in rows if row["change"] == "new"]
    assert float(new["volume_later_mm3"]) == pytest.approx(4 / 3 * np.pi * 5**3, rel=0.25)
    by_kind = {kind: nib.load(out / p) for kind, p in paths.items() if p.endswith(".nii.gz")}
    for kind, image in by_kind.items():
        whole = kind.endswith(("mask", "classes"))
        assert image.get_data_dtype() == (np.uint8 if whole else np.float32), kind
    images = list(by_kind.values())
    assert {image.shape for image in images} == {images[0].shape}
    for image in images:
        assert np.allclose(image.affine, images[0].affine)
        assert np.allclose(image.get_qform(), image.get_sform())
    classes = np.asarray(nib.load(out / paths["classes"]).dataobj)
    named = {int(row["index"]): row["name"] for row in read_tsv(out / paths["class_table"]).rows}
    assert {named[value] for value in np.unique(classes[classes > 0])} == {"stable", "new"}
    assert is_compared(comparison, out, METHOD)
    before = {path: (out / path).read_bytes() for path in [*record["Outputs"], paths["record"]]}
    for path in before:
        (out / path).unlink()
    assert run(comparison, tmp_path, "again") == []
    assert before == {path: (out / path).read_bytes() for path in before}


def test_an_empty_image_is_one_line(comparison, tmp_path):
    path = tmp_path / "out" / derivative_paths("sub-01/ses-2/anat", "sub-01_ses-2", ())["preproc"]
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.float32), AFFINE), path)
    [failure] = run(comparison, tmp_path)
    assert failure.prefix == comparison.name
    assert failure.step == "registration of two visits"
    assert "the image is empty" in failure.message
    assert failure.exit_code == ExitCode.BAD_DATA
    assert not (tmp_path / "out" / paths_of(comparison)["record"]).exists()
