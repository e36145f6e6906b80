"""One small scan from raw image to derivatives, and how it fails."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantoms import head

from msnmo_bids.errors import ExitCode
from msnmo_bids.model.weights import read_metadata
from msnmo_bids.workflows.execution import run_workflow
from msnmo_bids.workflows.scan import init_msnmo_wf


def run(scans, settings, weights, tmp_path: Path, out: str = "out", **options):
    workflow = init_msnmo_wf(
        scans=scans,
        settings=settings,
        weights=weights,
        metadata=read_metadata(weights),
        output_dir=tmp_path / out,
        work_dir=tmp_path / "work",
    )
    arguments = {"n_procs": 2, "memory_gb": 8.0, "omp_nthreads": 1}
    return run_workflow(workflow, plugin_args=arguments, crash_dir=tmp_path / "crash", **options)


def sums(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def with_programs(settings, doubles):
    return replace(settings, skull_strip="bet", bias_correction="ants")


def test_a_good_scan_finishes_beside_a_bad_one(make_scan, with_programs, weights, tmp_path):
    empty = np.zeros(head().shape, np.float32)
    good, bad = make_scan("01"), make_scan("02", data=empty)
    [failure] = run([bad, good], with_programs, weights, tmp_path, "first")
    assert failure.prefix == "sub-02"
    assert failure.step == "checking the image"
    assert failure.message.startswith(f"{bad.path}: ")
    assert failure.exit_code is ExitCode.BAD_DATA
    assert not list((tmp_path / "first").rglob("*sub-02*"))

    folder = tmp_path / "first" / good.folder
    diagnosis = json.loads((folder / "sub-01_desc-msnmo_diagnosis.json").read_text())
    assert all((tmp_path / "first" / path).is_file() for path in diagnosis["Outputs"])
    assert diagnosis["SkullStripping"]["Tool"] == "FSL BET"
    assert diagnosis["BiasCorrection"]["Tool"] == "ANTs N4BiasFieldCorrection"
    assert diagnosis["BiasCorrection"]["Version"] == "0.0.0-double"
    brain = nib.load(folder / "sub-01_space-orig_desc-brain_mask.nii.gz")
    inside = np.asarray(brain.dataobj) > 0
    preproc = nib.load(folder / "sub-01_desc-preproc_FLAIR.nii.gz").get_fdata()
    assert np.allclose(preproc[inside], nib.load(good.path).get_fdata()[inside] / 2, atol=1e-3)
    assert not preproc[~inside].any()

    assert run([good], with_programs, weights, tmp_path, "second") == []
    first, second = sums(tmp_path / "first"), sums(tmp_path / "second")
    assert first == second
    assert len(first) > 18


@pytest.mark.parametrize(
    ("variable", "value", "step", "message"),
    [
        ("BET_DOUBLE", "fail", "skull stripping", "FSL BET failed: Image Exception : #22"),
        ("BET_DOUBLE", "kill", "skull stripping", "FSL BET failed: "),
        ("N4_DOUBLE", "fail", "bias correction", "ANTs N4BiasFieldCorrection failed: Exception"),
    ],
)
def test_a_program_that_fails_is_named(
    make_scan, with_programs, weights, tmp_path, monkeypatch, variable, value, step, message
):
    monkeypatch.setenv(variable, value)
    [failure] = run([make_scan()], with_programs, weights, tmp_path)
    assert failure.step == step
    assert message in failure.message
    assert "\n" not in failure.message


def test_a_missing_program_is_named(make_scan, with_programs, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    [failure] = run([make_scan()], with_programs, weights, tmp_path)
    assert failure.step == "skull stripping"
    assert "bet" in failure.message


def test_weights_that_were_altered_stop_the_scan_with_a_remedy(
    make_scan, settings, weights, tmp_path
):
    altered = tmp_path / "altered.safetensors"
    altered.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    altered.with_suffix(".json").write_bytes(weights.with_suffix(".json").read_bytes())
    scan = replace(make_scan(data=head() * (head() > 50)), skull_stripped=True)
    [failure] = run([scan], settings, altered, tmp_path)
    assert failure.step == "lesion segmentation and classification"
    assert "altered.safetensors" in failure.message
    assert failure.remedy
