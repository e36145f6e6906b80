"""The report of one participant: ``sub-XX.html``, self-contained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import read_table
from msnmo_bids.bids.names import derivative_name, figure_path, report_path
from msnmo_bids.bids.sidecars import MORPHOMETRY_COLUMNS
from msnmo_bids.reports.methods import methods
from msnmo_bids.reports.page import class_colour, data_uri, render
from msnmo_bids.reports.records import (
    FAILED,
    MISSING,
    OK,
    ScanRecord,
    class_names,
    in_order,
    read_scan,
)
from msnmo_bids.reports.wording import REGION_NAMES

#: Keys of the diagnosis file that the page shows elsewhere.
_SHOWN_ELSEWHERE = frozenset({"Description", "Disclaimer", "Probabilities", "Regions", "Outputs",
                              "Flags", "Diagnosis", "Reason", "LesionCount", "LesionCountSmall",
                              "LesionVolume", "BrainVolume"})  # fmt: skip


@dataclass(frozen=True)
class Score:
    """A class and its score, ready to be drawn as a bar."""

    name: str
    value: float
    colour: str

    @property
    def percent(self) -> str:
        """Length of the bar."""
        return f"{100 * min(max(self.value, 0.0), 1.0):.1f}%"


@dataclass(frozen=True)
class ScanView:
    """What the template shows of a scan."""

    record: ScanRecord
    scores: list[Score]
    figures: dict[str, str | None]
    regions: list[tuple[str, int, float]]
    lesions: list[dict[str, str]]
    provenance: list[tuple[str, str]]

    @property
    def needed(self) -> str | None:
        """Where on a bar the score lies from which on a diagnosis is named."""
        score = self.record.diagnosis.get("MinimumClassProbability")
        return f"{100 * score:.1f}%" if score and self.record.has_pattern else None


def write_participant_report(
    output_dir: Path,
    subject: str,
    scans: Sequence[Mapping[str, Any]],
    failures: Sequence[Mapping[str, Any]],
    *,
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
    records = in_order(read_scan(output_dir, entry) for entry in entries.values())
    done = [record for record in records if record.status == OK]
    classes = class_names(done)
    page = render(
        "participant.html.j2",
        title=f"sub-{subject}",
        records=records,
        views=[_view(output_dir, record, classes) for record in done],
        problems=[record for record in records if record.status != OK],
        count={
            status: sum(r.status == status for r in records) for status in (OK, FAILED, MISSING)
        },
        classes=classes,
        visits=len({record.session for record in records}),
        methods=methods({record.title: record.diagnosis for record in done}),
        settings=flatten(settings),
        version=version,
    )
    target = output_dir / report_path(subject)
    with atomic_path(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _view(output_dir: Path, record: ScanRecord, classes: list[str]) -> ScanView:
    diagnosis = record.diagnosis
    scores = [
        Score(name, float(value), class_colour(classes, name) if record.has_pattern else "#999999")
        for name, value in (diagnosis.get("Probabilities") or {}).items()
    ]
    figures = {
        kind: data_uri(output_dir / figure_path(record.subject, record.prefix, kind))
        for kind in ("lesions", "cam", "brainmask", "bias")
    }
    table = output_dir / record.folder / derivative_name(record.prefix, "morphometry")
    return ScanView(
        record=record,
        scores=scores,
        figures=figures,
        regions=_regions(diagnosis.get("Regions") or {}),
        lesions=[
            {column: row.get(column) or "n/a" for column in MORPHOMETRY_COLUMNS}
            for row in read_table(table)
        ],
        provenance=flatten({k: v for k, v in diagnosis.items() if k not in _SHOWN_ELSEWHERE}),
    )


def _regions(regions: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, int, float]]:
    """Return name, count and volume (ml) of each region, the known ones first and always."""
    names = dict.fromkeys([*REGION_NAMES, *regions])
    found = [(name, regions.get(name) or {}) for name in names]
    return [(name, int(r.get("Count", 0)), float(r.get("Volume", 0.0))) for name, r in found]


def flatten(content: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    """Turn nested settings into rows of a table.

    Parameters
    ----------
    content : mapping
        JSON-like.
    above : str
        Name of what it is part of.

    Returns
    -------
    list of (str, str)
        Name and value.

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
