"""What is checked before any work, and the group level."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from msnmo_bids.errors import ExitCode
from msnmo_bids.run import preflight

SCAN = "sub-01/anat/sub-01_FLAIR.nii.gz"
SKIP = "--skip-bids-validation"


@pytest.fixture
def raw(make_dataset) -> Path:
    return make_dataset(SCAN)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def nothing_done(result, fake, out: Path) -> bool:
    return result.last_line == "msnmo: FAILED 0 0" and not fake.runs and not out.exists()


def test_input_missing(call, fake, tmp_path, out):
    for level in ("participant", "group"):
        result = call(tmp_path / "nothing", out, level)
        assert result.code == 66
        assert nothing_done(result, fake, out)
    assert not out.exists()


def test_input_and_output_in_the_wrong_order(call, fake, raw, out):
    result = call(out, raw, "participant")
    assert result.code == 64
    assert "wrong order. Give the input first" in result.text


def test_a_finished_output_is_not_taken_for_an_input(call, fake, raw, out, tmp_path):
    call(raw, out, "participant", SKIP)
    assert call(tmp_path / "mistyped", out, "participant").code == 66


def test_input_is_a_file(call, fake, tmp_path, out):
    (tmp_path / "file").touch()
    assert call(tmp_path / "file", out, "participant").code == 66


@pytest.mark.parametrize("files", [(), ("sub-01/anat/sub-01_T1w.nii.gz",)])
def test_input_without_scans(call, fake, make_dataset, out, files):
    result = call(make_dataset(*files), out, "participant", SKIP)
    assert result.code == 66
    assert nothing_done(result, fake, out)


def test_unknown_labels(call, fake, raw, out):
    result = call(raw, out, "participant", "--participant-label", "02", "99")
    assert result.code == 18
    assert "no such participant: 02, 99. There are: 01" in result.text
    assert nothing_done(result, fake, out)
    assert call(raw, out, "participant", "--session-label", "1").code == 18


@pytest.mark.parametrize("inside", [".", "out", "sub-01/out", "derivatives", "code/derivatives/x"])
def test_output_in_the_input(call, fake, raw, inside):
    before = sorted(raw.rglob("*"))
    result = call(raw, raw / inside, "participant", SKIP)
    assert result.code == 64
    assert sorted(raw.rglob("*")) == before


def test_output_in_the_input_through_a_link(call, fake, raw, tmp_path):
    (tmp_path / "link").symlink_to(raw)
    assert call(raw, tmp_path / "link", "participant", SKIP).code == 64
    assert call(tmp_path / "link", raw / "x", "participant", SKIP).code == 64


def test_derivatives_are_allowed_in_the_input(call, fake, raw):
    result = call(raw, raw / "derivatives" / "msnmo", "participant", SKIP)
    assert result.code == 0
    description = json.loads((raw / "derivatives/msnmo/dataset_description.json").read_text())
    assert description["DatasetLinks"]["raw"] == "../.."


def test_unwritable_output(call, fake, raw, tmp_path):
    (tmp_path / "file").touch()
    result = call(raw, tmp_path / "file" / "out", "participant", SKIP)
    assert result.code == 73
    assert not fake.runs


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission(call, fake, raw, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    assert call(raw, tmp_path / "locked" / "out", "participant", SKIP).code == 73


def test_output_of_another_program(call, fake, raw, make_dataset):
    other = make_dataset(name="other")
    before = sorted(other.rglob("*"))
    assert call(raw, other, "participant", SKIP).code == 73
    assert sorted(other.rglob("*")) == before


def test_unwritable_work_folder(call, fake, raw, out, tmp_path):
    (tmp_path / "file").touch()
    assert call(raw, out, "participant", SKIP, "-w", tmp_path / "file" / "w").code == 73
    assert not out.exists()


@pytest.mark.parametrize("place", ["raw", "raw/work", "out"])
def test_bad_work_folder(call, fake, raw, out, tmp_path, place):
    assert call(raw, out, "participant", SKIP, "-w", tmp_path / place).code == 64


def test_default_work_folder_is_never_in_the_input(call, fake, raw, out, monkeypatch):
    monkeypatch.chdir(raw)
    assert call(raw, out, "participant", SKIP).code == 0
    assert not (raw / "work").exists()
    work = Path(fake.arguments["work_dir"])
    assert not work.is_relative_to(raw)
    shutil.rmtree(work, ignore_errors=True)


def test_bad_filter_file(call, fake, raw, out, tmp_path):
    (tmp_path / "f.json").write_text("{")
    result = call(raw, out, "participant", SKIP, "--bids-filter-file", tmp_path / "f.json")
    assert result.code == 64
    assert nothing_done(result, fake, out)


def test_filters_select_nothing(call, fake, raw, out, tmp_path):
    (tmp_path / "f.json").write_text('{"flair": {"acquisition": "3d"}}')
    result = call(raw, out, "participant", SKIP, "--bids-filter-file", tmp_path / "f.json")
    assert result.code == 18


def test_weights_missing(call, fake, raw, out, tmp_path, weights):
    result = call(raw, out, "participant", SKIP, "--weights", tmp_path / "w.safetensors")
    assert result.code == 66
    assert "w.safetensors" in result.text
    weights.with_suffix(".json").unlink()
    assert call(raw, out, "participant", SKIP).code == 66
    assert nothing_done(result, fake, out)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"x" * 999, "the weights are damaged"), (b"version https://git-lfs\n", "git lfs pull")],
)
def test_damaged_weights_are_refused_before_any_work(
    call, fake, raw, out, tmp_path, weights, content, said
):
    assert call(raw, out, "participant", SKIP).code == 0
    before = sorted(out.glob("sub-*/**/*"))
    shutil.copyfile(weights.with_suffix(".json"), tmp_path / "cut.json")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(content)
    for dry in ((), ("--dry-run",)):
        result = call(raw, out, "participant", SKIP, "--weights", cut, *dry)
        assert result.code == 66
        assert said in result.text
    assert sorted(out.glob("sub-*/**/*")) == before


@pytest.mark.parametrize(
    ("option", "tool", "program"),
    [("--skull-strip", "bet", "bet"), ("--bias-correction", "ants", "N4BiasFieldCorrection")],
)
def test_programs_that_are_asked_for_must_be_there(
    call, fake, raw, out, tmp_path, monkeypatch, option, tool, program
):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    result = call(raw, out, "participant", SKIP, option, tool)
    assert result.code == 64
    assert f"'{program}' is not on the PATH" in result.text
    double = tmp_path / "bin" / program
    double.parent.mkdir()
    double.write_text("#!/bin/sh\n")
    double.chmod(0o755)
    assert call(raw, out, "participant", SKIP, option, tool).code == 0


def test_automatic_tools(call, fake, raw, out, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    call(raw, out, "participant", SKIP)
    settings = fake.arguments["settings"]
    assert (settings.skull_strip, settings.bias_correction) == ("deepbet", "antspyx")
    for program in ("bet", "N4BiasFieldCorrection"):
        double = tmp_path / "bin" / program
        double.parent.mkdir(exist_ok=True)
        double.write_text("#!/bin/sh\n")
        double.chmod(0o755)
    call(raw, out, "participant", SKIP)
    settings = fake.arguments["settings"]
    assert (settings.skull_strip, settings.bias_correction) == ("bet", "ants")


class Validator:
    """A stand-in for the validator's program."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *issues: dict) -> None:
        self.commands: list[list[str]] = []
        answer = {"issues": {"issues": list(issues), "codeMessages": {"BAD": "It is\nbad."}}}

        def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
            self.commands.append(command)
            return subprocess.CompletedProcess(command, 16, stdout=json.dumps(answer), stderr="")

        monkeypatch.setattr(preflight, "find_validator", lambda: "validator")
        monkeypatch.setattr(preflight.subprocess, "run", run)


def issue(location: str, code: str = "BAD", severity: str = "error") -> dict:
    return {"location": location, "code": code, "severity": severity}


def test_invalid_input(call, fake, raw, out, monkeypatch):
    Validator(monkeypatch, *[issue(f"/sub-01/{number}") for number in range(7)])
    result = call(raw, out, "participant")
    assert result.code == 16
    assert "ERROR: /sub-01/0: BAD: It is bad." in result.text
    assert "... and 2 more" in result.text
    assert "7 errors" in result.text
    assert nothing_done(result, fake, out)


@pytest.mark.parametrize(
    "harmless",
    [
        issue("/README", severity="warning"),
        issue("/sub-01/anat/sub-01_FLAIR.nii.gz", code="EMPTY_FILE"),
        issue("/sub-02/anat/x.json"),
    ],
)
def test_what_does_not_stop_a_run(call, fake, raw, out, monkeypatch, harmless):
    validator = Validator(monkeypatch, harmless)
    assert call(raw, out, "participant", "--participant-label", "01").code == 0
    assert len(validator.commands) == 1


def test_other_empty_files_are_errors(call, fake, raw, out, monkeypatch):
    Validator(monkeypatch, issue("/sub-01/anat/sub-01_FLAIR.json", code="EMPTY_FILE"))
    assert call(raw, out, "participant").code == 16


def test_validation_can_be_skipped(call, fake, raw, out, monkeypatch):
    validator = Validator(monkeypatch, issue("/README"))
    assert call(raw, out, "participant", SKIP).code == 0
    assert validator.commands == []


def test_missing_validator(call, fake, raw, out, monkeypatch):
    monkeypatch.setattr(preflight, "find_validator", lambda: None)
    result = call(raw, out, "participant")
    assert result.code == 0
    assert "WARNING: The BIDS validator" in result.text


def test_the_real_validator(call, fake, raw, out, tmp_path):
    if preflight.find_validator() is None:
        pytest.skip("bids-validator-deno is not installed in this environment")
    bad = raw / "sub-01/anat/sub-01_acq-3d_FLAIR.nii.gz"
    bad.write_text("no image")
    (raw / "sub-01/anat/sub-01_acq-2d_FLAIR.nii.gz").symlink_to(".git/annex/objects/nothing")
    (raw / "sub-01/anat/sub-01_acq-2d_FLAIR.json").write_text('{"EchoTime": 0.1}')
    (raw / "sub-01/anat/sub-01_acq-1d_FLAIR.nii.gz").touch()
    result = call(raw, out, "participant")
    assert result.last_line == "msnmo: PARTIAL 1 3", "bad images fail by themselves, later"
    (raw / "sub-01/anat/sub-01_nonsense.txt").write_text("x")
    result = call(raw, out, "participant", "--overwrite")
    assert result.code == 16
    assert "sub-01_nonsense.txt" in result.text
    assert "1 errors" in result.text


def test_group(call, fake, make_dataset, out, bad_data):
    raw = make_dataset(SCAN, "sub-02/anat/sub-02_FLAIR.nii.gz", "sub-03/anat/sub-03_FLAIR.nii.gz")
    fake.failures["sub-02"] = bad_data("sub-02")
    call(raw, out, "participant", SKIP, "--participant-label", "01", "02")
    result = call(raw, out, "group")
    assert (result.code, result.last_line) == (0, "msnmo: SUCCESS 1 0")
    ((scans, _),) = fake.group
    assert [scan.status for scan in scans] == ["complete", "failed", "pending"]
    assert scans[1].message == "the image has 4 dimensions"
    assert "sub-02_FLAIR.nii.gz: no results (the image has 4 dimensions)" in result.text


def test_group_with_manual_masks_and_columns(call, fake, make_dataset, out):
    mask = "derivatives/manual/sub-01/anat/sub-01_label-L_desc-manual_mask.nii.gz"
    raw = make_dataset("sub-01/anat/sub-01_FLAIR.nii.gz", mask)
    assert call(raw, out, "participant").code == 0
    asked = ("--labels", "derivatives/manual", "--site-column", "centre", "--positive", "MS")
    assert call(raw, out, "group", *asked).code == 0
    settings = fake.group[0][1]["settings"]
    assert settings.masks == {"sub-01/anat/sub-01_FLAIR.nii.gz": raw / mask}
    assert (settings.columns.site, settings.positive) == ("centre", "MS")


def test_group_without_the_manual_masks_asked_for(call, fake, raw, out):
    assert call(raw, out, "participant").code == 0
    result = call(raw, out, "group", "--labels", "derivatives/manual")
    assert result.code == ExitCode.INPUT_MISSING
    assert "derivatives/manual: there is no such folder. Give --labels from" in result.text
    assert fake.group == []


def test_group_before_participants(call, fake, raw, out):
    result = call(raw, out, "group")
    assert result.code == 66
    assert "participant level first" in result.text
    assert not out.exists()


def test_group_dry_run(call, fake, raw, out):
    call(raw, out, "participant", SKIP)
    assert call(raw, out, "group", "--dry-run").code == 0
    assert fake.group == []


@pytest.mark.parametrize("place", ["logs", "sub-01", "sub-01/anat"])
def test_a_place_within_the_output_that_cannot_be_written(call, fake, raw, out, place):
    (out / place).parent.mkdir(parents=True)
    (out / place).touch()
    result = call(raw, out, "participant", SKIP)
    assert result.code == 73
    assert f"{out / place}: the folder cannot be written (File exists)" in result.text
    assert not fake.runs


def test_a_place_of_the_group_level_that_cannot_be_written(call, fake, raw, out):
    call(raw, out, "participant", SKIP)
    (out / "phenotype").touch()
    assert call(raw, out, "group").code == 73
    assert fake.group == []


def test_default_work_folder_is_never_the_output(call, fake, raw):
    assert call(raw, "work", "participant", SKIP).code == 0  # named as the work folder would be
    work = Path(fake.arguments["work_dir"])
    assert work != Path("work").resolve()
    shutil.rmtree(work, ignore_errors=True)


@pytest.mark.parametrize("left_out", [("--session-label", "2"), ("--exclude", "*_ses-1*")])
def test_a_mask_that_fits_a_scan_left_out_too_is_not_taken(call, fake, make_dataset, out, left_out):
    scans = [f"sub-01/ses-{k}/anat/sub-01_ses-{k}_FLAIR.nii.gz" for k in (1, 2)]
    raw = make_dataset(*scans, "derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz")
    assert call(raw, out, "participant").code == 0
    result = call(raw, out, "group", "--labels", "derivatives/manual", *left_out)
    assert result.code == ExitCode.INPUT_MISSING
    assert "lesion mask that fits several scans (sub-01_label-lesion_mask.nii.gz)" in result.text


@pytest.mark.parametrize(
    ("level", "given", "said"),
    [
        ("group", ("--threshold", "0.3", "--sloppy"), "--sloppy, --threshold"),
        ("participant", ("--site-column", "centre", "--positive", "MS"), "--site-column, --pos"),
        ("participant", ("--skull-strip", "deepbet", "--bet-frac", "0.2"), "--bet-frac"),
    ],
)
def test_options_without_effect_are_named(call, fake, raw, out, level, given, said):
    assert call(raw, out, "participant").code == 0
    result = call(raw, out, level, *given)
    assert result.code == 0
    [line] = [line for line in result.text.splitlines() if "without effect" in line]
    assert set(said.split(", ")) <= {
        name[: len(part)] for part in said.split(", ") for name in line.replace(":", ",").split()
    }


def test_group_without_input_refuses_labels_that_nothing_has(call, fake, raw, out):
    assert call(raw, out, "participant").code == 0
    gone = raw.with_name("nowhere")
    for asked in (("--participant-label", "01", "999"), ("--session-label", "7")):
        result = call(gone, out, "group", *asked)
        assert result.code == ExitCode.NOTHING_SELECTED
        assert f"no such {asked[0].split('-')[2]}: {asked[-1]}" in result.text
