"""Nodes spread over GPUs, with stand-ins for the GPUs: no CUDA is needed."""

from __future__ import annotations

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from steps_for_tests import workflow_of

from msnmo_bids.workflows.execution import run_workflow
from msnmo_bids.workflows.plugin import NAMED, VISIBLE, gpu_environment, gpu_names, next_gpu


@pytest.mark.parametrize(
    ("visible", "device", "gpus", "expected"),
    [
        (None, "cuda", (0, 2), ["0", "2"]),
        ("4,7", "cuda", (0, 1), ["4", "7"]),
        ("GPU-8a, GPU-9b", "cuda", (1,), ["GPU-9b"]),
        (None, "cuda:1", (), [NAMED]),
        ("0", "cpu", (), []),
    ],
)
def test_names_of_gpus(monkeypatch, visible, device, gpus, expected):
    monkeypatch.delenv(VISIBLE, raising=False)
    if visible:
        monkeypatch.setenv(VISIBLE, visible)
    assert gpu_names(device, gpus) == expected


def test_a_process_sees_its_gpu_only():
    assert gpu_environment("GPU-9b") == {VISIBLE: "GPU-9b"}
    assert gpu_environment(None) == {VISIBLE: ""}
    assert gpu_environment(NAMED) == {}


@given(st.integers(1, 8), st.lists(st.booleans(), max_size=60))
def test_gpus_take_turns_and_none_is_given_twice(count, events):
    """Nodes begin (true) and end (false, the oldest) in any order."""
    gpus = [str(number) for number in range(count)]
    load = dict.fromkeys(gpus, 0)
    running: list[str] = []
    for begins in events:
        if begins and len(running) < count:
            gpu = next_gpu(gpus, set(running), load)
            assert gpu not in running
            running.append(gpu)
            load[gpu] += 1
        elif running:
            running.pop(0)
    assert max(load.values()) - min(load.values()) <= count


@pytest.mark.parametrize("gpus", [["0"], ["0", "1"]])
def test_scans_are_spread_and_the_next_ones_are_prepared_meanwhile(tmp_path, gpus):
    workflow = workflow_of(tmp_path, dict.fromkeys("abcd", "note"), dict.fromkeys("abcd", "note"))
    for name in workflow.list_node_names():
        if name.endswith("write_derivatives"):
            workflow.get_node(name).inputs.use_gpu = True
    running: set[str] = set()
    together: list[tuple[int, int]] = []

    def follow(node: str, event: str, _reason: str) -> None:
        (running.add if event == "start" else running.discard)(node)
        on_gpu = sum(name.endswith("write_derivatives") for name in running)
        together.append((on_gpu, len(running) - on_gpu))

    arguments = {"n_procs": 3, "memory_gb": 3.0, "gpus": gpus}
    options = {"plugin_args": arguments, "crash_dir": tmp_path / "crash", "on_event": follow}
    assert run_workflow(workflow, **options) == []
    assert max(on_gpu for on_gpu, _ in together) <= len(gpus)
    assert any(on_gpu and beside for on_gpu, beside in together)
    notes = [json.loads(file.read_text()) for file in tmp_path.rglob("note.json")]
    used = Counter(note["gpu"] for note in notes)
    assert (used.pop(""), used.total()) == (4, 4)
    assert {*used} == {*gpus}  # how often each depends on which is free first
    for gpu in gpus:
        assert len({note["pid"] for note in notes if note["gpu"] == gpu}) == 1
