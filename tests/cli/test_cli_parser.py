from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from msnmo_bids.cli.parser import build_parser, parse_args

REQUIRED = ["in", "out", "participant"]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["--participant-label", "sub-01", "02"], "participant_label", ["01", "02"]),
        (["--participant_label", "01"], "participant_label", ["01"]),
        (["--session-label", "ses-1", "2"], "session_label", ["1", "2"]),
        (["--bids-filter-file", "f.json"], "bids_filter_file", Path("f.json")),
        (["--skip-bids-validation"], "skip_bids_validation", True),
        (["--skip_bids_validation"], "skip_bids_validation", True),
        (["--skip-bids-validator"], "skip_bids_validation", True),
        (["--skip_bids_validator"], "skip_bids_validation", True),
        (["--bids-database-dir", "db"], "bids_database_dir", Path("db")),
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
        (
            ["--ensemble", "a.safetensors", "b.safetensors"],
            "ensemble",
            [Path("a.safetensors"), Path("b.safetensors")],
        ),
        (["--tta"], "tta", True),
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
def test_wrong_usage(arguments, call, capsys):
    result = call(*arguments)
    assert result.code == 64
    assert "usage:" in result.text
    assert "error:" in result.text


def test_unknown_level(call):
    result = call("in", "out", "subject")
    assert result.code == 17
    assert "participant, group" in result.text


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version_end_well(arguments, capsys):
    from msnmo_bids.cli.main import main

    assert main(arguments) == 0
    assert "msnmo" in capsys.readouterr().out


def test_help_names_units_and_defaults():
    text = " ".join(build_parser().format_help().split())
    for words in ("mm³", "in MB", "(default: 0.5)", "(default: 0)", "which scans:", "performance:"):
        assert words in text
    assert "--participant_label" not in text


def test_every_option_has_help():
    for action in build_parser()._actions:
        assert action.help, action.option_strings


@pytest.mark.parametrize("command", [["run.py"], ["-m", "msnmo_bids"]])
def test_help_imports_nothing_heavy(command):
    """A light help is fast on every machine; time itself is not for tests."""
    heavy = ("torch", "monai", "ants", "bids", "nipype", "nibabel", "niworkflows", "numpy",
             "pandas", "scipy", "matplotlib", "nilearn", "deepbet", "jinja2", "yaml")  # fmt: skip
    code = (
        "import runpy, sys, atexit\n"
        f"heavy = {heavy!r}\n"
        "atexit.register(lambda: sys.stderr.write("
        "'LOADED ' + ' '.join(name for name in heavy if name in sys.modules)))\n"
        f"sys.argv = ['run.py', '--help']\n"
        + ("runpy.run_path('run.py', run_name='__main__')" if command[0] == "run.py"
           else "runpy.run_module('msnmo_bids', run_name='__main__')")
    )  # fmt: skip
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "usage:" in ran.stdout
    assert ran.stderr.strip() == "LOADED"
