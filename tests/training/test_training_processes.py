"""Killed, interrupted, asked to stop: what a training leaves and how it ends; its memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_training
import torch
from tiny_training import make_trainer

from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.evaluation.crossval_results import read_curves
from msnmo_bids.training.outputs import Curves
from msnmo_bids.training.processes import StopSignals, TrainingInterrupted

PATIENCE = 200.0  # seconds; only a failure takes as long

PROGRAM = """
import resource
import numpy as np
from msnmo_bids.training.processes import keep_freed_memory
if {keep}:
    assert keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(50_000_000, np.float32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@contextmanager
def program(out: Path, *words: str) -> Iterator[subprocess.Popen]:
    command = [sys.executable, tiny_training.__file__, str(out), *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition, process: subprocess.Popen) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None, "the training ended by itself"
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_killed_and_a_stopped_training_go_on_exactly(tmp_path, monkeypatch):
    """SIGKILL somewhere after a step, then SIGTERM, then to the end: the bits of one run."""
    out, table = tmp_path / "cut", tmp_path / "cut" / "curves.csv"
    words = ("steps=12", "slow=0.2")
    with program(out, *words) as process:
        wait_for(lambda: len(read_curves(table)) >= 2, process)
        process.send_signal(signal.SIGKILL)
        assert process.wait(PATIENCE) == -signal.SIGKILL
    killed = torch.load(out / "checkpoint.pt", weights_only=True)["step"]

    with program(out, *words) as process:
        wait_for(lambda: len(read_curves(table)) > killed + 1, process)
        process.send_signal(signal.SIGTERM)
        errors = process.communicate(timeout=PATIENCE)[1]
        assert process.returncode == ExitCode.TEMPORARY_FAILURE == 75
    assert "SIGTERM: the training finishes this step" in errors
    assert "Run the same command again" in errors
    stopped = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    assert killed < stopped < 12
    assert len(read_curves(table)) == stopped
    assert (out / "curves.png").exists()

    monkeypatch.setattr(Curves, "draw", lambda self: None)
    weights = make_trainer(out, steps=12).run()
    expected = make_trainer(tmp_path / "whole", steps=12).run()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)


def test_a_second_signal_ends_the_program_at_once(tmp_path):
    with program(tmp_path, "slow=1000") as process:
        lines = iter(process.stderr.readline, "")
        assert any("drawing the samples" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        assert any("a second signal ends it at once" in line for line in lines)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_noted_and_the_second_does_what_it_did_before(number):
    caught = []
    before = signal.signal(number, lambda *_: caught.append(number))
    try:
        with StopSignals() as signals:
            assert signals.received == ""
            os.kill(os.getpid(), number)
            assert signals.received == signal.Signals(number).name
            assert not caught
            os.kill(os.getpid(), number)
            assert caught == [number]
        with StopSignals():
            pass
        os.kill(os.getpid(), number)
        assert caught == [number, number]
    finally:
        signal.signal(number, before)


def test_what_is_ignored_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals.received == ""
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_signal_saves_at_once_and_tells_how_to_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(Curves, "draw", lambda self: None)
    trainer = make_trainer(tmp_path, checkpoint_seconds=1e9)
    draw = trainer._draw

    def stop_in_the_second_step():
        if trainer.step == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return draw()

    monkeypatch.setattr(trainer, "_draw", stop_in_the_second_step)
    with pytest.raises(TrainingInterrupted, match=r"SIGINT\) after step 2 of 6.*again") as caught:
        trainer.run()
    assert isinstance(caught.value, MsnmoError)
    assert caught.value.exit_code == ExitCode.TEMPORARY_FAILURE
    assert torch.load(trainer.checkpoint, weights_only=True)["step"] == 2
    make_trainer(tmp_path).run()


def test_a_signal_in_the_last_step_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Curves, "draw", lambda self: None)
    trainer = make_trainer(tmp_path, steps=1)
    draw = trainer._draw
    monkeypatch.setattr(trainer, "_draw", lambda: os.kill(os.getpid(), signal.SIGINT) or draw())
    trainer.run()
    assert trainer.finished


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is meant")
def test_a_block_that_was_freed_is_taken_again_without_new_pages():
    def run(keep: bool) -> int:
        command = [sys.executable, "-c", PROGRAM.format(keep=keep)]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert run(keep=True) < 100
    assert run(keep=False) > 100
