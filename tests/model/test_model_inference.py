"""Inference on one volume, and the choice of device and precision."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax

from msnmo_bids.errors import ExitCode
from msnmo_bids.model import device as device_module
from msnmo_bids.model import inference
from msnmo_bids.model.calibration import Calibration
from msnmo_bids.model.cam import combined_cam
from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.device import DeviceError, select_device, select_precision
from msnmo_bids.model.inference import classify_lesions, predict
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import WeightsMetadata, load_weights, save_weights
from msnmo_bids.preprocessing.cube import array_to_cube, normalize, resize_brain


@pytest.fixture
def weights(tmp_path, small_network):
    metadata = WeightsMetadata("small", "1", calibration=Calibration(4.0, "test", "test"))
    save_weights(tmp_path / "small", small_network, metadata)
    return tmp_path / "small.safetensors"


@pytest.fixture
def cube():
    return np.random.default_rng(0).standard_normal((32, 48, 32)).astype(np.float32)


def test_prediction_is_the_networks(weights, cube, small_network):
    prediction = predict(cube, weights)
    with torch.no_grad():
        output = small_network(torch.from_numpy(cube)[None, None])
    np.testing.assert_allclose(
        prediction.probability, output.lesion_probability[0, 0].numpy(), atol=1e-5
    )
    np.testing.assert_allclose(prediction.class_logits, output.class_logits[0].numpy(), atol=1e-5)
    weight = output.class_weight.detach()
    cams = combined_cam(output.class_features, weight, cube.shape)[0]
    np.testing.assert_allclose(prediction.cams, cams.numpy(), atol=1e-4)
    assert prediction.probability.dtype == prediction.cams.dtype == np.float32
    assert prediction.cams.shape == (2, *cube.shape)
    assert prediction.class_names == ("MS", "NMOSD")


def test_temperature_softens_the_probabilities(weights, cube):
    prediction = predict(cube, weights)
    assert prediction.class_probabilities.sum() == pytest.approx(1)
    ratio = np.log(prediction.class_probabilities[1] / prediction.class_probabilities[0])
    assert ratio * 4 == pytest.approx(prediction.class_logits[1] - prediction.class_logits[0])


def test_a_calibration_matrix_takes_the_place_of_the_temperature(weights, cube):
    network, metadata = load_weights(weights)
    calibration = Calibration(2.0, matrix=((0.5, 0), (0, 0.5)), offset=(2, 0))
    changed = weights.with_name("matrix.safetensors")
    save_weights(changed, network, replace(metadata, calibration=calibration))
    before, after = predict(cube, weights), predict(cube, changed)
    np.testing.assert_array_equal(before.class_logits, after.class_logits)
    expected = calibration.probabilities(before.class_logits)
    np.testing.assert_allclose(after.class_probabilities, expected)
    assert after.class_probabilities[1] != pytest.approx(before.class_probabilities[1])


def test_deterministic_runs_agree_and_leave_no_trace(weights, cube):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    first = predict(cube, weights, deterministic=True, n_threads=2)
    second = predict(cube, weights, deterministic=True, n_threads=2)
    np.testing.assert_array_equal(first.probability, second.probability)
    np.testing.assert_array_equal(first.cams, second.cams)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.get_rng_state(), state)


def test_bfloat16_is_close(weights, cube):
    exact, rough = predict(cube, weights), predict(cube, weights, precision="bf16")
    assert np.abs(exact.probability - rough.probability).mean() < 0.01
    np.testing.assert_allclose(exact.class_logits, rough.class_logits, atol=0.05)
    assert np.isfinite(rough.cams).all()


@pytest.mark.parametrize(
    "changes",
    [{"tasks": ("segmentation",)}, {"tasks": ("classification",), "guidance": "none"}],
)
def test_single_task_weights(tmp_path, small_config, cube, changes):
    network = JointNetwork(replace(small_config, **changes))
    save_weights(tmp_path / "single", network, WeightsMetadata("single", "1"))
    prediction = predict(cube, tmp_path / "single.safetensors")
    assert (prediction.probability is not None) == ("segmentation" in changes["tasks"])
    for value in (prediction.cams, prediction.class_probabilities, prediction.class_logits):
        assert (value is not None) == ("classification" in changes["tasks"])


@pytest.mark.parametrize("shape", [(32, 32), (32, 32, 40), (0, 16, 16), (1, 32, 32, 32)])
def test_wrong_shapes_are_refused(weights, shape):
    with pytest.raises(ValueError, match="multiples of 16"):
        predict(np.zeros(shape, np.float32), weights)


def test_values_that_are_not_finite_are_refused(weights, cube):
    cube[0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        predict(cube, weights)


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_full_gpu_is_named_with_the_remedy(monkeypatch, weights, cube, device):
    def full(*_):
        raise torch.cuda.OutOfMemoryError

    monkeypatch.setattr(inference, "_predict_on", full)
    monkeypatch.setattr(inference, "select_device", lambda _: "cuda")
    monkeypatch.setattr(device_module, "_cuda_has_bf16", lambda _: True)
    with pytest.raises(DeviceError, match=r"does not suffice .* Choose --device cpu") as raised:
        predict(cube, weights, device=device, precision="auto")
    assert raised.value.exit_code == ExitCode.TEMPORARY_FAILURE


def test_cpu_is_taken_without_a_probe(monkeypatch):
    monkeypatch.setattr(device_module, "_probe_cuda", lambda _: pytest.fail("probed"))
    assert select_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "", "mps"])
def test_unknown_devices_are_refused(name):
    with pytest.raises(DeviceError, match="Choose auto, cpu, cuda or cuda:N"):
        select_device(name)


def test_a_broken_gpu(monkeypatch, caplog):
    def fail(*_, **__):
        raise RuntimeError("CUDA error: no kernel image is available")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", fail)
    with caplog.at_level(logging.WARNING):
        assert select_device("auto") == "cpu"
    assert "no kernel image" in caplog.text
    with pytest.raises(DeviceError, match=r"cuda:1 does not compute: .*no kernel image.*--nv"):
        select_device("cuda:1")


def test_a_gpu_that_computes_nonsense(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.zeros(8, 8))
    assert select_device("auto") == "cpu"


@pytest.mark.parametrize(
    ("free", "total", "problem"),
    [(7.5, 8, None), (0.4, 8, "it is busy: 0.4 of its 8.0 GB are free"), (0.9, 1, "too small")],
)
def test_a_gpu_needs_room_for_a_volume(monkeypatch, caplog, free, total, problem):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: torch.full((8, 8), 1.0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (int(free * 1e9), int(total * 1e9)))
    assert select_device("auto") == ("cpu" if problem else "cuda")
    assert (problem or "") in caplog.text


def test_a_working_gpu_is_taken(monkeypatch):
    monkeypatch.setattr(device_module, "_probe_cuda", lambda _: None)
    assert select_device("auto") == "cuda"
    assert select_device("cuda:1") == "cuda:1"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, "bf16"),
        ({"avx2": True, "amx_bf16": False, "avx512_bf16": False}, "fp32"),
        ({}, "fp32"),
    ],
)
def test_precision_of_a_cpu(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert select_precision("auto", "cpu") == expected
    assert select_precision("fp32", "cpu") == "fp32"


def test_amx_counts_only_with_the_kernels_permission(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    for allowed, expected in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(torch.cpu, "_init_amx", lambda allowed=allowed: allowed)
        assert select_precision("auto", "cpu") == expected


@pytest.mark.parametrize(("major", "expected"), [(7, "fp32"), (8, "bf16"), (9, "bf16")])
def test_precision_of_a_gpu(monkeypatch, major, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (major, 0))
    assert select_precision("auto", "cuda") == expected


def test_bfloat16_without_hardware_warns(monkeypatch, caplog):
    monkeypatch.setattr(device_module, "_cpu_has_bf16", lambda: False)
    assert select_precision("bf16", "cpu") == "bf16"
    assert "slow here" in caplog.text


def test_unknown_precision_is_refused():
    with pytest.raises(DeviceError, match="Choose one of auto, bf16, fp32"):
        select_precision("fp16", "cpu")


def test_the_network_reads_the_brain_as_its_weights_say(tmp_path, small_network):
    rng = np.random.default_rng(0)
    image = rng.normal(100, 10, (40, 44, 36)).astype(np.float32)
    image[10:20, 10:20, 10:20] += 80  # a heavy load
    brain = np.zeros(image.shape, bool)
    brain[4:-4, 4:-4, 4:-4] = True
    z_scored, _ = array_to_cube(image, brain, (1, 1, 1), (32, 32, 32))
    robust, inside, _ = resize_brain(image, brain, (1, 1, 1), (32, 32, 32))
    robust[inside] = normalize(robust[inside], "robust")
    metadata = WeightsMetadata("robust", "1", cube_shape=(32, 32, 32), normalization="robust")
    save_weights(tmp_path / "robust", small_network, metadata)
    with torch.no_grad():
        wanted, other = (
            small_network(torch.from_numpy(cube)[None, None]).lesion_probability[0, 0].numpy()
            for cube in (robust, z_scored)
        )
    found = predict(z_scored, tmp_path / "robust.safetensors").probability
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.abs(found - other).max() > 0.01


def lesion_weights(folder, classes=("MS", "NMOSD")):
    torch.manual_seed(0)
    config = JointConfig(
        tasks=("segmentation",), classes=classes, lesion_descriptors=3, lesion_fits=2
    ).scaled(0.25)
    metadata = WeightsMetadata(
        "w", "1", class_names=classes, lesion_descriptors=("log_volume", "x", "y"),
        calibration=Calibration(2.0, "test", "test"),
    )  # fmt: skip
    network = JointNetwork(config).eval()
    save_weights(folder / "w", network, metadata)
    return folder / "w.safetensors", network


@pytest.mark.parametrize("asked", [("MS", "NMOSD"), ("MS", "SVD"), ("NMOSD", "SVD")])
def test_lesions_classify_and_say_what_each_adds(tmp_path, asked):
    classes = ("MS", "NMOSD", "SVD")
    rows = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    one, network = lesion_weights(tmp_path, classes)
    found = classify_lesions(rows, one)
    logits = network.forward_lesions(torch.from_numpy(rows))[0].detach().numpy()
    np.testing.assert_allclose(found.class_logits, logits, atol=1e-6)
    np.testing.assert_allclose(found.contributions.sum(0) + found.bias, logits, atol=1e-5)
    np.testing.assert_allclose(found.class_probabilities, softmax(logits / 2), atol=1e-6)
    for number in range(5):
        without = classify_lesions(np.delete(rows, number, axis=0), one).class_logits
        np.testing.assert_allclose(found.logits_without[number], without, atol=1e-6)
    margins = found.margins(asked)
    ordered = sorted((found.class_logits[classes.index(name)], name) for name in asked)[::-1]
    assert (margins.first, margins.second) == (ordered[0][1], ordered[1][1])
    assert margins.margin == pytest.approx(ordered[0][0] - ordered[1][0])
    assert margins.contributions.sum() + margins.bias == pytest.approx(margins.margin, abs=1e-5)


def test_a_scan_without_lesions_has_the_logits_of_the_bias(tmp_path):
    found = classify_lesions(np.zeros((0, 3)), lesion_weights(tmp_path)[0])
    np.testing.assert_array_equal(found.class_logits, found.bias)
    assert found.contributions.shape == found.logits_without.shape == (0, 2)
