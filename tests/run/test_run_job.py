"""A participant belongs to one run at a time, tested with real processes."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from msnmo_bids.cli.train import no_other_run
from msnmo_bids.run.job import LOCK_NAME, Claims
from msnmo_bids.workflows.step_names import subject_workflow_name

HOLD = (
    "import sys, time\nfrom pathlib import Path\nfrom msnmo_bids.run.job import Claims\n"
    "claims = Claims(*map(Path, sys.argv[2:]))\n"
    "print(claims.take(sys.argv[1]), flush=True)\ntime.sleep(600)\n"
)
ROOT = str(Path(__file__).parents[2])


class Holder:
    """Another process that holds a claim until it is killed."""

    def __init__(self, name: str, *folders: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, name, *map(str, folders)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": ROOT},
        )
        self.took = self.process.stdout.readline().strip() == "True"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def hold() -> Iterator:
    held: list[Holder] = []

    def begin(name: str, *folders: Path) -> Holder:
        held.append(Holder(name, *folders))
        return held[-1]

    yield begin
    for holder in held:
        holder.kill()


def test_what_another_process_holds_is_not_taken_until_it_ends(hold, tmp_path):
    out, work = tmp_path / "out", tmp_path / "work"
    other = hold("one", work)
    assert other.took
    claims = Claims(out, work)
    assert not claims.take("one"), "the work folder is enough"
    assert claims.take("two")
    assert hold("one", out).took, "nothing is kept of what was not taken"
    assert not hold("two", out).took
    assert not claims.alone(out)
    assert not claims.alone(work)
    other.kill()
    third = Claims(work)
    assert third.take("one")
    third.close()


def test_the_last_one_removes_the_file(hold, tmp_path):
    other = hold("one", tmp_path)
    claims = Claims(tmp_path)
    assert claims.take("two")
    claims.close()
    assert (tmp_path / LOCK_NAME).exists(), "the other one still needs it"
    other.kill()
    claims = Claims(tmp_path)
    assert claims.take("one")
    assert claims.alone(tmp_path)
    claims.close()
    assert not list(tmp_path.iterdir())


def test_a_disk_without_locks_is_named_once(tmp_path, monkeypatch, caplog):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    claims = Claims(tmp_path)
    assert claims.take("one")
    assert claims.take("two")
    assert caplog.text.count("files cannot be locked there (No locks available)") == 1


def test_a_run_waits_for_what_another_one_works_on(
    call, fake, make_dataset, tmp_path, monkeypatch, hold
):
    raw = make_dataset(*(f"sub-0{k}/anat/sub-0{k}_FLAIR.nii.gz" for k in (1, 2)))
    out, work = tmp_path / "out", tmp_path / "work"
    other = hold(subject_workflow_name("01"), out / "logs")
    monkeypatch.setattr("msnmo_bids.run.execute.time.sleep", lambda _: other.kill())
    result = call(raw, out, "participant", "--skip-bids-validation", "-w", work)
    assert result.last_line == "msnmo: SUCCESS 2 0"
    assert fake.runs == [["sub-02"], ["sub-01"]]
    assert result.text.count("Another run is at work on 1 participants") == 1
    assert "(sub-01)" in result.text
    assert not list(tmp_path.rglob(LOCK_NAME))
    assert not work.exists()


def test_what_another_run_has_done_meanwhile_is_not_done_again(
    call, fake, make_dataset, tmp_path, monkeypatch
):
    raw = make_dataset("sub-01/anat/sub-01_FLAIR.nii.gz")
    out = tmp_path / "out"
    take = Claims.take
    first: list[bool] = []

    def late(self: Claims, name: str) -> bool:
        if not first:  # the other run ends between the plan and the claim of this one
            first.append(True)
            assert call(raw, out, "participant", "--skip-bids-validation").code == 0
        return take(self, name)

    monkeypatch.setattr(Claims, "take", late)
    result = call(raw, out, "participant", "--skip-bids-validation")
    assert result.last_line == "msnmo: SUCCESS 1 0"
    assert fake.runs == [["sub-01"]]


def test_only_one_run_prepares_scans_in_a_folder(tmp_path, monkeypatch, caplog):
    cache, work = tmp_path / "cache", tmp_path / "work"
    holder, waits = Holder("a scan", work), []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            holder.kill()

    monkeypatch.setattr(time, "sleep", wait)
    caplog.set_level(logging.INFO)
    with no_other_run(cache, work):
        for folder in (cache, work):
            other = Holder("other", folder)
            other.kill()
            assert not other.took
    assert len(waits) >= 3
    assert len([m for m in caplog.messages if "waits for it" in m]) == 1
    assert not (work / LOCK_NAME).exists()
