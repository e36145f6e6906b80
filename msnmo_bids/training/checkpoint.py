"""Checkpoints: all that a training needs to go on exactly, in one file that is always whole."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import nn

from msnmo_bids.bids.dataset import TEMPORARY_PREFIX, atomic_path
from msnmo_bids.errors import BadInputError, UsageError

CHECKPOINT = "checkpoint.pt"


def identity_of(network: nn.Module, **settings: Any) -> dict[str, Any]:
    """Return what must be equal in all parts of one training, flat and JSON-ready.

    The network is told by its class and the shapes of its weights (``network``); settings, single
    ones or mappings of them, by ``name`` or ``name.key``.
    """
    shapes = [f"{key}{list(value.shape)}" for key, value in network.state_dict().items()]
    flat: dict[str, Any] = {"network": f"{type(network).__name__}: {', '.join(shapes)}"}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[name] = value
    return json.loads(json.dumps(flat))


def save_checkpoint(path: Path, state: dict[str, Any], identity: dict[str, Any]) -> None:
    """Write a checkpoint atomically: the one before stays until this one is complete.

    Parameters
    ----------
    path : Path
        The file.
    state : dict
        Tensors, numbers, texts, and lists and dicts of them.
    identity : dict
        Of `identity_of`.
    """
    with atomic_path(path) as temporary:
        torch.save({**state, "identity": json.dumps(identity)}, temporary)


def load_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Read a checkpoint, and clear away what a killed process left unfinished beside it.

    Parameters
    ----------
    path : Path
        The file; it may be missing.
    identity : dict
        Of the training that wants to go on.

    Returns
    -------
    dict or None
        The state on the CPU; None if there is no checkpoint.

    Raises
    ------
    UsageError
        If the checkpoint is of another training; the message says in what they differ.
    BadInputError
        If the file cannot be read.
    """
    for orphan in path.parent.glob(f"{TEMPORARY_PREFIX}*-{path.name}"):
        orphan.unlink(missing_ok=True)
    if not path.exists():
        return None
    state = _read(path)
    written = json.loads(state.pop("identity", "{}"))
    if written != identity:
        raise UsageError(
            f"was written by another training: {_differences(written, identity)}",
            file=path,
            remedy="Run it with the settings that it was started with, or choose another folder",
        )
    return state


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise BadInputError(
            f"is not a checkpoint that can be read ({' '.join(str(error).split())[:120]})",
            file=path,
            remedy="Delete it to start the training again",
        ) from error


def _differences(written: dict[str, Any], wanted: dict[str, Any]) -> str:
    keys = [key for key in {**written, **wanted} if written.get(key) != wanted.get(key)]
    words = []
    for key in keys:
        before, now = written.get(key, "nothing"), wanted.get(key, "nothing")
        words.append(key if key == "network" else f"{key} was {before} and is {now}")
    return ", ".join(words)
