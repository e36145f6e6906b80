"""The page of the group level: what to look at first, then the table, then the figures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from msnmo_bids.bids.names import io_spec, report_path
from msnmo_bids.bids.records import ScanRecord, Status
from msnmo_bids.diagnosis import INDETERMINATE
from msnmo_bids.evaluation.metrics import CLASS_METRICS, MASK_METRICS
from msnmo_bids.evaluation.statistics import DRAWS
from msnmo_bids.evaluation.summary import Measure
from msnmo_bids.evaluation.tables import HEADINGS
from msnmo_bids.group.accuracy import NO_RESULT
from msnmo_bids.group.cohort import Cohort
from msnmo_bids.group.distribution import plots
from msnmo_bids.group.evaluation import Evaluation
from msnmo_bids.group.review_list import KINDS
from msnmo_bids.group.tables import shown_name
from msnmo_bids.reports.page import class_colour, data_uri, render

#: Rows of the list of what to look at first, and of others beside; the tables hold all.
SHOWN = 100


def page(
    cohort: Cohort,
    evaluation: Evaluation,
    maps: Mapping[str, tuple[Path, int]],
    map_figure: Path | None,
    *,
    version: str,
) -> str:
    """Write the page out: HTML that asks for nothing from elsewhere.

    Parameters
    ----------
    cohort, evaluation : Cohort, Evaluation
        All scans; what is known of the model's errors.
    maps : mapping of str to (Path, int)
        Lesion frequency maps and their number of people, by class.
    map_figure : Path or None
        Their figure.
    version : str
        Version of the program.
    """
    groups = [*cohort.classes, INDETERMINATE]
    groups += sorted({str(r.diagnosis["Diagnosis"]) for r in cohort.done} - set(groups))
    colours = {name: class_colour(cohort.classes, name) for name in groups}
    return render(
        "group.html.j2",
        **_overview(cohort, groups),
        **_scans(cohort),
        **_accuracy(cohort, evaluation),
        **_masks(cohort, evaluation),
        colours=colours,
        plots=plots(cohort, groups, colours),
        figures={item: data_uri(file) for item, file in evaluation.figures.items() if file},
        maps=maps,
        map_uri=data_uri(map_figure) if map_figure else None,
        pooling=[
            (measure, texts, data_uri(figure) if figure else None)
            for measure, texts, figure in evaluation.pooling
        ],
        costs=step_costs(cohort.done),
        columns=cohort.columns,
        headings=HEADINGS,
        link=link,
        shown_rows=SHOWN,
        table_name=io_spec()["reports"]["group_table"],
        version=version,
    )


def _overview(cohort: Cohort, groups: Sequence[str]) -> dict[str, Any]:
    """Return the numbers at the top, and what to look at first."""
    records = cohort.records
    named = [record.diagnosis["Diagnosis"] for record in cohort.done]
    return {
        "participants": len({record.subject for record in records}),
        "count": {s: sum(record.status == s for record in records) for s in Status},
        "decisions": [(name, named.count(name)) for name in groups],
        "quality": cohort.quality,
        "quality_counts": Counter(colour for colour, _ in cohort.quality.values()),
        "review_list": _review_list(cohort),
    }


def _scans(cohort: Cohort) -> dict[str, Any]:
    """Return what the table of all scans shows, and its filters."""
    return {
        "records": list(zip(cohort.records, cohort.rows, strict=True)),
        "classes": cohort.classes,
        "covariates": cohort.covariates,
        "reference": cohort.with_diagnoses,
        "with_site": any(own.site for own in cohort.covariates.values()),
        "filters": _filters(cohort),
        "common": _common_flags(cohort.done),
    }


def _accuracy(cohort: Cohort, evaluation: Evaluation) -> dict[str, Any]:
    """Return what the part on the diagnoses shows; without accuracy its limits are notes."""
    return {
        "accuracy": evaluation.accuracy,
        "notes": cohort.notes + ([] if evaluation.accuracy else evaluation.limits),
        "limits": evaluation.limits,
        "positive": cohort.positive,
        "draws": DRAWS,
        "confusion_columns": [*cohort.classes, INDETERMINATE, NO_RESULT],
        "accuracy_heads": [HEADINGS[metric][0] for metric in CLASS_METRICS],
        "accuracy_rows": _measures(evaluation),
        "disagreeing": _disagreeing(cohort),
    }


def _masks(cohort: Cohort, evaluation: Evaluation) -> dict[str, Any]:
    """Return what the part on the lesion masks shows."""
    agreement, rows, means = evaluation.agreement, [], []
    if agreement is not None:
        by_name = {record.relative: record for record in cohort.records}
        rows = [(by_name[scan], row) for scan, row in agreement.metrics.items()]
        means = [
            (HEADINGS[metric][0], cell(metric, agreement.measures[metric]))
            for metric in (*MASK_METRICS, "pooled_dsc")
        ]
    return {
        "agreement": agreement,
        "agreement_rows": rows,
        "agreement_means": means,
        "segmentation_metrics": MASK_METRICS,
    }


def link(record: ScanRecord) -> str:
    """Return where a scan's results stand: the participant's page, at the scan if it has any."""
    place = f"#{record.prefix}" if record.diagnosis else ""
    return report_path(record.subject) + place


def _common_flags(found: Sequence[ScanRecord]) -> list[str]:
    """Return the flags that all of several scans have, to be said once."""
    if len(found) < 2:
        return []
    return sorted(set.intersection(*(set(record.diagnosis["Flags"]) for record in found)))


def _filters(cohort: Cohort) -> list[tuple[str, str, list[str]]]:
    """Return name, title and choices of the drop-down filters that tell scans apart."""
    records, covariates = cohort.records, cohort.covariates
    choices = [
        ("status", "Status", [str(r.status) for r in records]),
        ("quality", "Quality", [colour for colour, _ in cohort.quality.values()]),
        ("pattern", "Pattern", [str(r.diagnosis["Diagnosis"]) for r in records if r.diagnosis]),
        ("known", "participants.tsv", [covariates[r.relative].diagnosis or "n/a" for r in records]),
        ("site", "Site", [covariates[r.relative].site or "n/a" for r in records]),
    ]
    return [
        (name, title, sorted(set(values)))
        for name, title, values in choices
        if len(set(values)) > 1
    ]


def _review_list(cohort: Cohort) -> list[tuple[str, str, int, list[Any]]]:
    """Return kind, title, number and the first ones of what to look at, in order."""
    listed = []
    for kind, title in KINDS.items():
        items = [item for item in cohort.review_list if item.kind == kind]
        if items:
            listed.append((kind, title, len(items), items[:SHOWN]))
    return listed


def _measures(evaluation: Evaluation) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Return value, interval and number of scans of each metric, a row for each set of scans."""
    if evaluation.accuracy is None:
        return []
    return [
        (
            shown_name(name),
            [cell(metric, measures[metric]) for metric in CLASS_METRICS],
        )
        for name, measures in evaluation.accuracy.measures.items()
    ]


def cell(metric: str, measure: Measure) -> tuple[str, str, str]:
    """Return a measure's value, its interval or why there is none, and its number of scans."""
    factor = HEADINGS[metric][1]
    if measure.value is None:
        return "n/a", "", "no scans" if not measure.scans else ""
    low, high = measure.interval.low, measure.interval.high
    interval = ""
    if low is not None and high is not None:
        interval = f"[{factor * low:.1f}, {factor * high:.1f}]"
    return f"{factor * measure.value:.1f}", interval, f"{measure.scans} of {measure.subjects}"


def _disagreeing(cohort: Cohort) -> list[tuple[ScanRecord, str, str]]:
    """Return the scans that the model names otherwise than the raw data set."""
    return [
        (record, known, str(record.diagnosis["Diagnosis"]))
        for record in cohort.records
        if (known := cohort.covariates[record.relative].diagnosis)
        and record.diagnosis.get("Diagnosis") in cohort.classes
        and record.diagnosis["Diagnosis"] != known
    ]


class StepCost(NamedTuple):
    """What a step cost: medians of seconds (processor time: of all cores) over the scans measured.

    ``memory_gb`` is the largest peak of a process, ``share`` that of the longest step's median.
    """

    step: str
    scans: int
    wall_seconds: float
    cpu_seconds: float
    memory_gb: float
    share: float


def step_costs(records: Sequence[ScanRecord]) -> list[StepCost]:
    """Summarise what processing cost, in the order in which a scan goes through the steps.

    Scans whose run did not measure it count for nothing.
    """
    by_step: dict[str, list[dict[str, float]]] = {}
    for record in records:
        for step, cost in record.steps.items():
            by_step.setdefault(step, []).append(cost)
    wall = {step: median(c["WallSeconds"] for c in costs) for step, costs in by_step.items()}
    longest = max(wall.values(), default=0) or 1
    return [
        StepCost(
            step=step,
            scans=len(costs),
            wall_seconds=wall[step],
            cpu_seconds=median(cost["CPUSeconds"] for cost in costs),
            memory_gb=max(cost["MemoryGB"] for cost in costs),
            share=wall[step] / longest,
        )
        for step, costs in by_step.items()
    ]
