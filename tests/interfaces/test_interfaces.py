from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from msnmo_bids.errors import BadInputError, ExitCode, MsnmoError
from msnmo_bids.interfaces.base import FAILURE_FILE, read_failure, write_failure
from msnmo_bids.interfaces.conform import Conform
from msnmo_bids.interfaces.images import load_array, write_like
from msnmo_bids.interfaces.lesions import SegmentLesions
from msnmo_bids.interfaces.masks import BrainMask
from msnmo_bids.interfaces.network import _checked
from msnmo_bids.lesions.mask import rounded, without_dropped
from msnmo_bids.preprocessing.cube import array_to_cube, labels_to_cube


def test_a_failure_survives_in_the_folder(tmp_path):
    error = BadInputError("4D image", file="a.nii.gz", remedy="Keep one volume")
    write_failure(tmp_path / "node", error)
    again = read_failure(tmp_path / "node")
    assert str(again) == str(error)
    assert again.exit_code is ExitCode.BAD_DATA


@pytest.mark.parametrize("content", [None, "", "{}", "[1]", '{"problem": "x"}'])
def test_a_broken_failure_file_is_no_failure(tmp_path, content):
    if content is not None:
        (tmp_path / FAILURE_FILE).write_text(content)
    assert read_failure(tmp_path) is None


@given(
    npst.arrays(np.float32, (4, 4, 4), elements=st.floats(-0.125, 1.125, width=32)),
    st.floats(0.01, 0.99),
)
def test_the_mask_is_the_written_probability_above_the_threshold(values, threshold):
    probability = rounded(values)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert np.abs(probability - values.clip(0, 1)).max() <= 1 / 8192 + 1e-7
    kept = (probability.astype(np.float64) > threshold) & (np.arange(4) < 2)
    written = without_dropped(probability, kept, threshold)
    assert written.dtype == np.float32
    assert np.array_equal(written.astype(np.float64) > threshold, kept)
    assert np.array_equal(written[kept], probability[kept])
    assert np.array_equal(written > threshold, kept)


@pytest.fixture
def segmented(tmp_path):
    """Segment a bright cube whose probability reaches too far, with the outline that is named."""
    image, probability = np.ones((24, 24, 24), np.float32), np.full((32, 32, 32), 0.3, np.float32)
    image[8:16, 8:16, 8:16] = 2.0
    brain = np.ones(image.shape, np.uint8)
    _, transform = array_to_cube(image, brain > 0, (1.0, 1.0, 1.0), probability.shape, 4.0)
    box = np.zeros(image.shape, np.uint8)
    box[6:16, 8:16, 8:16] = 1
    probability[labels_to_cube(box, transform) > 0] = 0.8
    for name, array in (("flair", image), ("mask", brain)):
        nib.Nifti1Image(array, np.eye(4)).to_filename(tmp_path / f"{name}.nii")
    (tmp_path / "transform.json").write_text(transform.to_json())
    arrays = {
        "probability": probability, "cams": np.zeros((2, *probability.shape), np.float32),
        "regions": np.zeros(image.shape, np.int8), "to_mni": np.eye(4),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)

    def run(outline):
        (tmp_path / outline).mkdir()
        node = SegmentLesions(
            in_file=tmp_path / "flair.nii", mask_file=tmp_path / "mask.nii",
            transform_file=tmp_path / "transform.json",
            probability_file=tmp_path / "probability.npy", cam_file=tmp_path / "cams.npy",
            region_file=tmp_path / "regions.npy", mni_file=tmp_path / "to_mni.npy",
            class_names=["MS", "NMOSD"], threshold=0.5, min_volume=5.0, outline=outline,
        )  # fmt: skip
        outputs = node._compute(tmp_path / outline)
        maps = [outputs["lesion_file"], outputs["probability_file"]]
        return image > 1.5, *(np.asarray(nib.load(file).dataobj) for file in maps)

    return run


def test_lesions_end_at_half_of_their_contrast_if_that_is_asked(segmented):
    bright, lesions, probability = segmented("contrast")
    np.testing.assert_array_equal(lesions > 0, bright)
    np.testing.assert_array_equal(probability > 0.5, bright)
    _, lesions, _ = segmented("probability")
    assert lesions.sum() > 1.2 * bright.sum()


def test_an_array_must_fit_the_grid(tmp_path):
    image = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.diag([2, 3, 4, 1])), image)
    out = write_like(np.full((3, 4, 5), 7, np.int16), image, tmp_path / "b.nii")
    assert load_array(out).dtype == np.int16
    assert np.array_equal(nib.load(out).affine, np.diag([2, 3, 4, 1]))
    with pytest.raises(ValueError, match="does not fit"):
        write_like(np.zeros((3, 4, 4)), image, tmp_path / "c.nii")


@pytest.mark.parametrize(
    ("array", "problem"),
    [(None, "without the segmentation task"), (np.array([0, np.nan]), "not finite")],
)
def test_outputs_of_no_use_are_refused(array, problem):
    with pytest.raises(MsnmoError, match=problem):
        _checked(array, "segmentation", "weights.safetensors")


def test_a_broken_link_reaches_the_check(tmp_path):
    """A git-annex link without content is no file to Nipype; the check has to see it."""
    link = tmp_path / "sub-01_FLAIR.nii.gz"
    link.symlink_to(".git/annex/objects/nowhere")
    with pytest.raises(BadInputError, match="datalad get"):
        Conform(in_file=str(link)).run(cwd=str(tmp_path))
    assert "datalad get" in str(read_failure(tmp_path))


def test_a_mask_without_a_brain_is_refused(tmp_path):
    for name, array in {"image": np.ones((20, 20, 20)), "mask": np.zeros((20, 20, 20))}.items():
        image = nib.Nifti1Image(array.astype(np.float32), np.diag([8, 8, 8, 1]))
        nib.save(image, tmp_path / f"{name}.nii")
    node = BrainMask(
        in_file=str(tmp_path / "image.nii"), mask_file=str(tmp_path / "mask.nii"), tool={"a": 1}
    )
    with pytest.raises(BadInputError, match="skull stripping failed"):
        node.run(cwd=str(tmp_path))
    assert not list(Path(tmp_path).glob("result*"))
