"""Native grid -> RAS -> native grid, without a value or a millimetre lost."""

from __future__ import annotations

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.eulerangles import euler2mat

from msnmo_bids.preprocessing.geometry import (
    check_flair,
    conform,
    shear,
    to_native,
    with_equal_forms,
)

ORIENTATIONS = [
    (order, flips)
    for order in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
SHAPE = (9, 10, 12)


def affine_of(order, flips, zooms, angles=(0.0, 0.0, 0.0), origin=(0.0, 0.0, 0.0)) -> np.ndarray:
    """Voxel axes along world axes ``order`` with signs ``flips``, then tilted."""
    axes = np.zeros((3, 3))
    axes[list(order), range(3)] = flips
    affine = np.eye(4)
    affine[:3, :3] = euler2mat(*np.deg2rad(angles)) @ axes @ np.diag(zooms)
    affine[:3, 3] = origin
    return affine.astype(np.float32).astype(np.float64)  # as the file holds it


def numbered(shape=SHAPE, dtype=np.float32) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def write(path: Path, data, *, sform=None, qform=None, kind=nib.Nifti1Image) -> Path:
    image = kind(data, None)
    image.set_sform(sform, code=0 if sform is None else 2)
    image.set_qform(qform, code=0 if qform is None else 1)
    nib.save(image, path)
    return path


def places(image: nib.Nifti1Image) -> np.ndarray:
    """World position of each value of a numbered image, by value."""
    data = np.asarray(image.dataobj)
    where = np.empty((data.size, 3))
    indices = np.argwhere(np.ones(data.shape, bool))
    where[data.ravel().astype(int)] = nib.affines.apply_affine(image.affine, indices)
    return where


def check_round_trip(native: Path, folder: Path) -> None:
    raw = nib.load(native)
    ras = folder / "ras.nii.gz"
    found = conform(native, ras)
    conformed = nib.load(ras)
    assert found["axcodes"] == "".join(nib.aff2axcodes(raw.affine))
    assert tuple(found["shape"]) == raw.shape[:3]
    assert nib.aff2axcodes(conformed.affine) == ("R", "A", "S")
    assert conformed.get_data_dtype() == np.float32
    np.testing.assert_allclose(places(conformed), places(raw), atol=1e-3)
    np.testing.assert_allclose(conformed.get_qform(), conformed.get_sform(), atol=1e-3)

    back = to_native(np.asarray(conformed.dataobj), native)
    out = folder / "back.nii.gz"
    nib.save(back, out)
    back = nib.load(out)
    np.testing.assert_array_equal(np.asarray(back.dataobj), np.asarray(raw.dataobj))
    if int(raw.header["sform_code"]):
        np.testing.assert_array_equal(back.affine, raw.affine)
    else:  # a qform's quaternion has more digits than the sform's float32
        np.testing.assert_allclose(back.affine, raw.affine, atol=1e-4)
    assert int(back.header["sform_code"]) == int(back.header["qform_code"]) > 0
    # Near half a turn float32 holds the first part of a quaternion to the root of its precision,
    # and nibabel takes it for 0 where its square is under this threshold.
    smallest = np.sqrt(nib.Nifti1Header.quaternion_threshold)
    precision = 2 * smallest * max(raw.header.get_zooms()[:3])
    np.testing.assert_allclose(back.get_qform(), back.get_sform(), atol=precision)


@settings(deadline=None, max_examples=25)
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    zooms=st.tuples(*[st.floats(9.5, 30.0)] * 3),
    angles=st.tuples(*[st.floats(-30.0, 30.0)] * 3),
    origin=st.tuples(*[st.floats(-150.0, 150.0)] * 3),
    only_qform=st.booleans(),
)
def test_native_to_ras_and_back(tmp_path_factory, orientation, zooms, angles, origin, only_qform):
    affine = affine_of(*orientation, zooms, angles, origin)
    folder = tmp_path_factory.mktemp("geometry")
    forms = {"qform": affine} if only_qform else {"sform": affine, "qform": affine}
    check_round_trip(write(folder / "raw.nii", numbered(), **forms), folder)


@pytest.mark.parametrize(("order", "flips"), ORIENTATIONS)
def test_every_axis_order(tmp_path, order, flips):
    affine = affine_of(order, flips, (10.0, 9.0, 25.0), (5.0, -8.0, 12.0), (-80.0, 20.0, 33.0))
    path = write(tmp_path / "raw.nii", numbered(), sform=affine, qform=affine)
    check_round_trip(path, tmp_path)


SFORM = affine_of((0, 1, 2), (-1, -1, 1), (10, 9, 8), origin=(40, 41, -42))
QFORM = affine_of((2, 0, 1), (1, -1, 1), (10, 9, 8), (0, 0, 10))


def test_sform_wins_over_a_different_qform(tmp_path):
    path = write(tmp_path / "raw.nii", numbered(), sform=SFORM, qform=QFORM)
    found = conform(path, tmp_path / "ras.nii")
    assert found["axcodes"] == "LPS"
    assert "qform_differs_from_sform" in found["flags"]
    back = to_native(nib.load(tmp_path / "ras.nii").get_fdata(), path)
    np.testing.assert_array_equal(back.get_sform(), SFORM)
    np.testing.assert_allclose(back.get_qform(), SFORM, atol=1e-3)


def test_qform_is_used_without_an_sform(tmp_path):
    path = write(tmp_path / "raw.nii", numbered(), qform=QFORM)
    assert conform(path, tmp_path / "ras.nii")["axcodes"] == "".join(nib.aff2axcodes(QFORM))
    back = to_native(nib.load(tmp_path / "ras.nii").get_fdata(), path)
    np.testing.assert_allclose(back.affine, QFORM, atol=1e-4)


def test_las_is_mirrored_once(tmp_path):
    affine = affine_of((0, 1, 2), (-1, 1, 1), (10, 10, 10))
    path = write(tmp_path / "raw.nii", numbered(), sform=affine, qform=affine)
    assert conform(path, tmp_path / "ras.nii")["axcodes"] == "LAS"
    ras = np.asarray(nib.load(tmp_path / "ras.nii").dataobj)
    np.testing.assert_array_equal(ras, numbered()[::-1])
    np.testing.assert_array_equal(np.asarray(to_native(ras, path).dataobj), numbered())


def test_sheared_affine_is_kept_and_flagged(tmp_path):
    affine = SFORM.copy()
    affine[0, 2] = 2.0
    path = write(tmp_path / "raw.nii", numbered(), sform=affine)
    assert "sheared_affine" in conform(path, tmp_path / "ras.nii")["flags"]
    back = to_native(nib.load(tmp_path / "ras.nii").get_fdata(), path)
    np.testing.assert_array_equal(back.affine, affine)
    assert shear(SFORM) < 1e-6 < shear(affine)


def test_nifti2_and_a_fourth_axis_of_one(tmp_path):
    data = numbered()[..., None]
    path = write(tmp_path / "raw.nii", data, sform=SFORM, qform=SFORM, kind=nib.Nifti2Image)
    assert check_flair(path).shape == SHAPE
    conform(path, tmp_path / "ras.nii")
    back = to_native(np.asarray(nib.load(tmp_path / "ras.nii").dataobj), path)
    np.testing.assert_array_equal(np.asarray(back.dataobj), data[..., 0])
    np.testing.assert_array_equal(back.affine, SFORM)


def test_scale_factors_are_applied(tmp_path):
    image = nib.Nifti1Image(numbered(dtype=np.int16), SFORM)
    image.header.set_slope_inter(0.5, 3.0)
    # nibabel would rescale on saving: write header and integers as they are
    header = image.header.copy()
    header["scl_slope"], header["scl_inter"], header["magic"] = 0.5, 3.0, b"n+1"
    header["vox_offset"] = 352
    header["sform_code"] = 1
    content = header.binaryblock + b"\0" * 4 + numbered(dtype=np.int16).tobytes(order="F")
    (tmp_path / "raw.nii").write_bytes(content)
    checked = check_flair(tmp_path / "raw.nii")
    np.testing.assert_allclose(checked.get_fdata(), numbered() * 0.5 + 3.0)


@pytest.mark.parametrize(
    ("dtype", "expected"), [(np.uint8, np.uint8), (np.int32, np.int32), (bool, np.uint8)]
)
def test_to_native_keeps_the_dtype(tmp_path, dtype, expected):
    path = write(tmp_path / "raw.nii", numbered(), sform=SFORM)
    labels = (numbered() > 500).astype(dtype)
    assert to_native(labels, path).get_data_dtype() == expected


def test_to_native_refuses_another_shape(tmp_path):
    path = write(tmp_path / "raw.nii", numbered(), sform=SFORM)
    with pytest.raises(ValueError, match="shape"):
        to_native(np.zeros((9, 10, 13)), path)


def test_flags_of_thick_slices_and_coverage(tmp_path):
    thick = affine_of((0, 1, 2), (1, 1, 1), (15, 15, 9))
    path = write(tmp_path / "raw.nii", numbered(), sform=thick)
    assert {"thick_slices", "partial_coverage"} <= set(conform(path, tmp_path / "a.nii")["flags"])
    fine = np.diag([3.0, 3.0, 3.0, 1.0])
    path = write(tmp_path / "fine.nii", numbered((40, 40, 40)), sform=fine, qform=fine)
    assert conform(path, tmp_path / "b.nii")["flags"] == []


def test_with_equal_forms_has_millimetres():
    image = with_equal_forms(np.zeros((2, 2, 2), np.uint8), SFORM, code=3)
    assert image.header.get_xyzt_units()[0] == "mm"
    assert int(image.header["sform_code"]) == int(image.header["qform_code"]) == 3


def test_two_voxel_sizes_in_a_header_are_flagged(save, flair, tmp_path):
    image = nib.load(save(flair))
    same = conform(tmp_path / "image.nii.gz", tmp_path / "ras.nii.gz")
    assert "voxel_sizes_contradict" not in same["flags"]
    image.header["pixdim"][1:4] = 30
    image.header["qform_code"] = 0
    nib.save(image, tmp_path / "other.nii.gz")
    found = conform(tmp_path / "other.nii.gz", tmp_path / "ras.nii.gz")
    assert "voxel_sizes_contradict" in found["flags"]


def test_a_copy_with_another_header_has_the_same_checksum_of_its_voxels(tmp_path):
    data, sform = numbered(), np.diag([20.0, 20.0, 20.0, 1.0])
    one = write(tmp_path / "one.nii", data, sform=sform)
    copy = write(tmp_path / "copy.nii.gz", data[::-1], sform=sform @ np.diag([-1, 1, 1, 1]))
    other = write(tmp_path / "other.nii", data + 1, sform=sform)
    found = [conform(path, tmp_path / "ras.nii")["voxels"] for path in (one, copy, other)]
    assert found[0] == found[1] != found[2]
