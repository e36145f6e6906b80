"""Which device and which arithmetic to compute with; imports torch only when asked.

`probe` asks in a process of its own, forked from the one that workers are forked from, where torch
is imported once: the app's must stay free of CUDA and of torch's memory, and a driver that crashes
the process takes only the probe with it.
"""

from __future__ import annotations

import logging
import re
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import NamedTuple

from msnmo_bids.errors import ExitCode, MsnmoError

logger = logging.getLogger(__name__)

PRECISIONS = ("auto", "bf16", "fp32")
#: Free memory that a GPU must have (GB). The maps of a volume of 160³ take 1.5 GB in fp32 on a CPU;
#: on a GPU it has not been measured.
GPU_MEMORY_GB = 2.0


class DeviceError(MsnmoError, RuntimeError):
    """The requested device cannot compute; the message has the remedy."""

    exit_code = ExitCode.USAGE


class Machine(NamedTuple):
    """What the probe found.

    A device (``"cpu"``, ``"cuda"``, ``"cuda:N"``), the GPUs behind ``"cuda"``, an arithmetic that
    all of them have (``"bf16"``, ``"fp32"``), and what the user should know.
    """

    device: str
    precision: str
    gpus: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


def probe(device: str, precision: str) -> Machine:
    """Choose device, precision and GPUs; ``"auto"`` leaves them to the program.

    Raises
    ------
    MsnmoError
        If a CUDA device was asked for that does not compute.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("forkserver")) as pool:
            return pool.submit(_probe, device, precision).result()
    except BrokenProcessPool as error:
        if device not in ("auto", "cpu"):
            raise MsnmoError(
                f"{device} does not compute: the probe crashed",
                remedy="Check the driver, or choose --device cpu",
            ) from error
        warning = "Computing on the CPU in fp32: the probe of the device crashed"
        arithmetic = "fp32" if precision == "auto" else precision
        return Machine("cpu", arithmetic, warnings=(warning,))


def _probe(device: str, precision: str) -> Machine:
    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("msnmo_bids").addHandler(handler)
    gpus = working_gpus() if device in ("auto", "cuda") else ()
    chosen = "cuda" if gpus else select_device(device)
    # One precision for all scans: that of the oldest GPU.
    devices = [f"cuda:{gpu}" for gpu in gpus] or [chosen]
    slowest_first = ("fp32", "bf16")
    arithmetic = min((select_precision(precision, d) for d in devices), key=slowest_first.index)
    return Machine(chosen, arithmetic, gpus, tuple(dict.fromkeys(warnings)))


def select_device(requested: str = "auto") -> str:
    """Return a device that really computes: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    It is the requested one. ``"auto"`` takes CUDA where a small product comes out right there, and
    otherwise the CPU, with a warning if there is a CUDA device that does not work.

    Raises
    ------
    DeviceError
        If the name is unknown, or a CUDA device was asked for that does not compute.
    """
    if requested == "cpu":
        return "cpu"
    if requested != "auto" and not re.fullmatch(r"cuda(:\d+)?", requested):
        remedy = "Choose auto, cpu, cuda or cuda:N"
        raise DeviceError(f"unknown device {requested!r}", remedy=remedy)
    device = "cuda" if requested == "auto" else requested
    problem = _probe_cuda(device)
    if problem is None:
        return device
    if requested != "auto":
        raise DeviceError(
            f"{device} does not compute: {problem}",
            remedy="Choose --device cpu or auto; in a container, pass the GPU through "
            "(docker: --gpus all; apptainer: --nv)",
        )
    logger.warning("Computing on the CPU: %s", problem)
    return "cpu"


def working_gpus() -> tuple[int, ...]:
    """Return the GPUs that compute and have room for a volume, as torch numbers them.

    Each other one costs a warning that says what is wrong with it, unless none works:
    `select_device` says it then.
    """
    import torch

    problems = {gpu: _probe_cuda(f"cuda:{gpu}") for gpu in range(torch.cuda.device_count())}
    working = tuple(gpu for gpu, problem in problems.items() if problem is None)
    for gpu, problem in problems.items():
        if working and problem is not None:
            logger.warning("The GPU cuda:%d is left out: %s", gpu, problem)
    return working


def select_precision(requested: str = "auto", device: str = "cpu") -> str:
    """Return the arithmetic, ``"bf16"`` or ``"fp32"``, for a device of `select_device`.

    ``"auto"`` takes bfloat16 where the hardware has it.

    Raises
    ------
    DeviceError
        If the name is unknown.
    """
    if requested not in PRECISIONS:
        choices = ", ".join(PRECISIONS)
        raise DeviceError(f"unknown precision {requested!r}", remedy=f"Choose one of {choices}")
    if requested == "fp32":
        return "fp32"
    capable = _cpu_has_bf16() if device == "cpu" else _cuda_has_bf16(device)
    if requested == "bf16" and not capable:
        logger.warning(
            "%s has no bfloat16 arithmetic: bf16 is emulated and slow here, fp32 is faster", device
        )
    return "bf16" if capable or requested == "bf16" else "fp32"


def _probe_cuda(device: str) -> str | None:
    """Return why a CUDA device does not compute, or None if it does."""
    try:
        import torch

        if not torch.cuda.is_available():
            return "no CUDA device is available"
        ones = torch.ones(8, 8, device=device)
        total = float((ones @ ones).sum())
        if total != 512:
            return f"a product of matrices gave {total:g} in place of 512"
        return _too_full(*torch.cuda.mem_get_info(device))
    # A broken driver, a device in use, a build without its architecture: all kinds are raised.
    except Exception as error:
        problem = " ".join(str(error).split())[:200] or type(error).__name__
        if "no kernel image" in problem:
            return f"this build of PyTorch does not support its architecture ({problem})"
        return problem


def _too_full(free: int, total: int) -> str | None:
    """Return why a GPU with so many bytes has no room for a volume, or None if it has."""
    if free >= GPU_MEMORY_GB * 1e9:
        return None
    needed = f"{GPU_MEMORY_GB:g} GB are needed"
    if total < GPU_MEMORY_GB * 1e9:
        return f"it is too small: it has {total / 1e9:.1f} GB, {needed}"
    return f"it is busy: {free / 1e9:.1f} of its {total / 1e9:.1f} GB are free, {needed}"


def _cpu_has_bf16() -> bool:
    import torch

    try:
        capabilities = torch.cpu.get_capabilities()
    except (AttributeError, RuntimeError):
        return False
    # AMX tiles need the kernel's permission too, which torch asks for.
    amx = capabilities.get("amx_bf16", False) and torch.cpu._init_amx()
    return bool(amx or capabilities.get("avx512_bf16", False))


def _cuda_has_bf16(device: str) -> bool:
    import torch

    if torch.version.hip:
        return True
    # From compute capability 8.0 (Ampere) on; before, it is emulated.
    return torch.cuda.get_device_capability(device)[0] >= 8
