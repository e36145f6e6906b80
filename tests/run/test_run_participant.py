from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from msnmo_bids.bids.records import read_runs
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.run.resources import MOST_THREADS

THREE = (
    "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
    "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz",
    "sub-02/anat/sub-02_FLAIR.nii.gz",
)
PREFIXES = ["sub-01_ses-1", "sub-01_ses-2", "sub-02"]
SKIP = "--skip-bids-validation"


@pytest.fixture
def raw(make_dataset) -> Path:
    return make_dataset(*THREE)


@pytest.fixture
def out(tmp_path) -> Path:
    return tmp_path / "out"


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.relative_to(folder).parts[0] != "logs"
    }


def test_all_scans(call, fake, raw, out):
    result = call(raw, out, "participant", SKIP)
    assert result.code == 0
    assert result.last_line == "msnmo: SUCCESS 3 0"
    assert fake.processed == PREFIXES
    assert [report[0] for report in fake.reports] == ["01", "02"]
    (run,) = read_runs(out)
    assert [entry["Status"] for entry in run["Scans"]] == ["complete"] * 3
    assert run["ExitCode"] == 0
    assert run["Scans"][0]["Steps"] == {
        "checking the image": {"WallSeconds": 1.0, "CPUSeconds": 2.0, "MemoryGB": 0.5},
        "brain regions": {"WallSeconds": 0.5, "CPUSeconds": 0.5, "MemoryGB": 0.25},
    }
    for name in ("dataset_description.json", "participants.tsv", "logs/CITATION.md"):
        assert (out / name).is_file()
    log = next((out / "logs").glob("*/msnmo.log")).read_text()
    assert "The network computes on cpu" in log, "what was said before the file was there"
    assert log.strip().endswith("msnmo: SUCCESS 3 0")


def test_configuration_is_written(call, fake, raw, out):
    call(raw, out, "participant", SKIP, "--threshold", "0.2", "--participant-label", "01")
    config = tomllib.loads(next((out / "logs").glob("*/config.toml")).read_text())
    assert config["settings"]["threshold"] == 0.2
    assert config["settings"]["device"] == "cpu"
    assert config["options"]["participant_label"] == ["01"]
    assert config["options"]["device"] == "auto"
    assert config["weights"]["name"] == "tiny"
    assert "--threshold" in config["command"]


def test_weights_give_threshold_and_volume(call, fake, raw, out):
    call(raw, out, "participant", SKIP)
    settings = fake.arguments["settings"]
    assert (settings.threshold, settings.min_lesion_volume) == (0.35, 5.0)
    others = ["--threshold", "0.01", "--min-lesion-volume", "0"]
    call(raw, out, "participant", SKIP, *others)
    settings = fake.arguments["settings"]
    assert (settings.threshold, settings.min_lesion_volume) == (0.01, 0.0)


def test_what_the_workflow_is_given(call, fake, raw, out, tmp_path):
    call(
        raw, out, "participant", SKIP, "--nprocs", "3", "--omp-nthreads", "2", "-w", tmp_path / "w"
    )
    given = fake.arguments
    assert (given["omp_nthreads"], given["work_dir"], given["plugin"]) == (
        2,
        tmp_path / "w",
        "MultiProc",
    )
    assert (given["plugin_args"]["n_procs"], given["plugin_args"]["gpus"]) == (3, [])
    assert Path(given["crash_dir"]).parent == out / "logs"


def test_a_plugin_file(call, fake, raw, out, tmp_path):
    (tmp_path / "p.yml").write_text("plugin: Linear\n")
    call(raw, out, "participant", SKIP, "--use-plugin", tmp_path / "p.yml")
    assert (fake.arguments["plugin"], fake.arguments["plugin_args"]["omp_nthreads"]) == (
        "Linear",
        MOST_THREADS,
    )


def test_a_second_run_does_nothing(call, fake, raw, out):
    call(raw, out, "participant", SKIP)
    before = tree(out)
    runs = sorted((out / "logs").iterdir())
    result = call(raw, out, "participant")  # with validation: nothing to do, nothing to validate
    assert result.code == 0
    assert "Nothing to do: 3 of 3 scans complete" in result.text
    assert result.last_line == "msnmo: SUCCESS 3 0"
    assert len(fake.runs) == 1
    assert len(fake.reports) == 2
    assert tree(out) == before
    assert sorted((out / "logs").iterdir()) == runs


@pytest.mark.parametrize(
    "name", ["desc-preproc_FLAIR.nii.gz", "desc-lesions_morph.tsv", "desc-msnmo_diagnosis.json"]
)
def test_only_the_scan_with_a_missing_output_runs(call, fake, raw, out, name):
    call(raw, out, "participant", SKIP)
    before = tree(out)
    (out / "sub-02/anat" / f"sub-02_{name}").unlink()
    result = call(raw, out, "participant", SKIP)
    assert fake.runs[1:] == [["sub-02"]]
    assert result.last_line == "msnmo: SUCCESS 3 0"
    assert tree(out) == before
    assert [report[0] for report in fake.reports] == ["01", "02", "02"]


def test_what_a_killed_run_did_not_write_is_written(call, fake, raw, out):
    call(raw, out, "participant", SKIP)
    before = tree(out)
    (out / "sub-01.html").unlink()
    (out / "participants.tsv").unlink()
    call(raw, out, "participant", SKIP)
    assert len(fake.runs) == 1
    assert tree(out) == before
    assert fake.reports[-1] == fake.reports[0], "the settings too, though nothing was probed"


def test_other_settings_run_again(call, fake, raw, out):
    call(raw, out, "participant", SKIP)
    result = call(raw, out, "participant", SKIP, "--threshold", "0.9")
    assert len(fake.runs) == 2
    assert result.code == 0


def test_overwrite(call, fake, raw, out):
    call(raw, out, "participant", SKIP)
    call(raw, out, "participant", SKIP, "--overwrite", "--participant-label", "02")
    assert fake.runs[1:] == [["sub-02"]]


def test_old_files_are_gone_before_a_scan_runs(call, fake, raw, out):
    call(raw, out, "participant", SKIP)
    leftover = out / "sub-02/anat/.tmp-msnmo-0123456789ab-sub-02_desc-preproc_FLAIR.nii.gz"
    leftover.touch()
    (out / "sub-02/anat/sub-02_desc-msnmo_diagnosis.json").unlink()
    fake.error = MsnmoError("stop here")
    result = call(raw, out, "participant", SKIP)
    assert result.code == 1
    assert not (out / "sub-02").exists()


def test_one_bad_scan(call, fake, raw, out, bad_data):
    message = f"{raw / THREE[1]}: the image has 4 dimensions"
    fake.failures["sub-01_ses-2"] = bad_data("sub-01_ses-2", message=message)
    result = call(raw, out, "participant", SKIP)
    assert result.code == 65
    assert result.last_line == "msnmo: PARTIAL 2 1"
    line = f"ERROR: {THREE[1]}: checking the image: the image has 4 dimensions. Give one volume"
    assert line in result.text.splitlines()
    (run,) = read_runs(out)
    entry = run["Scans"][1]
    assert (entry["Status"], entry["Step"]) == ("failed", "checking the image")
    assert entry["Message"] == "the image has 4 dimensions"
    subject, scans, _ = fake.reports[0]
    assert subject == "01"
    assert [scan.status for scan in scans] == ["complete", "failed"]
    assert [scan.relative for scan in scans if scan.step] == [THREE[1]]


def test_a_repaired_scan_is_no_failure_any_more(call, fake, raw, out, bad_data):
    fake.failures["sub-02"] = bad_data("sub-02")
    call(raw, out, "participant", SKIP)
    fake.failures.clear()
    result = call(raw, out, "participant", SKIP)
    assert result.last_line == "msnmo: SUCCESS 3 0"
    assert fake.runs[1] == ["sub-02"]
    subject, scans, _ = fake.reports[-1]
    assert (subject, scans[0].status, scans[0].reason) == ("02", "complete", "")


def test_all_scans_bad(call, fake, raw, out, bad_data):
    fake.failures = {prefix: bad_data(prefix) for prefix in PREFIXES}
    result = call(raw, out, "participant", SKIP)
    assert (result.code, result.last_line) == (65, "msnmo: FAILED 0 3")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([ExitCode.FAILURE], 1),
        ([ExitCode.BAD_DATA, ExitCode.FAILURE], 1),
        ([ExitCode.BAD_DATA, ExitCode.IO_ERROR], 74),
        ([ExitCode.TEMPORARY_FAILURE, ExitCode.IO_ERROR], 1),
    ],
)
def test_other_failures(call, fake, raw, out, bad_data, codes, expected):
    for prefix, code in zip(PREFIXES, codes, strict=False):
        fake.failures[prefix] = bad_data(prefix, exit_code=code)
    assert call(raw, out, "participant", SKIP).code == expected


def test_crash_files_are_named_from_the_output(call, fake, raw, out, bad_data):
    crash = out / "logs" / "x" / "crash.txt"
    fake.failures["sub-02"] = bad_data("sub-02", crash_file=crash)
    call(raw, out, "participant", SKIP)
    assert read_runs(out)[0]["Scans"][-1]["CrashFile"] == "logs/x/crash.txt"


def test_stop_on_first_crash(call, fake, raw, out, bad_data):
    fake.failures["sub-01_ses-2"] = bad_data("sub-01_ses-2")
    result = call(raw, out, "participant", SKIP, "--stop-on-first-crash")
    assert result.code == 65
    assert result.last_line == "msnmo: PARTIAL 1 2"
    assert f"{THREE[2]}: waiting: " in result.text


def test_a_scan_without_derivatives_and_without_failure_is_no_success(call, fake, raw, out):
    fake.idle = True
    result = call(raw, out, "participant", SKIP)
    assert (result.code, result.last_line) == (1, "msnmo: FAILED 0 3")


def test_interrupted(call, fake, raw, out):
    fake.interrupt_at = "sub-02"
    result = call(raw, out, "participant", SKIP)
    assert (result.code, result.last_line) == (75, "msnmo: PARTIAL 2 1")
    assert "same command again" in result.text
    (run,) = read_runs(out)
    states = {entry["Prefix"]: entry["Status"] for entry in run["Scans"]}
    assert states == {**dict.fromkeys(PREFIXES[:2], "complete"), PREFIXES[2]: "pending"}
    fake.interrupt_at = None
    result = call(raw, out, "participant", SKIP)
    assert fake.runs[1] == ["sub-02"]
    assert result.last_line == "msnmo: SUCCESS 3 0"
    assert {"sub-01.html", "sub-02.html"} <= set(tree(out))


def test_what_failed_before_an_interruption_is_said(call, fake, bad_data, raw, out):
    fake.failures = {PREFIXES[0]: bad_data(PREFIXES[0])}
    fake.interrupt_at = PREFIXES[2]
    result = call(raw, out, "participant", SKIP)
    assert (result.code, result.last_line) == (75, "msnmo: PARTIAL 1 2")
    (run,) = read_runs(out)
    states = [(entry["Status"], bool(entry.get("Remedy"))) for entry in run["Scans"]]
    assert states == [("failed", True), ("complete", False), ("pending", False)]
    assert bad_data(PREFIXES[0]).message in result.text


def test_an_unexpected_error_leaves_its_trace(call, fake, raw, out):
    fake.error = RuntimeError("something\nodd")
    result = call(raw, out, "participant", SKIP)
    assert (result.code, result.last_line) == (1, "msnmo: FAILED 0 3")
    assert "RuntimeError: something odd" in result.text
    assert "Traceback" not in result.text
    crash = next((out / "logs").glob("*/crash-msnmo.txt"))
    assert str(crash) in result.text
    assert "Traceback" in crash.read_text()


def test_a_full_disk(call, fake, raw, out):
    fake.error = OSError(errno.ENOSPC, "No space left on device", "/x")
    result = call(raw, out, "participant", SKIP)
    assert result.code == 74
    assert "No space left on device (/x). Make room" in result.text


def test_a_report_that_fails_costs_only_itself(call, fake, raw, out):
    fake.report_error = ValueError("template")
    result = call(raw, out, "participant", SKIP)
    assert (result.code, result.last_line) == (1, "msnmo: PARTIAL 3 0")
    assert "--reports-only" in result.text
    assert read_runs(out)[0]["ExitCode"] == 1
    fake.report_error = None
    result = call(raw, out, "participant", SKIP)
    assert (result.code, len(fake.runs)) == (0, 1)
    assert (out / "sub-01.html").is_file()


def test_dry_run_writes_nothing(call, fake, raw, out, tmp_path):
    call(raw, out, "participant", SKIP, "--participant-label", "01")
    before = sorted(tmp_path.rglob("*"))
    result = call(raw, out, "participant", SKIP, "--dry-run")
    lines = [" ".join(line.split()) for line in result.text.splitlines()]
    assert f"{THREE[0]} keep complete deepbet" in lines
    assert f"{THREE[2]} run not processed yet deepbet" in lines
    assert "1 of 3 scans would run" in lines
    assert result.last_line == "msnmo: SUCCESS 0 0"
    assert sorted(tmp_path.rglob("*")) == before


def test_dry_run_does_not_make_the_output(call, fake, raw, out):
    assert call(raw, out, "participant", SKIP, "--dry-run").code == 0
    assert not out.exists()


def test_reports_only(call, fake, raw, out):
    call(raw, out, "participant", SKIP, "--participant-label", "01")
    result = call(raw, out, "participant", SKIP, "--reports-only")
    assert result.code == 0
    assert len(fake.runs) == 1
    assert [report[0] for report in fake.reports] == ["01", "01", "02"]
    assert "1 scans are not complete" in result.text


def test_participants_without_flair_are_no_failure(call, fake, make_dataset, out):
    raw = make_dataset(*THREE, "sub-07/anat/sub-07_T1w.nii.gz")
    result = call(raw, out, "participant", SKIP)
    assert result.code == 0
    assert "No FLAIR for 1 of 3 participants: sub-07" in result.text
    assert read_runs(out)[0]["NoFLAIR"] == ["07"]


def test_a_session_leaves_the_others_in_the_report(call, fake, raw, out):
    call(raw, out, "participant", SKIP, "--participant-label", "01")
    call(raw, out, "participant", SKIP, "--session-label", "1", "--overwrite")
    assert fake.runs[1] == ["sub-01_ses-1"]
    assert [scan.prefix for scan in fake.reports[-1][1]] == PREFIXES[:2]


def test_very_verbose_keeps_the_work(call, fake, raw, out):
    call(raw, out, "participant", SKIP)
    assert not fake.arguments["keep"]
    call(raw, out, "participant", SKIP, "-vv", "--overwrite")
    assert fake.arguments["keep"]


def test_cleaning_the_work_folder_keeps_what_is_not_ours(call, fake, raw, out, tmp_path):
    work = tmp_path / "w"
    ours = work / "msnmo_wf/single_subject_01_wf/scan_x_wf/x.nii"
    other = work / "msnmo_wf/single_subject_99_wf/scan_x_wf/x.nii"
    foreign = work / "precious.txt"
    for path in (ours, other, foreign):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    call(raw, out, "participant", SKIP, "-w", work, "--clean-workdir", "--participant-label", "01")
    assert (ours.exists(), other.exists(), foreign.exists()) == (False, True, True)
    call(raw, out, "participant", SKIP, "-w", work, "--clean-workdir", "--overwrite")
    assert (other.exists(), foreign.exists()) == (False, True)


def test_many_scans_run_in_batches(call, fake, raw, out, monkeypatch, bad_data):
    monkeypatch.setattr("msnmo_bids.run.job.BATCH", 2)
    assert call(raw, out, "participant", SKIP).last_line == "msnmo: SUCCESS 3 0"
    assert fake.runs == [PREFIXES[:2], PREFIXES[2:]]
    fake.failures["sub-01_ses-1"] = bad_data("sub-01_ses-1")
    call(raw, out, "participant", SKIP, "--overwrite", "--stop-on-first-crash")
    assert len(fake.runs) == 3


def test_methods_do_not_depend_on_what_is_left_to_run(call, fake, raw, out):
    (raw / "sub-02/anat/sub-02_FLAIR.json").write_text(json.dumps({"SkullStripped": True}))
    call(raw, out, "participant", SKIP)
    text = (out / "logs/CITATION.md").read_text()
    assert "stripped: False" in text
    assert "stripped: True" in text
    call(raw, out, "participant", SKIP, "--overwrite")
    (out / "sub-02/anat/sub-02_desc-msnmo_diagnosis.json").unlink()
    call(raw, out, "participant", SKIP)
    assert (out / "logs/CITATION.md").read_text() == text


def test_nothing_heavy_is_imported_when_nothing_is_to_do(call, fake, raw, out, weights):
    """Reruns must be fast on big data sets; time itself is not for tests."""
    call(raw, out, "participant", SKIP)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "import msnmo_bids.model.weights as weights\n"
        f"weights.SHIPPED_WEIGHTS = Path({str(weights)!r})\n"
        "from msnmo_bids.cli.main import main\n"
        f"code = main([{str(raw)!r}, {str(out)!r}, 'participant'])\n"
        "heavy = ('torch', 'nipype', 'monai', 'ants', 'niworkflows', 'matplotlib')\n"
        "sys.exit(code or sum(name in sys.modules for name in heavy))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False
    )
    assert "Nothing to do: 3 of 3" in ran.stdout, ran.stderr
    assert ran.returncode == 0, ran.stdout


def test_called_as_babs_calls_it(call, fake, make_dataset, tmp_path, monkeypatch):
    """Relative folders, links to git-annex' objects, one visit by a filter file, a work folder."""
    raw = make_dataset(*THREE, name="inputs/data/BIDS")
    for number, relative in enumerate(THREE):
        annexed = raw / ".git" / "annex" / "objects" / str(number)
        annexed.parent.mkdir(parents=True, exist_ok=True)
        (raw / relative).rename(annexed)
        (raw / relative).symlink_to(os.path.relpath(annexed, (raw / relative).parent))
    queries = {
        "flair": {"datatype": "anat", "session": "2", "suffix": "FLAIR"},
        "bold": {"datatype": "func", "session": "2", "suffix": "bold"},
    }
    (tmp_path / "ses-2_filter.json").write_text(json.dumps(queries))
    monkeypatch.chdir(tmp_path)
    result = call(
        "inputs/data/BIDS", "outputs/msnmo", "participant", "-w", ".git/tmp/wkdir", "--n_cpus", "1",
        "--stop-on-first-crash", SKIP, "-v", "-v", "--bids-filter-file", "ses-2_filter.json",
        "--participant-label", "sub-01",
    )  # fmt: skip
    assert (result.code, result.last_line) == (0, "msnmo: SUCCESS 1 0")
    assert fake.processed == ["sub-01_ses-2"]
    assert (tmp_path / "outputs" / "msnmo" / "dataset_description.json").is_file()
