"""Which scans a run takes, and what this room may know."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

from msnmo_bids import run
from msnmo_bids.cli.main import parse_args
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.run.plan import select

NAMES = {
    "one": "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz",
    "two": "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz",
    "again": "sub-01/ses-2/anat/sub-01_ses-2_acq-3d_run-2_FLAIR.nii.gz",
    "other": "sub-011/anat/sub-011_FLAIR.nii.gz",
}


def excluding(root: Path, *words: str):
    options = parse_args([str(root), "out", "participant", *words])
    return select(options.bids_dir, options)


@pytest.mark.parametrize(
    ("patterns", "gone"),
    [
        (["sub-01_ses-2"], {"two", "again"}),
        (["ses-2_sub-01"], {"two", "again"}),
        (["01"], {"one", "two", "again"}),
        (["acq-3d", "sub-011"], {"again", "other"}),
        (["sub-01_ses-2_acq-3d_run-2_FLAIR.nii.gz"], {"again"}),
        (["sub-01_ses-?"], {"one", "two"}),
        (["*_run-2*", "*acq-3d*"], {"again"}),
        (["sub-1"], set()),
    ],
)
def test_excluded_scans_are_named_once(make_dataset, caplog, patterns, gone):
    root = make_dataset(*NAMES.values())
    with caplog.at_level(logging.INFO):
        selection = excluding(root, "--exclude", *patterns)
    left = {name for name in NAMES if name not in gone}
    assert {scan.relative for scan in selection.scans} == {NAMES[name] for name in left}
    assert selection.available == selection.scans
    assert selection.subjects == tuple(dict.fromkeys(scan.subject for scan in selection.scans))
    assert selection.without_flair == ()
    for name in NAMES:
        said = f"{NAMES[name]}: left out (--exclude "
        assert caplog.text.count(said) == (name in gone)
    assert ("no scan has such a name" in caplog.text) == (not gone)


def test_excluding_all_is_an_error(make_dataset):
    root = make_dataset(*NAMES.values())
    with pytest.raises(MsnmoError, match="leaves no scan") as caught:
        excluding(root, "--session-label", "1", "--exclude", "sub-01_ses-1")
    assert caught.value.exit_code == ExitCode.NOTHING_SELECTED


def test_excluded_labels_with_commas(capsys):
    with pytest.raises(SystemExit):
        parse_args(["in", "out", "participant", "--exclude", "sub-01,sub-02"])
    assert "separate them with blanks" in capsys.readouterr().err


@pytest.mark.parametrize(
    "file", sorted(Path(run.__file__).parent.glob("*.py")), ids=lambda file: file.name
)
def test_running_knows_nothing_of_the_command_line(file):
    imported = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        if isinstance(node, ast.ImportFrom):
            imported.add(str(node.module))
    assert "argparse" not in imported
    assert not [name for name in imported if name.startswith("msnmo_bids.cli")]
