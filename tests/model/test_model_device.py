"""The probe of the device, in a process of its own."""

from __future__ import annotations

import logging
import os

import pytest

from msnmo_bids.errors import MsnmoError
from msnmo_bids.model import device as device_module
from msnmo_bids.model.device import Machine


def crash(device: str, precision: str) -> Machine:
    """End the process, as a broken driver does."""
    os._exit(1)


def warn(device: str, precision: str) -> Machine:
    """Find something, and something odd."""
    return Machine("cpu", "bf16", warnings=("the driver is old",))


def fail(device: str, precision: str) -> Machine:
    """Find that a device does not compute."""
    raise MsnmoError("cuda does not compute", remedy="Choose --device cpu")


def test_a_probe_that_crashes_means_the_cpu(monkeypatch):
    monkeypatch.setattr(device_module, "_probe", crash)
    found = device_module.probe("auto", "auto")
    assert (found.device, found.precision) == ("cpu", "fp32")
    assert "probe of the device crashed" in found.warnings[0]
    with pytest.raises(MsnmoError, match="cuda:1 does not compute"):
        device_module.probe("cuda:1", "auto")


def test_what_the_probe_says_comes_through(monkeypatch):
    monkeypatch.setattr(device_module, "_probe", warn)
    assert device_module.probe("auto", "auto") == Machine("cpu", "bf16", (), ("the driver is old",))
    monkeypatch.setattr(device_module, "_probe", fail)
    with pytest.raises(MsnmoError, match="Choose --device cpu"):
        device_module.probe("cuda", "auto")


def test_the_real_probe():
    device, precision, gpus, _ = device_module._probe("cpu", "auto")
    assert (device, precision in ("bf16", "fp32"), gpus) == ("cpu", True, ())


@pytest.fixture
def gpus(monkeypatch):
    """Three GPUs: the first is busy, the last an old one."""
    import torch

    problems = {"cuda:0": "it is busy", "cuda": "it is busy"}
    capabilities = {"cuda:1": True, "cuda:2": False}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(device_module, "_probe_cuda", problems.get)
    monkeypatch.setattr(device_module, "_cuda_has_bf16", capabilities.get)
    return problems


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_gpus_that_compute_are_taken(gpus, device):
    found = device_module._probe(device, "auto")
    assert found[:3] == ("cuda", "fp32", (1, 2))
    assert found.warnings == ("The GPU cuda:0 is left out: it is busy",)


def test_a_gpu_that_was_named_is_the_only_one(gpus):
    assert device_module._probe("cuda:1", "auto")[:3] == ("cuda:1", "bf16", ())


def test_without_a_gpu_that_works_the_cpu_computes(gpus, caplog):
    gpus.update({"cuda:1": "it is too small", "cuda:2": "it is too small"})
    with caplog.at_level(logging.WARNING):
        found = device_module._probe("auto", "fp32")
    assert found == Machine("cpu", "fp32", (), ("Computing on the CPU: it is busy",))
    with pytest.raises(MsnmoError, match="cuda does not compute: it is busy"):
        device_module._probe("cuda", "auto")
