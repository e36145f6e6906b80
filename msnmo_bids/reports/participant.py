"""The report of one participant, ``sub-XX.html``, self-contained: its sections in their order."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from markupsafe import Markup

from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.bids.names import derivative_name, figure_path, report_path
from msnmo_bids.bids.records import ScanRecord, Status, VisitsRecord, class_names, in_order
from msnmo_bids.bids.sidecars import MORPHOMETRY_COLUMNS
from msnmo_bids.bids.text_files import Row, read_tsv
from msnmo_bids.decision import diseases_of
from msnmo_bids.lesions.regions import LOCATIONS, NMOSD_LOCATIONS
from msnmo_bids.quality import LIMITS, Limit
from msnmo_bids.reports.figures import CHANGE_COLOURS
from msnmo_bids.reports.methods import methods
from msnmo_bids.reports.page import class_colour, data_uri, render
from msnmo_bids.reports.viewer import PAGE_BUDGET, scan_viewer
from msnmo_bids.text import duration
from msnmo_bids.vocabulary import CHANGE_REASONS, CHANGES, LOOK_ALIKES, REGION_NAMES

logger = logging.getLogger(__name__)

NOT_MEASURED = "not measured"
_WORDS = frozenset({"region", "sites"})  # columns of the lesion table that hold no numbers
_SPEAKERS = 3  # lesions that are named as speaking for a class, and as many against it
#: Keys of the diagnosis file that the page shows elsewhere than under its provenance.
_SHOWN_ELSEWHERE = frozenset({"Description", "Disclaimer", "Probabilities", "Regions", "Sites",
                              "Quality", "Outputs", "Methods", "Margin",
                              "Flags", "Diagnosis", "Reason", "LesionCount", "LesionCountSmall",
                              "LesionVolume", "BrainVolume"})  # fmt: skip


def write_participant_report(
    output_dir: Path,
    subject: str,
    scans: Sequence[ScanRecord],
    *,
    changes: Sequence[VisitsRecord] = (),
    left_out: Sequence[str] = (),
) -> Path:
    """Write the report of one participant, ``sub-XX.html``, from what is on disk and what failed.

    Parameters
    ----------
    subject : str
        Label without ``sub-``.
    scans : sequence of ScanRecord
        Every scan of the participant, as it stands on disk
        (:func:`~msnmo_bids.bids.records.read_scan`).
    changes, left_out : sequence of VisitsRecord, of str
        Comparisons of consecutive visits, in order; visits and scans that are in none, and why.
    """
    records = in_order(scans)
    text = render(
        "participant.html.j2",
        sections=list(_sections(output_dir, records, changes, left_out)),
        title=f"sub-{subject}",
        visits=len({record.session for record in records}),
        count={status: sum(one.status == status for one in records) for status in Status},
        scans=len(records),
    )
    target = output_dir / report_path(subject)
    with atomic_path(target) as temporary:  # anew even if equal: its time says what it knows
        temporary.write_text(text, encoding="utf-8")
    return target


class Section(NamedTuple):
    """One section: its identifier, its name in the list of contents, its whole element."""

    anchor: str
    title: str
    body: Markup


def _section(template: str, anchor: str, title: str, **values: Any) -> Section:
    """Fill a template that holds one ``<section>`` element and takes anchor and title as well."""
    body = render(template, anchor=anchor, title=title, **values)
    return Section(anchor, title, Markup(body))


def _sections(
    output_dir: Path,
    records: Sequence[ScanRecord],
    changes: Sequence[VisitsRecord],
    left_out: Sequence[str],
) -> Iterator[Section]:
    """Make the page's sections, from top to bottom."""
    done = [record for record in records if record.status == Status.COMPLETE]
    problems = [record for record in records if record.status != Status.COMPLETE]
    classes = class_names(done)
    if problems:
        failed = any(record.status == Status.FAILED for record in problems)
        title = "Errors" if failed else "Scans without results"
        yield _section("problems.html.j2", "errors", title, problems=problems)
    found = {"records": done, "problems": problems, "classes": classes}
    yield _section("summary.html.j2", "summary", "Summary", **found)
    if changes or left_out:
        yield _visits(changes, left_out)
    for record in done:
        view = _scan_view(output_dir, record, classes, PAGE_BUDGET // len(done))
        yield _section("scan.html.j2", record.prefix, record.title, view=view)
    texts: dict[str, Mapping[str, Any]] = {record.title: record.diagnosis for record in done}
    texts |= {visits.title: visits.record for visits in changes}
    yield _section("methods.html.j2", "methods", "Methods", methods=methods(texts))
    scans = [(record.title, _provenance(record), _cost(record)) for record in done]
    yield _section("provenance.html.j2", "provenance", "Provenance", scans=scans)


def _visits(changes: Sequence[VisitsRecord], left_out: Sequence[str]) -> Section:
    """Show what changed between consecutive visits, and what was not compared."""
    order = list(CHANGE_COLOURS)
    views = []
    for visits in changes:
        rows: Sequence[Row] = read_tsv(visits.table).rows if visits.record else ()
        lesions = sorted(rows, key=lambda row: order.index(row["change"]))
        figure = data_uri(visits.figure) if visits.record else None
        views.append({"visits": visits, "figure": figure, "lesions": lesions})
    notes = [*left_out, *(note for visits in changes for note in visits.notes)]
    return _section(
        "visits.html.j2",
        "visits",
        "Between visits",
        views=views,
        notes=list(dict.fromkeys(notes)),
        levels=CHANGES,
        reasons=CHANGE_REASONS,
        colours=CHANGE_COLOURS,
    )


def _scan_view(
    output_dir: Path, record: ScanRecord, classes: list[str], budget: int
) -> dict[str, Any]:
    """Gather what ``scan.html.j2`` shows of a scan; the viewer has `budget` characters."""
    diagnosis, folder = record.diagnosis, output_dir / record.folder
    lesions, problem = _lesions(folder / derivative_name(record.prefix, "morphometry"))
    places = _measures(LOCATIONS, diagnosis.get("Sites") or {})
    return {
        "record": record,
        "scores": _scores(record, classes),
        "figures": {
            kind: data_uri(output_dir / figure_path(record.subject, record.prefix, kind))
            for kind in ("lesions", "cam", "brainmask", "bias")
        },
        "quality": _quality(folder / derivative_name(record.prefix, "quality")),
        "viewer": scan_viewer(output_dir, record, budget),
        "regions": _measures(REGION_NAMES, diagnosis["Regions"]),
        "locations": [(*row, row[0] in NMOSD_LOCATIONS) for row in places],
        "lesions": lesions,
        "table_problem": problem,
        "evidence": _evidence(diagnosis.get("Margin"), lesions),
    }


def _lesions(file: Path) -> tuple[list[dict[str, str]], str]:
    """Read the lesion table; where somebody saved it in another form, say so in its place."""
    table = read_tsv(file)
    if not file.exists():
        return [], f"{file.name} is missing: run the participant level again."
    problem = table.problem or ("index" not in table.columns and table.without("index")) or ""
    lesions = [{name: row.get(name) or "n/a" for name in MORPHOMETRY_COLUMNS} for row in table.rows]
    numbers = [row[name] for row in lesions for name in MORPHOMETRY_COLUMNS if name not in _WORDS]
    try:
        [float(text) for text in numbers if text != "n/a"]
    except ValueError as error:
        problem = problem or f"{error} (decimal commas?)"
    if problem:
        problem = f"{file.name}: the lesion table is not used: {problem}"
        logger.warning("%s. Run the participant with --overwrite to get it again", problem)
    return ([], problem) if problem else (lesions, "")


def _scores(record: ScanRecord, classes: list[str]) -> list[dict[str, Any]]:
    """Return class scores as bars, and where on the bar its limit is; it may be nowhere."""
    limits = (record.diagnosis.get("NamingLimits") or {}) if record.has_pattern else {}
    scores = {n: float(v) for n, v in record.diagnosis["Probabilities"].items()}
    diseases = sum(scores[name] for name in diseases_of(scores))
    return [
        {
            "name": name,
            "value": value,
            "colour": class_colour(classes, name) if record.has_pattern else "#999999",
            "percent": f"{100 * min(max(value, 0.0), 1.0):.1f}%",
            "limit": f"{100 * limits[name] * (1 if name in LOOK_ALIKES else diseases):.1f}%"
            if limits.get(name) is not None
            else None,
            "limit_means": "above, no disease is named"
            if name in LOOK_ALIKES
            else f"{name} is named from here",
        }
        for name, value in scores.items()
    ]


class Evidence(NamedTuple):
    """Disease with the highest score, the next, and the lesions that speak most for and against."""

    name: str
    over: str
    speaks_for: list[dict[str, str]]
    against: list[dict[str, str]]


def _evidence(
    margin: Mapping[str, Any] | None, lesions: Sequence[dict[str, str]]
) -> Evidence | None:
    rows = [row for row in lesions if row["contribution"] != "n/a"]
    if not margin or not rows:
        return None
    rows.sort(key=lambda row: float(row["contribution"]), reverse=True)
    speaks_for = [row for row in rows[:_SPEAKERS] if float(row["contribution"]) > 0]
    against = [row for row in rows[: -_SPEAKERS - 1 : -1] if float(row["contribution"]) < 0]
    return Evidence(margin["Class"], margin["Over"], speaks_for, against)


class Quality(NamedTuple):
    """Level and contrast of the image; a row per figure: limit, value, level."""

    level: str
    contrast: str
    rows: list[tuple[Limit, float | None, str]]


def _quality(file: Path) -> Quality:
    """Read the quality file; without one nothing is known."""
    try:
        content = json.loads(file.read_text("utf-8"))
        figures = content["Figures"]
        rows = [
            (limit, figures[limit.name]["Value"], figures[limit.name]["Level"] or NOT_MEASURED)
            for limit in LIMITS
            if limit.name in figures
        ]
        return Quality(content["Level"], content["Contrast"], rows)
    except (OSError, ValueError, KeyError, TypeError):
        return Quality(NOT_MEASURED, "unknown", [])


def _measures(
    known: Iterable[str], measures: Mapping[str, Mapping[str, Any]]
) -> list[tuple[str, int, float]]:
    """Return name, count and volume (ml) of regions or locations, the known ones first, always."""
    names = dict.fromkeys([*known, *measures])
    found = [(name, measures.get(name) or {}) for name in names]
    return [(name, int(r.get("Count", 0)), float(r.get("Volume", 0.0))) for name, r in found]


def _provenance(record: ScanRecord) -> list[tuple[str, str]]:
    return _flatten({k: v for k, v in record.diagnosis.items() if k not in _SHOWN_ELSEWHERE})


def _cost(record: ScanRecord) -> str:
    """Say in one line what processing a scan cost; empty where that was not measured."""
    if not record.steps:
        return ""
    steps = record.steps.values()
    wall, cpu = (sum(step[key] for step in steps) for key in ("WallSeconds", "CPUSeconds"))
    slowest = max(record.steps, key=lambda step: record.steps[step]["WallSeconds"])
    return (
        f"Processing took {duration(wall)} ({duration(cpu)} of processor time) and at most "
        f"{max(step['MemoryGB'] for step in steps):.1f} GB of memory in one process; the longest "
        f"step was {slowest}, {duration(record.steps[slowest]['WallSeconds'])}."
    )


def _flatten(content: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Turn nested settings, part of what is named `above`, into name and value of table rows.

    Examples
    --------
    >>> _flatten({"Model": {"Name": "joint", "TrainedOn": ["a", "b"]}, "Seed": 0})
    [('Model · Name', 'joint'), ('Model · TrainedOn', 'a, b'), ('Seed', '0')]
    """
    rows: list[tuple[str, str]] = []
    for name, value in content.items():
        title = f"{above} · {name}" if above else str(name)
        if isinstance(value, Mapping):
            rows += _flatten(value, title)
        elif isinstance(value, list | tuple):
            rows.append((title, ", ".join(map(str, value)) or "none"))
        else:
            rows.append((title, "n/a" if value is None else str(value)))
    return rows
