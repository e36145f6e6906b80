"""The meta-analysis that ships with the program: its table, its other results, its misprint."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

TABLE = "meta-analysis.tsv"


@dataclass(frozen=True)
class Published:
    """A pooled result of the paper, for a line in a plot.

    Parameters
    ----------
    label : str
        What was pooled, such as ``published CNNs``.
    effect, low, high : float
        With its 95 % interval (%).
    """

    label: str
    effect: float
    low: float
    high: float

    @property
    def text(self) -> str:
        """Label and numbers.

        Examples
        --------
        >>> reference("DSC (%)").text
        'published CNNs: 63.78 [58.29, 69.27]'
        """
        return f"{self.label}: {self.effect:.2f} [{self.low:.2f}, {self.high:.2f}]"


def reference(measure: str) -> Published | None:
    """Return what the paper has pooled for a measure.

    Parameters
    ----------
    measure : str
        Heading with its unit, such as ``DSC (%)``.

    Returns
    -------
    Published or None
        None for a measure that the paper has not.
    """
    about = sidecar()["Reference"].get(measure)
    return None if about is None else Published(**about)


@contextmanager
def table() -> Iterator[Path]:
    """Give the path of the shipped table; its sidecar stands beside it.

    Yields
    ------
    Path
        Tab-separated table, as `msnmo_bids.evaluation.meta.table` reads it.
    """
    with as_file(files("msnmo_bids.evaluation") / "data") as folder:
        yield folder / TABLE


@lru_cache(maxsize=1)
def sidecar() -> dict[str, Any]:
    """Return the sidecar of the shipped table.

    Returns
    -------
    dict
        Source, columns, ``Printed`` (what the paper prints for this table) and ``Reference`` (its
        pooled results by measure).
    """
    with table() as file:
        return json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
