"""The app as a user runs it: the command line, on simulated heads, from raw images to reports.

The run whose results most tests look at is one of a strict machine: no network, a source tree that
cannot be written, no HOME, USER or LOGNAME, umask 077, blanks and letters beyond ASCII in the names
of folders, output and work folder on two file systems.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from msnmo_bids.simulation.assets import mni_head
from msnmo_bids.simulation.dataset import Geometry, as_image, scanner_units
from msnmo_bids.simulation.imaging import Protocol
from msnmo_bids.simulation.sample import simulate_scan

RUN = Path(__file__).resolve().parent.parent / "run.py"
VALIDATOR = Path(sys.executable).parent / "bids-validator-deno"
COARSE = Protocol("coarse", (1.8, 1.8, 4.0), 4.0, 0.02, 0.1)
SAGITTAL = Protocol("sagittal", (4.5, 1.6, 1.6), 4.5, 0.02, 0.1)


#: Begins a program in mounts and a network of its own; without that right it begins none.
APART = ("unshare", "--mount", "--net", *(() if os.geteuid() == 0 else ("--map-root-user",)))
MAY_MOUNT = subprocess.run([*APART, "true"], capture_output=True, check=False).returncode == 0
NEEDS_MOUNTS = pytest.mark.skipif(not MAY_MOUNT, reason="this user may not mount (unshare)")
READ_ONLY = ("sh", "-c", 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && exec "$@"')
SMALL_DISK = ("sh", "-c", 'mount -t tmpfs -o size=2m tmpfs "$0" && exec "$@"')


def app(*arguments, before: Sequence[str] = (), **options) -> subprocess.CompletedProcess:
    """Run the app in its own process."""
    return subprocess.run(
        [*before, sys.executable, str(RUN), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
        **options,
    )


def participant(bids: Path, out: Path, work: Path, *options, **how) -> subprocess.CompletedProcess:
    fast = ("--sloppy", "--nprocs", 2, "--omp-nthreads", 1, "--work-dir", work, "--device", "cpu")
    return app(bids, out, "participant", *fast, *options, **how)


@pytest.fixture(scope="session")
def other_disk(tmp_path_factory) -> Iterator[Path]:
    """A folder on another file system, where there is one with room."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shutil.disk_usage(shared).free < 4e9:
        yield tmp_path_factory.mktemp("work")
        return
    with tempfile.TemporaryDirectory(dir=shared) as folder:
        yield Path(folder)


def save(image: nib.Nifti1Image, path: Path, **sidecar) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image.to_filename(path)
    if sidecar:
        name = path.name.removesuffix(".gz").removesuffix(".nii")
        path.with_name(f"{name}.json").write_text(json.dumps(sidecar))


def describe(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    content = {"Name": "simulated", "BIDSVersion": "1.10.0", "DatasetType": "raw"}
    (folder / "dataset_description.json").write_text(json.dumps(content))
    (folder / "README").write_text("Simulated.\n")
    return folder


@pytest.fixture(scope="session")
def simulated(tmp_path_factory) -> Path:
    """Raw: oblique with skull; LAS; sagittal and anisotropic, q != s; two visits; one without."""
    raw = describe(tmp_path_factory.mktemp("simulated") / "rohe Köpfe")
    head = mni_head()
    close = head.cropped(margin=6)

    def scan(seed, protocol, source=close, load=12.0):
        return simulate_scan(source, np.random.default_rng(seed), load=load, protocol=protocol)

    whole = scan(1, COARSE, head)
    image = as_image(scanner_units(whole), whole.affine, Geometry("LPS", (12.0, -6.0, 4.0)))
    save(image, raw / "sub-01" / "ses-1" / "anat" / "sub-01_ses-1_FLAIR.nii.gz")
    for visit, seed in (("ses-1", 2), ("ses-2", 3)):
        stripped = scan(seed, COARSE)
        data = (scanner_units(stripped) * stripped.brain_mask).astype(np.int16)
        image = as_image(data, stripped.affine, Geometry("LAS"))
        path = raw / "sub-02" / visit / "anat" / f"sub-02_{visit}_acq-2d_run-1_FLAIR.nii"
        save(image, path, SkullStripped=True)
    sagittal = scan(4, SAGITTAL)
    data = (sagittal.image * sagittal.brain_mask).astype(np.float32)
    image = as_image(data, sagittal.affine, Geometry("PSR", (3.0, 5.0, -8.0)))
    moved = image.affine.copy()
    moved[:3, 3] += (31.0, -17.0, 8.0)
    image.set_qform(moved, code=2)
    save(image, raw / "sub-03" / "anat" / "sub-03_FLAIR.nii.gz", SkullStripped=True)
    save(as_image(data, sagittal.affine, Geometry("RAS")), raw / "sub-04/anat/sub-04_T1w.nii.gz")
    return raw


@pytest.fixture(scope="session")
def finished(simulated, other_disk, tmp_path_factory) -> Path:
    """The derivatives of the simulated scans, participant and group, made on a strict machine."""
    out = tmp_path_factory.mktemp("finished") / "Ergebnisse für alle"
    strict = {
        "before": (*APART, *READ_ONLY, str(RUN.parent)) if MAY_MOUNT else (),
        "env": {k: v for k, v in os.environ.items() if k not in ("HOME", "USER", "LOGNAME")},
        "umask": 0o077,
    }
    result = participant(simulated, out, other_disk, **strict)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.strip().splitlines()[-1] == "msnmo: SUCCESS 4 0"
    assert "sub-04" in result.stdout + next((out / "logs").glob("*/msnmo.log")).read_text()
    result = app(simulated, out, "group", **strict)
    assert result.returncode == 0, result.stdout + result.stderr
    return out


def diagnoses(out: Path) -> list[Path]:
    return sorted(out.glob("sub-*/**/*_desc-msnmo_diagnosis.json"))


def raw_of(diagnosis: Path, raw: Path) -> nib.Nifti1Image:
    source = json.loads(diagnosis.read_text())["Sources"][0].removeprefix("bids:raw:")
    return nib.load(raw / source)


def part(diagnosis: Path, rest: str) -> Path:
    return diagnosis.with_name(diagnosis.name.replace("desc-msnmo_diagnosis.json", rest))


def derivative_bytes(out: Path) -> dict[str, bytes]:
    """All files of the participants' folders."""
    files = (p for p in out.glob("sub-*/**/*") if p.is_file())
    return {str(p.relative_to(out)): p.read_bytes() for p in files}


@pytest.mark.skipif(not VALIDATOR.exists(), reason="bids-validator-deno is not installed")
def test_output_is_valid_bids(finished):
    result = subprocess.run(
        [VALIDATOR, str(finished), "--ignoreWarnings"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_one_folder_a_scan(finished):
    assert len(diagnoses(finished)) == 4


def test_images_are_on_the_native_grid(finished, simulated):
    for diagnosis in diagnoses(finished):
        raw = raw_of(diagnosis, simulated)
        images = sorted(diagnosis.parent.glob(f"{diagnosis.name.split('_desc')[0]}*.nii.gz"))
        # Two visits are compared in a space of their own, half-way between them.
        images = [image for image in images if "_space-ses" not in image.name]
        assert len(images) == 5 + len(json.loads(diagnosis.read_text())["Probabilities"])
        for path in images:
            image = nib.load(path)
            assert image.shape == raw.shape, path
            np.testing.assert_array_equal(image.affine, raw.affine)
            np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
            assert int(image.header["qform_code"]) == int(image.header["sform_code"]) > 0


def test_mask_probability_and_labels_agree(finished):
    for diagnosis in diagnoses(finished):
        record = json.loads(diagnosis.read_text())
        mask = nib.load(part(diagnosis, "space-orig_label-L_desc-msnmo_mask.nii.gz"))
        probability = nib.load(part(diagnosis, "space-orig_label-L_desc-msnmo_probseg.nii.gz"))
        labels = nib.load(part(diagnosis, "space-orig_seg-lesions_dseg.nii.gz"))
        lesion = np.asarray(mask.dataobj) > 0
        np.testing.assert_array_equal(lesion, probability.get_fdata() > record["Threshold"])
        numbers = np.asarray(labels.dataobj).astype(int)
        np.testing.assert_array_equal(numbers > 0, lesion)
        assert set(np.unique(numbers)) - {0} == set(range(1, record["LesionCount"] + 1))
        voxel = abs(np.linalg.det(mask.affine[:3, :3]))
        table = pd.read_csv(part(diagnosis, "desc-lesions_morph.tsv"), sep="\t")
        volumes = np.bincount(numbers.ravel())[1:] * voxel
        np.testing.assert_allclose(table["volume_mm3"].astype(float), volumes, rtol=1e-3, atol=1e-3)
        assert record["LesionVolume"] == pytest.approx(lesion.sum() * voxel / 1000, abs=1e-3)
        assert volumes.min(initial=np.inf) >= record["MinimumLesionVolume"] - 1e-6
        assert sum(record["Probabilities"].values()) == pytest.approx(1.0, abs=1e-5)


def test_brain_masks_are_brains(finished):
    for diagnosis in diagnoses(finished):
        assert 900 < json.loads(diagnosis.read_text())["BrainVolume"] < 2600


def test_reports_name_what_was_used(finished):
    page = (finished / "sub-01.html").read_text()
    assert "deepbet" in page
    assert "not a medical device" in page
    assert "sub-02" in (finished / "group_FLAIR.html").read_text()
    assert len(pd.read_csv(finished / "group_FLAIR.tsv", sep="\t")) == 4


def test_a_second_run_does_nothing(finished, simulated, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in finished.glob("sub-*/**/*") if p.is_file()}
    result = participant(simulated, finished, tmp_path / "work")
    assert result.returncode == 0
    assert "Nothing to do: 4 of 4 scans complete" in result.stdout
    assert before == {p: p.stat().st_mtime_ns for p in finished.glob("sub-*/**/*") if p.is_file()}


def test_only_the_scan_with_a_missing_output_runs_again(finished, simulated, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(finished, out)
    lost = next(out.glob("sub-03/anat/*_label-L_desc-msnmo_mask.nii.gz"))
    lost.unlink()
    result = participant(simulated, out, tmp_path / "work")
    assert result.returncode == 0, result.stdout
    assert "1 of 4 scans to process" in result.stdout
    assert derivative_bytes(out) == derivative_bytes(finished)


def test_a_killed_run_resumes_to_the_same_files(finished, simulated, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    process = subprocess.Popen(
        [sys.executable, str(RUN), str(simulated), str(out), "participant", "--sloppy", "--nprocs",
         "2", "--omp-nthreads", "1", "--work-dir", str(work), "--device", "cpu"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 600
    while not diagnoses(out) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert 0 < len(diagnoses(out)) < 4
    result = participant(simulated, out, work)
    assert result.returncode == 0, result.stdout
    assert derivative_bytes(out) == derivative_bytes(finished)


def test_two_runs_at_once(finished, simulated, tmp_path):
    """The same participant, one output and one work folder: one waits for the other."""
    out, work = tmp_path / "out", tmp_path / "work"
    command = [
        sys.executable, str(RUN), str(simulated), str(out), "participant", "--sloppy", "--nprocs",
        "1", "--omp-nthreads", "1", "--work-dir", str(work), "--device", "cpu",
        "--participant-label", "03", "--skip-bids-validation",
    ]  # fmt: skip
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=900)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all(text.strip().endswith("msnmo: SUCCESS 1 0") for text in said)
    assert sum("sub-03: done in" in text for text in said) == 1
    made = derivative_bytes(out)
    assert made == {name: kept for name, kept in derivative_bytes(finished).items() if name in made}
    assert len(made) == sum(name.startswith("sub-03") for name in derivative_bytes(finished))
    assert not work.exists()


@pytest.fixture(scope="session")
def bad(simulated, tmp_path_factory) -> Path:
    """A good scan and one of each kind of bad data."""
    raw = describe(tmp_path_factory.mktemp("bad") / "raw")

    def place(subject: str) -> Path:
        path = raw / subject / "anat" / f"{subject}_FLAIR.nii.gz"
        path.parent.mkdir(parents=True)
        return path

    good = nib.load(simulated / "sub-03" / "anat" / "sub-03_FLAIR.nii.gz")
    data = good.get_fdata(dtype=np.float32)
    save(good, place("sub-good"), SkullStripped=True)
    affine = good.affine
    save(nib.Nifti1Image(np.stack([data, data], -1), affine), place("sub-fourd"))
    save(nib.Nifti1Image(np.zeros_like(data), affine), place("sub-zero"))
    with_nan = data.copy()
    with_nan[..., data.shape[2] // 2] = np.nan  # outside of the head it would do no harm
    save(nib.Nifti1Image(with_nan, affine), place("sub-nan"))
    save(nib.Nifti1Image(data[:, :, :5], affine), place("sub-slab"))
    whole = (simulated / "sub-03" / "anat" / "sub-03_FLAIR.nii.gz").read_bytes()
    place("sub-cut").write_bytes(whole[: len(whole) // 2])
    with gzip.open(place("sub-text"), "wt") as stream:
        stream.write("not an image\n")
    place("sub-plain").write_text("not an image\n")
    place("sub-annex").symlink_to("../../.git/annex/objects/xx/yy/MD5E-s1--0.nii.gz")
    return raw


def test_bad_scans_cost_only_themselves(bad, tmp_path):
    out = tmp_path / "out"
    result = participant(bad, out, tmp_path / "work", "--skip-bids-validation")
    assert result.returncode == 65, result.stdout + result.stderr
    assert result.stdout.strip().splitlines()[-1] == "msnmo: PARTIAL 1 8"
    assert "Traceback" not in result.stdout + result.stderr
    for name in ("fourd", "zero", "nan", "slab", "cut", "text", "plain", "annex"):
        lines = [s for s in result.stdout.splitlines() if f"sub-{name}_FLAIR.nii.gz:" in s]
        assert len(lines) == 1, (name, result.stdout)
        assert name != "annex" or "datalad get" in lines[0]
        assert f"sub-{name}_FLAIR.nii.gz" in (out / f"sub-{name}.html").read_text()
        assert not list(out.glob(f"sub-{name}/**/*.nii.gz"))
    assert [p.name for p in diagnoses(out)] == ["sub-good_desc-msnmo_diagnosis.json"]
    assert app(bad, out, "group").returncode == 0
    table = pd.read_csv(out / "group_FLAIR.tsv", sep="\t")
    assert len(table) == 9


def test_files_are_as_private_as_the_user_wants(finished):
    assert not [path for path in finished.rglob("*") if path.stat().st_mode & 0o077]


@NEEDS_MOUNTS
def test_a_work_folder_that_fills_up(simulated, tmp_path):
    work, out = tmp_path / "work", tmp_path / "out"
    work.mkdir()
    one = ("--participant-label", "03", "--skip-bids-validation", "--precision", "fp32")
    result = participant(simulated, out, work, *one, before=(*APART, *SMALL_DISK, str(work)))
    assert result.returncode == 74, result.stdout + result.stderr
    lines = result.stdout.strip().splitlines()
    assert lines[-1] == "msnmo: FAILED 0 1"
    assert any(
        "sub-03_FLAIR.nii.gz: " in s and "No space left on device" in s and "Make room" in s
        for s in lines
    )
    assert not [path for path in out.rglob("*") if ".nii" in path.name or ".tmp" in path.name]


def test_what_cannot_begin_says_so(simulated, tmp_path):
    empty = describe(tmp_path / "empty")
    assert app(empty, tmp_path / "out1", "participant").returncode == 66
    nobody = app(simulated, tmp_path / "out2", "participant", "--participant-label", "99")
    assert nobody.returncode == 18
    assert not (tmp_path / "out2").exists()
    (tmp_path / "file").write_text("")
    assert app(simulated, tmp_path / "file" / "out", "participant").returncode == 73
    assert app(simulated, simulated, "participant").returncode == 64
    assert app(simulated, tmp_path / "out3", "cohort").returncode == 17
