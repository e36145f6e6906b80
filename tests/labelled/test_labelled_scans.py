from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from site_data import Site

from msnmo_bids.bids.text_files import read_tsv
from msnmo_bids.errors import ExitCode, MsnmoError, UsageError
from msnmo_bids.labelled.scans import (
    COLUMNS,
    Found,
    counts,
    find_labelled_scans,
    write_found,
)
from msnmo_bids.simulation.dataset import Cohort, write_dataset

CLASSES = ("MS", "NMOSD")


def find(*sites: Site, **options) -> Found:
    return find_labelled_scans([site.root for site in sites], classes=CLASSES, **options)


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path / "site")


def test_what_is_known_of_a_scan(site):
    path = site.add("01_ses-1", "nmosd", mask=True)
    [scan] = find(site).scans
    assert (scan.dataset, scan.subject, scan.session) == ("site", "01", "1")
    assert scan.scan.path == path
    assert scan.scan.skull_stripped is True
    assert scan.diagnosis == "NMOSD"
    assert scan.mask == site.root / (
        "derivatives/manual/sub-01/ses-1/anat/"
        "sub-01_ses-1_space-orig_label-L_desc-manual_mask.nii.gz"
    )
    assert scan.site == "Tiny site"
    assert scan.name == "site/sub-01_ses-1"
    assert scan.notes == ()


def test_a_diagnosis_that_another_table_contradicts_is_named(site):
    site.add("01_ses-1", "MS")
    table = "session_id\tdiagnosis\nses-1\tNMOSD\n"
    (site.root / "sub-01/sub-01_sessions.tsv").write_text(table)
    found = find(site)
    assert found.scans[0].diagnosis == "NMOSD"
    assert any("(NMOSD in sessions.tsv, MS in participants.tsv)" in note for note in found.notes)


def test_each_scan_trains_what_it_can(site):
    site.add("01", "MS")
    site.add("02", "HC", mask=True)
    site.add("03", mask=True)
    site.add("04", "HC")
    site.add("05", "n/a")
    found = find(site)
    known = {scan.subject: (scan.diagnosis, scan.mask is not None) for scan in found.scans}
    assert known == {"01": ("MS", False), "02": (None, True), "03": (None, True)}
    notes = {scan.subject: scan.notes for scan in found.scans}
    assert notes == {
        "01": ("no lesion mask in manual",),
        "02": ("diagnosis 'HC' is not a class (MS, NMOSD)",),
        "03": ("not in participants.tsv",),
    }
    assert [(out.subject, out.reason) for out in found.left_out] == [
        ("04", "diagnosis 'HC' is not a class (MS, NMOSD); no lesion mask in manual"),
        ("05", "no diagnosis in participants.tsv; no lesion mask in manual"),
    ]


@pytest.mark.parametrize(
    ("table", "diagnosis", "words"),
    [
        ("participant_id \tdiagnosis \n1\tMS\n", "MS", ["differently (1): 1 = 01"]),
        ('participant_id\tdiagnosis\tnote\nsub-01\tMS\t"a\nsub-02\tMS\n', "MS", ["lines"]),
        ("participant_id\tdiagnosis\nsub-01\tMS\nsub-02\tMS\n", "MS", ["fit"]),
        ("participant_id\tdiagnosis\nsub-01\tn/a\nsub-01\tMS\nsub-01\t-\n", "MS", []),
        ("participant_id\tdiagnosis\nsub-01\tNMOSD\nsub-01\tMS\n", None, ["NMOSD or MS"]),
        ("participant_id,diagnosis\nsub-01,MS\n", None, ["no column participant_id"]),
        ("participant_id\tgroup\nsub-01\tMS\n", None, []),
    ],
)
def test_tables_as_people_save_them(site, table, diagnosis, words):
    site.add("01", mask=True)
    (site.root / "participants.tsv").write_text(table)
    found = find(site)
    [scan] = found.scans
    if diagnosis:
        assert found.notes[-1].startswith("no scan is NMOSD: nothing is learned of it")
        found = replace(found, notes=found.notes[:-1])
    assert scan.diagnosis == diagnosis
    assert len(found.notes) == len(words)
    assert all(word in note for word, note in zip(words, found.notes, strict=True))
    write_found(found, site.root.parent / "out")
    written = (site.root.parent / "out" / "data.txt").read_text().splitlines()
    assert all(f"  {note}" in written for note in found.notes)
    reasons = {
        "NMOSD or MS": "rows of participants.tsv that contradict each other",
        "no column participant_id": "no participants.tsv that can be read (no column",
    }
    if diagnosis is None:
        expected = reasons.get(" ".join(words), "no column 'diagnosis' in participants.tsv")
        assert scan.notes[0].startswith(expected)


def test_what_cannot_be_used_is_left_out_with_the_reason(site):
    site.add("01", "MS")
    site.add("02", "MS").write_text("no image")
    (site.root / "sub-03" / "anat").mkdir(parents=True)
    site.rows["99"] = {"diagnosis": "MS"}
    site.write_participants()
    found = find(site)
    assert [scan.subject for scan in found.scans] == ["01"]
    assert [(out.subject, out.name, out.reason) for out in found.left_out] == [
        ("02", "sub-02", "not a gzip file, although it is named .nii.gz"),
        ("03", "", "no FLAIR"),
        ("99", "", "in participants.tsv, but there is no folder"),
    ]


def test_a_link_without_content_is_left_out(site):
    site.add("01", "MS")
    path = site.add("02", "MS")
    path.unlink()
    path.symlink_to("../../.git/annex/objects/aa/bb/SHA256E-s1--cc/SHA256E-s1--cc")
    [out] = find(site).left_out
    assert out.reason == "git-annex link without its content"


def test_the_site_comes_from_the_nearest_table(tmp_path):
    one, two = Site(tmp_path / "one"), Site(tmp_path / "two", name=None)
    one.add("01_ses-1", "MS", site="A")
    one.add("01_ses-2", "MS", site="A")
    one.add("02", "MS", site="n/a")
    two.add("01", "MS")
    (one.root / "sub-01" / "ses-2" / "sub-01_ses-2_scans.tsv").write_text(
        "filename\tsite\nanat/sub-01_ses-2_FLAIR.nii.gz\tB\n"
    )
    sites = {scan.name: scan.site for scan in find(one, two).scans}
    assert sites == {
        "one/sub-01_ses-1": "A",
        "one/sub-01_ses-2": "B",
        "one/sub-02": "Tiny site",
        "two/sub-01": "two",
    }


def test_the_same_label_in_two_data_sets_is_two_people(tmp_path):
    sites = [Site(tmp_path / "a" / "raw"), Site(tmp_path / "b" / "raw")]
    for site in sites:
        site.add("01", "MS")
    people = [scan.person for scan in find(*sites).scans]
    assert people == [("a-raw", "01"), ("b-raw", "01")]


def test_a_data_set_without_scans_does_not_stop_the_others(site, tmp_path):
    site.add("01", "MS")
    empty = Site(tmp_path / "empty")
    found = find(site, empty)
    assert len(found.scans) == 1
    [out] = found.left_out
    assert (out.dataset, out.reason) == ("empty", "there is no sub-* folder in it")


def test_nothing_at_all_is_an_error_with_a_remedy(site):
    site.add("01", "HC")
    with pytest.raises(MsnmoError, match=r"'HC' is not a class.*Give participants.tsv") as caught:
        find(site)
    assert caught.value.exit_code == ExitCode.INPUT_MISSING


def test_wrong_folders_are_errors(site, tmp_path):
    site.add("01", "MS")
    with pytest.raises(UsageError, match="given twice"):
        find(site, site)
    with pytest.raises(MsnmoError, match="no such folder"):
        find_labelled_scans([tmp_path / "nowhere"], classes=CLASSES)
    with pytest.raises(MsnmoError, match="no data set has this folder of lesion masks"):
        find(site, labels=Path("derivatives/nothing"))


def test_another_folder_of_labels(site):
    site.add("01", "MS", mask=True)
    (site.root / "derivatives" / "manual").rename(site.root / "derivatives" / "drawn")
    assert find(site).scans[0].mask is None
    assert find(site, labels=Path("derivatives/drawn")).scans[0].mask is not None
    assert find(site, labels=site.root / "derivatives" / "drawn").scans[0].mask is not None


def test_simulated_data_sets_are_read(ball_head, tmp_path):
    cohort = Cohort(diagnoses=("NMOSD", "HC"))
    write_dataset(tmp_path / "simulated", [ball_head], cohort)
    found = find_labelled_scans([tmp_path / "simulated"], classes=CLASSES)
    assert [scan.diagnosis for scan in found.scans] == ["NMOSD", None]
    assert {scan.site for scan in found.scans} == {"Simulated T2-FLAIR"}
    for scan in found.scans:
        assert scan.mask is not None
        assert scan.mask.name == f"{scan.scan.prefix}_space-orig_label-L_desc-truth_mask.nii.gz"


def test_the_table_and_the_text_name_everything(site, tmp_path):
    site.add("01_ses-1", "MS", mask=True, site="A")
    site.add("01_ses-2", "MS", site="A")
    site.add("02", "HC", mask=True, site="B")
    site.add("03", "HC", site="B")
    found = find(site)
    table = write_found(found, tmp_path / "out")
    rows = read_tsv(table).rows
    assert list(rows[0]) == list(COLUMNS)
    used = [(row["participant_id"], row["session_id"], row["mask"], row["used"]) for row in rows]
    assert used == [
        ("sub-01", "ses-1", "yes", "yes"),
        ("sub-01", "ses-2", "no", "yes"),
        ("sub-02", "n/a", "yes", "yes"),
        ("sub-03", "n/a", "n/a", "no"),
    ]
    assert rows[3]["reason"].startswith("diagnosis 'HC' is not a class")
    lines = counts(found)
    assert table.with_suffix(".txt").read_text().splitlines()[: len(lines)] == lines
    assert lines[0] == (
        "3 scans of 2 people: 2 with a diagnosis, 2 with a lesion mask, 1 with both"
    )
    assert [line.split() for line in lines[2:6]] == [
        ["diagnosis", "site", "session", "people", "scans", "masks"],
        ["MS", "A", "1", "1", "1", "1"],
        ["MS", "A", "2", "1", "1", "0"],
        ["unknown", "B", "n/a", "1", "1", "1"],
    ]
    assert lines[7] == "Left out: 1"


def test_a_class_that_no_scan_has_is_named_with_what_there_is(site):
    site.add("01", "MS")
    site.add("02", "RRMS")
    site.add("03", "NMOSD", mask=True)
    [note] = find_labelled_scans([site.root], classes=("MS", "NMO")).notes
    start, _, rest = note.partition(" The tables have ")
    assert start == "no scan is NMO: nothing is learned of it."
    assert set(rest.removesuffix(". See --classes").split(", ")) == {"RRMS (1)", "NMOSD (1)"}
    assert find_labelled_scans([site.root], classes=("MS", "RRMS", "NMOSD")).notes == ()
    found = find_labelled_scans([site.root], classes=("MS", "HC"), simulated=("MS", "HC"))
    assert found.notes == ()


def test_an_absolute_folder_of_masks_is_of_one_data_set(site, tmp_path):
    other = Site(tmp_path / "other")
    for one in (site, other):
        one.add("01", "MS", mask=True)
    masks = site.root / "derivatives" / "manual"
    with pytest.raises(UsageError, match="an absolute folder of lesion masks with several"):
        find_labelled_scans([site.root, other.root], classes=("MS",), labels=masks)
    [scan] = find_labelled_scans([site.root], classes=("MS",), labels=masks).scans
    assert scan.mask is not None
