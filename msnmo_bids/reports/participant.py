"""The report of one participant: ``sub-XX.html``, self-contained."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msnmo_bids.bids.names import report_path
from msnmo_bids.reports.page import render
from msnmo_bids.reports.records import FAILED, in_order, read_scan
from msnmo_bids.reports.scan import provenance_section, scan_sections
from msnmo_bids.reports.sections import (
    Participant,
    Section,
    header,
    methods_section,
    problems_section,
    summary_section,
)
from msnmo_bids.reports.visits import VisitsRecord, visits_section

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
    scans: Sequence[Mapping[str, Any]],
    failures: Sequence[Mapping[str, Any]],
    *,
    changes: Sequence[VisitsRecord] = (),
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
    scans : sequence of mapping
        An entry as in ``run.json`` for every scan of the participant: ``Scan``, ``Prefix``,
        ``Folder``, ``Subject``, ``Session``, ``Status``, …
    failures : sequence of mapping
        Entries of the scans that failed, with ``Step``, ``Message``, ``Remedy``, ``CrashFile``;
        they may also be about scans that ``scans`` lacks.
    changes : sequence of VisitsRecord
        Comparisons of consecutive visits, in order.
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

    entries = {entry["Scan"]: entry for entry in scans}
    for failure in failures:
        known = entries.get(failure["Scan"], {})
        entries[failure["Scan"]] = {**known, **failure, "Status": FAILED}
    page = Participant(
        output_dir=output_dir,
        subject=subject,
        records=in_order(read_scan(output_dir, entry) for entry in entries.values()),
        settings=settings,
        version=version,
        changes=changes,
    )
    sections = [section for make in SECTIONS for section in make(page)]
    text = render("participant.html.j2", sections=sections, **header(page))
    target = output_dir / report_path(subject)
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return target
