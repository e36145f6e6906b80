"""What the steps of a scan need (measured; ``benchmarks/`` has the table), and what they cost.

And the process that workers are forked from, whose libraries are all that most steps wait for.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker, set_forkserver_preload
from pathlib import Path

#: Memory that a worker keeps once it has run a network (GB).
_WORKER = 0.7
#: Node -> (GB whatever the image, bytes for each voxel of the image): peak of its worker.
_NEEDS = {
    "conform": (_WORKER, 8),
    "bet": (_WORKER, 12),
    "deepbet": (1.3, 4),
    "mask": (_WORKER, 8),
    "n4": (_WORKER, 0),
    "cube": (_WORKER, 8),
    # Two scans' networks shall not run at once in 4 GB: they would fit only just.
    "network_bf16": (2.2, 0),
    "network_fp32": (2.2, 0),
    "network_cuda": (1.5, 0),
    "regions": (_WORKER, 42),
    "quality": (_WORKER, 60),
    "segment": (_WORKER, 26),
    "figures": (_WORKER, 18),
    "derivatives": (_WORKER, 14),
    # Two visits on a grid of 1 mm around the brain, some 4 million voxels whatever the images'.
    "visits": (1.1, 26),
}
#: Imported once by the process that workers are forked from, so that these start in milliseconds.
PRELOAD = (
    "msnmo_bids.workflows.preload",
    "torch",
    "msnmo_bids.workflows.scan",
    "matplotlib.pyplot",
)
#: Tools whose library, of the same name, is imported besides.
_TOOL_PRELOAD = ("deepbet",)
#: Libraries of later steps: a worker of their own imports them while the first steps run.
AHEAD = ("ants",)
#: Threads that wait by spinning starve each other where the cores are shared.
QUIET = {"OMP_WAIT_POLICY": "PASSIVE", "MPLBACKEND": "Agg", "NO_ET": "1", "NIPYPE_NO_ET": "1"}
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
#: Of an image whose header cannot be read: its first node says what is wrong with it.
_USUAL_VOXELS = 256 * 256 * 160


def memory_gb(node: str, voxels: int = _USUAL_VOXELS) -> float:
    """Return the peak memory (GB) of a worker that runs a kind of node, by the image's voxels.

    >>> memory_gb("quality", 10_000_000)
    1.3
    """
    base, bytes_per_voxel = _NEEDS[node]
    return round(base + bytes_per_voxel * voxels / 1e9, 2)


def voxel_count(image: Path) -> int:
    """Return the number of voxels of an image from its header; a usual number if it has none."""
    import numpy as np

    from msnmo_bids.preprocessing.nifti_file import open_nifti

    try:
        return int(np.prod(open_nifti(image).shape[:3]))
    # A broken file raises errors of all kinds here; `conform` turns them into plain words.
    except Exception:
        return _USUAL_VOXELS


_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"
_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes


@dataclass(frozen=True)
class Usage:
    """What a node cost."""

    wall_seconds: float
    cpu_seconds: float  #: Of all cores, with the programs that it started.
    memory_gb: float  #: Peak of its process, what was there before included (10^9 bytes).

    def entry(self) -> dict[str, float]:
        """Return the figures by their keys in ``run.json``, rounded."""
        return {
            "WallSeconds": round(self.wall_seconds, 2),
            "CPUSeconds": round(self.cpu_seconds, 2),
            "MemoryGB": round(self.memory_gb, 3),
        }

    def __add__(self, other: Usage) -> Usage:
        """Return what two nodes cost that run one after the other."""
        return Usage(
            self.wall_seconds + other.wall_seconds,
            self.cpu_seconds + other.cpu_seconds,
            max(self.memory_gb, other.memory_gb),
        )


class Meter:
    """Measure what this process uses within a ``with`` statement.

    Linux forgets the peak of a process's memory at the start of each measurement. Elsewhere, and
    for programs that the process starts, the peak is that of the whole life of the process.
    """

    def __enter__(self) -> Meter:
        """Start."""
        self.usage: Usage | None = None
        with suppress(OSError):
            _CLEAR_REFS.write_text(_RESET_PEAK)
        self._children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        self._began, self._cpu = time.monotonic(), _cpu_seconds()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop; ``usage`` holds the figures."""
        self.usage = Usage(
            wall_seconds=time.monotonic() - self._began,
            cpu_seconds=_cpu_seconds() - self._cpu,
            memory_gb=max(_own_peak(), self._new_peak_of_children()) / 1e9,
        )

    def _new_peak_of_children(self) -> int:
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        return peak * _UNIT if peak > self._children else 0


def _cpu_seconds() -> float:
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(used.ru_utime + used.ru_stime for used in both)


def _own_peak() -> int:
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def start_fork_server(tools: Iterable[str] = (), threads: int | None = None) -> None:
    """Start the process that workers are forked from, and do not wait for what it imports.

    Parameters
    ----------
    tools : iterable of str
        Tools of the run (`ProcessingSettings`), whose libraries are imported, too.
    threads : int, optional
        Of a node's numerical libraries.
    """
    set_forkserver_preload([*PRELOAD, *(tool for tool in tools if tool in _TOOL_PRELOAD)])
    resource_tracker.ensure_running()  # first: it unblocks the signal
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # ours to handle
    try:
        with thread_limits(threads), _variables(QUIET):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)


def thread_limits(threads: int | None) -> AbstractContextManager[None]:
    """Set the numerical libraries' thread counts while workers or a cluster's jobs are started."""
    return _variables(dict.fromkeys(_THREAD_VARIABLES, str(threads)) if threads else {})


@contextmanager
def _variables(content: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in content}
    os.environ.update(content)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
