"""The participant's report: self-contained, escaped, with what failed and what is always said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from heads import entry
from pages import Page, assert_self_contained

from msnmo_bids.bids.dataset import write_tsv
from msnmo_bids.bids.names import derivative_paths
from msnmo_bids.bids.records import ScanRecord, VisitsRecord, read_scan
from msnmo_bids.bids.sidecars import CHANGE_COLUMNS, MORPHOMETRY_COLUMNS
from msnmo_bids.reports.participant import write_participant_report
from msnmo_bids.reports.report_text import ALWAYS, SCORE_MEANS, SCORE_MEANS_NOT
from msnmo_bids.version import get_version
from msnmo_bids.visits.compare import summary
from msnmo_bids.vocabulary import CHANGES

ONE = "sub-01/ses-1/anat/sub-01_ses-1_FLAIR.nii.gz"
TWO = "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz"
TEN = "sub-01/ses-10/anat/sub-01_ses-10_FLAIR.nii.gz"


@pytest.fixture
def write(output_dir: Path) -> Callable[..., str]:
    def run(scans: list[ScanRecord], subject: str = "01") -> str:
        found = [read_scan(output_dir, scan) for scan in scans]
        path = write_participant_report(output_dir, subject, found)
        assert path == output_dir / f"sub-{subject}.html"
        return path.read_text(encoding="utf-8")

    return run


Add = Callable[..., ScanRecord]
Write = Callable[..., str]


def test_report_is_self_contained(add_results: Add, write: Write) -> None:
    page = assert_self_contained(write([add_results(ONE), add_results(TWO)]))
    assert len(page.ids) == len(set(page.ids))


def test_what_is_always_said_is_said(add_results: Add, write: Write) -> None:
    for scans in ([add_results(ONE)], [entry(ONE, "failed")], []):
        text = Page(write(scans)).text
        for sentence in ALWAYS:
            assert sentence in text
    assert "not a medical device" in text
    assert "seen no real NMOSD scan" in text


def test_scores_come_with_their_meaning(add_results: Add, write: Write) -> None:
    source = write([add_results(ONE)])
    text = Page(source).text
    assert SCORE_MEANS in text
    assert SCORE_MEANS_NOT in text
    assert "width: 75.0%" in source
    assert "0.25" in text


def between_visits(
    output_dir: Path, scans: list[ScanRecord], left_out: list[str], **record: Any
) -> str:
    """Return what the page says of two visits whose record has these keys."""
    record = {"Flags": [], **summary([], record.get("IntervalDays")), **record}
    nowhere = output_dir / "nowhere"
    changes = [VisitsRecord("1", "2", "sub-01_ses-2_space-ses1ses2", record, nowhere, nowhere)]
    found = [read_scan(output_dir, scan) for scan in scans]
    path = write_participant_report(
        output_dir, "01", found, changes=changes, left_out=left_out,
    )  # fmt: skip
    source = path.read_text(encoding="utf-8")
    return Page(source[source.index('<section id="visits"') : source.index("Methods</h2>")]).text


def test_the_order_of_visits_is_said_with_what_is_not_known(
    add_results: Add, output_dir: Path
) -> None:
    scans = [add_results(ONE), add_results(TWO)]
    dates = {"OrderOfVisits": "sessions.tsv", "IntervalDays": 365.0, "Notes": []}
    text = between_visits(output_dir, scans, [], **dates)
    assert "in the order of the dates in sessions.tsv. Time between them: 365 days" in text
    assert "No annual rates" not in text
    labels: dict[str, Any] = {"OrderOfVisits": "session labels", "IntervalDays": None}
    text = between_visits(output_dir, scans, [], **labels)
    assert "There are no dates: the visits are in the order of their labels." in text
    assert "No annual rates" in text
    note, left = "dates that are not ISO 8601: <a>", "visits that are not compared: ses-3"
    text = between_visits(output_dir, scans, [left], **labels, Notes=[note])
    assert text.index(left) < text.index(note) < text.index("ses-1 to ses-2")
    assert "There are no dates" not in text
    assert "The visits are in the order of their labels. Time between them: not known" in text


def test_a_fault_of_the_sidecar_stands_at_its_scan(add_results: Add, write: Write) -> None:
    note = 'SkullStripped is "true", not true or false: taken as true: sub-01_FLAIR.json'
    text = Page(write([replace(add_results(ONE), notes=(note,)), add_results(TWO)])).text
    assert text.count(note) == 1


def test_certainty_is_not_claimed(add_results: Add, write: Write) -> None:
    text = Page(write([add_results(ONE, Probabilities={"MS": 0.999999, "NMOSD": 1e-6})])).text
    assert text.count("> 0.99") == text.count("< 0.01") == 2  # in the summary, beside the bars
    assert "MS 1.00" not in text


def test_indeterminate_gives_its_reason_and_no_number_in_the_summary(
    add_results: Add, write: Write
) -> None:
    reason = "No lesion was found, so there is no pattern to classify"
    results = {
        "Diagnosis": "indeterminate",
        "Reason": reason,
        "LesionCount": 0,
        "Flags": ["no_lesion_found"],
    }
    source = write([add_results(ONE, **results)])
    text = Page(source).text
    assert f"{reason}." in text
    assert "no meaning here: there are no lesions to score" in text
    summary = source[source.index('id="summary"') : source.index('class="scan"')]
    assert "0.75" not in summary


def test_indeterminate_with_lesions_strikes_its_numbers(add_results: Add, write: Write) -> None:
    results = {
        "Diagnosis": "indeterminate",
        "Reason": "No class reaches 0.8",
        "Flags": ["no_class_is_probable_enough"],
        "NamingLimits": {"MS": 0.8, "NMOSD": 0.6},
    }
    source = write([add_results(ONE, **results)])
    text = Page(source).text
    assert "No class reaches 0.8." in text
    assert "no meaning here: these weights are wrong too often on scans like this one" in text
    assert source.count('class="bars void"') == 1
    assert source.count("left: 80.0%") == source.count("left: 60.0%") == 1
    summary = source[source.index('id="summary"') : source.index('class="scan"')]
    assert "0.75" not in summary


def test_limits_are_shares_of_what_the_diseases_score(add_results: Add, write: Write) -> None:
    results = {
        "Probabilities": {"MS": 0.5, "NMOSD": 0.3, "SVD": 0.2},
        "NamingLimits": {"MS": 0.9, "NMOSD": None, "SVD": 0.3},
    }
    source = write([add_results(ONE, **results)])
    assert source.count('class="needed"') == 2
    assert 'left: 72.0%" title="MS is named from here"' in source
    assert 'left: 30.0%" title="above, no disease is named"' in source


def test_lesions_that_speak_for_a_class_and_against_it_are_named(
    add_results: Add, write: Write, output_dir: Path
) -> None:
    margin = {"Class": "NMOSD", "Over": "MS", "Value": 1.5, "Bias": -0.25}
    scan = add_results(ONE, Margin=margin)
    assert "Why." not in Page(write([scan])).text  # the convolutions tell of no lesion
    adds = (1.25, 0.5, 0.4, 0.3, -0.2, -0.5)
    rows = [
        {"index": k, "volume_mm3": 30.0, "region": "deep", "contribution": value}
        for k, value in enumerate(adds, start=1)
    ]
    path = output_dir / derivative_paths(scan.folder, scan.prefix, ["MS"])["morphometry"]
    write_tsv(path, list(MORPHOMETRY_COLUMNS), rows)
    text = " ".join(Page(write([scan])).text.split())
    assert (
        "speak most for NMOSD rather than MS: 1 (deep white matter, 30 mm³, +1.25), 2 (deep white "
        "matter, 30 mm³, +0.50), 3 (deep white matter, 30 mm³, +0.40). Most against it: 6 (deep "
        "white matter, 30 mm³, −0.50), 5 (deep white matter, 30 mm³, −0.20)."
    ) in text
    assert "less that of MS: +1.50, of which −0.25 without any lesion" in text


def test_a_named_diagnosis_shows_its_numbers(add_results: Add, write: Write) -> None:
    source = write([add_results(ONE)])
    assert "no meaning here" not in Page(source).text
    assert "bars void" not in source
    summary = source[source.index('id="summary"') : source.index('class="scan"')]
    assert "0.75" in summary


def test_a_class_that_is_never_named_is_explained(add_results: Add, write: Write) -> None:
    old = {"MS": 0.2, "NMOSD": 0.1, "SVD": 0.7}
    text = Page(write([add_results(ONE, Probabilities=old)])).text
    assert "SVD: age-related small-vessel disease; no disease is named on it" in text
    assert "age-related small-vessel disease; no" not in Page(write([add_results(TWO)])).text


def test_regions_lesions_flags_and_provenance_are_there(add_results: Add, write: Write) -> None:
    text = Page(write([add_results(ONE, Flags=["thick_slices", "brand_new"])])).text
    for part in ("Periventricular 2 1.25", "Deep white matter 0 0.00", "1234.6", "-20",
                 "Thick slices:", "Brand new.", "c" * 64, "deepbet", "bids:raw:" + ONE,
                 f"msnmo {get_version()}", "temperature scaling"):  # fmt: skip
        assert part in text


def test_what_a_scan_cost_is_one_line(add_results: Add, write: Write) -> None:
    scan = add_results(ONE)
    assert "Processing took" not in Page(write([scan])).text
    steps = {
        "bias correction": {"WallSeconds": 16.0, "CPUSeconds": 30.0, "MemoryGB": 0.5},
        "figures": {"WallSeconds": 2.0, "CPUSeconds": 2.0, "MemoryGB": 1.25},
    }
    text = Page(write([replace(scan, steps=steps)])).text
    assert "took 18 s (32 s of processor time) and at most 1.2 GB of memory in one" in text
    assert "the longest step was bias correction, 16 s." in text


def test_figures_are_embedded_as_they_are(add_results: Add, write: Write) -> None:
    page = Page(write([add_results(ONE)]))
    images = [unquote(value) for tag, _, value in page.links if tag == "img"]
    assert len(images) == 4
    for image, kind in zip(images, ("lesions", "cam", "brainmask", "bias"), strict=True):
        assert image.startswith("data:image/svg+xml,<svg")
        assert f"{kind} 5% #1" in image


def test_a_missing_figure_is_said(add_results: Add, write: Write, output_dir: Path) -> None:
    scan = add_results(ONE)
    for figure in output_dir.glob("sub-01/figures/*cam*"):
        figure.unlink()
    assert "The figure is missing" in Page(write([scan])).text


def test_failed_and_pending_scans_are_listed(add_results: Add, write: Write) -> None:
    failed = entry(
        TWO,
        "failed",
        step="skull stripping",
        message="brain mask of 12 ml",
        remedy="Try --skull-strip bet",
        crash_file="logs/1/crash.txt",
    )
    source = write([add_results(ONE), entry(TEN), failed])
    text = Page(source).text
    assert f"failed {TWO}" in text
    assert "skull stripping: brain mask of 12 ml" in text
    assert "What to do: Try --skull-strip bet" in text
    assert "logs/1/crash.txt" in text
    assert f"pending {TEN} not processed yet" in text
    assert "3 scans of 3 visits: 1 with results, 1 failed, 1 not processed" in text


def test_a_broken_diagnosis_file_is_a_failure(
    add_results: Add, write: Write, output_dir: Path
) -> None:
    scan = add_results(ONE)
    for broken in ('{"Diagn', '{"Diagnosis": "MS"}'):
        next(output_dir.glob("sub-01/**/*_diagnosis.json")).write_text(broken)
        text = Page(write([scan])).text
        assert "cannot be read" in text or "lacks BrainVolume, Calibration" in text
        assert "Run the participant level again" in text


def test_visits_are_in_order(add_results: Add, write: Write) -> None:
    page = Page(write([add_results(scan) for scan in (TEN, TWO, ONE)]))
    sections = [name for name in page.ids if name.startswith("sub-")]
    assert sections == ["sub-01_ses-1", "sub-01_ses-2", "sub-01_ses-10"]
    assert "The difference of two rows is not a measure of change" in page.text


def test_a_comparison_is_shown_with_its_method(add_results: Add, output_dir: Path) -> None:
    made = {
        "Counts": {**dict.fromkeys(CHANGES, 0), "new": 1},
        "VolumeEarlier": 1.0,
        "VolumeLater": 1.5,
        "VolumeChange": 0.5,
        "RatesPerYear": None,
        "Flags": ["voxel_sizes_differ"],
        "OrderOfVisits": "sessions.tsv",
        "IntervalDays": None,
        "Methods": "Visits were registered [@halfway].",
    }
    table = output_dir / "changes.tsv"
    write_tsv(table, list(CHANGE_COLUMNS), [{"index": 1, "change": "new", "region": "deep"}])
    changes = [
        VisitsRecord("1", "2", "a", made, table, output_dir / "none.svg"),
        VisitsRecord("2", "3", "b", {}, table, table, problem="other weights"),
    ]
    path = write_participant_report(
        output_dir,
        "01",
        [read_scan(output_dir, add_results(ONE))],
        changes=changes,
    )
    text = Page(path.read_text(encoding="utf-8")).text
    assert "ses-1 to ses-2: Visits were registered [3]." in text
    assert "in the order of the dates in sessions.tsv. Time between them: not known" in text
    assert "The voxel sizes of the two visits differ" in text
    assert "Not compared: other weights" in text


def test_everything_is_escaped(add_results: Add, write: Write) -> None:
    evil = "<script>alert('x')</script>"
    scan = add_results(
        ONE, Reason=evil, Diagnosis="indeterminate", Flags=[evil], Device=evil, Sources=[evil]
    )
    source = write([scan, entry(TWO, "failed", message=evil, remedy=f'"{evil}', step=evil)])
    assert "<script>alert" not in source
    assert evil in Page(source).text


def test_equal_results_give_equal_pages(add_results: Add, write: Write) -> None:
    scans = [add_results(ONE), add_results(TWO)]
    assert write(scans) == write(scans[::-1])


def test_participant_without_any_scan(write: Write) -> None:
    assert "There is no FLAIR of this participant" in Page(write([], subject="07")).text


def test_a_lesion_table_saved_with_decimal_commas_is_named(
    add_results: Add, write: Write, output_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scan = add_results(ONE)
    [file] = output_dir.rglob("*_morph.tsv")
    file.write_text(file.read_text().replace(".", ","))
    said = f"{file.name}: the lesion table is not used: could not convert string to float"
    assert said in Page(write([scan])).text
    assert said in caplog.text
    file.write_text(file.read_text().replace("\t", ";"))
    assert "semicolons separate it, not tabs" in Page(write([scan])).text
