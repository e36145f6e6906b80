"""Every program checks every place that it writes to before any work, and nothing in the input."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from msnmo_bids.cli import crossval, main, meta, simulate, train
from msnmo_bids.run import resources

PROGRAMS = {"main": main, "crossval": crossval, "meta": meta, "simulate": simulate, "train": train}
#: The arguments of each program; ``OUT`` is where its output goes.
COMMANDS = {
    "main": ("IN", "OUT", "participant", "--skip-bids-validation"),
    "crossval": ("IN", "OUT"),
    "meta": ("IN", "OUT"),
    "simulate": ("OUT", "--anatomy", "IN"),
    "train": ("IN", "OUT"),
}
#: Where else a program writes.
MORE = [
    ("main", "--work-dir"),
    ("train", "--work-dir"),
    ("train", "--cache-dir"),
    ("crossval", "--work-dir"),
    ("crossval", "--cache-dir"),
]


@pytest.fixture
def raw(make_dataset) -> Path:
    return make_dataset("sub-01/anat/sub-01_FLAIR.nii.gz")


def run(name: str, raw: Path, out: Path, *more: str | Path) -> int:
    places = {"IN": str(raw), "OUT": str(out)}
    words = [places.get(word, word) for word in COMMANDS[name]]
    return PROGRAMS[name].main([*words, *map(str, more)])


def said_once(capsys: pytest.CaptureFixture, text: str) -> None:
    """Check that there is one error, in words and with a remedy."""
    said = capsys.readouterr().out
    errors = [line for line in said.splitlines() if line.startswith("ERROR: ")]
    assert len(errors) == 1, said
    assert text in errors[0]
    assert "hoose" in errors[0]
    assert "nexpected" not in said


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("place", [".", "out", "sub-01/anat/deep/out"])
def test_no_program_writes_into_its_input(name, place, raw, capsys):
    before = sorted(raw.rglob("*"))
    assert run(name, raw, raw / place) == 64
    said_once(capsys, "into which nothing is written")
    assert sorted(raw.rglob("*")) == before


@pytest.mark.parametrize(("name", "option"), MORE)
def test_what_is_in_between_is_not_in_the_input_either(name, option, raw, tmp_path, capsys):
    before = sorted(raw.rglob("*"))
    assert run(name, raw, tmp_path / "out", option, raw / "x") == 64
    said_once(capsys, "into which nothing is written")
    assert sorted(raw.rglob("*")) == before
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["train", "crossval"])
@pytest.mark.parametrize("option", ["--data", "--anatomy"])
def test_other_folders_that_are_read_are_inputs_too(name, option, raw, make_dataset, capsys):
    other = make_dataset(name="other")
    before = sorted(other.rglob("*"))
    assert run(name, raw, other / "out", option, other) == 64
    said_once(capsys, f"in the input ({other})")
    assert sorted(other.rglob("*")) == before


@pytest.mark.parametrize("name", COMMANDS)
def test_a_file_in_the_place_of_the_output(name, raw, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(name, raw, tmp_path / "file") == 73
    said_once(capsys, "the output folder cannot be written (File exists)")
    assert run(name, raw, tmp_path / "file" / "out") == 73
    said_once(capsys, "the output folder cannot be written (Not a directory)")


@pytest.mark.parametrize(("name", "option"), MORE)
def test_other_places_that_cannot_be_written(name, option, raw, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(name, raw, tmp_path / "out", option, tmp_path / "file" / "x") == 73
    said_once(capsys, "cannot be written (Not a directory)")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_no_place_for_temporary_files(name, raw, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(resources, "_temporary_folders", lambda: ["/missing"])
    assert run(name, raw, tmp_path / "out") == 73
    assert "no folder in which temporary files can be written" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_a_forgotten_output_of_a_meta_analysis(tmp_path, capsys):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "group_FLAIR.tsv").write_text("participant_id\n")
    assert meta.main([str(tmp_path / "a"), str(tmp_path / "b")]) == 64
    assert "Name a new folder last" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["group_FLAIR.tsv"]


APART = ("unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",)))
MAY_MOUNT = subprocess.run([*APART, "true"], capture_output=True, check=False).returncode == 0
FULL = 'mount -t tmpfs -o size=64k tmpfs "$0" && head -c 1M /dev/zero >"$0/filled" 2>/dev/null'
DISKS = {
    "read-only": ('mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"', "Read-only"),
    "full": (f"{FULL}; true", "No space left on device"),
}


@pytest.mark.skipif(not MAY_MOUNT, reason="this user may not mount (unshare)")
@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("name", COMMANDS)
def test_a_disk_that_takes_nothing_is_noticed_before_any_work(name, disk, raw, tmp_path):
    mount, reason = DISKS[disk]
    folder = tmp_path / "disk"
    folder.mkdir()
    places = {"IN": str(raw), "OUT": str(folder / "out")}
    program = [sys.executable, "-m", f"msnmo_bids.cli.{name}", *(
        places.get(word, word) for word in COMMANDS[name])]  # fmt: skip
    result = subprocess.run(
        [*APART, "sh", "-c", f'{mount}; exec "$@"', str(folder), *program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(main.__file__).parents[2])},
    )
    assert result.returncode == 73, result.stdout + result.stderr
    assert f"the output folder cannot be written ({reason}" in result.stdout
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ["train", "crossval"])
@pytest.mark.parametrize("classes", [("MS", "MS"), ("MS+", "MS-"), ("MS",)])
def test_classes_that_name_no_files_are_refused_before_any_work(
    name, classes, raw, tmp_path, capsys
):
    assert run(name, raw, tmp_path / "out", "--classes", *classes) == 64
    said = capsys.readouterr().out
    assert "ERROR: --classes " in said
    assert "nexpected" not in said
    assert not list((tmp_path / "out").glob("prepared/*"))
