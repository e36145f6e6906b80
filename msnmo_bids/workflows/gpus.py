"""Which GPU a node gets: one node at a time on each, always in the same process."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

#: The variable that says which GPUs a process sees; a process that sees one calls it ``cuda``.
VISIBLE = "CUDA_VISIBLE_DEVICES"
#: The GPU of a device that the user named (``cuda:1``): its process sees all, as this one does.
NAMED = "named"


def gpu_names(device: str, gpus: Sequence[int]) -> list[str]:
    """Return the GPUs of a run under the names that CUDA's variable has for them.

    Parameters
    ----------
    device : str
        ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
    gpus : sequence of int
        The GPUs behind ``"cuda"``, as torch counts those that this process sees.

    Returns
    -------
    list of str
        One a GPU; empty on the CPU.
    """
    if device != "cuda":
        return [] if device == "cpu" else [NAMED]
    seen = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return [seen[gpu] if seen else str(gpu) for gpu in gpus] or [NAMED]


def gpu_environment(gpu: str | None) -> dict[str, str]:
    """Return what a worker's environment says of GPUs.

    Parameters
    ----------
    gpu : str or None
        From :func:`gpu_names`; None for a worker that shall not see any.

    Returns
    -------
    dict of str to str
        Variables.
    """
    return {} if gpu == NAMED else {VISIBLE: gpu or ""}


def next_gpu(gpus: Sequence[str], busy: Collection[str], load: Mapping[str, int]) -> str:
    """Return the GPU that the next node gets: a free one, the least used first.

    Parameters
    ----------
    gpus : sequence of str
        From :func:`gpu_names`.
    busy : collection of str
        Those that a node runs on.
    load : mapping of str to int
        Nodes that each has been given so far.

    Returns
    -------
    str
        One of them; where all are busy the least used, whose process the node then waits for.

    Examples
    --------
    >>> next_gpu(["0", "1", "2"], busy={"0"}, load={"0": 1, "1": 2, "2": 1})
    '2'
    """
    free = [gpu for gpu in gpus if gpu not in busy] or gpus
    return min(free, key=lambda gpu: load.get(gpu, 0))
