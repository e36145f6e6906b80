"""What a step of the work on a scan costs: time, processor, memory."""

from __future__ import annotations

import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"
_UNIT = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss, bytes


@dataclass(frozen=True)
class Usage:
    """What a node cost.

    Parameters
    ----------
    wall_seconds : float
        From its start to its end.
    cpu_seconds : float
        Of all cores, with the programs that it started.
    memory_gb : float
        Peak of its process, what was loaded there before included (GB of 10^9 bytes).
    """

    wall_seconds: float
    cpu_seconds: float
    memory_gb: float

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

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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
