"""The section of a participant's page about the change between visits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msnmo_bids.bids.text_files import Row, read_tsv
from msnmo_bids.bids.visits import BY_LABELS
from msnmo_bids.reports.change_figure import CHANGE_COLOURS
from msnmo_bids.reports.page import data_uri
from msnmo_bids.reports.sections import Participant, Section, make_section
from msnmo_bids.vocabulary import CHANGE_REASONS, CHANGES


@dataclass(frozen=True)
class VisitsRecord:
    """What is known of the comparison of two visits.

    Parameters
    ----------
    earlier, later : str
        Labels of the sessions, without ``ses-``.
    name : str
        Of the comparison.
    record : mapping
        Content of its record; empty without results.
    table, figure : Path
        Where its table of lesions and its figure are, if there are results.
    problem : str
        Why there are no results; empty when there are, or when nothing is known.
    """

    earlier: str
    later: str
    name: str
    record: Mapping[str, Any]
    table: Path
    figure: Path
    problem: str = ""

    @property
    def title(self) -> str:
        """Heading."""
        return f"ses-{self.earlier} to ses-{self.later}"

    @property
    def order(self) -> str:
        """How it is known which visit came first, in a sentence."""
        source = self.record.get("OrderOfVisits", BY_LABELS)
        if source != BY_LABELS:
            return f"The visits are in the order of the dates in {source}."
        if self.notes:
            return "The visits are in the order of their labels."
        return "There are no dates: the visits are in the order of their labels."

    @property
    def notes(self) -> list[str]:
        """What a reader must know of the order, and of the choice of the two scans."""
        return list(self.record.get("Notes") or ())

    @property
    def interval(self) -> str:
        """Time between the visits."""
        days = self.record.get("IntervalDays")
        return "not known" if days is None else f"{days:.0f} days"


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
