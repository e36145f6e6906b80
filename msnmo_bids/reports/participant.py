"""The report of one participant, ``sub-XX.html``, self-contained: its sections in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.bids.names import report_path
from msnmo_bids.bids.records import ScanRecord, Status, VisitsRecord, class_names, in_order
from msnmo_bids.bids.text_files import Row, read_tsv
from msnmo_bids.reports.figures import CHANGE_COLOURS
from msnmo_bids.reports.methods import methods
from msnmo_bids.reports.page import data_uri, render
from msnmo_bids.reports.scan_view import cost, flatten, provenance, scan_view
from msnmo_bids.reports.viewer import PAGE_BUDGET
from msnmo_bids.vocabulary import CHANGE_REASONS, CHANGES


@dataclass(frozen=True)
class Participant:
    """What the sections of a page are made from: fields as for `write_participant_report`."""

    output_dir: Path
    subject: str
    records: list[ScanRecord]
    settings: Mapping[str, Any]
    version: str
    changes: Sequence[VisitsRecord] = ()
    left_out: Sequence[str] = ()

    @cached_property
    def done(self) -> list[ScanRecord]:
        """Scans with results."""
        return [record for record in self.records if record.status == Status.COMPLETE]

    @cached_property
    def problems(self) -> list[ScanRecord]:
        """Scans without results."""
        return [record for record in self.records if record.status != Status.COMPLETE]

    @cached_property
    def classes(self) -> list[str]:
        """Diagnosis classes, in the network's order."""
        return class_names(self.done)

    def count(self, status: Status) -> int:
        """Return the number of scans of a status."""
        return sum(record.status == status for record in self.records)


@dataclass(frozen=True)
class Section:
    """One section: its identifier, its name in the list of contents, its whole element."""

    anchor: str
    title: str
    body: Markup


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
    page = Participant(output_dir, subject, in_order(scans), settings, version, changes, left_out)
    text = render(
        "participant.html.j2",
        sections=[section for make in SECTIONS for section in make(page)],
        title=f"sub-{subject}",
        visits=len({record.session for record in page.records}),
        count={status: page.count(status) for status in Status},
        scans=len(page.records),
        version=version,
    )
    target = output_dir / report_path(subject)
    with atomic_path(target) as temporary:  # anew even if equal: its time says what it knows
        temporary.write_text(text, encoding="utf-8")
    return target


def _section(template: str, anchor: str, title: str, **values: Any) -> Section:
    """Fill a template that holds one ``<section>`` element and takes anchor and title as well."""
    body = render(template, anchor=anchor, title=title, **values)
    return Section(anchor, title, Markup(body))


def _problems(page: Participant) -> list[Section]:
    """List the scans without results and why; nothing when all have some."""
    if not page.problems:
        return []
    title = "Errors" if page.count(Status.FAILED) else "Scans without results"
    return [_section("problems.html.j2", "errors", title, problems=page.problems)]


def _summary(page: Participant) -> list[Section]:
    """Show one row per scan."""
    found = {"records": page.done, "problems": page.problems, "classes": page.classes}
    return [_section("summary.html.j2", "summary", "Summary", **found)]


def _visits(page: Participant) -> list[Section]:
    """Show what changed between consecutive visits, and what was not compared."""
    if not page.changes and not page.left_out:
        return []
    notes = [*page.left_out, *(note for visits in page.changes for note in visits.notes)]
    views = [
        {
            "visits": visits,
            "figure": data_uri(visits.figure) if visits.record else None,
            "lesions": _changed_first(read_tsv(visits.table).rows) if visits.record else [],
        }
        for visits in page.changes
    ]
    return [
        _section(
            "visits.html.j2",
            "visits",
            "Between visits",
            views=views,
            notes=list(dict.fromkeys(notes)),
            levels=CHANGES,
            reasons=CHANGE_REASONS,
            colours=CHANGE_COLOURS,
        )
    ]


def _changed_first(rows: Sequence[Row]) -> list[Row]:
    order = list(CHANGE_COLOURS)
    return sorted(rows, key=lambda row: order.index(row["change"]))


def _scans(page: Participant) -> list[Section]:
    """Show each scan with results; they share the room for viewers."""
    views = [
        scan_view(page.output_dir, record, page.classes, PAGE_BUDGET // len(page.done))
        for record in page.done
    ]
    return [_section("scan.html.j2", v.record.prefix, v.record.title, view=v) for v in views]


def _methods(page: Participant) -> list[Section]:
    """Say what was done, with references."""
    records: dict[str, Mapping[str, Any]] = {s.title: s.diagnosis for s in page.done}
    records |= {visits.title: visits.record for visits in page.changes}
    return [_section("methods.html.j2", "methods", "Methods", methods=methods(records))]


def _provenance(page: Participant) -> list[Section]:
    """Show how each scan's results were made, and the settings of this run."""
    return [
        _section(
            "provenance.html.j2",
            "provenance",
            "Provenance",
            scans=[(record.title, provenance(record), cost(record)) for record in page.done],
            settings=flatten(page.settings),
            version=page.version,
        )
    ]


#: The page from top to bottom; a function without anything to say returns an empty list.
SECTIONS: tuple[Callable[[Participant], list[Section]], ...] = (
    _problems,
    _summary,
    _visits,
    _scans,
    _methods,
    _provenance,
)
