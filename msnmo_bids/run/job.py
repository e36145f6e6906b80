"""A participant run under way, and the participants that it works on.

Several runs may be at work at once: each participant belongs to one of them at a time. A run claims
a participant in its output folder and in its work folder before it touches anything of theirs. A
claim is a lock on one byte of a file (POSIX record lock): it ends with the process that holds it,
however that ends, and holds between the nodes of a cluster where the disk supports locks.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from msnmo_bids.bids.records import RunRecord, ScanRecord
from msnmo_bids.bids.resume import why_incomplete
from msnmo_bids.bids.scans import Scan
from msnmo_bids.errors import ExitCode
from msnmo_bids.run.options import AppOptions
from msnmo_bids.run.plan import Plan
from msnmo_bids.run.resources import WORKERS_LOG, Resources
from msnmo_bids.workflows.step_names import (
    BATCH,
    VISITS_WORKFLOW,
    WORKFLOW,
    step_name,
    subject_workflow_name,
    workflow_name,
)

if TYPE_CHECKING:
    from msnmo_bids.workflows.execution import Failure
    from msnmo_bids.workflows.resources import Usage

logger = logging.getLogger(__name__)

WORKFLOWS = (WORKFLOW, VISITS_WORKFLOW)
LOCK_NAME = ".msnmo.lock"
#: Between two looks at whether another run has let go (s).
WAIT_S = 1.0
_HELD = (errno.EACCES, errno.EAGAIN)


class Claims:
    """The participants that this run works on.

    Other runs may be at work in the `folders` too; they are made when they are missing.
    """

    def __init__(self, *folders: Path) -> None:
        self._files = {folder: _LockFile(folder / LOCK_NAME) for folder in folders}

    def take(self, name: str) -> bool:
        """Claim a participant, unless another run has."""
        taken: list[_LockFile] = []
        for file in self._files.values():
            if not file.lock(_place(name), 1):
                for other in taken:
                    other.unlock(_place(name))
                return False
            taken.append(file)
        return True

    def release(self, names: Iterable[str]) -> None:
        """Let other runs have participants."""
        for name in names:
            for file in self._files.values():
                file.unlock(_place(name))

    def alone(self, folder: Path) -> bool:
        """Say whether no other run has a claim in a folder, and keep it so until the end."""
        return self._files[folder].lock(0, 0)

    def close(self) -> None:
        """End all claims; remove the files that no other run uses."""
        for file in self._files.values():
            file.close()


def _place(name: str) -> int:
    """Return the byte that stands for a name."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")


class _LockFile:
    """A file whose bytes are locked; a length of 0 is all of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stream: BinaryIO | None = None
        self._useless = False

    def lock(self, start: int, length: int) -> bool:
        """Lock bytes, unless another process has; where the disk has no locks, say so once."""
        if self._useless:
            return True
        try:
            while True:
                stream = self._open()
                fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB, length, start)
                if self._is_there(stream):
                    return True
                stream.close()  # another run removed the file, its last one, before we had the lock
        except OSError as error:
            if error.errno in _HELD and self._stream is not None:
                return False
            self._useless = True
            logger.warning(
                "%s: files cannot be locked there (%s): let no other run work on the same "
                "participants at the same time",
                self._path.parent,
                error.strerror or error,
            )
            return True

    def unlock(self, start: int) -> None:
        """Unlock a byte."""
        if self._stream is not None and not self._stream.closed:
            fcntl.lockf(self._stream, fcntl.LOCK_UN, 1, start)

    def close(self) -> None:
        """Unlock all, and remove the file unless another process has locked some of it."""
        if self._stream is None or self._stream.closed:
            return
        with self._stream, suppress(OSError):
            fcntl.lockf(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._path.unlink()

    def _open(self) -> BinaryIO:
        if self._stream is None or self._stream.closed:
            self._stream = None
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._path.open("ab")
        return self._stream

    def _is_there(self, stream: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(stream.fileno()), self._path.stat())
        except FileNotFoundError:
            return False


@dataclass
class Job:
    """A participant run under way."""

    #: What it was asked to do, device and precision resolved, and where and how it runs.
    options: AppOptions
    plan: Plan
    record: RunRecord  #: What will be written to ``run.json``.
    work_dir: Path
    resources: Resources
    claims: Claims  #: The participants that this run works on now.
    #: Of all batches so far; ``prefix`` is the scan's or the comparison's name.
    failures: list[Failure] = field(default_factory=list)
    comparison_failures: list[Failure] = field(default_factory=list)
    #: Name of a scan -> step -> what it cost.
    usage: dict[str, dict[str, Usage]] = field(default_factory=dict)
    #: What became of the scans so far, by their relative path.
    outcomes: dict[str, ScanRecord] = field(default_factory=dict)
    codes: list[ExitCode] = field(default_factory=list)  #: Of what went wrong so far.

    @property
    def output_dir(self) -> Path:
        """Output folder, absolute."""
        return self.options.output_dir.absolute()

    @property
    def stopped(self) -> bool:
        """Whether the run ended at its first failure, because the user wants that."""
        failed = bool(self.failures or self.comparison_failures)
        return failed and self.options.stop_on_first_crash

    def why_incomplete(self, scan: Scan) -> str | None:
        """Return why a scan is not complete now, None when it is."""
        return why_incomplete(scan, self.output_dir, self.plan.expected)

    def claim(self, subjects: Sequence[str]) -> tuple[list[str], list[str]]:
        """Claim participants with as many scans to run as one workflow takes.

        Return those claimed, and those that another run works on.
        """
        waiting = Counter(scan.subject for scan in self.plan.to_run)
        claimed: dict[bool, list[str]] = {True: [], False: []}
        for subject in subjects:
            if sum(waiting[name] for name in claimed[True]) >= BATCH:
                break
            claimed[self.claims.take(subject_workflow_name(subject))].append(subject)
        return claimed[True], claimed[False]

    def release(self, subjects: Iterable[str]) -> None:
        """Let other runs have participants."""
        self.claims.release(map(subject_workflow_name, subjects))

    def clean_work(self) -> None:
        """Remove what earlier runs left in the work folder, and nothing that is not ours.

        What another run works on stays; with ``--participant-label``, other participants' folders.
        """
        everyone = self.options.participant_label is None
        named = {subject_workflow_name(subject) for subject in self.plan.selection.subjects}
        for folder in (folder for name in WORKFLOWS for folder in self.work_dir.glob(f"{name}/*")):
            if (everyone or folder.name in named) and self.claims.take(folder.name):
                shutil.rmtree(folder, ignore_errors=True)
                self.claims.release([folder.name])

    def tidy(self) -> None:
        """End all claims; remove an empty workers' log, and work folders that nobody needs."""
        workers = self.record.folder / WORKERS_LOG
        with suppress(OSError):
            if workers.stat().st_size == 0:
                workers.unlink()
        if self.claims.alone(self.work_dir):
            for name in WORKFLOWS:
                with suppress(OSError):
                    (self.work_dir / name).rmdir()
        self.claims.close()
        with suppress(OSError):
            self.work_dir.rmdir()

    def plugin_args(self) -> dict[str, Any]:
        """Return the arguments of the Nipype plugin."""
        arguments = self.resources.with_log(self.record.folder, self.options.verbose)
        if self.resources.plugin == "MultiProc":
            from msnmo_bids.workflows.plugin import gpu_names

            arguments["gpus"] = gpu_names(self.plan.settings.device, self.plan.gpus)
        return arguments

    @cached_property
    def scan_names(self) -> dict[str, str]:
        """Workflow of each scan to run (a part of its nodes' full names) -> the scan's name."""
        return {workflow_name("scan", scan.prefix): scan.prefix for scan in self.plan.to_run}

    def take_usage(self, node: str, usage: Usage) -> None:
        """Take down what a node cost, given its full name."""
        scan = next((part for part in node.split(".") if part in self.scan_names), None)
        if scan is not None:  # else it belongs to no scan alone
            steps, step = self.usage.setdefault(self.scan_names[scan], {}), step_name(node)
            steps[step] = steps[step] + usage if step in steps else usage

    def steps_of(self, scan: Scan) -> dict[str, dict[str, float]]:
        """Return what each step of a scan cost in this run, as ``run.json`` says it."""
        return {step: usage.entry() for step, usage in self.usage.get(scan.prefix, {}).items()}

    def problem_of(self, failure: Failure) -> dict[str, str]:
        """Return what a record says of a failure; its crash file relative to the output folder."""
        crash = failure.crash_file
        if crash is not None and crash.is_relative_to(self.output_dir):
            crash = crash.relative_to(self.output_dir)
        return {
            "step": failure.step,
            "message": failure.message,
            "remedy": failure.remedy or "",
            "crash_file": crash.as_posix() if crash is not None else "",
        }
