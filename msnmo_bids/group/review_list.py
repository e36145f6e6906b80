"""What to look at first: failures, poor images, scans that stand apart or were not processed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from msnmo_bids.bids.dataset import read_record
from msnmo_bids.bids.names import derivative_name
from msnmo_bids.bids.records import ScanRecord, Status

FAILURE, POOR, OUTLIER, DOUBTFUL, WAITING = "failed", "red", "outlier", "amber", "missing"
#: In the order in which they are shown.
KINDS = {
    FAILURE: "Processing failed",
    POOR: "Quality red: no diagnosis is named",
    OUTLIER: "Stands apart from the cohort",
    DOUBTFUL: "Quality amber",
    WAITING: "Not processed",
}

#: Iglewicz and Hoaglin (1993) call a value with a larger modified z-score an outlier.
LIMIT = 3.5
#: With fewer scans nothing stands apart.
MIN_SCANS = 10
#: Visits of one person: change of the brain's volume (share), and of the lesions' (factor, ml).
BRAIN_CHANGE, LESION_FACTOR, LESION_CHANGE_ML = 0.05, 3.0, 2.0

_TO_SD = 0.6745  # of a normal distribution: MAD / s.d.
_MEAN_TO_SD = 0.7979  # and mean absolute deviation / s.d.


@dataclass(frozen=True)
class ReviewItem:
    """A scan to look at, for a reason (one line) of a kind (key of `KINDS`)."""

    kind: str
    record: ScanRecord
    reason: str


def review_list(
    records: Sequence[ScanRecord],
    outliers: Mapping[str, Sequence[str]],
    quality: Mapping[str, tuple[str, Sequence[str]]],
) -> list[ReviewItem]:
    """List the scans to look at first, by kind, then by scan; one stands there once for each kind.

    By scan, `outliers` have reasons, and `quality` has ``green``, ``amber`` or ``red``, and why.
    """
    found = []
    for record in records:
        if record.status == Status.FAILED:
            remedy = f". {record.remedy}" if record.remedy else ""
            found.append(ReviewItem(FAILURE, record, f"{record.reason}{remedy}"))
        elif record.status == Status.PENDING:
            found.append(ReviewItem(WAITING, record, record.reason))
        if record.relative in outliers:
            found.append(ReviewItem(OUTLIER, record, "; ".join(outliers[record.relative])))
        colour, reasons = quality.get(record.relative, ("", ()))
        if colour in (POOR, DOUBTFUL):
            found.append(ReviewItem(colour, record, "; ".join(reasons)))
    places = list(KINDS)
    return sorted(found, key=lambda item: places.index(item.kind))


class Quantity(NamedTuple):
    """A key of the diagnosis file that is compared over the cohort.

    ``offset`` is added before the logarithm, on whose scale values are about symmetric; None: they
    are so by themselves.
    """

    key: str
    title: str
    unit: str
    offset: float | None = None


QUANTITIES = (
    Quantity("BrainVolume", "brain volume", " ml"),
    Quantity("LesionVolume", "lesion volume", " ml", 0.1),
    Quantity("LesionCount", "number of lesions", "", 1),
)


def outliers(records: Sequence[ScanRecord]) -> dict[str, list[str]]:
    """Find scans whose brain volume, lesion volume or count stands apart; return their reasons.

    A scan stands apart from all others by the modified z-score, ``0.6745 (x - median) / MAD``
    (Iglewicz and Hoaglin 1993), lesions on a logarithmic scale; and from the same person's visit
    before by more than `BRAIN_CHANGE`, or `LESION_FACTOR` and `LESION_CHANGE_ML`. `records` are in
    order.
    """
    found: dict[str, list[str]] = {}
    done = [record for record in records if record.status == Status.COMPLETE]
    reasons = [reason for quantity in QUANTITIES for reason in _apart(done, quantity)]
    for record, reason in reasons + _between_visits(done):
        found.setdefault(record.relative, []).append(reason)
    return found


def modified_z(values: np.ndarray) -> np.ndarray:
    """Return modified z-scores of numbers, both (N,); 0 where all are equal.

    They are by the median absolute deviation; where more than half of the numbers are equal, by
    the mean absolute deviation.

    Examples
    --------
    >>> modified_z(np.array([1.0, 2.0, 3.0])).round(2).tolist()
    [-0.67, 0.0, 0.67]
    """
    distance = values - np.median(values)
    spread = float(np.median(np.abs(distance))) / _TO_SD
    if spread == 0:
        spread = float(np.mean(np.abs(distance))) / _MEAN_TO_SD
    return distance / spread if spread > 0 else np.zeros_like(distance)


def _apart(records: Sequence[ScanRecord], quantity: Quantity) -> list[tuple[ScanRecord, str]]:
    known = [record for record in records if record.diagnosis[quantity.key] is not None]
    if len(known) < MIN_SCANS:
        return []
    values = np.array([float(record.diagnosis[quantity.key]) for record in known])
    scores = modified_z(values if quantity.offset is None else np.log(values + quantity.offset))
    median = f"{_number(float(np.median(values)))}{quantity.unit}"
    found = []
    for record, value, score in zip(known, values, scores, strict=True):
        if abs(score) > LIMIT:
            side = "above" if score > 0 else "below"
            text = (
                f"{quantity.title} of {_number(value)}{quantity.unit}, far {side} the cohort's "
                f"median of {median} (modified z {score:.1f})"
            )
            found.append((record, text))
    return found


def _between_visits(records: Sequence[ScanRecord]) -> list[tuple[ScanRecord, str]]:
    found = []
    for before, after in pairwise(records):
        if before.subject != after.subject:
            continue
        brain = [record.diagnosis["BrainVolume"] for record in (before, after)]
        if all(brain) and abs(brain[1] - brain[0]) > BRAIN_CHANGE * brain[0]:
            change = 100 * (brain[1] - brain[0]) / brain[0]
            text = f"brain volume {change:+.0f} % against {before.title}: check both brain masks"
            found.append((after, text))
        load = [record.diagnosis["LesionVolume"] for record in (before, after)]
        if None in load or abs(load[1] - load[0]) < LESION_CHANGE_ML:
            continue
        if max(load) > LESION_FACTOR * min(load):
            one, other = (_number(value) for value in load)
            text = f"lesion volume of {other} ml, {one} ml at {before.title}"
            found.append((after, text))
    return found


def _number(value: float) -> str:
    """Round to three digits.

    Examples
    --------
    >>> _number(1234.5), _number(1.2345)
    ('1234', '1.23')
    """
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def read_quality(
    output_dir: Path, records: Sequence[ScanRecord]
) -> dict[str, tuple[str, list[str]]]:
    """Read the quality checks as the participant level has written them: colour and reasons.

    Colours are green, amber or red, by scan; scans without a check are left out.
    """
    found = {}
    for record in records:
        checked = record.diagnosis.get("Quality")
        if isinstance(checked, Mapping) and checked.get("Level"):
            level, reasons = str(checked["Level"]), [str(r) for r in checked.get("Reasons") or []]
            if level == DOUBTFUL and not reasons:
                reasons = _amber_figures(output_dir, record)
            found[record.relative] = (level, reasons)
    return found


def _amber_figures(output_dir: Path, record: ScanRecord) -> list[str]:
    """Name the figures of a scan's quality file that are amber."""
    path = output_dir / record.folder / derivative_name(record.prefix, "quality")
    figures = (read_record(path) or {}).get("Figures") or {}
    return [
        f"{name} {figure.get('Value')} {figure.get('Unit', '')}".strip()
        for name, figure in figures.items()
        if isinstance(figure, Mapping) and figure.get("Level") == DOUBTFUL
    ] or ["see the participant's page"]
