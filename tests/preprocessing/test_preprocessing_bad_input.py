"""What `check_flair` refuses, and what it tells the user to do."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.geometry import check_flair, conform, to_native
from msnmo_bids.preprocessing.nifti_file import read_nifti


def refused(path: Path) -> str:
    """The one line that the user sees; it names the file first."""
    with pytest.raises(BadInputError) as caught:
        check_flair(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_a_good_scan_passes(save, flair):
    image = check_flair(save(flair))
    np.testing.assert_array_equal(image.get_fdata(), flair)


def test_four_dimensions(save, flair):
    message = refused(save(np.stack([flair] * 3, axis=-1)))
    assert "4D image of 3 volumes" in message


def test_two_dimensions(save):
    assert "not a 3D volume" in refused(save(np.ones((20, 20), np.float32)))


@pytest.mark.parametrize(("value", "text"), [(0, "every voxel is 0"), (7, "same value (7)")])
def test_constant(save, value, text):
    assert text in refused(save(np.full((10, 11, 12), value, np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(save, flair, value):
    flair[3, 4, 5] = flair[6, 6, 6] = value
    assert f"2 of {flair.size} voxels are NaN or infinite within" in refused(save(flair))
    assert "every voxel is" in refused(save(np.full_like(flair, value)))


def test_whole_numbers_that_ran_over_their_range(save, flair, tmp_path):
    bright = (flair * 60 - 5000).astype(np.int64)
    assert bright.max() > 2**15
    message = refused(save(bright.astype(np.int16)))
    assert "voxels exceeded the range of 16 bits: the brightest are negative" in message
    padded = np.pad((flair * 20).astype(np.int16), 2, constant_values=-(2**15))
    check_flair(save(padded))  # padding below bright tissue is none
    image = nib.Nifti1Image(flair % 97, np.diag([10.0, 10, 10, 1]))
    image.set_data_dtype(np.int16)  # scaled: all of the range is used
    nib.save(image, tmp_path / "scaled.nii.gz")
    assert (
        np.abs(np.asanyarray(nib.load(tmp_path / "scaled.nii.gz").dataobj.get_unscaled())).max()
        > 2**14
    )
    check_flair(tmp_path / "scaled.nii.gz")


def test_numbers_too_large_for_32_bits(save, flair):
    assert "beyond 3e38" in refused(save(flair.astype(np.float64) * 1e37))


@pytest.mark.parametrize("value", [0, 5])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_empty_slices_within_the_image(save, flair, axis, value):
    flair = np.pad(flair, 2)
    moved = np.moveaxis(flair, axis, 0)
    moved[[5, 6]] = value
    assert "2 slices within the image are empty" in refused(save(flair))


def test_what_lies_in_the_air_does_not_make_slices_empty(save):
    image = np.zeros((40, 40, 40), np.float32)
    image[10:30, 10:30, 10:30] = np.random.default_rng(0).uniform(50, 90, (20, 20, 20))
    speck, face = image.copy(), image.copy()
    speck[35, 35, 2] = 100
    face[0] = np.nan
    for one in (image, speck, face):
        check_flair(save(one))
    image[20], image[20, 3, 3] = 0, np.nan
    assert "1 slices within the image are empty" in refused(save(image))


def test_a_label_map_is_no_image(save, flair):
    assert "only 5 different values: a mask or a label map" in refused(save(flair % 5))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slab_of_five_slices(save, axis):
    shape = [12, 12, 12]
    shape[axis] = 5
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    affine = np.diag([20.0, 20.0, 20.0, 1.0])
    message = refused(save(data, affine))
    assert "only 5 slices" in message
    assert "does not cover the brain" in message
    assert ("left to right", "posterior to anterior", "inferior to superior")[axis] in message


def test_small_field_of_view(save, flair):
    assert "does not cover" in refused(save(flair, np.diag([7.9, 10, 10, 1])))
    check_flair(save(flair, np.diag([8.1, 10, 10, 1])))


def test_metres_taken_for_millimetres(save, flair):
    assert "implausible field of view" in refused(save(flair, np.diag([100, 100, 100, 1])))


def test_truncated_gzip(save, flair):
    rng = np.random.default_rng(0)
    path = save(rng.random((10, 11, 12), dtype=np.float32))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "truncated" in refused(path)


def test_truncated_inside_the_gzip_stream(save, flair):
    path = save(flair)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-100]))
    assert "truncated" in refused(path)


def test_truncated_without_compression(save, flair):
    path = save(flair, name="image.nii")
    path.write_bytes(path.read_bytes()[:-1])
    assert "truncated" in refused(path)


def test_damaged_gzip(save):
    path = save(np.random.default_rng(0).random((10, 11, 12), dtype=np.float32))
    content = bytearray(path.read_bytes())
    content[-6] ^= 0xFF  # the checksum
    path.write_bytes(content)
    assert "corrupted" in refused(path)


@pytest.mark.parametrize("text", ["subject,age\n01,40\n" * 200, "<html>404</html>"])
def test_text_named_nifti(tmp_path, text):
    path = tmp_path / "sub-01_FLAIR.nii.gz"
    path.write_text(text)
    assert "not a gzip file" in refused(path)
    path = tmp_path / "sub-01_FLAIR.nii"
    path.write_text(text)
    assert "not a NIfTI file" in refused(path)
    path = tmp_path / "sub-02_FLAIR.nii.gz"
    path.write_bytes(gzip.compress(text.encode()))
    assert "not a NIfTI file" in refused(path)


def test_uncompressed_named_gz_and_the_reverse(save, flair, tmp_path):
    plain = save(flair, name="plain.nii")
    wrong = tmp_path / "wrong.nii.gz"
    wrong.write_bytes(plain.read_bytes())
    assert "Rename it to .nii" in refused(wrong)
    wrong = tmp_path / "wrong.nii"
    wrong.write_bytes(save(flair).read_bytes())
    assert "Rename it to .nii.gz" in refused(wrong)


def test_empty_and_missing_file(tmp_path):
    path = tmp_path / "empty.nii.gz"
    path.touch()
    assert "0 bytes" in refused(path)
    assert "does not exist" in refused(tmp_path / "nowhere.nii.gz")


def test_annex_link_without_content(tmp_path):
    path = tmp_path / "sub-01_FLAIR.nii.gz"
    path.symlink_to("../.git/annex/objects/Xj/9k/MD5E-s123--abc.nii.gz/MD5E-s123--abc.nii.gz")
    message = refused(path)
    assert f"datalad get {path}" in message
    assert "git-annex" in message


def test_annex_pointer_file(tmp_path):
    path = tmp_path / "sub-01_FLAIR.nii.gz"
    path.write_text("/annex/objects/MD5E-s123--0123456789abcdef.nii.gz\n")
    assert f"datalad get {path}" in refused(path)


def test_lfs_pointer_file(tmp_path):
    path = tmp_path / "sub-01_FLAIR.nii.gz"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    assert "git lfs pull" in refused(path)


def test_other_broken_link(tmp_path):
    path = tmp_path / "sub-01_FLAIR.nii.gz"
    path.symlink_to("elsewhere.nii.gz")
    message = refused(path)
    assert "symbolic link" in message
    assert "datalad" not in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable(save, flair):
    path = save(flair)
    path.chmod(0)
    assert "permissions" in refused(path)


def test_folder_in_place_of_a_file(tmp_path):
    (tmp_path / "image.nii").mkdir()
    assert "cannot be read" in refused(tmp_path / "image.nii")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (np.ones((10, 10, 10), np.complex64), "complex"),
        (np.ones((10, 10, 10), [("R", "u1"), ("G", "u1"), ("B", "u1")]), "RGB"),
    ],
)
def test_values_that_are_no_single_number(save, data, text):
    assert text in refused(save(data))


def edited(path: Path, **fields) -> Path:
    """Change header fields of a written ``.nii`` without nibabel's repairs."""
    content = bytearray(path.read_bytes())
    header = nib.Nifti1Header(bytes(content[:348]), check=False)
    for name, value in fields.items():
        header[name] = value
    content[:348] = header.binaryblock
    path.write_bytes(content)
    return path


def test_no_orientation(save, flair):
    path = edited(save(flair, name="image.nii"), sform_code=0, qform_code=0)
    message = refused(path)
    assert "left and right" in message
    assert "--assume-orientation" in message


BROKEN_ROWS = [[0, 0, 0, 0], [0, 10, 0, 0], [np.nan, 0, 0, 0]]
BROKEN_FORMS = [
    {"sform_code": 1, "qform_code": 0, "srow_x": [0, 0, 0, 0]},
    {"sform_code": 0, "qform_code": 1, "quatern_b": 0.9, "quatern_c": 0.9},
    {"sform_code": 1, "qform_code": 1, "srow_x": [0, 0, 0, 0], "quatern_b": np.nan},
]


@pytest.mark.parametrize("row", BROKEN_ROWS)
def test_a_valid_qform_takes_the_place_of_a_broken_sform(save, flair, row):
    path = edited(save(flair, name="image.nii"), srow_x=row)
    image = check_flair(path)
    np.testing.assert_allclose(image.affine, np.diag([10, 10, 10, 1]), atol=1e-5)
    assert image.extra["flags"] == ["sform_invalid"]
    np.testing.assert_allclose(to_native(flair, path).affine, image.affine, atol=1e-5)


def test_a_broken_qform_does_no_harm_to_a_valid_sform(save, flair, tmp_path):
    path = edited(save(flair, name="image.nii"), quatern_b=0.9, quatern_c=0.9)
    assert check_flair(path).extra["flags"] == []
    assert conform(path, tmp_path / "ras.nii")["axcodes"] == "RAS"


@pytest.mark.parametrize("fields", BROKEN_FORMS)
def test_without_a_valid_form_the_orientation_can_be_assumed(save, flair, fields, tmp_path):
    path = edited(save(flair, np.diag([-10, 9, 8, 1]), "image.nii"), **fields)
    assert "--assume-orientation" in refused(path)
    info = conform(path, tmp_path / "ras.nii", "PSR")
    assert info["axcodes"] == "PSR"
    assert info["zooms"] == [10, 9, 8]
    assert "orientation_assumed" in info["flags"]
    ras = nib.load(tmp_path / "ras.nii")
    np.testing.assert_allclose(nib.affines.voxel_sizes(ras.affine), [8, 10, 9])
    np.testing.assert_array_equal(ras.get_fdata(), np.transpose(flair, (2, 0, 1))[:, ::-1])
    back = to_native(ras.get_fdata(), path, info["axcodes"])
    np.testing.assert_array_equal(back.get_fdata(), flair)
    assert nib.aff2axcodes(back.affine) == tuple("PSR")
    with pytest.raises(BadInputError, match="--assume-orientation"):
        to_native(ras.get_fdata(), path)


def test_an_assumed_orientation_does_not_overrule_a_header(save, flair, tmp_path):
    info = conform(save(flair), tmp_path / "ras.nii", "PSR")
    assert info["axcodes"] == "RAS"
    assert "orientation_assumed" not in info["flags"]


@pytest.mark.parametrize("after", [b"\0" * 512, b"\r\n", b"<html></html>" * 9, b"\x1f\x8b\x08torn"])
def test_bytes_after_the_end_of_a_gzip_stream(save, flair, after):
    path = save(flair)
    path.write_bytes(path.read_bytes() + after)
    image = check_flair(path)
    np.testing.assert_array_equal(image.get_fdata(), flair)
    assert image.extra["flags"] == ["trailing_bytes"]


def test_a_gzip_stream_of_several_members(save, flair):
    path = save(flair)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:900]) + gzip.compress(content[900:]))
    image = check_flair(path)
    np.testing.assert_array_equal(image.get_fdata(), flair)
    assert image.extra["flags"] == []


def test_voxel_size_of_zero(save, flair):
    path = edited(save(flair, name="image.nii"), pixdim=[1, 10, 0, 10, 0, 0, 0, 0])
    assert "voxel size" in refused(path)


def test_unknown_datatype(save, flair):
    assert "header" in refused(edited(save(flair, name="image.nii"), datatype=9999))


@pytest.mark.parametrize("offset", [np.nan, np.inf])
def test_an_offset_of_the_data_that_is_no_number(save, flair, tmp_path, offset):
    content = bytearray(gzip.decompress(save(flair).read_bytes()))
    struct.pack_into("<f", content, 108, offset)
    (tmp_path / "bad.nii").write_bytes(content)
    with pytest.raises(BadInputError, match="NIfTI header cannot be understood"):
        read_nifti(tmp_path / "bad.nii")


def test_voxels_that_begin_within_the_header(save, flair):
    path = save(flair, name="image.nii")
    content = bytearray(path.read_bytes())
    content[108:112] = struct.pack("<f", 0.0)
    path.write_bytes(content)
    assert "vox_offset 0" in refused(path)
