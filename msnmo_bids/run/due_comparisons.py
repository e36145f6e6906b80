"""Which visits are to be compared, and which comparisons of earlier runs are kept."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from pathlib import Path
from typing import Any

from msnmo_bids.bids.changes import is_compared, remove_stale, why_not_comparable
from msnmo_bids.bids.comparisons import Comparison, comparisons, left_out
from msnmo_bids.bids.resume import diagnosis_path
from msnmo_bids.bids.scans import Scan
from msnmo_bids.text import merged
from msnmo_bids.version import get_version
from msnmo_bids.visits.rule import DEFAULT_RULE, SPACING_MM


def method() -> dict[str, Any]:
    """Return what a comparison depends on besides its scans: version and limits."""
    return {"version": get_version(), "spacing": SPACING_MM, **DEFAULT_RULE.record()}


def possible_comparisons(scans: Iterable[Scan], output_dir: Path) -> list[Comparison]:
    """Return the comparisons of the scans that have derivatives, in order.

    Parameters
    ----------
    scans : iterable of Scan
        All of the participants in question.
    output_dir : Path
        Output folder.

    Returns
    -------
    list of Comparison
        A scan without derivatives is passed over: its neighbours are compared.
    """
    done = [scan for scan in scans if diagnosis_path(scan, output_dir).is_file()]
    return comparisons(done)


def why_left_out(scans: Sequence[Scan], output_dir: Path) -> list[str]:
    """Name the visits and scans that are in no comparison, and why; one line per kind."""
    return merged(left_out(scans, possible_comparisons(scans, output_dir)))


def due_comparisons(
    scans: Sequence[Scan], running: Container[str], output_dir: Path
) -> tuple[Comparison, ...]:
    """Return the comparisons to make when some scans have been run.

    Parameters
    ----------
    scans : sequence of Scan
        All of the participants in question.
    running : container of str
        Scans that will be run (relative paths).
    output_dir : Path
        Output folder.

    Returns
    -------
    tuple of Comparison
    """

    def runs(scan: Scan) -> bool:
        return scan.relative in running

    there = [scan for scan in scans if runs(scan) or diagnosis_path(scan, output_dir).is_file()]
    limits = method()
    return tuple(
        comparison
        for comparison in comparisons(there)
        if runs(comparison.earlier)
        or runs(comparison.later)
        or (
            why_not_comparable(comparison, output_dir) is None
            and not is_compared(comparison, output_dir, limits)
        )
    )


def tidy_comparisons(subjects: Iterable[str], scans: Iterable[Scan], output_dir: Path) -> None:
    """Remove what earlier runs left of comparisons that are not complete now.

    Parameters
    ----------
    subjects : iterable of str
        Labels without ``sub-``.
    scans : iterable of Scan
        Scans whose comparisons are kept, if they are complete.
    output_dir : Path
        Output folder.
    """
    limits = method()
    complete = [
        comparison
        for comparison in possible_comparisons(scans, output_dir)
        if why_not_comparable(comparison, output_dir) is None
        and is_compared(comparison, output_dir, limits)
    ]
    for subject in subjects:
        own = [comparison for comparison in complete if comparison.subject == subject]
        remove_stale(subject, own, output_dir)
