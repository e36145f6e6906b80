"""A simulated BIDS data set."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from msnmo_bids.bids.names import truth_name
from msnmo_bids.lesions.regions import CORTEX, DEEP, REGIONS, VENTRICLE
from msnmo_bids.preprocessing.geometry import to_native
from msnmo_bids.simulation import imaging
from msnmo_bids.simulation.anatomy import Tissue
from msnmo_bids.simulation.dataset import Cohort, Geometry, as_image, simulate_person, write_dataset
from msnmo_bids.simulation.imaging import Protocol
from msnmo_bids.simulation.stamping import LesionMap
from msnmo_bids.simulation.truth import region_codes

PROTOCOLS = (
    Protocol("2D", (1.0, 1.0, 4.0), 3.5, 0.02, 0.1),
    Protocol("3D", (1.2, 1.2, 1.2), 1.2, 0.02, 0.1),
)
COHORT = Cohort(("MS", "NMOSD", "HC", "MS"), sessions=(2,), seed=6, protocols=PROTOCOLS)
KINDS = ("lesion_mask", "lesion_labels", "brain_mask", "tissue")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, tiny_head) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "bids", [tiny_head], COHORT)


def files_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def scans_of(dataset: Path) -> list[Path]:
    return sorted(dataset.glob("sub-*/ses-*/anat/*_FLAIR.nii.gz"))


def truth_of(flair: Path, kind: str) -> Path:
    root = flair.parents[3]
    prefix = flair.name.removesuffix("_FLAIR.nii.gz")
    folder = root / "derivatives" / "truth" / flair.parent.relative_to(root)
    return folder / truth_name(prefix, kind)


def array_of(flair: Path, kind: str) -> np.ndarray:
    return np.asarray(nib.load(truth_of(flair, kind)).dataobj)


@pytest.mark.parametrize("folder", [".", "derivatives/truth"])
def test_is_valid_bids(dataset, folder):
    program = shutil.which("bids-validator-deno", path=str(Path(sys.executable).parent))
    program = program or shutil.which("bids-validator-deno")
    if program is None:
        pytest.skip("the BIDS validator is not installed")
    command = [program, str(dataset / folder), "--ignoreWarnings", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def test_truth_is_on_the_grid_of_the_flair(dataset):
    flairs = scans_of(dataset)
    assert len(flairs) == 8
    orders = set()
    for path in flairs:
        flair = nib.load(path)
        orders.add(nib.aff2axcodes(flair.affine))
        assert flair.get_data_dtype() == np.int16
        for image in (flair, *(nib.load(truth_of(path, kind)) for kind in KINDS)):
            assert image.shape == flair.shape
            np.testing.assert_array_equal(image.affine, flair.affine)
            np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
            assert int(image.header["sform_code"]) == 1
    assert len(orders) > 1  # any axis order


def test_masks_labels_and_tissues_agree(dataset):
    for path in scans_of(dataset):
        mask, labels = array_of(path, "lesion_mask") > 0, array_of(path, "lesion_labels")
        np.testing.assert_array_equal(labels > 0, mask)
        brain, tissue = array_of(path, "brain_mask") > 0, array_of(path, "tissue")
        assert mask[brain].sum() >= 0.98 * mask.sum()
        assert set(np.unique(tissue)) <= set(Tissue)
        solid = tissue == Tissue.WHITE_MATTER
        assert brain[solid].mean() > 0.99
        values = np.asarray(nib.load(path).dataobj).astype(float)
        if mask.sum() > 100:
            assert values[mask].mean() > 1.1 * values[solid & ~mask].mean()


def test_lesion_tables(dataset):
    changes = set()
    for path in scans_of(dataset):
        table = pd.read_csv(truth_of(path, "lesion_table"), sep="\t", na_values="n/a")
        image = nib.load(truth_of(path, "lesion_labels"))
        labels = np.asarray(image.dataobj)
        visible = table[table.volume_mm3 > 0].set_index("index")
        assert not table["index"].duplicated().any()
        assert set(visible.index) == set(np.unique(labels)) - {0}
        voxel = np.prod(nib.affines.voxel_sizes(image.affine))
        for number, row in visible.iterrows():
            own = np.argwhere(labels == number)
            assert row.volume_mm3 == pytest.approx(len(own) * voxel, abs=0.01)
            centre = nib.affines.apply_affine(image.affine, own.mean(axis=0))
            np.testing.assert_allclose(centre, [row.x_mm, row.y_mm, row.z_mm], atol=0.01)
            assert row.region in REGIONS
        first = "_ses-1_" in path.name
        assert table.change.isna().all() if first else table.change.notna().all()
        changes |= set(table.change.dropna())
        assert (table[table.volume_mm3 == 0].change == "vanished").all()
    assert "stable" in changes


def test_a_lesion_keeps_its_label_at_the_next_visit(dataset):
    for first in dataset.glob("sub-*/ses-1/anat/*_FLAIR.nii.gz"):
        second = Path(str(first).replace("ses-1", "ses-2"))
        one, two = (
            pd.read_csv(truth_of(p, "lesion_table"), sep="\t", index_col="index")
            for p in (first, second)
        )
        both = one.index.intersection(two.index)
        assert (one.kind[both] == two.kind[both]).all()
        assert (two.change[both] != "new").all()


def test_people(dataset):
    table = pd.read_csv(dataset / "participants.tsv", sep="\t")
    assert list(table.columns) == ["participant_id", "diagnosis", "age", "sex"]
    assert list(table.participant_id) == ["sub-01", "sub-02", "sub-03", "sub-04"]
    assert tuple(table.diagnosis) == COHORT.diagnoses
    assert table.age.between(18, 75).all()
    levels = json.loads((dataset / "participants.json").read_text())["diagnosis"]["Levels"]
    assert set(levels) == {"MS", "NMOSD", "SVD", "HC"}
    visits = pd.read_csv(dataset / "sub-01" / "sub-01_sessions.tsv", sep="\t")
    assert list(visits.session_id) == ["ses-1", "ses-2"]
    assert visits.acq_time.is_monotonic_increasing


def test_healthy_people_have_no_lesion(dataset):
    for path in dataset.glob("sub-03/ses-*/anat/*_FLAIR.nii.gz"):
        assert not array_of(path, "lesion_mask").any()
        assert len(truth_of(path, "lesion_table").read_text().splitlines()) == 1


def test_what_a_scan_was_made_with_makes_it_again(dataset, tiny_head):
    """The sidecar of the truth has all that the simulation needs besides anatomy and shapes."""
    path = scans_of(dataset)[-1]
    recipe = json.loads(
        truth_of(path, "lesion_mask").with_suffix("").with_suffix(".json").read_text()
    )["Simulation"]
    seed, number = recipe["Seed"]
    cohort = Cohort(
        ("HC",) * number + (recipe["Diagnosis"],),
        sessions=(recipe["Sessions"],),
        seed=seed,
        protocols=PROTOCOLS,
        typicality=recipe["Typicality"],
    )
    visit = list(simulate_person(cohort, number, tiny_head))[recipe["Session"]]
    assert visit.scan.load == recipe["Load"]
    image = as_image(visit.scan.lesion_mask, visit.scan.affine, visit.geometry)
    np.testing.assert_array_equal(np.asarray(image.dataobj), array_of(path, "lesion_mask"))


def test_same_seed_same_bytes_on_any_number_of_processes(dataset, tmp_path, tiny_head):
    again = write_dataset(tmp_path / "again", [tiny_head], COHORT, processes=2)
    one, other = files_of(dataset), files_of(again)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def test_without_skull(tmp_path, tiny_head):
    cohort = Cohort(("MS",), seed=3, protocols=PROTOCOLS[:1], skull_strip=True)
    out = write_dataset(tmp_path / "stripped", [tiny_head], cohort)
    path = out / "sub-01" / "anat" / "sub-01_FLAIR.nii.gz"
    content = json.loads(path.with_suffix("").with_suffix(".json").read_text())
    assert content["SkullStripped"] is True
    assert content["SliceThickness"] == 3.5
    name = truth_name("sub-01", "brain_mask")
    brain = nib.load(out / "derivatives" / "truth" / "sub-01" / "anat" / name).get_fdata() > 0
    assert not nib.load(path).get_fdata()[~brain].any()
    assert not (out / "sub-01" / "sub-01_sessions.tsv").exists()


def test_contact_sheet_shows_each_scan(dataset):
    import matplotlib.image

    sheet = dataset / "derivatives" / "truth" / "figures" / "contact_sheet.png"
    picture = matplotlib.image.imread(sheet)
    assert picture.shape[0] >= 8 * 160
    assert picture.shape[1] >= 1270
    orange = (picture[..., 0] > 0.95) & (abs(picture[..., 1] - 0.47) < 0.05)
    assert orange.any()  # outlines


def test_region_codes():
    codes = region_codes(np.array([[list(Tissue)]]))
    by_tissue = dict(zip(Tissue, codes.ravel().tolist(), strict=True))
    assert by_tissue[Tissue.LATERAL_VENTRICLE] == by_tissue[Tissue.THIRD_VENTRICLE] == VENTRICLE
    assert by_tissue[Tissue.CORTEX] == CORTEX
    assert by_tissue[Tissue.WHITE_MATTER] == DEEP
    assert by_tissue[Tissue.SCALP] == by_tissue[Tissue.AIR] == 0


def test_a_lesion_between_the_centres_of_thick_slices_has_a_label(tiny_head):
    """Its share makes a voxel lesion although no centre of a voxel lies in it."""
    visit = next(simulate_person(Cohort(("MS",), seed=4, protocols=PROTOCOLS), 0, tiny_head))
    scan = visit.scan
    labels = np.zeros(scan.lesions.labels.shape, np.uint16)
    labels[20:24, 20:24, 20] = 7
    lesions = LesionMap(scan.lesions.profile, scan.lesions.brightness, labels)
    mask = np.zeros(scan.image.shape, np.uint8)
    mask[20:23, 20:23, min(6, mask.shape[2] - 1)] = 1

    found = replace(scan, lesions=lesions, lesion_mask=mask).lesion_labels
    assert set(np.unique(found)) == {0, 7}
    np.testing.assert_array_equal(found > 0, mask > 0)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "PIR", "ASL"])
def test_as_image_and_back(tmp_path, axcodes):
    array = np.arange(9 * 10 * 11, dtype=np.int16).reshape(9, 10, 11)
    affine = np.diag([1.0, 1.0, 4.0, 1.0])
    affine[:3, 3] = (-4, 5, 6)
    image = as_image(array, affine, Geometry(axcodes, (3.0, -5.0, 8.0)))
    assert "".join(nib.aff2axcodes(image.affine)) == axcodes
    nib.save(image, tmp_path / "image.nii")
    ras = np.asarray(nib.as_closest_canonical(image).dataobj)
    np.testing.assert_array_equal(ras, array)
    np.testing.assert_array_equal(
        np.asarray(to_native(array, tmp_path / "image.nii").dataobj), np.asarray(image.dataobj)
    )
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)


@pytest.mark.parametrize("number", [0, 1])
def test_nothing_but_the_lesions_differs_between_diagnoses(tiny_head, monkeypatch, number):
    """The same person, healthy: the same head, voxels, contrast, bias field and noise."""
    monkeypatch.setattr(imaging, "_ARTEFACT_SHARE", 0.0)  # they spread over whole slices
    cohort = replace(COHORT, diagnoses=("MS", "NMOSD"), seed=9)
    healthy = replace(cohort, diagnoses=("HC", "HC"))
    for ill, well in zip(
        simulate_person(cohort, number, tiny_head),
        simulate_person(healthy, number, tiny_head),
        strict=True,
    ):
        assert ill.scan.lesion_mask.any()
        assert not well.scan.lesion_mask.any()
        assert ill.geometry == well.geometry
        np.testing.assert_array_equal(ill.scan.tissue, well.scan.tissue)
        changed = ill.scan.image != well.scan.image
        assert changed[ill.scan.lesion_mask > 0].mean() > 0.9
        assert changed.mean() < 0.3
        assert np.abs(ill.scan.image - well.scan.image)[changed].max() > 0.2


def test_visits_and_loads_of_each_person(tiny_head):
    cohort = Cohort(("MS", "NMOSD"), sessions=(2, 1), protocols=PROTOCOLS, loads=(0.4, 0.2))
    first, second = (list(simulate_person(cohort, number, tiny_head)) for number in range(2))
    assert [visit.prefix for visit in first] == ["sub-01_ses-1", "sub-01_ses-2"]
    assert [visit.prefix for visit in second] == ["sub-02_ses-1"]
    assert [visit.scan.load for visit in (*first, *second)] == [0.4, 0.4, 0.2]
