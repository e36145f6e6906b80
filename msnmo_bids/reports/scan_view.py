"""What a participant's page shows of a scan: scores, figures, the table of its lesions, methods."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msnmo_bids.bids.names import derivative_name, figure_path
from msnmo_bids.bids.records import ScanRecord
from msnmo_bids.bids.sidecars import MORPHOMETRY_COLUMNS
from msnmo_bids.bids.text_files import read_tsv
from msnmo_bids.lesions.regions import LOCATIONS, NMOSD_LOCATIONS
from msnmo_bids.quality import LIMITS, Limit
from msnmo_bids.reports.page import class_colour, data_uri
from msnmo_bids.reports.viewer import Viewer, scan_viewer
from msnmo_bids.text import duration
from msnmo_bids.vocabulary import REGION_NAMES

NOT_MEASURED = "not measured"
_SPEAKERS = 3  # lesions that are named as speaking for a class, and as many against it
_SECONDS = ("WallSeconds", "CPUSeconds")
#: Keys of the diagnosis file that the page shows elsewhere.
_SHOWN_ELSEWHERE = frozenset({"Description", "Disclaimer", "Probabilities", "Regions", "Sites",
                              "Quality", "Outputs", "Methods", "Margin",
                              "Flags", "Diagnosis", "Reason", "LesionCount", "LesionCountSmall",
                              "LesionVolume", "BrainVolume"})  # fmt: skip


@dataclass(frozen=True)
class Score:
    """A class, its score, and the least score with which it is named, ready to be drawn as a bar.

    Without a limit `least` is 0; None: the class is never named.
    """

    name: str
    value: float
    colour: str
    least: float | None = 0.0

    @property
    def percent(self) -> str:
        """Length of the bar."""
        return f"{100 * min(max(self.value, 0.0), 1.0):.1f}%"

    @property
    def needed(self) -> str | None:
        """Where on the bar the limit lies."""
        return f"{100 * self.least:.1f}%" if self.least else None


@dataclass(frozen=True)
class Evidence:
    """The lesions that speak most for the class with the highest score, and most against it.

    Parameters
    ----------
    name, over : str
        The class, and the next.
    speaks_for, against : list of dict
        Rows of the lesion table, the strongest first, at most three each.
    """

    name: str
    over: str
    speaks_for: list[dict[str, str]]
    against: list[dict[str, str]]


@dataclass(frozen=True)
class Quality:
    """Level and contrast of the image; a row per figure: limit, value, level."""

    level: str
    contrast: str
    rows: list[tuple[Limit, float | None, str]]


@dataclass(frozen=True)
class ScanView:
    """What the template shows of a scan."""

    record: ScanRecord
    scores: list[Score]
    figures: dict[str, str | None]
    regions: list[tuple[str, int, float]]
    locations: list[tuple[str, int, float, bool]]
    lesions: list[dict[str, str]]
    evidence: Evidence | None
    quality: Quality
    viewer: Viewer | None


def provenance(record: ScanRecord) -> list[tuple[str, str]]:
    """Return name and value of what the diagnosis file says and the page shows nowhere else."""
    return flatten({k: v for k, v in record.diagnosis.items() if k not in _SHOWN_ELSEWHERE})


def cost(record: ScanRecord) -> str:
    """Say in one line what processing a scan cost; empty where that was not measured."""
    if not record.steps:
        return ""
    wall, cpu = (sum(step[key] for step in record.steps.values()) for key in _SECONDS)
    peak = max(step["MemoryGB"] for step in record.steps.values())
    slowest = max(record.steps, key=lambda step: record.steps[step]["WallSeconds"])
    return (
        f"Processing took {duration(wall)} ({duration(cpu)} of processor time) and at most "
        f"{peak:.1f} GB of memory in one process; the longest step was {slowest}, "
        f"{duration(record.steps[slowest]['WallSeconds'])}."
    )


def scan_view(output_dir: Path, record: ScanRecord, classes: list[str], budget: int) -> ScanView:
    """Gather what the page shows of a scan with results; the viewer has `budget` characters."""
    diagnosis = record.diagnosis
    limits = (diagnosis.get("NamingLimits") or {}) if record.has_pattern else {}
    scores = [
        Score(
            name,
            float(value),
            class_colour(classes, name) if record.has_pattern else "#999999",
            limits.get(name, 0.0),
        )
        for name, value in (diagnosis.get("Probabilities") or {}).items()
    ]
    figures = {
        kind: data_uri(output_dir / figure_path(record.subject, record.prefix, kind))
        for kind in ("lesions", "cam", "brainmask", "bias")
    }
    table = output_dir / record.folder / derivative_name(record.prefix, "morphometry")
    lesions = [
        {column: row.get(column) or "n/a" for column in MORPHOMETRY_COLUMNS}
        for row in read_tsv(table).rows
    ]
    return ScanView(
        record=record,
        scores=scores,
        figures=figures,
        quality=_quality(output_dir / record.folder, record.prefix),
        viewer=scan_viewer(output_dir, record, budget),
        regions=_measures(REGION_NAMES, diagnosis.get("Regions") or {}),
        locations=[
            (*row, row[0] in NMOSD_LOCATIONS)
            for row in _measures(LOCATIONS, diagnosis.get("Sites") or {})
        ],
        lesions=lesions,
        evidence=_evidence(diagnosis.get("Margin"), lesions),
    )


def _evidence(
    margin: Mapping[str, Any] | None, lesions: Sequence[dict[str, str]]
) -> Evidence | None:
    """Choose the lesions that speak most for and most against a class."""
    rows = [row for row in lesions if row["contribution"] != "n/a"]
    if not margin or not rows:
        return None
    rows.sort(key=lambda row: float(row["contribution"]), reverse=True)
    speaks_for = [row for row in rows[:_SPEAKERS] if float(row["contribution"]) > 0]
    against = [row for row in rows[: -_SPEAKERS - 1 : -1] if float(row["contribution"]) < 0]
    return Evidence(margin["Class"], margin["Over"], speaks_for, against)


def _quality(folder: Path, prefix: str) -> Quality:
    """Read the quality file; without one nothing is known."""
    try:
        content = json.loads((folder / derivative_name(prefix, "quality")).read_text("utf-8"))
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


def flatten(content: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Turn nested settings, part of what is named `above`, into name and value of table rows.

    Examples
    --------
    >>> flatten({"Model": {"Name": "joint", "TrainedOn": ["a", "b"]}, "Seed": 0})
    [('Model · Name', 'joint'), ('Model · TrainedOn', 'a, b'), ('Seed', '0')]
    """
    rows: list[tuple[str, str]] = []
    for name, value in content.items():
        title = f"{above} · {name}" if above else str(name)
        if isinstance(value, Mapping):
            rows += flatten(value, title)
        elif isinstance(value, list | tuple):
            rows.append((title, ", ".join(map(str, value)) or "none"))
        else:
            rows.append((title, "n/a" if value is None else str(value)))
    return rows
