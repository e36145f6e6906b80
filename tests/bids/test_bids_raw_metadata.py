"""Which row of which table a scan has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from msnmo_bids.bids.raw_metadata import Tables
from msnmo_bids.text import merged

SCAN = "sub-01/ses-02/anat/sub-01_ses-02_FLAIR.nii.gz"


@pytest.fixture
def root(make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(SCAN, SCAN.replace("ses-02", "ses-01"))


def value(root: Path, participants: str, column: str = "age", scan: str = SCAN) -> str:
    (root / "participants.tsv").write_text(participants)
    return Tables(root).value(scan, column)


def notes(root: Path, column: str = "age", scan: str = SCAN) -> list[str]:
    tables = Tables(root)
    tables.value(scan, column)
    return merged(tables.notes([scan], [column]))


@pytest.mark.parametrize("label", ["sub-01", "01", "1", "sub-1 ", "SUB-001", "Sub-01"])
def test_labels_are_matched_where_only_one_fits(root, label):
    assert value(root, f"participant_id\tage\n{label}\t30\n") == "30"


@pytest.mark.parametrize("label", ["sub-11", "sub-10", "sub-01x", "subject-01", "n/a"])
def test_other_labels_fit_no_folder(root, label):
    assert value(root, f"participant_id\tage\n{label}\t30\n") == ""
    assert any("rows that fit no folder, not used (1)" in line for line in notes(root))


def test_a_label_that_could_be_two_people_is_nobodys(root):
    (root / "sub-1").mkdir()
    (root / "sub-001").mkdir()
    assert value(root, "participant_id\tage\nsub-0001\t30\n") == ""
    assert value(root, "participant_id\tage\nsub-01\t30\nsub-1\t40\n") == "30"


def test_two_rows_of_one_folder_in_two_spellings_are_nobodys(root):
    assert value(root, "participant_id\tage\nsub-1\t30\nsub-001\t40\n") == ""
    assert "rows that fit no folder, not used (2): 1, 001" in " ".join(notes(root))


@pytest.mark.parametrize("missing", ["-", "n/a", "", "N/A", "NA", "nan", "–", "--", " "])
def test_what_is_missing_never_overrules(root, missing):
    rows = [f"sub-01\t{text}\n" for text in ("30", missing)]
    for order in (rows, rows[::-1]):
        assert value(root, "participant_id\tage\n" + "".join(order)) == "30"


def test_rows_that_contradict_each_other_are_not_used_and_named(root):
    assert value(root, "participant_id\tage\nsub-01\t30\nsub-01\t31\n") == ""
    assert notes(root) == [
        "participants.tsv: rows that contradict each other, not used there (1): 01, age: 30 or 31"
    ]


@pytest.mark.parametrize("column", ["session", "session_id"])
def test_a_row_a_session_holds_for_its_session(root, column):
    text = f"participant_id\tage\tgroup\t{column}\nsub-01\t30\tMS\t1\nsub-01\t31\tn/a\tses-02\n"
    assert value(root, text) == "31"
    assert value(root, text, "group") == "MS"
    assert value(root, text, scan=SCAN.replace("ses-02", "ses-01")) == "30"
    assert notes(root) == []


def test_the_nearest_table_with_a_value_wins(root):
    text = "participant_id\tage\nsub-01\t30\n"
    (root / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tage\n2\t31\nses-03\t4\n")
    assert value(root, text) == "31"
    assert notes(root) == [
        "sessions.tsv: rows matched although they are spelt differently (1): sub-01 2 = 02",
        "sessions.tsv: rows that fit no folder, not used (1): sub-01 03",
    ]
    name = "anat\\sub-01_ses-02_FLAIR.nii"
    (root / "sub-01" / "ses-02" / "sub-01_ses-02_scans.tsv").write_text(
        f"filename\tage\n{name}\t32\nfunc/sub-01_ses-02_bold.nii.gz\t1\n"
    )
    assert value(root, text) == "32"
    (root / "sub-01" / "ses-02" / "sub-01_ses-02_scans.tsv").write_text(
        f"filename\tage\n{name}\tn/a\nanat/sub-01_ses-02_run-1_FLAIR.nii.gz\t1\n"
    )
    assert value(root, text) == "31"
    assert "scans.tsv: rows that fit no image, not used (1)" in " ".join(notes(root))


def test_a_table_that_cannot_be_used_says_what_columns_there_are(root):
    assert value(root, "participant_id;age\nsub-01;30\n") == ""
    assert notes(root) == [
        "participants.tsv: not used, no column participant_id "
        "(there is: 'participant_id;age'; semicolons separate it, not tabs)"
    ]
    assert value(root, '"participant_id"\t"age"\n"sub-01"\t"30"\n') == ""
    assert "'\"participant_id\"', '\"age\"'" in notes(root)[0]


def test_scans_without_a_row_are_counted(root):
    assert value(root, "participant_id\tage\n") == ""
    assert notes(root) == ["participants.tsv: scans without a row (1): sub-01_ses-02_FLAIR.nii.gz"]
    (root / "participants.tsv").unlink()
    (root / "sub-01" / "sub-01_sessions.tsv").write_text("session_id\tacq_time\nses-01\t2020\n")
    assert notes(root) == []  # the table has nothing to say of the age


@pytest.mark.parametrize("first", ["# from the clinic", "#participant_id\tage"])
def test_a_comment_in_the_first_line_is_called_so(root, first):
    assert value(root, f"{first}\nparticipant_id\tage\nsub-01\t30\n") == ""
    assert "the first line begins with # as a comment does: it must be the header" in notes(root)[0]
    assert "blanks" not in notes(root)[0]


def test_a_diagnosis_that_differs_between_tables_is_named(root):
    """The nearest counts, as ever; missing values and capitals are no difference."""
    text = "participant_id\tdiagnosis\nsub-01\tMS\n"
    for said in ("n/a", "ms"):
        (root / "sub-01/sub-01_sessions.tsv").write_text(f"session_id\tdiagnosis\n02\t{said}\n")
        value(root, text, "diagnosis")
        assert Tables(root).differing([SCAN], "diagnosis") == []
    (root / "sub-01/sub-01_sessions.tsv").write_text("session_id\tdiagnosis\n02\tNMOSD\n")
    assert value(root, text, "diagnosis") == "NMOSD"
    assert merged(Tables(root).differing([SCAN], "diagnosis")) == [
        "diagnosis: tables that differ from each other; the nearest to the scan counts (1): "
        "sub-01_ses-02_FLAIR.nii.gz (NMOSD in sessions.tsv, MS in participants.tsv)"
    ]
