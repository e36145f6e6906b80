"""A cohort of three sites, three diagnoses and two visits: evaluation, maps, tables, page."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from cohort import make_cohort, manual_masks
from heads import diagnosis, entry
from hypothesis import given
from hypothesis import strategies as st
from pages import assert_self_contained

from msnmo_bids.bids.dataset import write_json, write_shared_files
from msnmo_bids.bids.names import derivative_name
from msnmo_bids.bids.records import ScanRecord, Status
from msnmo_bids.errors import UsageError
from msnmo_bids.group.cohort import Columns, read_covariates
from msnmo_bids.group.frequency import lesions_in_mni
from msnmo_bids.group.review_list import LIMIT, modified_z, outliers, read_quality
from msnmo_bids.group.write import GroupSettings, write_group
from msnmo_bids.lesions.regions import load_atlas

VALIDATOR = Path(sys.executable).parent / "bids-validator-deno"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


@pytest.fixture(scope="module")
def cohort(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Path, list[ScanRecord], list[Path]]:
    """Raw and output folder, the scans' records, and what the group level wrote."""
    raw, out, entries = make_cohort(tmp_path_factory.mktemp("cohort"), 18)
    settings = GroupSettings(masks=manual_masks(raw, entries))
    written = write_group(out, entries, bids_dir=raw, settings=settings)
    return raw, out, entries, written


def test_the_page_needs_nothing_else_and_begins_with_what_went_wrong(cohort: tuple) -> None:
    source = (cohort[1] / "group_FLAIR.html").read_text()
    text = assert_self_contained(source).text
    places = [text.index(part) for part in
              ("Processing failed", "Stands apart", "Not processed : 1", "Click a heading",
               "Lesion load", "Lesion frequency in", "Confusion matrix", "lowest DSC",
               "A line per site")]  # fmt: skip
    assert places == sorted(places)
    assert "brain volume of 310 ml, far below" in text
    assert "No real NMOSD scan was available to the developers" in text
    assert "Siemens Skyra 3 T" in text


def test_the_confusion_matrix_counts_every_scan_once(cohort: tuple) -> None:
    _, out, entries, _ = cohort
    rows = table(out / "group_confusion.tsv")
    columns = ("MS", "NMOSD", "indeterminate", "no_result")
    counted = dict.fromkeys(("all", "A", "B", "C"), 0)
    for row in rows:
        counted[row["site"]] += sum(int(row[column]) for column in columns)
    assert counted.pop("all") == len(entries) == sum(counted.values())
    # As the table of all scans has it.
    scans = table(out / "group_FLAIR.tsv")
    missed = [r for r in scans if r["participants_diagnosis"] == "HC" and r["diagnosis"] == "MS"]
    assert next(r for r in rows if (r["site"], r["diagnosis"]) == ("all", "HC"))["MS"] == str(
        len(missed)
    )


def test_accuracy_is_that_of_the_table(cohort: tuple) -> None:
    _, out, _, _ = cohort
    row = next(r for r in table(out / "group_accuracy.tsv") if r["scans_of"] == "all")
    scans = [
        r
        for r in table(out / "group_FLAIR.tsv")
        if r["participants_diagnosis"] in ("MS", "NMOSD") and r["lesion_count"] not in ("n/a", "0")
    ]
    right = [
        (float(r["probability_NMOSD"]) > 0.5) == (r["participants_diagnosis"] == "NMOSD")
        for r in scans
    ]
    assert float(row["acc"]) == pytest.approx(np.mean(right), abs=1e-4)
    assert int(row["acc_scans"]) == len(scans)
    assert float(row["acc_low"]) <= float(row["acc"]) <= float(row["acc_high"])


def test_segmentation_is_worst_first_and_right(cohort: tuple) -> None:
    raw, out, entries, _ = cohort
    rows = table(out / "group_segmentation.tsv")
    assert len(rows) == len(entries) - 2
    values = [float(row["dsc"]) for row in rows]
    assert values == sorted(values)
    scan = next(e for e in entries if e.relative == rows[0]["scan"])
    truth = np.asarray(nib.load(manual_masks(raw, entries)[scan.relative]).dataobj)
    name = f"{scan.prefix}_space-orig_label-L_desc-msnmo_mask.nii.gz"
    found = np.asarray(nib.load(out / scan.folder / name).dataobj)
    expected = 2 * (truth * found).sum() / (truth.sum() + found.sum())
    assert values[0] == pytest.approx(expected, abs=1e-4)


def test_frequency_maps_are_shares_of_people(cohort: tuple) -> None:
    out = cohort[1]
    maps = sorted(out.glob("group_space-*_map.nii.gz"))
    assert [path.name.split("desc-")[1].split("_")[0] for path in maps] == ["HC", "MS", "NMOSD"]
    for path in maps:
        image = nib.load(path)
        values = np.unique(np.asarray(image.dataobj))
        people = len(json.loads(path.with_suffix("").with_suffix(".json").read_text())["Sources"])
        assert people == 6
        assert values[0] == 0
        np.testing.assert_allclose(values * people, np.rint(values * people), atol=1e-5)
        np.testing.assert_allclose(image.affine, load_atlas()[2])


def test_a_lesion_is_where_the_registration_puts_it(tmp_path: Path) -> None:
    _, out, entries = make_cohort(tmp_path, 1, visits=1)
    record = entries[0]
    shift = np.eye(4)
    shift[:3, 3] = [0, 16, -8]
    record.diagnosis["AtlasRegistration"] = {"Matrix": shift.tolist()}
    mask = lesions_in_mni(out, record)
    name = f"{record.prefix}_space-orig_label-L_desc-msnmo_mask.nii.gz"
    image = nib.load(out / record.folder / name)
    native = nib.affines.apply_affine(image.affine, np.argwhere(np.asarray(image.dataobj)))
    there = nib.affines.apply_affine(load_atlas()[2], np.argwhere(mask))
    np.testing.assert_allclose(there.mean(0), native.mean(0) + shift[:3, 3], atol=1.1)
    assert mask.sum() * 8 == pytest.approx(27 * 512, rel=0.15)


def test_every_table_has_a_dictionary_of_its_columns(cohort: tuple) -> None:
    tables = sorted(cohort[1].glob("group_*.tsv"))
    assert len(tables) == 5
    for path in tables:
        about = json.loads(path.with_suffix(".json").read_text())
        assert list(table(path)[0]) == list(about)
        assert all(text["Description"] for text in about.values())


def test_again_it_writes_the_same(cohort: tuple) -> None:
    raw, out, entries, written = cohort
    before = {path: path.read_bytes() for path in written}
    settings = GroupSettings(masks=manual_masks(raw, entries))
    write_group(out, entries[::-1], bids_dir=raw, settings=settings)
    assert {path: path.read_bytes() for path in written} == before


def test_without_masks_what_needed_them_goes(tmp_path: Path) -> None:
    raw, out, entries = make_cohort(tmp_path, 4, visits=1)
    settings = GroupSettings(masks=manual_masks(raw, entries))
    write_group(out, entries, bids_dir=raw, settings=settings)
    assert (out / "group_segmentation.tsv").is_file()
    write_group(out, entries)
    assert sorted(path.name for path in out.glob("group_*.tsv")) == [
        "group_FLAIR.tsv",
        "group_attention.tsv",
    ]
    assert not list(out.glob("group_segmentation*"))


def test_masks_that_are_copies_are_no_truth(tmp_path, caplog) -> None:
    raw, out, entries = make_cohort(tmp_path, 6, visits=1)
    masks = manual_masks(raw, entries)
    ours, one, other, *rest = [one for one in entries if one.relative in masks]
    found = out / ours.folder / derivative_name(ours.prefix, "lesion_mask")
    for file, first in ((found, 4), (masks[one.relative], 8)):
        image = nib.load(file)
        values = np.zeros(image.shape, np.uint8)
        values[first : first + 5, 4:9, 4:9] = 1
        nib.save(nib.Nifti1Image(values, image.affine), file)
    masks[ours.relative].write_bytes(found.read_bytes())
    masks[other.relative].write_bytes(masks[one.relative].read_bytes())
    write_group(out, entries, bids_dir=raw, settings=GroupSettings(masks=masks))
    said = "\n".join(caplog.messages)
    assert f"{ours.relative}: not compared with its manual mask: the manual mask is a copy" in said
    assert f"its manual mask is a copy of that of {other.relative}" in said
    rows = table(out / "group_segmentation.tsv")
    compared = {row["scan"] for row in rows if row["dsc"] != "n/a"}
    assert compared == {one.relative for one in rest}


def test_what_cannot_be_read_is_named_and_the_others_go_on(tmp_path, caplog) -> None:
    raw, out, entries = make_cohort(tmp_path, 4, visits=1)
    masks = manual_masks(raw, entries)
    cut, bent, gone = [one for one in entries if one.relative in masks][:3]
    for one, change in ((cut, lambda b: b[:97]), (bent, lambda b: b[:60] + b"\0\1" + b[62:])):
        file = out / one.folder / derivative_name(one.prefix, "lesion_mask")
        file.write_bytes(change(file.read_bytes()))
    (out / gone.folder / derivative_name(gone.prefix, "preproc")).unlink()
    write_group(out, entries, bids_dir=raw, settings=GroupSettings(masks=masks))
    said = "\n".join(caplog.messages)
    for one in (cut, bent):
        assert f"{one.prefix}: left out of the lesion frequency map: " in said
        assert f"{one.relative}: not compared with its manual mask: " in said
    assert f"{gone.relative}: left out of the pictures of failures: " in said
    assert (out / "group_FLAIR.html").is_file()


def test_a_bare_mask_lies_as_the_scan_does(tmp_path) -> None:
    """A manual mask without orientation has the axes of its scan, whatever these are."""
    raw, out, entries = make_cohort(tmp_path, 2, visits=1)
    masks = manual_masks(raw, entries)
    scan = next(one for one in entries if one.relative in masks)
    file = out / scan.folder / derivative_name(scan.prefix, "lesion_mask")
    image = nib.load(file).as_reoriented([[0, -1], [1, -1], [2, 1]])
    nib.save(image, file)
    bare = nib.Nifti1Image(np.asarray(image.dataobj), None)
    bare.header["sform_code"] = bare.header["qform_code"] = 0
    nib.save(bare, masks[scan.relative])
    write_group(out, entries, bids_dir=raw, settings=GroupSettings(masks=masks))
    rows = {row["scan"]: row for row in table(out / "group_segmentation.tsv")}
    assert float(rows[scan.relative]["dsc"]) == 1


def test_a_site_called_all_is_not_counted_twice(tmp_path) -> None:
    raw, out, entries = make_cohort(tmp_path, 4, visits=1, images=False)
    people = raw / "participants.tsv"
    header, *lines = people.read_text().splitlines()
    column = header.split("\t").index("site")
    cells = [line.split("\t") for line in lines]
    for number, row in enumerate(cells):
        row[column] = ("all", "other")[number % 2]
    people.write_text("\n".join([header, *("\t".join(row) for row in cells)]) + "\n")
    write_group(out, entries, bids_dir=raw)
    rows = table(out / "group_confusion.tsv")
    numbers = [sum(int(v) for k, v in row.items() if v.isdigit()) for row in rows]
    assert sum(numbers) == 2 * len(entries)


@pytest.mark.skipif(not VALIDATOR.exists(), reason="bids-validator-deno is not installed")
def test_what_the_group_level_adds_is_valid_bids(tmp_path: Path) -> None:
    raw, out, entries = make_cohort(tmp_path, 6, visits=1, images=False)
    for scan in entries:
        if scan.status != Status.COMPLETE:
            continue
        path = out / scan.folder / f"{scan.prefix}_desc-preproc_FLAIR.nii.gz"
        nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), path)
        path.with_name(path.name.replace(".nii.gz", ".json")).write_text('{"SkullStripped": true}')
    write_shared_files(out, raw, ["MS", "NMOSD"])
    write_group(out, entries, bids_dir=raw)
    result = subprocess.run(
        [VALIDATOR, str(out), "--ignoreWarnings"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_columns_by_other_names(tmp_path: Path) -> None:
    (tmp_path / "participants.tsv").write_text("participant_id\tgroup\tage\nsub-01\tms\t89+\n")
    folder = tmp_path / "sub-01" / "ses-2"
    folder.mkdir(parents=True)
    (folder / "sub-01_ses-2_scans.tsv").write_text(
        "filename\tcentre\nanat/sub-01_ses-2_FLAIR.nii.gz\tLjubljana\n"
    )
    scan = "sub-01/ses-2/anat/sub-01_ses-2_FLAIR.nii.gz"
    columns = Columns(diagnosis="group", site="centre")
    found = read_covariates(tmp_path, [scan], columns, ["MS"])[0][scan]
    assert (found.diagnosis, found.site, found.age) == ("MS", "Ljubljana", 89)
    with pytest.raises(UsageError, match="no table has a column 'hospital'") as error:
        read_covariates(tmp_path, [scan], Columns(site="hospital"), ["MS"])
    assert "age, centre, group" in str(error.value.remedy)


def records_of(volumes: list[float]) -> list[ScanRecord]:
    made = []
    for number, volume in enumerate(volumes):
        relative = f"sub-{number:03d}/anat/sub-{number:03d}_FLAIR.nii.gz"
        about = diagnosis(relative, BrainVolume=volume)
        made.append(replace(entry(relative, "complete"), diagnosis=about))
    return made


@given(st.lists(st.floats(900, 1500), min_size=10, max_size=40), st.randoms())
def test_outliers_do_not_depend_on_the_order(volumes: list[float], random: Any) -> None:
    shuffled = volumes.copy()
    random.shuffle(shuffled)

    def apart(values: list[float]) -> list[float]:
        found = outliers(records_of(values))
        return sorted(values[int(scan[4:7])] for scan in found)

    assert apart(volumes) == apart(shuffled)
    scores = np.abs(modified_z(np.array(volumes)))
    assert apart(volumes) == sorted(np.array(volumes)[scores > LIMIT].tolist())


def test_one_wrong_brain_mask_is_found_and_said(tmp_path: Path) -> None:
    found = outliers(records_of([1200 + 10.0 * k for k in range(20)] + [400]))
    assert list(found) == ["sub-020/anat/sub-020_FLAIR.nii.gz"]
    assert "400 ml, far below the cohort's median of 1290" in next(iter(found.values()))[0]
    assert not outliers(records_of([1200, 1210, 400]))  # too few to say


def test_visits_of_a_person_are_compared() -> None:
    one, other = records_of([1200, 1290])
    other = ScanRecord("sub-000/b", "000", "2", other.prefix, other.folder, Status.COMPLETE,
                       diagnosis={**other.diagnosis, "LesionVolume": 9.0})  # fmt: skip
    (reasons,) = outliers([one, other]).values()
    assert reasons[0].startswith("brain volume +8 %")
    assert reasons[1].startswith("lesion volume of 9 ml, 1.25 ml at")


@pytest.mark.parametrize(("level", "reasons"), [("red", ["no FLAIR"]), ("amber", []), (None, [])])
def test_quality_as_the_participant_level_wrote_it(
    tmp_path: Path, level: str | None, reasons: list[str]
) -> None:
    (record,) = records_of([1200])
    path = tmp_path / record.folder / derivative_name(record.prefix, "quality")
    figures = {"SliceThickness": {"Value": 6, "Level": "amber", "Unit": "mm"}}
    write_json(path, {"Figures": figures})
    if level:
        record.diagnosis["Quality"] = {"Level": level, "Reasons": reasons}
    found = read_quality(tmp_path, [record])
    expected = {"red": ("red", ["no FLAIR"]), "amber": ("amber", ["SliceThickness 6 mm"])}
    assert found.get(record.relative) == expected.get(level or "")
