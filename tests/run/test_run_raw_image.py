"""Results of another image than the one that is there, and results that belong to nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msnmo_bids.errors import ExitCode

NAMES = [
    *(f"sub-01/ses-{k}/anat/sub-01_ses-{k}_FLAIR.nii.gz" for k in (1, 2)),
    "sub-02/anat/sub-02_FLAIR.nii.gz",
    "sub-03/anat/sub-03_FLAIR.nii.gz",
]
CASE = Path(__file__).resolve().parents[3] / "shared" / "cases" / "stale"
SKIP = "--skip-bids-validation"


@pytest.fixture
def raw(make_dataset) -> Path:
    return make_dataset(*NAMES)


@pytest.fixture
def out(call, fake, raw, tmp_path) -> Path:
    """The output folder after a run over all."""
    folder = tmp_path / "out"
    assert call(raw, folder, "participant", SKIP).code == 0
    fake.runs.clear()
    fake.compared.clear()
    return folder


def mend_header(path: Path) -> None:
    """Do what the case ``stale`` does: the same voxels under another affine."""
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), np.diag([-2.0, 1, 1, 1])), path)


def status(fake) -> dict[str, str]:
    """Return what the group level was given last."""
    return {scan.prefix: str(scan.status) for scan in fake.group[-1][0]}


def test_a_scan_whose_image_changed_runs_again_and_says_why(call, fake, raw, out):
    mend_header(raw / NAMES[2])
    dry = call(raw, out, "participant", SKIP, "--dry-run")
    lines = [" ".join(line.split()) for line in dry.text.splitlines()]
    assert f"{NAMES[2]} run the raw image changed deepbet" in lines
    result = call(raw, out, "participant", SKIP)
    assert f"Again: the raw image changed (1): {NAMES[2]}" in result.text
    assert fake.runs == [["sub-02"]]
    assert "Nothing to do" in call(raw, out, "participant", SKIP).text


@pytest.mark.skipif(not CASE.is_dir(), reason=f"no case in {CASE}")
def test_the_case_of_a_mended_header(call, fake, tmp_path):
    raw, out = tmp_path / "raw", tmp_path / "out"
    shutil.copytree(CASE / "bids", raw, copy_function=shutil.copyfile)
    call(raw, out, "participant", SKIP)
    shutil.copyfile(CASE / "after_fix.nii.gz", raw / "sub-01/anat/sub-01_FLAIR.nii.gz")
    assert "no results (the raw image changed)" in call(raw, out, "group").text
    assert "Again: the raw image changed (1): sub-01" in call(raw, out, "participant", SKIP).text
    assert fake.processed == ["sub-01", "sub-01"]


def test_the_group_level_does_not_count_it(call, fake, raw, out):
    mend_header(raw / NAMES[2])
    result = call(raw, out, "group")
    assert f"{NAMES[2]}: no results (the raw image changed): n/a in the table" in result.text
    assert result.last_line == "msnmo: SUCCESS 3 0"
    assert status(fake)["sub-02"] == "pending"
    assert [scan.diagnosis for scan in fake.group[-1][0] if scan.prefix == "sub-02"] == [{}]


def test_visits_are_not_compared_by_it(call, fake, raw, out):
    mend_header(raw / NAMES[0])
    result = call(raw, out, "participant", SKIP, "--session-label", "2", "--overwrite")
    assert "not compared with the visit before (sub-01_ses-1: the raw image changed)" in result.text
    assert fake.compared == []
    assert not list(out.rglob("*_changes.json"))
    call(raw, out, "participant", SKIP)
    assert fake.compared == ["sub-01_ses-2_space-ses1ses2"]


def test_participants_and_scans_that_are_no_longer_there_are_named(call, fake, raw, out):
    shutil.rmtree(raw / "sub-02")
    (raw / NAMES[1]).unlink()
    for level in ("participant", "group"):
        text = call(raw, out, level, SKIP).text
        assert "no longer in the input; their files stay there and are not used (1): sub-02" in text
        assert "and are not used (1): sub-01_ses-2" in text
    assert [*status(fake)] == ["sub-01_ses-1", "sub-03"]
    (notes,) = [more["notes"] for _, more in fake.group]
    assert len(notes) == 2
    assert all("are not used" in note for note in notes)


def test_a_part_of_the_cohort_replaces_its_page_not_without_a_word(call, fake, raw, out):
    assert call(raw, out, "group").code == 0
    assert fake.group[-1][1]["notes"] == []
    result = call(raw, out, "group", "--participant-label", "01")
    (note,) = fake.group[-1][1]["notes"]
    assert "not asked for" in note
    assert note.endswith("(2): sub-02, sub-03")
    assert note in result.text


def test_a_part_of_the_cohort_leaves_the_methods_of_all(call, fake, raw, out):
    (raw / "sub-03/anat/sub-03_FLAIR.json").write_text('{"SkullStripped": true}')
    call(raw, out, "participant", SKIP)
    before = (out / "logs/CITATION.md").read_text()
    assert "stripped: True" in before
    call(raw, out, "participant", SKIP, "--participant-label", "01", "--overwrite")
    assert (out / "logs/CITATION.md").read_text() == before


@pytest.mark.parametrize("where", ["missing", "empty", "the output"])
def test_the_group_level_from_derivatives_alone(call, fake, raw, out, bad_data, where):
    fake.failures["sub-03"] = bad_data("sub-03")
    call(raw, out, "participant", SKIP, "--participant-label", "03", "--overwrite")
    shutil.rmtree(raw)
    if where == "empty":
        raw.mkdir()
    result = call(out if where == "the output" else raw, out, "group")
    assert result.last_line == "msnmo: SUCCESS 3 0"
    assert result.text.count("made from the output folder alone, without: ") == 1
    assert ("sites" in result.text) == (where != "empty"), "an empty folder may still have tables"
    assert status(fake) == {
        "sub-01_ses-1": "complete",
        "sub-01_ses-2": "complete",
        "sub-02": "complete",
        "sub-03": "failed",
    }
    assert [scan.relative for scan in fake.group[-1][0]] == NAMES
    part = call(raw, out, "group", "--participant-label", "02")
    assert part.code == 0
    assert [*status(fake)] == ["sub-02"]


def test_what_derivatives_alone_cannot_tell(call, fake, raw, out):
    shutil.rmtree(raw)
    result = call(raw, out, "group", "--labels", "derivatives/manual")
    assert result.code == ExitCode.INPUT_MISSING
    assert "--labels: cannot be used without the input" in result.text
    assert call(raw, out, "group", "--participant-label", "9").code == ExitCode.NOTHING_SELECTED
    assert call(raw, out, "participant").code == ExitCode.INPUT_MISSING


def test_results_of_images_whose_content_is_elsewhere_are_kept(call, fake, raw, out):
    (raw / NAMES[2]).unlink()
    (raw / NAMES[2]).symlink_to("../../.git/annex/objects/nothing")
    result = call(raw, out, "participant", SKIP)
    assert "Nothing to do" in result.text
    line = next(line for line in result.text.splitlines() if "has no content here" in line)
    assert line.endswith(f"(1): {NAMES[2]}")
    assert call(raw, out, "group").last_line == "msnmo: SUCCESS 4 0"


@pytest.mark.parametrize("more", [(), ("--threshold", "0.6")])
def test_people_of_another_data_set_do_not_replace_those_of_the_same_labels(
    call, fake, raw, out, make_dataset, more
):
    other = make_dataset(NAMES[2], name="other")
    mend_header(other / NAMES[2])
    (other / "dataset_description.json").write_text('{"Name": "B", "BIDSVersion": "1.10.0"}')
    before = (out / "dataset_description.json").read_bytes()
    result = call(other, out, "participant", SKIP, *more)
    assert result.code == 64
    assert "holds results of another data set (msnmo:" in result.text
    assert f"other images here: {NAMES[2]}" in result.text
    assert (out / "dataset_description.json").read_bytes() == before
    assert fake.runs == []
    assert call(other, out, "participant", SKIP, "--overwrite").code == 0
    assert fake.runs == [["sub-02"]]


def test_a_data_set_that_was_moved_is_the_same(call, fake, raw, out):
    moved = raw.rename(raw.with_name("moved"))
    mend_header(moved / NAMES[2])
    assert call(moved, out, "participant", SKIP).code == 0
    assert fake.runs == [["sub-02"]]
