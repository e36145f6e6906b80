"""What changed between two visits in numbers: counts, volumes, rates a year."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msnmo_bids.vocabulary import CHANGES

DAYS_A_YEAR = 365.25
#: Over a shorter time the error of two segmentations, divided by it, is not a rate (days).
SHORTEST_INTERVAL = 60.0


def summary(table: Sequence[dict[str, Any]], interval_days: float | None) -> dict[str, Any]:
    """Sum a table of changes up.

    Parameters
    ----------
    table : sequence of dict
        From :func:`msnmo_bids.visits.compare.compare`.
    interval_days : float or None
        Time between the visits; None when it is not known.

    Returns
    -------
    dict
        ``Counts`` of each class; ``VolumeEarlier``, ``VolumeLater`` and ``VolumeChange`` of all
        lesions (ml, half-way space), ``NewVolume`` and ``VanishedVolume`` (ml) of the lesions of
        these classes; ``RatesPerYear``: new and enlarging lesions, ``VolumeChange`` (ml) and
        ``VolumeChangePercent`` of the earlier volume; None without dates or over a short time.
    """
    counts = {change: sum(row["change"] == change for row in table) for change in CHANGES}
    before, after = (
        sum(row[f"volume_{which}_mm3"] for row in table) / 1000 for which in ("earlier", "later")
    )
    found: dict[str, Any] = {
        "Counts": counts,
        "VolumeEarlier": round(before, 4),
        "VolumeLater": round(after, 4),
        "VolumeChange": round(after - before, 4),
        "NewVolume": _volume(table, "new", "later"),
        "VanishedVolume": _volume(table, "vanished", "earlier"),
    }
    return found | {"RatesPerYear": _rates(found, interval_days)}


def _volume(table: Sequence[dict[str, Any]], change: str, which: str) -> float:
    return round(sum(r[f"volume_{which}_mm3"] for r in table if r["change"] == change) / 1000, 4)


def _rates(found: dict[str, Any], interval_days: float | None) -> dict[str, float | None] | None:
    if interval_days is None or interval_days < SHORTEST_INTERVAL:
        return None
    years = interval_days / DAYS_A_YEAR
    change, before = found["VolumeChange"], found["VolumeEarlier"]
    return {
        "New": round(found["Counts"]["new"] / years, 3),
        "Enlarging": round(found["Counts"]["enlarging"] / years, 3),
        "VolumeChange": round(change / years, 4),
        "VolumeChangePercent": round(100 * change / before / years, 2) if before > 0 else None,
    }
