from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from site_data import AFFINE, SHAPE, Site, brain, lesions

from msnmo_bids.errors import MsnmoError
from msnmo_bids.labelled import sample_file
from msnmo_bids.labelled.sample_file import read_record
from msnmo_bids.labelled.scans import Found, find_labelled_scans
from msnmo_bids.preprocessing.cube import array_to_cube, labels_to_cube
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.training import prepared as module
from msnmo_bids.training.prepared import PreparedScan, cache_key, prepare_scans
from msnmo_bids.workflows.preprocessing import init_preprocessing_wf
from msnmo_bids.workflows.training_samples import init_samples_wf

CLASSES = ("MS", "NMOSD")
SETTINGS = ProcessingSettings(skull_strip="skip", bias_correction="skip", sloppy=True)
CUBE = (16, 16, 16)


@pytest.fixture
def site(tmp_path) -> Site:
    return Site(tmp_path / "site")


def find(*sites: Site) -> Found:
    return find_labelled_scans([site.root for site in sites], classes=CLASSES)


def prepare(found: Found, tmp_path: Path, **options) -> tuple[list[PreparedScan], Found]:
    options = {"settings": SETTINGS, "cube_shape": CUBE, "plugin": "Linear", **options}
    return prepare_scans(found, cache_dir=tmp_path / "cache", work_dir=tmp_path / "work", **options)


@pytest.mark.parametrize("axcodes", ["RAS", "LPS", "SAR"])
def test_a_scan_is_prepared_as_the_app_prepares_it(site, tmp_path, axcodes):
    site.add("01", "NMOSD", mask=True, axcodes=axcodes)
    [scan], _ = prepare(find(site), tmp_path)
    sample = scan.load(CLASSES)
    flair = brain()
    cube, transform = array_to_cube(flair, flair > 0, (7, 7, 7), CUBE)
    assert sample.image.dtype == np.float16
    assert np.allclose(sample.image, cube, atol=1e-2)
    assert np.array_equal(sample.image == 0, cube == 0)
    assert np.array_equal(sample.lesions, labels_to_cube(lesions(), transform))
    assert sample.lesions.any()
    assert (sample.diagnosis, sample.name) == (1, "site/sub-01")
    assert read_record(scan.cube_file)["SkullStripping"]["Tool"] == "msnmo foreground"
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize("axcodes", ["RAS", "PIR"])
def test_a_probability_comes_back_to_the_grid_of_the_mask(site, tmp_path, axcodes):
    site.add("01", "MS", mask=True, axcodes=axcodes)
    [scan], _ = prepare(find(site), tmp_path, cube_shape=(32, 32, 32))
    mask, grid = scan.native_mask(), scan.grid()
    assert np.array_equal(mask, lesions())
    assert np.allclose(grid.zooms, 7)
    image = scan.native_image().get_fdata(dtype=np.float32)
    assert (image.shape, image.dtype) == (SHAPE, np.float32)
    assert image[mask > 0].mean() > image[brain() > 0].mean()  # the axes are those of the mask
    back = grid.to_native(scan.load(CLASSES).lesions.astype(np.float32))
    assert back.shape == SHAPE
    assert np.array_equal(back > 0.5, mask > 0)
    inside = grid.to_native(np.ones((2, 32, 32, 32), np.float32))
    assert np.array_equal(inside[1] > 0, brain() > 0)


def test_missing_labels_stay_missing(site, tmp_path):
    site.add("01", "MS")
    site.add("02", mask=True)
    site.add("03", "nmosd", mask=True, data=brain(3))
    scans, _ = prepare(find(site), tmp_path)
    samples = [scan.load(("MS",)) for scan in scans]
    assert [sample.diagnosis for sample in samples] == [0, None, None]
    assert [sample.lesions is not None for sample in samples] == [False, True, True]
    with pytest.raises(ValueError, match="has no lesion mask"):
        scans[0].native_mask()


def test_a_second_run_does_nothing(site, tmp_path, monkeypatch):
    site.add("01", "MS", mask=True)
    site.add("02", "MS")
    first, _ = prepare(find(site), tmp_path)
    times = [scan.cube_file.stat().st_mtime_ns for scan in first]
    monkeypatch.setattr(module, "_run", lambda *args, **options: pytest.fail("it ran again"))
    second, found = prepare(find(site), tmp_path)
    assert second == first
    assert [scan.cube_file.stat().st_mtime_ns for scan in second] == times
    assert found.left_out == ()


def test_only_what_changed_is_done_again(site, tmp_path):
    site.add("01", "MS", mask=True)
    site.add("02", "MS")
    first, _ = prepare(find(site), tmp_path)
    times = {scan.cube_file: scan.cube_file.stat().st_mtime_ns for scan in first}
    site.mask("sub-01", "sub-01_space-orig_label-L_desc-manual_mask", data=lesions()[::-1].copy())
    second, _ = prepare(find(site), tmp_path)
    assert second[0].cube_file != first[0].cube_file
    assert (second[0].load(CLASSES).lesions != first[0].load(CLASSES).lesions).any()
    assert second[1].cube_file.stat().st_mtime_ns == times[first[1].cube_file]


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"threshold": 0.1, "device": "cuda", "random_seed": 3}, True),
        ({"skull_strip": "deepbet"}, True),  # its sidecar says that it has no skull
        ({"bias_correction": "antspyx"}, False),
        ({"sloppy": False}, False),
    ],
)
def test_the_key_holds_what_matters(site, change, same):
    site.add("01", "MS")
    [scan] = find(site).scans
    key = cache_key(scan, SETTINGS, CUBE)
    assert (cache_key(scan, replace(SETTINGS, **change), CUBE) == key) is same


def test_the_key_holds_tool_shape_version_and_content(site, monkeypatch):
    path = site.add("01", "MS", mask=True)
    [scan] = find(site).scans
    with_skull = replace(scan, scan=replace(scan.scan, skull_stripped=False))
    bet = replace(SETTINGS, skull_strip="bet")
    keys = [
        cache_key(scan, SETTINGS, CUBE),
        cache_key(scan, SETTINGS, (32, 32, 32)),
        cache_key(replace(scan, mask=None), SETTINGS, CUBE),
        cache_key(with_skull, bet, CUBE),
        cache_key(with_skull, replace(bet, bet_frac=0.4), CUBE),
    ]
    monkeypatch.setattr(module, "get_version", lambda: "9.9.9")
    keys.append(cache_key(scan, SETTINGS, CUBE))
    monkeypatch.undo()
    nib.save(nib.Nifti1Image(brain(7), AFFINE), path)
    keys.append(cache_key(scan, SETTINGS, CUBE))
    assert len(set(keys)) == len(keys)


def test_one_failing_scan_does_not_stop_the_others(tmp_path):
    one, two = Site(tmp_path / "one"), Site(tmp_path / "two")
    one.add("01", "MS")
    two.add("01", "MS", data=np.zeros(SHAPE, np.float32))
    two.add("02", "MS")
    scans, found = prepare(find(one, two), tmp_path)
    assert [scan.name for scan in scans] == ["one/sub-01", "two/sub-02"]
    assert [scan.name for scan in found.scans] == ["one/sub-01", "two/sub-02"]
    [out] = found.left_out
    assert (out.dataset, out.subject, out.name) == ("two", "01", "sub-01")
    assert out.reason == "checking the image: every voxel is 0"


def test_a_damaged_image_is_left_out_before_any_work(site, tmp_path):
    site.add("01", "MS")
    path = site.add("02", "MS")
    found = find(site)
    path.unlink()
    scans, found = prepare(found, tmp_path)
    assert [scan.labelled.subject for scan in scans] == ["01"]
    assert found.left_out[0].reason == "file does not exist"


def test_a_mask_whose_content_is_damaged_costs_the_mask_only(site, tmp_path):
    for label, diagnosis in (("01", "MS"), ("02", None)):
        site.add(label, diagnosis, mask=True)
        mask = next(site.root.glob(f"derivatives/manual/sub-{label}/anat/*.nii.gz"))
        content = mask.read_bytes()
        mask.write_bytes(content[:-20])
    scans, found = prepare(find(site), tmp_path)
    assert [(scan.labelled.subject, scan.labelled.mask) for scan in scans] == [("01", None)]
    assert "lesion mask cannot be read: file is truncated" in found.scans[0].notes[0]
    [out] = found.left_out
    assert (out.subject, out.reason) == ("02", "file is truncated: its data end too early")


def test_a_run_that_is_killed_leaves_no_half_of_a_file(site, tmp_path, monkeypatch):
    site.add("01", "MS")
    found = find(site)

    def killed(target, **arrays):
        Path(target).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sample_file.np, "savez_compressed", killed)
        scans, _ = prepare(found, tmp_path)
    assert scans == []
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    remains = tmp_path / "cache" / "site" / ".tmp-msnmo-0123456789ab-"
    name = f"sub-01_{cache_key(found.scans[0], SETTINGS, CUBE)[:16]}.npz"
    remains.with_name(remains.name + name).write_bytes(b"of a process that was killed")
    [scan], _ = prepare(found, tmp_path)
    assert list((tmp_path / "cache").rglob("*.npz")) == [scan.cube_file]


def test_worker_processes_give_the_same(site, tmp_path):
    site.add("01", "MS", mask=True)
    [alone], _ = prepare(find(site), tmp_path)
    one_core = {"n_procs": 1, "memory_gb": 4.0}
    options = {"settings": SETTINGS, "cube_shape": CUBE, "plugin_args": one_core}
    [pooled], _ = prepare_scans(
        find(site), cache_dir=tmp_path / "other", work_dir=tmp_path / "work", **options
    )
    assert pooled.cube_file.read_bytes() == alone.cube_file.read_bytes()


def test_a_mask_outside_of_the_brain_is_told(site, tmp_path, caplog):
    mask = lesions()
    mask[:2, :2, :2] = 1
    site.add("01", "MS")
    site.mask("sub-01", "sub-01_label-L_mask", data=mask)
    [scan], _ = prepare(find(site), tmp_path)
    share = 8 / mask.sum()
    assert read_record(scan.cube_file)["LesionsOutsideBrain"] == pytest.approx(share, abs=1e-4)
    assert f"{100 * share:.0f} % of the lesion mask lies outside of the brain" in caplog.text


def test_the_same_image_of_two_participants_is_told(site, tmp_path, caplog):
    site.add("01_ses-1", "MS", data=brain())
    site.add("01_ses-2", "MS", data=brain())
    site.add("02", "MS", data=brain(5))
    prepare(find(site), tmp_path)
    assert "same image" not in caplog.text
    site.add("03", "MS", data=brain(5))
    prepare(find(site), tmp_path)
    assert "site/sub-02 and site/sub-03 are the same image" in caplog.text


def test_a_scan_with_a_skull_is_stripped_and_corrected_as_in_the_app(site, tmp_path):
    site.add("01", "MS").with_name("sub-01_FLAIR.json").write_text('{"SkullStripped": false}')
    [scan] = find(site).scans
    settings = ProcessingSettings(skull_strip="deepbet", bias_correction="antspyx")
    workflow = init_samples_wf(
        files={scan: tmp_path / "a.npz"}, settings=settings, cube_shape=CUBE, work_dir=tmp_path
    )
    ours = {name.partition(".preprocessing_wf.")[2] for name in workflow.list_node_names()}
    theirs = set(init_preprocessing_wf(scan=scan.scan, settings=settings).list_node_names())
    assert ours - {""} == theirs
    assert {"deepbet", "n4_antspyx"} <= theirs


def test_a_damaged_file_names_the_remedy(site, tmp_path):
    site.add("01", "MS")
    [scan], _ = prepare(find(site), tmp_path)
    content = scan.cube_file.read_bytes()
    for damaged in (content[:200], content[:-30], b""):
        scan.cube_file.write_bytes(damaged)
        for read in (lambda: scan.load(CLASSES), scan.grid):
            with pytest.raises(MsnmoError, match="Remove the file"):
                read()
