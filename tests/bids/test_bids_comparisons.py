"""Which visits are compared, in which order, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from msnmo_bids.bids.comparisons import (
    BY_LABELS,
    BY_SCANS,
    BY_SESSIONS,
    CONTRADICTION,
    IN_SIDECARS,
    NO_COLUMN,
    NO_DATE,
    NO_TIME,
    NOT_DATED,
    OTHER_NAMES,
    REVERSED,
    SAME_DATE,
    TO_COME,
    TOO_LONG,
    Comparison,
    comparisons,
    left_out,
)
from msnmo_bids.bids.dataset import write_tsv
from msnmo_bids.bids.scans import find_scans


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


def test_dates_in_sidecars_are_named_where_no_table_has_any(make_dataset):
    root = make_dataset(name("1"), name("2"))
    for session, date in (("1", "2020-01-01T10:00:00"), ("2", "2021-01-01T10:00:00")):
        sidecar = root / name(session).replace(".nii.gz", ".json")
        sidecar.write_text(f'{{"AcquisitionDateTime": "{date}", "SeriesDate": "{date}"}}')
    [one] = comparisons(find_scans(root).scans)
    said = [note.about for note in one.notes if note.what == IN_SIDECARS]
    assert said == [f"sub-01_ses-{k} (AcquisitionDateTime, SeriesDate)" for k in (1, 2)]
    for known in ((1,), (1, 2)):
        rows = [{"session_id": f"ses-{k}", "acq_time": f"202{k}-01-01"} for k in known]
        write_tsv(root / "sub-01/sub-01_sessions.tsv", ("session_id", "acq_time"), rows)
        [one] = comparisons(find_scans(root).scans)
        assert [note.about[:12] for note in one.notes if note.what == IN_SIDECARS] == [
            f"sub-01_ses-{k}" for k in (1, 2) if k not in known
        ]
    (root / "sub-01/sub-01_sessions.tsv").unlink()
    for value in ("null", '""', '"n/a"', "[]", "{}"):
        for session in ("1", "2"):
            sidecar = root / name(session).replace(".nii.gz", ".json")
            sidecar.write_text(f'{{"AcquisitionDateTime": {value}}}')
        [one] = comparisons(find_scans(root).scans)
        assert IN_SIDECARS not in [note.what for note in one.notes]


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
        write_tsv(
            folder / f"sub-01_ses-{session}_scans.tsv",
            ("filename", "acq_time"),
            [{"filename": file, "acq_time": date}],
        )
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


def dated(make_dataset, **dates: str) -> list[Comparison]:
    """Return the comparisons of visits with these labels and dates."""
    root = make_dataset(*map(name, dates))
    lines = [f"ses-{label}\t{date}" for label, date in dates.items()]
    text = "\n".join(["session_id\tacq_time", *lines])
    (root / "sub-01" / "sub-01_sessions.tsv").write_text(text)
    return comparisons(find_scans(root).scans)


def said(found: Comparison) -> dict[str, list[str]]:
    kinds: dict[str, list[str]] = {}
    for note in found.notes:
        kinds.setdefault(note.what, []).append(note.about)
    return kinds


@pytest.mark.parametrize("date", ["01/05/2020", "2020", "2020-13-01", "Jan 2020"])
def test_dates_that_cannot_be_read_are_named_and_labels_decide(make_dataset, date):
    [one] = dated(make_dataset, s1=date, s2="2019-04-01")
    assert (one.earlier.session, one.order_by, one.interval_days) == ("s1", BY_LABELS, None)
    assert said(one) == {
        NO_DATE: [f"sub-01/sub-01_sessions.tsv '{date}'"],
        NOT_DATED: ["sub-01_ses-s1 (sessions.tsv)"],
    }


def test_dates_to_come_are_named(make_dataset):
    [one] = dated(make_dataset, s1="2970-04-01", s2="2971-04-01")
    assert (one.order_by, one.interval_days) == (BY_SESSIONS, 365)
    files = "sub-01/sub-01_sessions.tsv"
    assert said(one) == {TO_COME: [f"{files} '2970-04-01'", f"{files} '2971-04-01'"]}


def test_times_of_one_day_turn_nothing_around(make_dataset):
    times = {"1": "1900-01-01T10:00:00", "2": "1900-01-01T09:00:00"}
    [one] = dated(make_dataset, **times)
    assert REVERSED not in said(one)


def test_dates_that_turn_numbered_visits_around_are_named(make_dataset):
    [one] = dated(make_dataset, **{"1": "2021-05-01", "2": "2020-05-01"})
    assert (one.earlier.session, one.order_by) == ("2", BY_SESSIONS)
    assert said(one) == {REVERSED: ["sub-01 (ses-2 2020-05-01, ses-1 2021-05-01)"]}


def test_days_that_differ_between_tables_are_named(make_dataset):
    root = make_dataset(name("1"), name("2"))
    for kind, column, dates in (
        ("sessions", "session_id", {"ses-1": "2019-01-01", "ses-2": "2020-01-01"}),
        ("scans", "filename", {
            "ses-1/anat/sub-01_ses-1_FLAIR.nii.gz": "2019-01-01T10:00:00",
            "ses-2/anat/sub-01_ses-2_FLAIR.nii.gz": "2020-02-01",
        }),
    ):  # fmt: skip
        rows = [{column: key, "acq_time": date} for key, date in dates.items()]
        write_tsv(root / "sub-01" / f"sub-01_{kind}.tsv", (column, "acq_time"), rows)
    [one] = comparisons(find_scans(root).scans)
    assert one.order_by == BY_SCANS
    assert said(one) == {CONTRADICTION: ["sub-01_ses-2 (2020-02-01, 2020-01-01 in sessions.tsv)"]}


def test_dates_that_can_be_read_need_no_word(make_dataset):
    [one] = dated(make_dataset, post="2020-05-01", pre="20190401")
    assert (one.earlier.session, one.interval_days, one.notes) == ("pre", 396, ())


def test_a_visit_without_a_date_is_named(make_dataset):
    one, two = dated(make_dataset, s2="2019-04-01", s1="n/a", s3="2020-01-01")
    assert [one.earlier.session, two.earlier.session] == ["s1", "s2"]
    assert said(one) == said(two) == {NOT_DATED: ["sub-01_ses-s1 (sessions.tsv)"]}


def test_a_table_without_the_column_of_labels_is_named(make_dataset):
    root = make_dataset(name("1"), name("2"))
    (root / "sub-01" / "sub-01_sessions.tsv").write_text("session,acq_time\n1,2020-01-01\n")
    [one] = comparisons(find_scans(root).scans)
    assert one.order_by == BY_LABELS
    assert "no column session_id (there is: 'session,acq_time'; commas" in str(one.notes[0])
    assert said(one)[NOT_DATED] == ["sub-01_ses-1 (sessions.tsv)", "sub-01_ses-2 (sessions.tsv)"]


@pytest.mark.parametrize(
    "labels",
    [("pre", "post"), ("baseline", "followup"), ("bl", "m12"), ("1", "fu"), ("screening", "V1")],
)
def test_words_are_put_in_order_but_tell_no_time(make_dataset, labels):
    root = make_dataset(*map(name, labels))
    [one] = comparisons(find_scans(root).scans)
    assert (one.earlier.session, one.later.session, one.order_by) == (*labels, BY_LABELS)
    assert said(one) == {NO_TIME: [f"sub-01 (ses-{labels[0]}, ses-{labels[1]})"]}


@pytest.mark.parametrize(
    "labels", [("1", "2"), ("M0", "M12"), ("m6", "M12"), ("20190615", "20200101"), ("y1d2", "y2d1")]
)
def test_numbers_tell_time(make_dataset, labels):
    root = make_dataset(*map(name, labels[::-1]))
    [one] = comparisons(find_scans(root).scans)
    assert (one.earlier.session, one.later.session, one.notes) == (*labels, ())


def test_the_same_date_twice_claims_no_order(make_dataset):
    one, two = dated(make_dataset, s2="1925-01-01", s1="1925-01-01", s3="1926-01-01")
    assert (one.earlier.session, one.later.session) == ("s1", "s2")
    assert (one.order_by, one.interval_days) == (BY_LABELS, 0)
    assert said(one) == {SAME_DATE: ["sub-01_ses-s1 and sub-01_ses-s2 (1925-01-01)"]}
    assert (two.order_by, two.interval_days, two.notes) == (BY_SESSIONS, 365, ())


def test_dates_that_lie_a_life_apart_give_no_interval(make_dataset):
    [one] = dated(make_dataset, a="1901-01-01", b="2021-01-01")
    assert (one.order_by, one.interval_days) == (BY_SESSIONS, None)
    assert said(one) == {TOO_LONG: ["sub-01_ses-a and sub-01_ses-b (1901-01-01, 2021-01-01)"]}
    [one] = dated(make_dataset, a="1941-01-01", b="2021-01-01")
    assert one.interval_days == 29220


def test_the_same_date_of_visits_that_tell_no_time(make_dataset):
    [one] = dated(make_dataset, post="1925-01-01", pre="1925-01-01")
    assert one.earlier.session == "pre"
    assert set(said(one)) == {SAME_DATE, NO_TIME}


def test_a_visit_of_another_acquisition_is_compared_with_the_one_before(make_dataset):
    root = make_dataset(name("1", "_acq-3d"), name("2", "_acq-2d"), name("3", "_acq-3d"))
    assert pairs(root) == [
        ("sub-01_ses-1_acq-3d", "sub-01_ses-3_acq-3d"),
        ("sub-01_ses-1_acq-3d", "sub-01_ses-2_acq-2d"),
    ]
    same, other = comparisons(find_scans(root).scans)
    assert same.notes == ()
    assert said(other) == {OTHER_NAMES: ["sub-01_ses-1_acq-3d with sub-01_ses-2_acq-2d"]}


def test_the_first_visit_of_another_acquisition_is_compared_with_the_next(make_dataset):
    root = make_dataset(name("1", "_acq-2d"), name("2", "_acq-3d"), name("3", "_acq-3d"))
    assert pairs(root) == [
        ("sub-01_ses-2_acq-3d", "sub-01_ses-3_acq-3d"),
        ("sub-01_ses-1_acq-2d", "sub-01_ses-2_acq-3d"),
    ]


def test_of_several_scans_the_nearest_is_compared(make_dataset):
    root = make_dataset(
        name("1", "_acq-2d_run-1"), name("1", "_acq-3d_run-2"), name("2", "_acq-3d")
    )
    assert pairs(root) == [("sub-01_ses-1_acq-3d_run-2", "sub-01_ses-2_acq-3d")]
    scans = find_scans(root).scans
    [note] = left_out(scans, comparisons(scans))
    assert str(note) == (
        "scans that are compared with none; another scan of the same visit is: "
        "sub-01_ses-1_acq-2d_run-1"
    )


def test_every_visit_in_no_comparison_is_named(make_dataset):
    alone, only = "sub-02/anat/sub-02_FLAIR.nii.gz", "sub-01/anat/sub-01_FLAIR.nii.gz"
    others = [name(session, subject="03") for session in ("1", "2")]
    scans = find_scans(make_dataset(only, *map(name, "123"), alone, *others)).scans
    done = [scan for scan in scans if scan.prefix not in ("sub-01_ses-2", "sub-03_ses-1")]
    notes = [str(note) for note in left_out(scans, comparisons(done))]
    assert notes == [
        "scans that are compared with none, because they belong to no session: sub-01",
        "visits that are passed over in the comparison, because they have no results: sub-01_ses-2",
        "visits that are not compared, because fewer than two have results: sub-03_ses-1",
        "visits that are not compared, because fewer than two have results: sub-03_ses-2",
    ]


def test_scans_of_the_same_name_are_compared(make_dataset):
    root = make_dataset(name("1"), name("1", "_acq-3d"), name("2"), name("3", "_acq-3d"))
    assert pairs(root) == [
        ("sub-01_ses-1", "sub-01_ses-2"),
        ("sub-01_ses-1_acq-3d", "sub-01_ses-3_acq-3d"),
    ]


def test_else_the_first_scan_of_each_visit(make_dataset):
    root = make_dataset(name("1", "_run-1"), name("1", "_run-2"), name("2", "_acq-3d"))
    assert pairs(root) == [("sub-01_ses-1_run-1", "sub-01_ses-2_acq-3d")]


def write_dates(
    root: Path, file: str, rows: dict[str, str], key: str, column: str = "acq_time"
) -> None:
    table = [{key: name, column: date} for name, date in rows.items()]
    write_tsv(root / "sub-01" / file, (key, column), table)


@pytest.mark.parametrize(
    ("labels", "tell"),
    [
        (("31052019", "01012020"), False),
        (("12312019", "01152021"), False),
        (("311219", "010120"), False),
        (("20190531", "20200101"), True),
        (("201905", "202001"), True),
        (("1", "20200101"), True),
        (("2019", "2020"), True),
    ],
)
def test_labels_that_look_like_dates_tell_time_only_with_the_year_first(make_dataset, labels, tell):
    root = make_dataset(*map(name, labels))
    [one] = comparisons(find_scans(root).scans)
    assert (NO_TIME in [note.what for note in one.notes]) is not tell


@pytest.mark.parametrize("days", [("1900-01-01T15:20", "1900-01-01T09:10"), ("1877-06-15",) * 2])
def test_a_table_whose_dates_are_one_day_gives_way_to_one_that_has_days(make_dataset, days):
    root = make_dataset(name("1"), name("2"))
    files = [f"ses-{k}/anat/sub-01_ses-{k}_FLAIR.nii.gz" for k in (1, 2)]
    write_dates(root, "sub-01_scans.tsv", dict(zip(files, days, strict=True)), "filename")
    [alone] = comparisons(find_scans(root).scans)
    assert abs(alone.interval_days) < 1
    dates = {"ses-1": "2018-03-01", "ses-2": "2020-03-01"}
    write_dates(root, "sub-01_sessions.tsv", dates, "session_id")
    [one] = comparisons(find_scans(root).scans)
    assert (one.earlier.session, one.order_by, one.interval_days) == ("1", BY_SESSIONS, 731)


def test_the_column_of_dates_may_have_capitals_and_another_one_is_named(make_dataset):
    root = make_dataset(name("1"), name("2"))
    dates = {"ses-1": "2020-03-01", "ses-2": "2018-03-01"}
    write_dates(root, "sub-01_sessions.tsv", dates, "session_id", "Acq_Time")
    [one] = comparisons(find_scans(root).scans)
    assert (one.earlier.session, one.order_by) == ("2", BY_SESSIONS)
    write_dates(root, "sub-01_sessions.tsv", dates, "session_id", "session_date")
    [one] = comparisons(find_scans(root).scans)
    assert (one.earlier.session, one.order_by) == ("1", BY_LABELS)
    [note] = [str(note) for note in one.notes if NO_COLUMN in note.what]
    assert "sub-01 (there is: session_date)" in note


def test_the_year_20_is_no_date(make_dataset):
    root = make_dataset(name("1"), name("2"))
    dates = {"ses-1": "0020-05-31", "ses-2": "2020-06-30"}
    write_dates(root, "sub-01_sessions.tsv", dates, "session_id")
    [one] = comparisons(find_scans(root).scans)
    assert (one.order_by, one.interval_days) == (BY_LABELS, None)
    assert NO_DATE in " ".join(str(note) for note in one.notes)
