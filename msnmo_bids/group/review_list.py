"""What to look at first: failures, poor images, outliers, scans that were not processed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True)
class ReviewItem:
    """A scan to look at.

    Parameters
    ----------
    kind : str
        Key of `KINDS`.
    record : ScanRecord
        The scan.
    reason : str
        Why, in one line.
    """

    kind: str
    record: ScanRecord
    reason: str


def review_list(
    records: Sequence[ScanRecord],
    outliers: Mapping[str, Sequence[str]],
    quality: Mapping[str, tuple[str, Sequence[str]]],
) -> list[ReviewItem]:
    """List the scans to look at first.

    Parameters
    ----------
    records : sequence of ScanRecord
        All scans, in order.
    outliers : mapping of str to sequence of str
        Scan -> reasons.
    quality : mapping of str to (str, sequence of str)
        Scan -> ``green``, ``amber`` or ``red``, and why.

    Returns
    -------
    list of ReviewItem
        By kind, then by scan; a scan stands there once for each kind.
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
