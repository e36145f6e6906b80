"""The colour of each scan's quality check, as the participant level has written it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msnmo_bids.reports.records import ScanRecord

COLOURS = ("green", "amber", "red")


def read_quality(
    output_dir: Path, records: Sequence[ScanRecord]
) -> dict[str, tuple[str, list[str]]]:
    """Read the quality checks.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    records : sequence of ScanRecord
        All scans.

    Returns
    -------
    dict of str to (str, list of str)
        Colour and reasons by scan; scans without a check are left out.
    """
    return {}
