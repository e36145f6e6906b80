from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from msnmo_bids.errors import BadInputError, ExitCode, MsnmoError
from msnmo_bids.lesions.descriptors import DESCRIPTORS
from msnmo_bids.lesions.threshold import LesionCriteria, find_lesions
from msnmo_bids.model.calibration import Calibration
from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import WeightsMetadata, save_weights
from msnmo_bids.preprocessing.cube import array_to_cube, from_cube
from msnmo_bids.preprocessing.nifti_file import load_array
from msnmo_bids.preprocessing.skullstrip import STRIPPED_BEFORE
from msnmo_bids.workflows.lesions import _checked, classify_step, network_step, segment_step
from msnmo_bids.workflows.nodes import FAILURE_FILE, read_failure, step, write_failure, write_like
from msnmo_bids.workflows.preprocessing import brain_mask_step, conform_step


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


@step("out", "number", again=True)
def halve(folder: Path, image: Path, factor: float, other: Path | None = None, num_threads=1):
    return {"a": folder / image.name}, factor / 2 if other is None else num_threads


def test_a_function_becomes_a_node(tmp_path):
    (tmp_path / "a.nii").touch()
    node = pickle.loads(pickle.dumps(halve(image=str(tmp_path / "a.nii"), factor=3.0)))
    assert node.always_run
    outputs = node.run(cwd=str(tmp_path)).outputs
    assert (outputs.out, outputs.number) == ({"a": str(tmp_path / "a.nii")}, 1.5)
    with pytest.raises(ValueError, match="requires a value for input 'factor'"):
        halve(image=str(tmp_path / "a.nii")).run(cwd=str(tmp_path))


def test_the_cache_looks_into_files_and_passes_over_threads(tmp_path):
    def fingerprint(**inputs):
        return halve(image=str(tmp_path / "a.nii"), **inputs).inputs.get_hashval()[1]

    (tmp_path / "a.nii").touch()
    before = fingerprint(factor=3.0)
    assert fingerprint(factor=3.0, num_threads=2) == before
    assert fingerprint(factor=2.0) != before
    (tmp_path / "a.nii").write_text("changed")
    assert fingerprint(factor=3.0) != before


@pytest.fixture
def measured(tmp_path):
    """Segment a cube whose probability is 0.8 in a box, and else what is given."""
    image = np.ones((24, 24, 24), np.float32)
    image[8:16, 8:16, 8:16] = 2.0
    brain = np.ones(image.shape, np.uint8)
    brain[:, :, :2] = 0
    cube, transform = array_to_cube(image, brain > 0, (1.0, 1.0, 1.0), (32, 32, 32), 4.0)
    for name, array in (("flair", image), ("mask", brain)):
        nib.Nifti1Image(array, np.eye(4)).to_filename(tmp_path / f"{name}.nii")
    (tmp_path / "transform.json").write_text(transform.to_json())
    for name, array in (("regions", np.zeros(image.shape, np.int8)), ("to_mni", np.eye(4))):
        np.save(tmp_path / f"{name}.npy", array)

    def run(probability, cams, **criteria):
        np.save(tmp_path / "probability.npy", probability)
        np.save(tmp_path / "cams.npy", cams)
        node = segment_step(
            in_file=tmp_path / "flair.nii", mask_file=tmp_path / "mask.nii",
            transform_file=tmp_path / "transform.json",
            probability_file=tmp_path / "probability.npy", cam_file=tmp_path / "cams.npy",
            region_file=tmp_path / "regions.npy", mni_file=tmp_path / "to_mni.npy",
            class_names=["MS", "NMOSD"], **criteria,
        )  # fmt: skip
        outputs = node.compute(tmp_path)
        table = json.loads(Path(outputs["table_file"]).read_text())
        maps = [outputs[f"{name}_file"] for name in ("probability", "lesion", "label")]
        return [np.asarray(nib.load(file).dataobj) for file in maps], table

    run.cube, run.transform, run.brain = cube, transform, brain > 0
    return run


def test_what_is_written_is_the_chain_on_the_scans_own_grid(measured):
    rng = np.random.default_rng(0)
    probability = rng.random((32, 32, 32), dtype=np.float32)
    maps, table = measured(
        probability, np.zeros((2, 32, 32, 32), np.float32), threshold=0.8, min_volume=5.0
    )
    native = from_cube(probability, measured.transform) * measured.brain
    expected = find_lesions(native, 1.0, LesionCriteria(0.8, 5.0))
    for found, wanted in zip(maps, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert table["Summary"]["LesionCount"] == len(table["Table"]) == expected.labels.max() > 1
    assert table["Summary"]["LesionVolume"] == pytest.approx(expected.mask.sum() / 1000)
    assert table["Summary"]["AtlasRegistration"]["Matrix"] == np.eye(4).tolist()


def test_what_the_network_says_is_written(measured, tmp_path):
    """From the weights to the mask of the scan."""
    torch.manual_seed(0)
    joint = JointNetwork(JointConfig().scaled(0.25)).eval()
    save_weights(tmp_path / "joint", joint, WeightsMetadata("joint", "1", cube_shape=(32,) * 3))
    np.save(tmp_path / "cube.npy", measured.cube)
    weights = str(tmp_path / "joint.safetensors")
    outputs = network_step(cube_file=tmp_path / "cube.npy", weights=weights).compute(tmp_path)
    with torch.no_grad():
        own = joint(torch.from_numpy(measured.cube)[None, None])
    scores = [outputs["class_probabilities"][name] for name in joint.config.classes]
    np.testing.assert_allclose(scores, own.class_logits[0].softmax(0).numpy(), atol=1e-5)
    lesion = own.lesion_probability[0, 0].numpy()
    threshold = round(float(np.quantile(lesion, 0.9)), 3)
    found = np.load(outputs["probability_file"])
    maps, _ = measured(found, np.load(outputs["cam_file"]), threshold=threshold, min_volume=5.0)
    native = from_cube(lesion, measured.transform) * measured.brain
    np.testing.assert_allclose(found, lesion, atol=1e-5)
    written = find_lesions(native, 1.0, LesionCriteria(threshold, 5.0))
    np.testing.assert_allclose(maps[0], written.probability, atol=1 / 4096)
    assert (maps[1] != written.mask).mean() < 0.001  # a voxel at the threshold may differ
    assert 0 < written.mask.mean() < 0.5
    only = network_step(cube_file=tmp_path / "cube.npy", weights=weights, classify=False)
    known = {name for name, value in only.compute(tmp_path).items() if value is not None}
    assert known == {"probability_file"}


def test_what_lesions_add_is_in_table_and_maps(measured, tmp_path, tiny_config):
    torch.manual_seed(1)
    config = replace(
        tiny_config, tasks=("segmentation",), lesion_descriptors=len(DESCRIPTORS), lesion_fits=2
    )
    network = JointNetwork(config).eval()
    network.lesion_branch.standardize(torch.randn(50, len(DESCRIPTORS)) * 20)
    metadata = WeightsMetadata(
        "tiny", "1", calibration=Calibration(matrix=((0.7, 0), (0, 0.5)), offset=(0, 0.1))
    )
    save_weights(tmp_path / "tiny", network, metadata)
    probability = np.zeros((32, 32, 32), np.float32)
    for first in (6, 13, 20):
        probability[first : first + 3 + first // 10, 10:14, 12:16] = 0.9
    measured(probability, np.zeros((2, 32, 32, 32)), threshold=0.5, min_volume=0.0)
    node = classify_step(
        weights=tmp_path / "tiny.safetensors",
        **{f"{name}_file": tmp_path / file for name, file in (
            ("descriptor", "descriptors.npy"), ("label", "label.nii"), ("table", "lesions.json"))},
    )  # fmt: skip
    rows = torch.from_numpy(np.load(tmp_path / "descriptors.npy"))
    outputs = node.compute(tmp_path)
    content = json.loads(Path(outputs["table_file"]).read_text())
    table, margin = content["Table"], content["Summary"]["Margin"]
    assert len(table) == len(rows) == 3
    labels = load_array(tmp_path / "label.nii")
    with torch.no_grad():
        logits, bias = network.forward_lesions(rows)[0], network.lesion_branch.bias.detach()
    for number, name in enumerate(("MS", "NMOSD")):
        values = load_array(Path(outputs["cam_files"][name]))
        assert not values[labels == 0].any()
        each = [set(values[labels == row["index"]].tolist()) for row in table]
        assert [len(one) for one in each] == [1, 1, 1]
        total = sum(one.pop() for one in each) + float(bias[number])
        assert total == pytest.approx(float(logits[number]), abs=1e-5)
    sign = 1 if margin["Class"] == "NMOSD" else -1
    bias = sign * float(bias[1] - bias[0])
    whole = sign * float(logits[1] - logits[0])
    added = sum(row["contribution"] for row in table)
    assert added + bias == pytest.approx(whole, abs=1e-5)
    for key, value in (("Value", whole), ("Bias", bias)):
        assert margin[key] == round(margin[key], 4) == pytest.approx(value, abs=6e-5)
    without = network.forward_lesions(rows[1:])[0]
    assert table[0]["margin_without"] == pytest.approx(
        sign * float(without[1] - without[0]), abs=1e-5
    )
    assert table[0]["margin_without"] != pytest.approx(
        margin["Value"] - table[0]["contribution"], abs=1e-4
    )
    scores = metadata.calibration.probabilities(logits.detach().numpy())
    assert list(outputs["class_probabilities"].values()) == pytest.approx(scores.tolist(), abs=1e-5)


def test_an_array_must_fit_the_grid(tmp_path):
    image = tmp_path / "a.nii"
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.float32), np.diag([2, 3, 4, 1])), image)
    out = write_like(np.full((3, 4, 5), 7, np.int16), image, tmp_path / "b.nii")
    assert load_array(out).dtype == np.int16
    assert np.array_equal(nib.load(out).affine, np.diag([2, 3, 4, 1]))
    with pytest.raises(ValueError, match="does not fit"):
        write_like(np.zeros((3, 4, 4)), image, tmp_path / "c.nii")


def test_outputs_of_no_use_are_refused():
    with pytest.raises(MsnmoError, match="segmentation is not finite"):
        _checked(np.array([0, np.nan]), "segmentation", "weights.safetensors")


def test_a_broken_link_reaches_the_check(tmp_path):
    """A git-annex link without content is not a file to Nipype; the check has to see it."""
    link = tmp_path / "sub-01_FLAIR.nii.gz"
    link.symlink_to(".git/annex/objects/nowhere")
    with pytest.raises(BadInputError, match="datalad get"):
        conform_step(in_file=str(link)).run(cwd=str(tmp_path))
    assert "datalad get" in str(read_failure(tmp_path))


@pytest.mark.parametrize(("look", "noticed"), [(True, True), (False, False)])
def test_a_missing_skull_is_noticed_if_nobody_said(tmp_path, look, noticed):
    distance = np.linalg.norm(np.indices((32, 32, 32)) - 15.5, axis=0)
    brain = np.where(distance < 14, 100 + distance, 0).astype(np.float32)
    nib.save(nib.Nifti1Image(brain, np.diag([5.0, 5.0, 5.0, 1.0])), tmp_path / "flair.nii")
    node = conform_step(in_file=str(tmp_path / "flair.nii"), look_for_skull=look)
    outputs = node.compute(tmp_path)
    assert outputs["stripped"] == noticed
    assert (STRIPPED_BEFORE in outputs["info"]["flags"]) == noticed


def test_a_mask_without_a_brain_is_refused(tmp_path):
    for name, array in {"image": np.ones((20, 20, 20)), "mask": np.zeros((20, 20, 20))}.items():
        image = nib.Nifti1Image(array.astype(np.float32), np.diag([8, 8, 8, 1]))
        nib.save(image, tmp_path / f"{name}.nii")
    node = brain_mask_step(
        in_file=str(tmp_path / "image.nii"), mask_file=str(tmp_path / "mask.nii"), tool={"a": 1}
    )
    with pytest.raises(BadInputError, match="skull stripping failed"):
        node.run(cwd=str(tmp_path))
    assert not list(Path(tmp_path).glob("result*"))
