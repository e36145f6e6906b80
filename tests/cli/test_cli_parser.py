from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from msnmo_bids.cli.main import build_parser, main, parse_args

REQUIRED = ["in", "out", "participant"]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--participant-label", "sub-01", "02"], "participant_label", ("01", "02")),
        (["--participant_label", "01"], "participant_label", ("01",)),
        (["--session-label", "ses-1", "2"], "session_label", ("1", "2")),
        (["--bids-filter-file", "f.json"], "bids_filter_file", Path("f.json")),
        (["--skip-bids-validation"], "skip_bids_validation", True),
        (["--skip_bids_validation"], "skip_bids_validation", True),
        (["--skip-bids-validator"], "skip_bids_validation", True),
        (["--skip_bids_validator"], "skip_bids_validation", True),
        (["--nprocs", "3"], "nprocs", 3),
        (["--n-cpus", "3"], "nprocs", 3),
        (["--n_cpus", "3"], "nprocs", 3),
        (["--omp-nthreads", "2"], "omp_nthreads", 2),
        (["--mem-mb", "4000"], "mem_mb", 4000),
        (["--mem_mb", "4000"], "mem_mb", 4000),
        (["--use-plugin", "p.yml"], "use_plugin", Path("p.yml")),
        (["-w", "x"], "work_dir", Path("x")),
        (["--work-dir", "x"], "work_dir", Path("x")),
        (["--clean-workdir"], "clean_workdir", True),
        (["--device", "cuda:1"], "device", "cuda:1"),
        (["--precision", "bf16"], "precision", "bf16"),
        (["--skull-strip", "deepbet"], "skull_strip", "deepbet"),
        (["--assume-orientation", "psr"], "assume_orientation", "PSR"),
        (["--bet-frac", "0.3"], "bet_frac", 0.3),
        (["--bias-correction", "skip"], "bias_correction", "skip"),
        (["--weights", "w.safetensors"], "weights", Path("w.safetensors")),
        (["--threshold", "0.25"], "threshold", 0.25),
        (["--min-lesion-volume", "9"], "min_lesion_volume", 9.0),
        (["--random-seed", "7"], "random_seed", 7),
        (["--deterministic"], "deterministic", True),
        (["--overwrite"], "overwrite", True),
        (["--reports-only"], "reports_only", True),
        (["--dry-run"], "dry_run", True),
        (["--stop-on-first-crash"], "stop_on_first_crash", True),
        (["--sloppy"], "sloppy", True),
        (["-v"], "verbose", 1),
        (["-vvv"], "verbose", 3),
    ],
)
def test_every_option(arguments, name, value):
    assert getattr(parse_args([*REQUIRED, *arguments]), name) == value


def test_defaults():
    options = parse_args(REQUIRED)
    assert (options.device, options.precision) == ("auto", "auto")
    assert (options.skull_strip, options.bias_correction) == ("auto", "auto")
    assert (options.bet_frac, options.random_seed, options.verbose) == (0.5, 0, 0)
    assert options.threshold is None
    assert options.min_lesion_volume is None
    assert not options.overwrite


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["in", "out"],
        [*REQUIRED, "--nonsense"],
        [*REQUIRED, "--part", "01"],
        [*REQUIRED, "--nprocs", "0"],
        [*REQUIRED, "--nprocs", "two"],
        [*REQUIRED, "--bet-frac", "1.5"],
        [*REQUIRED, "--threshold", "nan"],
        [*REQUIRED, "--threshold", "0"],
        [*REQUIRED, "--threshold", "1"],
        [*REQUIRED, "--min-lesion-volume", "-1"],
        [*REQUIRED, "--device", "gpu"],
        [*REQUIRED, "--device", "cuda:"],
        [*REQUIRED, "--precision", "fp16"],
        [*REQUIRED, "--skull-strip", "hd-bet"],
        *([*REQUIRED, "--assume-orientation", codes] for codes in ("LA", "LRS", "XYZ", "LASS")),
        [*REQUIRED, "--random-seed", "-1"],
        [*REQUIRED, "--participant-label"],
        [*REQUIRED, "--participant-label", "../x"],
    ],
)
def test_wrong_usage(arguments, capsys):
    assert main(arguments) == 64
    said = capsys.readouterr()
    assert "usage:" in said.err
    assert "error:" in said.err
    assert said.out == "msnmo: FAILED 0 0\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["in", "out", "subject"], 17, "unknown analysis level 'subject' (choose from participant"),
        (["participant", "in", "out"], 64, "wrong order: input, output and level"),
        (["in", "group", "out"], 64, "as in /data/bids /data/out group"),
        ([*REQUIRED, "--threshold", "0.2", "--threshold", "0.3"], 64, "--threshold: given twice"),
        ([*REQUIRED, "--n-cpus", "2", "--nprocs", "3"], 64, "given twice"),
        ([*REQUIRED, "--sloppy", "--sloppy"], 64, "--sloppy: given twice"),
        (
            [*REQUIRED, "--participant-label", "01", "--participant_label", "02"],
            64,
            "given twice; give all its values after one",
        ),
        ([*REQUIRED, "--participant-label", "01,02"], 64, "separate labels with blanks: 01 02"),
        ([*REQUIRED, "--session-label", "1;2"], 64, "separate labels with blanks: 01 02"),
        ([*REQUIRED, "--participant-label", "labels.txt"], 64, "separated with blanks: $(cat lab"),
        ([*REQUIRED, "--participant-label", "/x/labels"], 64, "$(cat /x/labels)"),
        ([*REQUIRED, "-w", "~nobody-of-this-name/x"], 64, "there is no such home folder"),
    ],
)
def test_wrong_usage_says_what_to_do(arguments, code, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "labels.txt").write_text("01\n02\n")
    assert main(arguments) == code
    assert words in " ".join(capsys.readouterr().err.split())


def test_options_are_frozen_and_home_folders_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    words = ["~/in", "~/out", "participant", "--work-dir=~/w", "--weights", "~/a"]
    options = parse_args(words)
    assert (options.bids_dir, options.work_dir) == (Path("/home/me/in"), Path("/home/me/w"))
    assert options.weights == Path("/home/me/a")
    with pytest.raises(FrozenInstanceError):
        options.sloppy = True  # type: ignore[misc]


def test_verbosity_may_be_said_often():
    assert parse_args([*REQUIRED, "-v", "-v"]).verbose == 2


def test_help_names_units_and_defaults():
    text = " ".join(build_parser().format_help().split())
    for words in ("mm³", "in MB", "(default: 0.5)", "(default: 0)", "which scans:", "performance:"):
        assert words in text
    assert "--participant_label" not in text


def test_every_option_has_help():
    for action in build_parser()._actions:
        assert action.help, action.option_strings


def test_help_imports_nothing_heavy():
    """A light help is fast on every machine; time itself is not for tests."""
    heavy = ("torch", "monai", "ants", "bids", "nipype", "nibabel", "niworkflows", "numpy",
             "pandas", "scipy", "matplotlib", "nilearn", "deepbet", "jinja2", "yaml")  # fmt: skip
    code = (
        "import runpy, sys, atexit\n"
        f"heavy = {heavy!r}\n"
        "atexit.register(lambda: sys.stderr.write("
        "'LOADED ' + ' '.join(name for name in heavy if name in sys.modules)))\n"
        f"sys.argv = ['run.py', '--help']\n"
        "runpy.run_path('run.py', run_name='__main__')"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "usage:" in ran.stdout
    assert ran.stderr.strip() == "LOADED"
