"""What the comparison of outputs sees; the runs themselves are in ``tests/test_app.py``."""

from __future__ import annotations

from pathlib import Path

from dev.killed_runs import Row, content, differences, table

FILES = {"sub-01.html": b"page", "sub-01/anat/x.nii.gz": b"\x00", "logs/CITATION.md": b"methods"}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def test_any_file_but_the_logs_of_runs_counts(tmp_path):
    expected = content(write(tmp_path / "a", FILES))
    assert expected == FILES
    same = write(tmp_path / "b", {**FILES, "logs/20260101-000000_1/msnmo.log": b"other"})
    assert differences(expected, same) == []
    other = {**FILES, "sub-01.html": b"Page", "sub-01/anat/.tmp-msnmo-1-x.nii.gz": b""}
    del other["logs/CITATION.md"]
    assert differences(expected, write(tmp_path / "c", other)) == [
        "logs/CITATION.md",
        "sub-01.html",
        "sub-01/anat/.tmp-msnmo-1-x.nii.gz",
    ]


def test_a_difference_is_seen_in_the_table():
    text = table([Row("SIGKILL", "again", []), Row("full", "again", ["sub-01.html"])], 30.0)
    assert "| SIGKILL | again | equal |" in text
    assert "| full | again | **differs**: sub-01.html |" in text
