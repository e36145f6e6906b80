"""Write a meta-analysis: tables with dictionaries, forest and funnel plots, text and page."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import write_json, write_text, write_tsv
from msnmo_bids.evaluation.meta.check import Check, checks
from msnmo_bids.evaluation.meta.plots import forest_plot, funnel_plot
from msnmo_bids.evaluation.meta.rows import TABLES, table_rows
from msnmo_bids.evaluation.meta.studies import Studies
from msnmo_bids.evaluation.meta.summary import (
    RULE,
    Analysis,
    analyse,
    egger_text,
    heterogeneity,
    sentences,
)
from msnmo_bids.reports.page import data_uri, render
from msnmo_bids.version import get_version

LOGGER = logging.getLogger(__name__)
PAGE, TEXT = "meta.html", "meta.txt"


@dataclass(frozen=True)
class Section:
    """One measure on the page.

    Parameters
    ----------
    anchor : str
        Its name in file names and links.
    found : Analysis
        What was computed.
    paragraphs : list of str
        In words.
    figures : list of (Path, str, str)
        PNG, title and caption.
    checks : list of Check
        Beside what a paper prints; empty without any.
    """

    anchor: str
    found: Analysis
    paragraphs: list[str]
    figures: list[tuple[Path, str, str]]
    checks: list[Check]

    @property
    def shown(self) -> list[tuple[str | None, str, str]]:
        """The figures as data URIs."""
        return [(data_uri(file), title, text) for file, title, text in self.figures]


def write_meta(
    out: Path, poolings: Sequence[Studies], *, sources: Sequence[str], notes: Sequence[str] = ()
) -> Path:
    """Pool every measure, and write ``tables/``, ``figures/``, ``meta.txt`` and ``meta.html``.

    Parameters
    ----------
    out : Path
        Folder.
    poolings : sequence of Studies
        One a measure; those without any study are named and left out.
    sources : sequence of str
        What was read.
    notes : sequence of str, optional
        What the page's reader must know of the data.

    Returns
    -------
    Path
        The page.
    """
    for data in poolings:
        for name, reason in data.left_out:
            LOGGER.warning("%s, %s: left out (%s)", data.measure, name, reason)
    empty = [data for data in poolings if not data.studies]
    sections = [_section(analyse(data), out / "figures") for data in poolings if data.studies]
    for section in sections:
        for check in section.checks:
            if not check.agrees:
                LOGGER.warning(
                    "%s, %s: computed %s, printed %s%s", section.found.data.measure, check.what,
                    check.computed, check.printed, f" ({check.hint})" if check.hint else "",
                )  # fmt: skip
    for name, columns in TABLES.items():
        rows = [row for section in sections for row in table_rows(name, section.found)]
        write_tsv(out / "tables" / f"{name}.tsv", list(columns), rows)
        write_json(out / "tables" / f"{name}.json", columns)
    text = [*(f"Source: {source}" for source in sources), *notes]
    for section in sections:
        text += [section.found.data.measure, *section.paragraphs, *map(_check_text, section.checks)]
    write_text(out / TEXT, "\n\n".join(text) + "\n")
    page = out / PAGE
    write_text(page, _page(sections, empty, sources, notes))
    return page


def _section(found: Analysis, folder: Path) -> Section:
    anchor = re.sub(r"\W+", "-", found.data.name.lower()).strip("-") or "effect"
    figures = [_drawn(folder / f"{anchor}_forest", forest_plot, found)]
    titles = [("Forest plot", _forest_caption(found))]
    for group in found.subgroups:
        stem = re.sub(r"\W+", "-", group.column.lower())
        figures.append(_drawn(folder / f"{anchor}_forest_{stem}", forest_plot, found, group=group))
        titles.append((f"Forest plot by {group.column}", "Diamonds of groups: fixed effect."))
    if len(found.data.studies) > 2:
        figures.append(_drawn(folder / f"{anchor}_funnel", funnel_plot, found))
        titles.append(("Funnel plot", f"Egger's test: {egger_text(found.egger)}."))
    shown = [(file, *title) for file, title in zip(figures, titles, strict=True)]
    return Section(anchor, found, sentences(found), shown, checks(found))


def _drawn(stem: Path, draw: Any, found: Analysis, **options: Any) -> Path:
    """Draw as SVG and PNG; return the PNG, which is smaller and looks alike everywhere."""
    svg, png = (stem.with_name(stem.name + suffix) for suffix in (".svg", ".png"))
    draw(found, svg, png, **options)
    return png


def _forest_caption(found: Analysis) -> str:
    if found.pooled.studies == 1:
        return "One study: there is nothing to pool."
    return (
        f"Squares: {found.data.plural}, larger with more weight; lines: 95 % intervals. Black "
        f"diamond: the model chosen; white: the other one. {heterogeneity(found.pooled)}."
    )


def _check_text(check: Check) -> str:
    state = "as printed" if check.agrees else f"DIFFERS from the printed {check.printed}"
    return f"{check.what}: {check.computed}, {state}{f' ({check.hint})' if check.hint else ''}"


def _page(
    sections: Sequence[Section],
    empty: Sequence[Studies],
    sources: Sequence[str],
    notes: Sequence[str],
) -> str:
    return render(
        "meta.html.j2",
        sections=sections,
        empty=empty,
        sources=sources,
        notes=notes,
        rule=RULE,
        tables=list(TABLES),
        rows=[
            [(name, columns, table_rows(name, section.found)) for name, columns in TABLES.items()]
            for section in sections
        ],
        version=get_version(),
    )
