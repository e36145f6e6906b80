"""The parts of a participant's page: each is a function from what is known to a section."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from markupsafe import Markup

from msnmo_bids.bids.records import ScanRecord, Status, VisitsRecord, class_names
from msnmo_bids.bids.text_files import Row, read_tsv
from msnmo_bids.reports.change_figure import CHANGE_COLOURS
from msnmo_bids.reports.methods import methods
from msnmo_bids.reports.page import data_uri, render
from msnmo_bids.vocabulary import CHANGE_REASONS, CHANGES


@dataclass(frozen=True)
class Participant:
    """What the sections of a participant's page are made from.

    Parameters
    ----------
    output_dir : Path
        Output folder.
    subject : str
        Label without ``sub-``.
    records : list of ScanRecord
        All scans, in order.
    settings : mapping
        Processing settings of the run that writes the page.
    version : str
        Version of the program.
    changes : sequence of VisitsRecord
        Comparisons of consecutive visits, in order.
    left_out : sequence of str
        Visits and scans that are in no comparison, and why.
    """

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

    @property
    def visits(self) -> int:
        """Number of sessions."""
        return len({record.session for record in self.records})

    def count(self, status: Status) -> int:
        """Return the number of scans of a status."""
        return sum(record.status == status for record in self.records)


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Parameters
    ----------
    anchor : str
        Its identifier in the page.
    title : str
        Its name in the list of contents.
    body : Markup
        The whole ``<section>`` element.
    """

    anchor: str
    title: str
    body: Markup


def make_section(template: str, anchor: str, title: str, **values: Any) -> Section:
    """Fill the template of a section.

    Parameters
    ----------
    template : str
        File name in ``templates/``; it holds one ``<section>`` element.
    anchor, title : str
        As of `Section`; the template gets both.
    **values
        What else the template names.

    Returns
    -------
    Section
    """
    body = render(template, anchor=anchor, title=title, **values)
    return Section(anchor, title, Markup(body))


def problems_section(page: Participant) -> list[Section]:
    """List the scans without results and why; nothing when all have some."""
    if not page.problems:
        return []
    title = "Errors" if page.count(Status.FAILED) else "Scans without results"
    return [make_section("problems.html.j2", "errors", title, problems=page.problems)]


def summary_section(page: Participant) -> list[Section]:
    """Show one row per scan."""
    return [
        make_section(
            "summary.html.j2",
            "summary",
            "Summary",
            records=page.done,
            problems=page.problems,
            classes=page.classes,
        )
    ]


def visits_section(page: Participant) -> list[Section]:
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
        make_section(
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


def methods_section(page: Participant) -> list[Section]:
    """Say what was done, with references."""
    records: dict[str, Mapping[str, Any]] = {s.title: s.diagnosis for s in page.done}
    records |= {visits.title: visits.record for visits in page.changes}
    text = methods(records)
    return [make_section("methods.html.j2", "methods", "Methods", methods=text)]


def header(page: Participant) -> dict[str, Any]:
    """Return what the head of the page shows."""
    return {
        "title": f"sub-{page.subject}",
        "visits": page.visits,
        "count": {status: page.count(status) for status in Status},
        "scans": len(page.records),
        "version": page.version,
    }
