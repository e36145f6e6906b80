"""Which visits are compared, in which order, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from msnmo_bids.bids.dataset import write_tsv
from msnmo_bids.bids.scans import find_scans
from msnmo_bids.bids.visits import BY_LABELS, BY_SCANS, BY_SESSIONS, comparisons


def name(session: str, rest: str = "", subject: str = "01") -> str:
    return f"sub-{subject}/ses-{session}/anat/sub-{subject}_ses-{session}{rest}_FLAIR.nii.gz"


def pairs(root: Path) -> list[tuple[str, str]]:
    found = comparisons(find_scans(root).scans)
    return [(one.earlier.prefix, one.later.prefix) for one in found]


def test_visits_without_dates_are_in_the_order_of_their_labels(make_dataset):
    root = make_dataset(name("10"), name("2"), name("1"), "sub-02/anat/sub-02_FLAIR.nii.gz")
    assert pairs(root) == [("sub-01_ses-1", "sub-01_ses-2"), ("sub-01_ses-2", "sub-01_ses-10")]
    one = comparisons(find_scans(root).scans)[0]
    assert (one.order_by, one.interval_days, one.space) == (BY_LABELS, None, "ses1ses2")


def test_dates_win_over_labels_and_give_the_interval(make_dataset):
    root = make_dataset(name("a"), name("b"))
    rows = [
        {"session_id": "ses-a", "acq_time": "1925-07-03"},
        {"session_id": "ses-b", "acq_time": "1925-01-01T12:00:00Z"},
    ]
    write_tsv(root / "sub-01" / "sub-01_sessions.tsv", ("session_id", "acq_time"), rows)
    [one] = comparisons(find_scans(root).scans)
    assert (one.earlier.session, one.later.session) == ("b", "a")
    assert (one.order_by, one.interval_days) == (BY_SESSIONS, 182.5)
    for session, date in (("a", "2020-01-01"), ("b", "2021-01-01")):
        folder = root / "sub-01" / f"ses-{session}"
        file = f"anat/sub-01_ses-{session}_FLAIR.nii.gz"
        write_tsv(folder / f"sub-01_ses-{session}_scans.tsv", ("filename", "acq_time"),
                  [{"filename": file, "acq_time": date}])  # fmt: skip
    [one] = comparisons(find_scans(root).scans)
    assert (one.earlier.session, one.order_by, one.interval_days) == ("a", BY_SCANS, 366)


def test_one_table_of_scans_for_all_visits_gives_dates_too(make_dataset):
    root = make_dataset(name("1"), name("2"))
    rows = [
        {"filename": f"ses-{session}/anat/sub-01_ses-{session}_FLAIR.nii.gz", "acq_time": date}
        for session, date in (("1", "2021-01-02"), ("2", "2021-01-01"))
    ]
    write_tsv(root / "sub-01" / "sub-01_scans.tsv", ("filename", "acq_time"), rows)
    [one] = comparisons(find_scans(root).scans)
    assert (one.earlier.session, one.order_by, one.interval_days) == ("2", BY_SCANS, 1)


@pytest.mark.parametrize("date", ["n/a", "soon", ""])
def test_one_missing_date_makes_labels_decide(make_dataset, date):
    root = make_dataset(name("1"), name("2"))
    rows = [
        {"session_id": "ses-2", "acq_time": "1925-01-01"},
        {"session_id": "ses-1", "acq_time": date},
    ]
    write_tsv(root / "sub-01" / "sub-01_sessions.tsv", ("session_id", "acq_time"), rows)
    [one] = comparisons(find_scans(root).scans)
    assert (one.earlier.session, one.order_by) == ("1", BY_LABELS)


def test_scans_of_the_same_name_are_compared(make_dataset):
    root = make_dataset(name("1"), name("1", "_acq-3d"), name("2"), name("3", "_acq-3d"))
    assert pairs(root) == [
        ("sub-01_ses-1", "sub-01_ses-2"),
        ("sub-01_ses-1_acq-3d", "sub-01_ses-3_acq-3d"),
    ]


def test_else_the_first_scan_of_each_visit(make_dataset):
    root = make_dataset(name("1", "_run-1"), name("1", "_run-2"), name("2", "_acq-3d"))
    assert pairs(root) == [("sub-01_ses-1_run-1", "sub-01_ses-2_acq-3d")]
