"""Which device computes, in which arithmetic: probed in a process of its own.

This process must stay free of CUDA, and of torch's memory; a driver that crashes the process takes
only the probe with it.
"""

from __future__ import annotations

import logging
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import NamedTuple

from msnmo_bids.errors import MsnmoError


class Machine(NamedTuple):
    """What the probe found.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    precision : {"bf16", "fp32"}
        Arithmetic that all of it has.
    gpus : tuple of int
        The GPUs behind ``"cuda"``.
    warnings : tuple of str
        What the user should know.
    """

    device: str
    precision: str
    gpus: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


def probe(device: str, precision: str) -> Machine:
    """Choose device, precision and GPUs.

    Parameters
    ----------
    device, precision : str
        As on the command line; ``"auto"`` leaves them to the program.

    Raises
    ------
    MsnmoError
        If a CUDA device was asked for that does not compute.
    """
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
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
    """Choose device, precision and GPUs, in a process of its own."""
    from msnmo_bids.model.device import select_device, select_precision, working_gpus

    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("msnmo_bids").addHandler(handler)
    gpus = working_gpus() if device in ("auto", "cuda") else ()
    chosen = "cuda" if gpus else select_device(device)
    # One precision for all scans: that of the oldest GPU.
    devices = [f"cuda:{gpu}" for gpu in gpus] or [chosen]
    arithmetic = min((select_precision(precision, each) for each in devices), key=_speed)
    return Machine(chosen, arithmetic, gpus, tuple(dict.fromkeys(warnings)))


def _speed(precision: str) -> int:
    return ("fp32", "bf16").index(precision)
