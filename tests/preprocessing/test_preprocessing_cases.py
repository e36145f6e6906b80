"""Real scans as people send them (``../shared``): what is right after the first steps.

Masks of the whole app are not compared: all later steps give the same for an image that is the
same up to a factor (N4 works in the logarithm, the network on z-scores, contrasts are relative),
so it is enough that the conformed images are.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.geometry import check_flair, conform
from msnmo_bids.preprocessing.skullstrip import looks_stripped

SHARED = Path(__file__).resolve().parents[3] / "shared"
CASES, DATA = SHARED / "cases", SHARED / "data"
STRIPPED = ("ds-ljubljana-labelled", "ds-ms3seg-labelled", "ds-mslesseg-labelled")
WHOLE_HEADS = ("ds-ljubljana", "ds-clinical-labelled")
SCANS = [
    (path, dataset in STRIPPED)
    for dataset in (*STRIPPED, *WHOLE_HEADS)
    for path in sorted((DATA / dataset).glob("sub-*/**/*_FLAIR.nii.gz"))
]

needs_cases = pytest.mark.skipif(not CASES.is_dir(), reason=f"no cases in {CASES}")


def conformed(case: str, subject: str, folder: Path) -> tuple[np.ndarray, list[str]]:
    name = f"sub-{subject}_FLAIR.nii.gz"
    flags = conform(CASES / case / "bids" / f"sub-{subject}" / "anat" / name, folder / "ras.nii")
    return np.asarray(nib.load(folder / "ras.nii").dataobj), flags["flags"]


@needs_cases
def test_a_z_scored_head_is_the_same_head(tmp_path):
    reference, plain_flags = conformed("negative", "ref", tmp_path)
    scored, flags = conformed("negative", "zscore", tmp_path)
    gain = reference.max() / scored.max()
    np.testing.assert_allclose(gain * scored, reference, atol=0.1)  # it was rounded on export
    assert set(flags) - set(plain_flags) == {"intensities_shifted"}


@needs_cases
def test_nan_outside_of_the_head_is_background(tmp_path):
    reference, plain_flags = conformed("header", "ref", tmp_path)
    with_nan, flags = conformed("header", "nan", tmp_path)
    np.testing.assert_array_equal(with_nan, reference)
    assert set(flags) - set(plain_flags) == {"nan_outside_head"}


@needs_cases
def test_nan_in_the_brain_of_that_scan_is_an_error(tmp_path):
    image = check_flair(CASES / "header" / "bids" / "sub-nan" / "anat" / "sub-nan_FLAIR.nii.gz")
    data = np.asarray(image.dataobj).copy()
    data[90:94, 100:104, 25] = np.nan
    nib.save(nib.Nifti1Image(data, image.affine, image.header), tmp_path / "flair.nii")
    with pytest.raises(BadInputError, match=r"16 of \d+ voxels .* within the head"):
        check_flair(tmp_path / "flair.nii")


@needs_cases
def test_a_header_without_forms_is_refused_with_the_option_that_goes_on(tmp_path):
    path = CASES / "header" / "bids" / "sub-q0s0" / "anat" / "sub-q0s0_FLAIR.nii.gz"
    with pytest.raises(BadInputError, match="--assume-orientation"):
        conform(path, tmp_path / "ras.nii")
    reference, _ = conformed("header", "ref", tmp_path)
    info = conform(path, tmp_path / "ras.nii", "LPS")  # as sub-ref's axes run
    np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / "ras.nii").dataobj), reference)
    assert "orientation_assumed" in info["flags"]


@pytest.mark.skipif(not SCANS, reason=f"no real scans in {DATA}")
@pytest.mark.parametrize(("path", "stripped"), SCANS, ids=[path.name for path, _ in SCANS])
def test_a_missing_skull_is_noticed_on_real_scans(path, stripped, tmp_path):
    flags = conform(path, tmp_path / "ras.nii")["flags"]
    assert looks_stripped(tmp_path / "ras.nii") == stripped
    assert not {"intensities_shifted", "nan_outside_head", "hot_voxels"} & set(flags)
