"""The report of one participant: ``sub-XX.html``, self-contained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msnmo_bids.bids.names import report_path
from msnmo_bids.bids.records import ScanRecord, VisitsRecord, in_order
from msnmo_bids.reports.page import render
from msnmo_bids.reports.scan_sections import provenance_section, scan_sections
from msnmo_bids.reports.sections import (
    Participant,
    Section,
    header,
    methods_section,
    problems_section,
    summary_section,
    visits_section,
)

#: The page from top to bottom; a function without anything to say returns an empty list.
SECTIONS: tuple[Callable[[Participant], list[Section]], ...] = (
    problems_section,
    summary_section,
    visits_section,
    scan_sections,
    methods_section,
    provenance_section,
)


def write_participant_report(
    output_dir: Path,
    subject: str,
    scans: Sequence[ScanRecord],
    *,
    changes: Sequence[VisitsRecord] = (),
    left_out: Sequence[str] = (),
    settings: Mapping[str, Any],
    version: str,
) -> Path:
    """Write the report of one participant from what is on disk and what failed.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    subject : str
        Label without ``sub-``.
    scans : sequence of ScanRecord
        Every scan of the participant, as it stands on disk
        (:func:`~msnmo_bids.bids.records.read_scan`).
    changes : sequence of VisitsRecord
        Comparisons of consecutive visits, in order.
    left_out : sequence of str
        Visits and scans that are in no comparison, and why.
    settings : mapping
        Processing settings of the run that writes the report.
    version : str
        Version of the program.

    Returns
    -------
    Path
        ``sub-XX.html``.
    """
    from msnmo_bids.bids.dataset import atomic_path

    page = Participant(
        output_dir=output_dir,
        subject=subject,
        records=in_order(scans),
        settings=settings,
        version=version,
        changes=changes,
        left_out=left_out,
    )
    sections = [section for make in SECTIONS for section in make(page)]
    text = render("participant.html.j2", sections=sections, **header(page))
    target = output_dir / report_path(subject)
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target
