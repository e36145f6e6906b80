"""The curves of a training: a table with a row per step, and a figure of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from msnmo_bids.bids.dataset import atomic_path, write_text
from msnmo_bids.evaluation.crossval import CURVES, read_curves

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FIGURE = "curves.png"
VALIDATION = ("total", "segmentation", "classification", "cross", "dsc", "accuracy")
COLUMNS = (
    "step", "rate", "seconds", "data_seconds", "total", "segmentation", "classification", "cross",
    *(f"validation_{name}" for name in VALIDATION),
)  # fmt: skip
_COLOURS = {"total": "0.15", "segmentation": "C3", "classification": "C0", "cross": "C2"}


class Curves:
    """Writes ``curves.csv`` and ``curves.png`` into a folder.

    Parameters
    ----------
    folder : Path
        It must exist.
    """

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
        from matplotlib.figure import Figure

        table = pd.DataFrame(read_curves(self.table)).reindex(columns=COLUMNS)
        figure = Figure(figsize=(8, 9))
        figure.subplots_adjust(left=0.1, right=0.98, bottom=0.06, top=0.98, hspace=0.08)
        losses, measures, rates = figure.subplots(3, 1, sharex=True, height_ratios=(2, 1.4, 1))
        for name, colour in _COLOURS.items():
            _plot(losses, table, name, colour=colour, smooth=True)
            _plot(losses, table, f"validation_{name}", colour=colour, marker="o", linestyle="--")
        losses.set(ylabel="loss (running mean)")
        _plot(measures, table, "validation_dsc", colour="C3", marker="o")
        _plot(measures, table, "validation_accuracy", colour="C0", marker="o")
        measures.set(ylabel="validation", ylim=(0, 1))
        _plot(rates, table, "rate", colour="0.15")
        rates.set(ylabel="learning rate", xlabel="step", yscale="log")
        for axes in (losses, measures):
            if axes.get_legend_handles_labels()[0]:
                axes.legend(fontsize=8, ncols=2)
        with atomic_path(self.figure) as temporary:
            figure.savefig(temporary, dpi=100)


def _line(row: Mapping[str, float]) -> str:
    """Return a row as a line of CSV."""
    cells = [f"{row[name]:.6g}" if name in row else "" for name in COLUMNS]
    cells[0] = f"{row['step']:.0f}"
    return ",".join(cells) + "\n"


def _plot(
    axes: Axes, table: pd.DataFrame, name: str, *, colour: str, smooth: bool = False, **style: Any
) -> None:
    """Draw a column where it has values other than 0."""
    column = table.set_index("step")[name].dropna()
    if not column.any():
        return
    if smooth:
        column = column.rolling(max(1, len(column) // 50)).mean().dropna()
    label = name.replace("validation_", "validation ")
    axes.plot(column.index, column, color=colour, label=label, markersize=3, linewidth=1.2, **style)
