"""The probe of the device, in a process of its own."""

from __future__ import annotations

import json
import logging
import os
from argparse import Namespace

import pytest

from msnmo_bids.cli import plan
from msnmo_bids.cli.weights import find_ensemble
from msnmo_bids.errors import MsnmoError, UsageError
from msnmo_bids.model.weights import WeightsMetadata


def crash(device: str, precision: str) -> tuple[str, str, list[str]]:
    """End the process, as a broken driver does."""
    os._exit(1)


def warn(device: str, precision: str) -> tuple[str, str, list[str]]:
    """Find something, and something odd."""
    return "cpu", "bf16", ["the driver is old"]


def fail(device: str, precision: str) -> tuple[str, str, list[str]]:
    """Find that a device does not compute."""
    raise MsnmoError("cuda does not compute", remedy="Choose --device cpu")


def test_a_probe_that_crashes_means_the_cpu(monkeypatch, caplog):
    monkeypatch.setattr(plan, "_probe", crash)
    assert plan._probe_apart("auto", "auto") == ("cpu", "fp32")
    assert "probe of the device crashed" in caplog.text
    with pytest.raises(MsnmoError, match="cuda:1 does not compute"):
        plan._probe_apart("cuda:1", "auto")


def test_what_the_probe_says_comes_through(monkeypatch, caplog):
    monkeypatch.setattr(plan, "_probe", warn)
    with caplog.at_level(logging.WARNING):
        assert plan._probe_apart("auto", "auto") == ("cpu", "bf16")
    assert "the driver is old" in caplog.text
    monkeypatch.setattr(plan, "_probe", fail)
    with pytest.raises(MsnmoError, match="Choose --device cpu"):
        plan._probe_apart("cuda", "auto")


def test_the_real_probe():
    device, precision, _ = plan._probe("cpu", "auto")
    assert (device, precision in ("bf16", "fp32")) == ("cpu", True)


def test_weights_of_an_ensemble_must_be_there_and_go_together(tmp_path):
    def make_weights(name, **what):
        description = WeightsMetadata(name, "1", **what).to_dict()
        (tmp_path / f"{name}.json").write_text(json.dumps(description))
        (tmp_path / f"{name}.safetensors").touch()
        return tmp_path / f"{name}.safetensors"

    options = Namespace(weights=make_weights("one"), ensemble=[make_weights("two")])
    found = find_ensemble(options)
    assert [metadata.name for _, metadata in found] == ["one", "two"]
    options.ensemble.append(make_weights("three", cube_shape=(96, 96, 96)))
    with pytest.raises(UsageError, match=r"three 1 takes a cube of \(96, 96, 96\)"):
        find_ensemble(options)
    options.ensemble = [tmp_path / "missing.safetensors"]
    with pytest.raises(MsnmoError, match=r"missing\.safetensors.*--ensemble"):
        find_ensemble(options)
