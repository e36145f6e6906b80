"""The tables of a raw data set as people write them: what is used, and what is said of the rest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pages import Page

from msnmo_bids.group.cohort import Columns, Covariates, read_covariates
from msnmo_bids.group.write import write_group

GOOD = "\n".join([
    "participant_id\tdiagnosis\tage\tsite", "sub-01\tMS\t30\tLyon", "sub-02\tNMOSD\t31\tMálaga",
    "sub-03\tMS\t32\tLyon", "sub-04\tNMOSD\t33\tMálaga",
]) + "\n"  # fmt: skip
SCANS = [f"sub-{n:02d}/anat/sub-{n:02d}_FLAIR.nii.gz" for n in range(1, 5)]
COVARIATES = [
    ("MS", "Lyon", 30),
    ("NMOSD", "Málaga", 31),
    ("MS", "Lyon", 32),
    ("NMOSD", "Málaga", 33),
]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., tuple[list[Covariates], list[str]]]:
    for scan in SCANS:
        (tmp_path / scan).parent.mkdir(parents=True)

    def run(participants: str | bytes, **columns: str) -> tuple[list[Covariates], list[str]]:
        content = participants if isinstance(participants, bytes) else participants.encode()
        (tmp_path / "participants.tsv").write_bytes(content)
        found, notes = read_covariates(tmp_path, SCANS, Columns(**columns), ["MS", "NMOSD"])
        return [found[scan] for scan in SCANS], notes

    return run


def known(covariates: list[Covariates]) -> list[tuple[Any, ...]]:
    return [(own.diagnosis, own.site, own.age) for own in covariates]


UNPADDED = GOOD.replace("sub-01", "sub-1").replace("sub-02", "sub-2").replace("sub-03", "3")


@pytest.mark.parametrize(
    ("participants", "notes"),
    [
        (GOOD, []),
        (GOOD.encode("latin-1"), ["not UTF-8, read as Latin-1"]),
        (GOOD.encode("utf-16"), []),
        (GOOD.replace("\t", " \t", 3), []),
        (UNPADDED.replace("sub-04", "sub-04 "), ["differently (3): 1 = 01, 2 = 02, 3 = 03"]),
    ],
    ids=["good", "latin1", "utf16", "headerspace", "unpadded"],
)
def test_the_same_covariates_however_the_table_is_saved(read, participants, notes):
    covariates, said = read(participants)
    assert known(covariates) == COVARIATES
    assert len(said) == len(notes)
    assert all(part in line for part, line in zip(notes, said, strict=True))


def test_a_quotation_mark_costs_nobody_a_diagnosis(read):
    covariates, notes = read(GOOD.replace("30\tLyon", '30\t"Lyon'))
    assert known(covariates) == [("MS", '"Lyon', 30), *COVARIATES[1:]]
    assert notes == []


def test_a_missing_value_in_a_row_a_session_overrules_nothing(read):
    header, *rows = GOOD.splitlines()
    again = [row.replace("\tMS", "\tn/a").replace("\tNMOSD", "\tn/a") for row in rows]
    lines = [f"{header}\tsession", *(f"{r}\t1" for r in rows), *(f"{r}\t2" for r in again)]
    covariates, notes = read("\n".join(lines))
    assert known(covariates) == COVARIATES
    assert notes == []


def test_a_dash_is_missing_and_no_diagnosis(read):
    covariates, _ = read(GOOD.replace("\tMS", "\t-"))
    assert [own.diagnosis for own in covariates] == [None, "NMOSD", None, "NMOSD"]


def test_commas_are_named_in_one_line(read):
    covariates, notes = read(GOOD.replace("\t", ","))
    assert known(covariates) == [(None, None, None)] * 4
    assert notes == [
        "participants.tsv: not used, no column participant_id (there is: "
        "'participant_id,diagnosis,age,site'; commas separate it, not tabs)"
    ]


def test_what_is_not_used_is_counted_and_named(read, caplog):
    text = GOOD.replace("sub-03", "sub-13") + "sub-04\tMS\t33\tMálaga\nsub-14\tMS\tn/a\tn/a\n"
    covariates, notes = read(text.replace("\t31\t", "\t031Y\t"))
    assert known(covariates) == [
        COVARIATES[0],
        ("NMOSD", "Málaga", None),
        (None, None, None),
        (None, "Málaga", 33),
    ]
    assert notes == [
        "participants.tsv: rows that fit no folder, not used (2): 13, 14",
        "participants.tsv: rows that contradict each other, not used there (1): "
        "04, diagnosis: NMOSD or MS",
        "participants.tsv: scans without a row (1): sub-03_FLAIR.nii.gz",
        "ages that are not a number of years, not used (1): sub-02/anat/sub-02_FLAIR.nii.gz '031Y'",
    ]
    assert [record.getMessage() for record in caplog.records] == notes


def test_sites_that_are_spelt_differently_are_named(read):
    text = GOOD.replace("32\tLyon", "32\tLYON ").replace("33\tMálaga", "33\tMa\u0301laga")
    covariates, notes = read(text)
    assert [own.site for own in covariates] == ["Lyon", "Málaga", "LYON", "Ma\u0301laga"]
    said = "sites that are spelt differently count apart (are they one?) (2): LYON / Lyon, "
    assert notes == [f"{said}Ma\u0301laga / Málaga"]


@pytest.mark.parametrize("sites", [("1.5T", "15T"), ("Site 1-1", "Site 11"), ("A+", "A-B")])
def test_other_sites_are_not_taken_for_the_same(read, sites):
    _, notes = read(GOOD.replace("Lyon", sites[0]).replace("Málaga", sites[1]))
    assert notes == []


def test_missing_columns_and_tables_are_named(read, tmp_path):
    assert read("participant_id\tgroup\nsub-01\tMS\n")[1][0] == (
        "no table has these columns (there are: group; or use --diagnosis-column, --site-column, "
        "--age-column) (3): diagnosis, site, age"
    )
    (tmp_path / "participants.tsv").unlink()
    _, notes = read_covariates(tmp_path, SCANS, Columns(), ["MS"])
    assert notes == ["there is no participants.tsv: what it would say is not known"]


def test_a_diagnosis_that_another_table_contradicts_is_named(read, tmp_path):
    table = "filename\tdiagnosis\nanat/sub-01_FLAIR.nii.gz\tNMOSD\n"
    (tmp_path / "sub-01/sub-01_scans.tsv").write_text(table)
    covariates, notes = read(GOOD)
    assert covariates[0].diagnosis == "NMOSD"
    [line] = [note for note in notes if note.startswith("diagnosis: tables that differ")]
    assert line.endswith("sub-01_FLAIR.nii.gz (NMOSD in scans.tsv, MS in participants.tsv)")


def test_faults_of_sidecars_are_named(read, tmp_path):
    file = (tmp_path / SCANS[0]).with_name("sub-01_FLAIR.json")
    file.write_text('{"Manufacturer": "Siemens", "MagneticFieldStrength": "3"}')
    (tmp_path / SCANS[1]).with_name("sub-02_FLAIR.json").write_text('[{"Manufacturer": "GE"}]')
    covariates, notes = read(GOOD)
    assert [own.scanner for own in covariates] == ["Siemens 3 T", None, None, None]
    assert notes == [
        'MagneticFieldStrength is "3", not a number: taken as 3.0 (1): '
        "sub-01/anat/sub-01_FLAIR.json",
        "the sidecar holds a list, not fields in braces: ignored (1): "
        "sub-02/anat/sub-02_FLAIR.json",
    ]


def limits(
    tmp_path: Path, add_results: Callable[..., dict], caplog: Any, diagnoses: str, **changes: Any
) -> str:
    """Run the group level on four scans; return what its page and its log say of the accuracy."""
    rows = [f"sub-{n:02d}\t{name}" for n, name in enumerate(diagnoses.split(), 1)]
    (tmp_path / "participants.tsv").write_text("participant_id\tdiagnosis\n" + "\n".join(rows))
    for scan in SCANS:
        (tmp_path / scan).parent.mkdir(parents=True, exist_ok=True)
    scans = [add_results(scan, **changes) for scan in SCANS]
    write_group(tmp_path / "out", scans, bids_dir=tmp_path)
    page = Page((tmp_path / "out" / "group_FLAIR.html").read_text()).text
    said = [
        r.getMessage()
        for r in caplog.records
        if "ccuracy" in r.msg % r.args or "class" in r.getMessage()
    ]
    assert all(page.count(line) == 1 for line in said)
    assert "no table has these columns" in page
    return " ".join(said)


def test_diagnoses_that_are_not_a_class_are_named(tmp_path, add_results, caplog):
    text = limits(tmp_path, add_results, caplog, "MS NMOSD RRMS RRMS")
    assert text == (
        "Diagnoses that are not a class of the weights (MS, NMOSD), with their number of scans, "
        "count in no metric: RRMS (2)."
    )


@pytest.mark.parametrize(
    ("diagnoses", "changes", "expected"),
    [
        (
            "- n/a - -",
            {},
            "Accuracy is not measured: the tables of the data set give no diagnosis.",
        ),
        ("RRMS RRMS HC HC", {}, "Accuracy is not measured. Diagnoses that are not a class"),
        ("MS MS MS MS", {}, "All scans with a score and a diagnosis are MS: what needs another"),
        (
            "MS MS NMOSD -",
            {"Flags": ["no_lesion_found"]},
            "not measured: no scan with a diagnosis has lesions",
        ),
    ],
)
def test_why_accuracy_is_not_measured(tmp_path, add_results, caplog, diagnoses, changes, expected):
    assert expected in limits(tmp_path, add_results, caplog, diagnoses, **changes)


def test_no_word_where_all_is_well(tmp_path, add_results, caplog):
    (tmp_path / "participants.tsv").write_text(GOOD)
    for scan in SCANS:
        (tmp_path / scan).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "FLAIR.json").write_text(json.dumps({"Manufacturer": "GE"}))
    write_group(tmp_path / "out", [add_results(s) for s in SCANS], bids_dir=tmp_path)
    assert not [record for record in caplog.records if record.name.startswith("msnmo_bids")]
    assert "Tables and sidecars" not in (tmp_path / "out" / "group_FLAIR.html").read_text()
