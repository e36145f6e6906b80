"""What a training leaves in its folder: the checkpoint, from which it goes on, and its curves."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import nn

from msnmo_bids.bids.dataset import atomic_path, remove_unfinished, write_text
from msnmo_bids.errors import BadInputError, UsageError
from msnmo_bids.evaluation.crossval_results import CURVES, read_curves
from msnmo_bids.evaluation.figures import figure_file
from msnmo_bids.model.weights import FORMAT_VERSION

CHECKPOINT = "checkpoint.pt"

FIGURE = "curves.png"
VALIDATION = ("total", "segmentation", "classification", "cross", "dsc", "accuracy")
COLUMNS = (
    "step", "rate", "seconds", "data_seconds", "total", "segmentation", "classification", "cross",
    *(f"validation_{name}" for name in VALIDATION),
)  # fmt: skip
_COLOURS = {"total": "0.15", "segmentation": "C3", "classification": "C0", "cross": "C2"}
#: What is drawn in which colour: losses as running means.
_PANELS = {
    "loss": {**_COLOURS, **{f"validation_{name}": colour for name, colour in _COLOURS.items()}},
    "validation": {"validation_dsc": "C3", "validation_accuracy": "C0"},
    "learning rate": {"rate": "0.15"},
}


def identity_of(network: nn.Module, **settings: Any) -> dict[str, Any]:
    """Return what must be equal in all parts of one training, flat and JSON-ready.

    The network is told by its class and the shapes of its weights (``network``), and by the format
    of weights (``format``), which changes when the same ones mean something else; settings, single
    ones or mappings of them, by ``name`` or ``name.key``.
    """
    shapes = [f"{key}{list(value.shape)}" for key, value in network.state_dict().items()]
    flat: dict[str, Any] = {"network": f"{type(network).__name__}: {', '.join(shapes)}"}
    flat["format"] = FORMAT_VERSION
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[name] = value
    return json.loads(json.dumps(flat))


def save_checkpoint(path: Path, state: dict[str, Any], identity: dict[str, Any]) -> None:
    """Write a checkpoint atomically, with the training's `identity_of`.

    `state` has tensors, numbers, texts, and lists and dicts of them.
    """
    with atomic_path(path) as temporary:
        torch.save({**state, "identity": json.dumps(identity)}, temporary)


def load_checkpoint(path: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """Read a checkpoint, and clear away what a killed process left unfinished beside it.

    The tensors are on the CPU; None if there is no checkpoint. `identity` is that of the training
    that wants to go on.

    Raises
    ------
    UsageError
        If the checkpoint is of another training; the message says in what they differ.
    BadInputError
        If the file cannot be read.
    """
    remove_unfinished(path)
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        problem = f"is not a checkpoint that can be read ({' '.join(str(error).split())[:120]})"
        remedy = "Delete it to start the training again"
        raise BadInputError(problem, file=path, remedy=remedy) from error
    written = json.loads(state.pop("identity", "{}"))
    if written != identity:
        raise UsageError(
            f"was written by another training: {differences(written, identity)}",
            file=path,
            remedy="Run it with the settings that it was started with, or choose another folder",
        )
    return state


def differences(written: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Say in words in what two identities of trainings differ."""
    words = []
    for key in {**written, **wanted}:
        before, now = written.get(key, "nothing"), wanted.get(key, "nothing")
        if before != now:
            words.append(key if key == "network" else f"{key} was {before} and is {now}")
    return ", ".join(words)


class Curves:
    """Writes ``curves.csv`` and ``curves.png`` into a folder, which must exist."""

    def __init__(self, folder: Path) -> None:
        self.table, self.figure = folder / CURVES, folder / FIGURE

    def resume(self, step: int) -> None:
        """Drop the rows after a step: the training does those steps again."""
        rows = [row for row in read_curves(self.table) if row["step"] <= step]
        write_text(self.table, ",".join(COLUMNS) + "\n" + "".join(map(_line, rows)))

    def append(self, row: Mapping[str, float]) -> None:
        """Add a row; columns that it lacks stay empty."""
        with self.table.open("a", encoding="utf-8", newline="") as stream:
            stream.write(_line(row))

    def draw(self) -> None:
        """Draw the losses, the validation's measures and the learning rate over the steps."""
        table = pd.DataFrame(read_curves(self.table)).reindex(columns=COLUMNS).set_index("step")
        with figure_file((8, 9), self.figure) as figure:
            panels = figure.subplots(len(_PANELS), 1, sharex=True)
            for axes, (label, colours) in zip(panels, _PANELS.items(), strict=True):
                for name, colour in colours.items():
                    column = table[name].dropna()
                    style = {"marker": "o", "ms": 3, "ls": "--"} if "validation" in name else {}
                    if not style:
                        column = column.rolling(max(1, len(column) // 50)).mean().dropna()
                    if column.any():
                        axes.plot(column.index, column, color=colour, label=name, lw=1.2, **style)
                axes.set(ylabel=label)
                if axes.get_legend_handles_labels()[0]:
                    axes.legend(fontsize=8, ncols=2)
            panels[-1].set(xlabel="step")


def _line(row: Mapping[str, float]) -> str:
    """Return a row as a line of CSV."""
    cells = [f"{row[name]:.6g}" if name in row else "" for name in COLUMNS]
    cells[0] = f"{row['step']:.0f}"
    return ",".join(cells) + "\n"
