"""The processes of a training: sums over all that torchrun started, signals to stop, freed memory.

The gradients are summed by hand and not by DistributedDataParallel: that sums them while a backward
pass runs, so that a process which has to repeat one, because its memory ran out, would leave the
others waiting. The loss of each process is already its share of the whole batch's loss.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from types import FrameType
from typing import Any

import torch
from torch import distributed, nn

from msnmo_bids.errors import ExitCode, MsnmoError

logger = logging.getLogger(__name__)

_PATIENCE = timedelta(hours=1)

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


@dataclass(frozen=True)
class Ranks:
    """The place of a process among those that train together; alone by default.

    `rank` is the number of this process, from 0, of `count`, and `device` where it computes. Every
    method must be called by all processes in the same order; alone, none does anything.
    """

    rank: int = 0
    count: int = 1
    device: str = "cpu"
    _parent: int = field(default_factory=os.getppid)

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def orphaned(self) -> bool:
        """Whether torchrun, which started this process, has died."""
        return self.count > 1 and os.getppid() != self._parent

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the sums of numbers over all processes."""
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return tensor.tolist()

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        return self.sum([float(flag)])[0] > 0

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace each gradient by its sum over all processes; None where no process has one."""
        if self.count == 1:
            return
        somewhere = self.sum([float(p.grad is not None) for p in parameters])
        for parameter, number in zip(parameters, somewhere, strict=True):
            if number:
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                parameter.grad = gradient.copy_(_summed(gradient))

    def mean_buffers(self, network: nn.Module) -> None:
        """Average the running statistics of batch normalisation."""
        if self.count == 1:
            return
        for buffer in network.buffers():
            if buffer.is_floating_point():
                buffer.copy_(_summed(buffer) / self.count)

    def copy_from_first(self, network: nn.Module) -> None:
        """Give every process the first one's weights."""
        if self.count == 1:
            return
        for value in network.state_dict().values():
            same = value.contiguous()
            distributed.broadcast(same, 0)
            value.copy_(same)

    def from_first(self, value: Any) -> Any:
        """Return the first process's object in every process."""
        if self.count == 1:
            return value
        holder = [value]
        distributed.broadcast_object_list(holder, 0)
        return holder[0]


def _summed(values: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all processes, in its order of dimensions (not channels last)."""
    total = values.contiguous().clone()
    distributed.all_reduce(total)
    return total


@contextmanager
def process_group(device: str = "cpu") -> Iterator[Ranks]:
    """Join the processes that torchrun started; alone where it did not.

    `device` is ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. Under torchrun, ``"cuda"`` becomes the GPU
    with the number of the process on its node.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks(device=device)
        return
    on_gpu = device.startswith("cuda")
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=_PATIENCE)
    try:
        yield Ranks(distributed.get_rank(), count, device)
    finally:
        distributed.destroy_process_group()


class TrainingInterrupted(MsnmoError):  # noqa: N818
    """The training was asked to stop; it has saved and can go on."""

    exit_code = ExitCode.TEMPORARY_FAILURE


class StopSignals:
    """Takes note of the first SIGINT, SIGTERM or SIGHUP; a second one ends the program at once.

    `received` is its name; empty before there is one. In another thread than the main one, whoever
    called handles signals.
    """

    def __init__(self) -> None:
        self.received = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        try:
            for number in _SIGNALS:
                # What is ignored stays so: SIGHUP under nohup.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        except ValueError:
            logger.debug("Not in the main thread: signals are not handled")
        return self

    def __exit__(self, *_error: object) -> None:
        self._restore()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self._restore()
        logger.warning(
            "%s: the training finishes this step, saves and ends; a second signal ends it at once",
            self.received,
        )

    def _restore(self) -> None:
        while self._before:
            number, handler = self._before.popitem()
            signal.signal(number, handler)


def keep_freed_memory() -> bool:
    """Let this process keep the memory that it frees, for its next step.

    By default glibc hands large blocks back to the system at once, which clears every page of them
    again: on a machine without large pages that was a third to a half of the time of a step. False
    where the C library is another one, and nothing has changed.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # No block of its own mapping, and no trimming of the heap's end.
    done = mallopt(_M_MMAP_MAX, 0) and mallopt(_M_TRIM_THRESHOLD, -1)
    logger.debug("Freed memory is kept: %s", bool(done))
    return bool(done)
