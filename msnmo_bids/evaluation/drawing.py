"""A figure without pyplot's state, written as PNG or SVG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from msnmo_bids.bids.dataset import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150


@contextmanager
def figure_file(size: tuple[float, float], *out: Path) -> Iterator[Figure]:
    """Give a figure and write it at the end; equal figures are equal files.

    Parameters
    ----------
    size : tuple of float
        Width and height, inches.
    *out : Path
        Files, PNG or SVG by their suffix.

    Yields
    ------
    Figure
        To draw on.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({
            "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "msnmo",
        })  # fmt: skip
        figure = Figure(figsize=size, layout="constrained")
        yield figure
        for file in out:
            unnamed = {"Date": None} if file.suffix == ".svg" else None
            with atomic_path(file) as temporary:
                figure.savefig(temporary, dpi=DPI, metadata=unnamed)
