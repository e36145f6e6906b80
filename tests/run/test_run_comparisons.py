"""Visits are compared when their scans are done, again when one changed, and never twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from msnmo_bids.bids.records import read_runs
from msnmo_bids.errors import ExitCode

NAMES = [f"sub-01/ses-{k}/anat/sub-01_ses-{k}_FLAIR.nii.gz" for k in (1, 2, 3)]
FIRST, SECOND = "sub-01_ses-2_space-ses1ses2", "sub-01_ses-3_space-ses2ses3"
SKIP = "--skip-bids-validation"


@pytest.fixture
def raw(make_dataset) -> Path:
    return make_dataset(*NAMES)


def records(out: Path) -> list[str]:
    return sorted(path.name for path in out.rglob("*_changes.json"))


def test_consecutive_visits_once(call, fake, raw, tmp_path):
    out = tmp_path / "out"
    dry = call(raw, out, "participant", SKIP, "--dry-run")
    assert f"{FIRST}: ses-1 and ses-2 (order by session labels) would be compared" in dry.text
    assert call(raw, out, "participant", SKIP).code == 0
    assert fake.compared == [FIRST, SECOND]
    assert [c["Status"] for c in read_runs(out)[0]["Comparisons"]] == ["complete", "complete"]
    (changes,) = [more["changes"] for *_, more in fake.reports]
    assert [(visits.title, visits.problem) for visits in changes] == [
        ("ses-1 to ses-2", ""),
        ("ses-2 to ses-3", ""),
    ]
    assert "Visits were compared." in (out / "logs" / "CITATION.md").read_text()
    again = call(raw, out, "participant", SKIP)
    assert "Nothing to do" in again.text
    assert fake.compared == [FIRST, SECOND]


def test_what_is_not_known_of_the_order_is_said_before_anything_runs(call, fake, make_dataset):
    raw = make_dataset(
        *NAMES[:2],
        *(f"sub-02/ses-{k}/anat/sub-02_ses-{k}_FLAIR.nii.gz" for k in ("pre", "post")),
        *(f"sub-03/ses-{k}/anat/sub-03_ses-{k}_FLAIR.nii.gz" for k in ("pre", "post")),
    )
    (raw / "sub-01" / "sub-01_sessions.tsv").write_text(
        "session_id\tacq_time\nses-1\t01/05/2020\nses-2\t01/04/2019\n"
    )
    text = call(raw, raw.parent / "out", "participant", SKIP, "--dry-run").text
    assert "not used (2): sub-01/sub-01_sessions.tsv '01/05/2020', sub-01" in text
    assert "so that labels decide which came first (2): sub-01_ses-1 (sessions.tsv)" in text
    assert f"{FIRST}: ses-1 and ses-2 (order by session labels) would be compared" in text
    assert "(2): sub-02 (ses-pre, ses-post), sub-03 (ses-pre, ses-post)" in text
    assert "ses-pre and ses-post (order by session labels) would be compared" in text


def test_only_what_is_missing_or_new(call, fake, raw, tmp_path):
    out = tmp_path / "out"
    call(raw, out, "participant", SKIP)
    next(out.rglob(f"{SECOND}*_morph.tsv")).unlink()
    result = call(raw, out, "participant", SKIP)
    assert fake.compared == [FIRST, SECOND, SECOND]
    assert fake.processed == ["sub-01_ses-1", "sub-01_ses-2", "sub-01_ses-3"]
    assert result.last_line == "msnmo: SUCCESS 3 0"
    (raw / "sub-01" / "sub-01_sessions.tsv").write_text(
        "session_id\tacq_time\nses-1\t1925-01-01\nses-2\t1927-01-01\nses-3\t1926-01-01\n"
    )
    call(raw, out, "participant", SKIP)
    assert fake.compared[3:] == ["sub-01_ses-3_space-ses1ses3", "sub-01_ses-2_space-ses3ses2"]
    assert len(records(out)) == 2  # those of the other order are gone


def test_a_visit_that_fails_is_passed_over(call, fake, raw, tmp_path, bad_data):
    out = tmp_path / "out"
    call(raw, out, "participant", SKIP)
    fake.failures["sub-01_ses-2"] = bad_data("sub-01_ses-2")
    result = call(raw, out, "participant", SKIP, "--threshold", "0.2")
    assert result.code == ExitCode.BAD_DATA
    assert records(out) == ["sub-01_ses-3_space-ses1ses3_desc-msnmo_changes.json"]
    line = "passed over in the comparison, because they have no results (1): sub-01_ses-2"
    assert result.text.count(line) == 1
    *_, more = fake.reports[-1]
    assert [line in left for left in more["left_out"]] == [True]


def test_a_comparison_that_fails_costs_no_scan(call, fake, raw, tmp_path, bad_data):
    out = tmp_path / "out"
    fake.failures[FIRST] = bad_data(FIRST, step="registration of two visits")
    result = call(raw, out, "participant", SKIP)
    assert (result.code, result.last_line) == (ExitCode.BAD_DATA, "msnmo: PARTIAL 3 0")
    assert f"{FIRST}: registration of two visits: the image has 4 dimensions" in result.text
    (changes,) = [more["changes"] for *_, more in fake.reports]
    assert "registration of two visits" in changes[0].problem
    assert records(out) == [f"{SECOND}_desc-msnmo_changes.json"]
    fake.failures.clear()
    assert call(raw, out, "participant", SKIP).code == 0
    assert len(records(out)) == 2


def test_scans_with_different_settings_are_left_alone(call, fake, raw, tmp_path):
    out = tmp_path / "out"
    call(raw, out, "participant", SKIP, "--session-label", "1")
    assert fake.compared == []
    result = call(raw, out, "participant", SKIP, "--threshold", "0.2", "--session-label", "2")
    assert fake.compared == []
    assert "not compared with the visit before" in result.text
    assert result.code == 0
