"""The meta-analysis that ships with the program: its table, its other results, its misprint."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
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


@lru_cache(maxsize=1)
def sidecar() -> dict[str, Any]:
    """Return the sidecar of the shipped table.

    Returns
    -------
    dict
        Source, columns, ``Printed`` (what the paper prints for this table) and ``Reference`` (its
        pooled results by measure).
    """
    file = (files("msnmo_bids.evaluation") / "data" / TABLE).with_suffix(".json")
    return json.loads(file.read_text(encoding="utf-8"))
