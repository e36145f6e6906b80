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
from msnmo_bids.evaluation import classification, segmentation
from msnmo_bids.evaluation.statistics import DRAWS
from msnmo_bids.evaluation.summary import Measure
from msnmo_bids.evaluation.tables import HEADINGS
from msnmo_bids.group.accuracy import NO_RESULT
from msnmo_bids.group.cohort import Cohort
from msnmo_bids.group.distribution import Plot, Scatter, distribution, over_age
from msnmo_bids.group.evaluation import Evaluation
from msnmo_bids.group.review_list import KINDS
from msnmo_bids.group.tables import shown_name
from msnmo_bids.reports.page import class_colour, data_uri, render

VOLUME_FLOOR_ML, COUNT_FLOOR = 0.01, 0.5
#: Rows of the list of what to look at first, and of others beside; the tables hold all.
SHOWN = 100
#: Groups of a distribution; the rest is put together.
GROUPS = 12
OTHERS, UNKNOWN = "others", "not known"
_PLAIN = "#4c6a83"
_VOLUME = "Lesion volume (ml)"


def page(
    cohort: Cohort,
    evaluation: Evaluation,
    maps: Mapping[str, tuple[Path, int]],
    map_figure: Path | None,
    *,
    version: str,
    by_reference: bool,
) -> str:
    """Write the page out.

    Parameters
    ----------
    cohort : Cohort
        All scans.
    evaluation : Evaluation
        What is known of the model's errors.
    maps : mapping of str to (Path, int)
        Lesion frequency maps and their number of people, by class.
    map_figure : Path or None
        Their figure.
    version : str
        Version of the program.
    by_reference : bool
        Whether the maps' classes are the raw data set's.

    Returns
    -------
    str
        HTML that asks for nothing from elsewhere.
    """
    records = cohort.records
    found = [record for record in records if record.status == Status.COMPLETE]
    groups = [*cohort.classes, INDETERMINATE]
    groups += sorted({str(r.diagnosis["Diagnosis"]) for r in found} - set(groups))
    colours = {name: class_colour(cohort.classes, name) for name in groups}
    shown = {item: data_uri(file) for item, file in evaluation.figures.items() if file}
    return render(
        "group.html.j2",
        records=list(zip(records, cohort.rows, strict=True)),
        report_path=report_path,
        link=link,
        classes=cohort.classes,
        colours=colours,
        reference=any(own.diagnosis for own in cohort.covariates.values()),
        with_site=any(own.site for own in cohort.covariates.values()),
        covariates=cohort.covariates,
        filters=_filters(cohort),
        count={s: sum(r.status == s for r in records) for s in Status},
        participants=len({record.subject for record in records}),
        common=_common_flags(found),
        decisions=[(g, sum(r.diagnosis["Diagnosis"] == g for r in found)) for g in groups],
        review_list=_review_list(cohort),
        notes=cohort.notes + ([] if evaluation.accuracy else evaluation.limits),
        quality=cohort.quality,
        quality_counts=Counter(colour for colour, _ in cohort.quality.values()),
        plots=plots(cohort, found, groups, colours),
        accuracy=evaluation.accuracy,
        limits=evaluation.limits,
        confusion_columns=[*cohort.classes, INDETERMINATE, NO_RESULT],
        accuracy_rows=_measures(evaluation),
        accuracy_heads=[HEADINGS[metric][0] for metric in classification.METRICS],
        disagreeing=_disagreeing(cohort),
        positive=cohort.positive,
        draws=DRAWS,
        agreement=evaluation.agreement,
        agreement_rows=_agreement_rows(cohort, evaluation),
        agreement_means=_agreement_means(evaluation),
        segmentation_metrics=segmentation.METRICS,
        headings=HEADINGS,
        figures=shown,
        pooling=[
            (measure, texts, data_uri(figure) if figure else None)
            for measure, texts, figure in evaluation.pooling
        ],
        maps=maps,
        map_uri=data_uri(map_figure) if map_figure else None,
        by_reference=by_reference,
        groups=groups,
        columns=cohort.columns,
        costs=step_costs(found),
        shown_rows=SHOWN,
        version=version,
        table_name=io_spec()["reports"]["group_table"],
    )


def link(record: ScanRecord) -> str:
    """Return where a scan's results stand: the participant's page, at the scan if it has any."""
    place = f"#{record.prefix}" if record.diagnosis else ""
    return report_path(record.subject) + place


def plots(
    cohort: Cohort, found: Sequence[ScanRecord], groups: Sequence[str], colours: Mapping[str, str]
) -> list[Plot | Scatter]:
    """Lay out the distributions of the lesion load.

    Parameters
    ----------
    cohort : Cohort
        All scans.
    found : sequence of ScanRecord
        Those with results.
    groups : sequence of str
        What the model says.
    colours : mapping of str to str
        Of the groups.

    Returns
    -------
    list of Plot or Scatter
        By the known diagnosis, site, scanner and age, where any of the scans has these, and by the
        model's pattern.
    """
    covariates = cohort.covariates
    made: list[Plot | Scatter] = []
    for by, name in (
        ("diagnosis in participants.tsv", "diagnosis"),
        ("site", "site"),
        ("scanner", "scanner"),
    ):
        names = {r.relative: getattr(covariates[r.relative], name) for r in found}
        if any(names.values()):
            order = cohort.classes if name == "diagnosis" else []
            made.append(_volumes(found, _fewer(names, order), by, cohort.classes))
    if any(covariates[r.relative].age is not None for r in found):
        made.append(_by_age(cohort, found))
    of_model = {r.relative: str(r.diagnosis["Diagnosis"]) for r in found}
    known = _values(found, "LesionVolume", of_model, groups)
    axis = {"floor": VOLUME_FLOOR_ML, "floor_label": "≤ 0.01", "by": "the model's pattern"}
    made.append(distribution(_VOLUME, known, colours, **axis))  # type: ignore[arg-type]
    known = _values(found, "LesionCount", of_model, groups)
    axis = {"floor": COUNT_FLOOR, "floor_label": "0", "by": "the model's pattern"}
    made.append(distribution("Lesions", known, colours, **axis))  # type: ignore[arg-type]
    return [plot for plot in made if isinstance(plot, Scatter) or plot.lanes]


def _volumes(
    found: Sequence[ScanRecord], names: Mapping[str, str], by: str, classes: list[str]
) -> Plot:
    groups = list(dict.fromkeys(names.values()))
    groups.sort(key=lambda name: (name in (OTHERS, UNKNOWN), name not in classes, name))
    values = _values(found, "LesionVolume", names, groups)
    colours = {name: class_colour(classes, name) if name in classes else _PLAIN for name in groups}
    return distribution(
        _VOLUME, values, colours, by=by, floor=VOLUME_FLOOR_ML, floor_label="≤ 0.01"
    )


def _by_age(cohort: Cohort, found: Sequence[ScanRecord]) -> Scatter:
    points: dict[str, list[tuple[str, float, float]]] = {}
    for record in found:
        own = cohort.covariates[record.relative]
        volume = record.diagnosis["LesionVolume"]
        if own.age is not None and volume is not None:
            name = own.diagnosis or UNKNOWN
            points.setdefault(name, []).append((record.prefix, own.age, float(volume)))
    points = dict(sorted(points.items()))
    colours = {name: class_colour(cohort.classes, name) for name in points}
    return over_age(_VOLUME, points, colours, floor=VOLUME_FLOOR_ML, floor_label="≤ 0.01")


def _values(
    found: Sequence[ScanRecord], key: str, names: Mapping[str, str], groups: Sequence[str]
) -> dict[str, list[tuple[str, float]]]:
    values: dict[str, list[tuple[str, float]]] = {name: [] for name in groups}
    for record in found:
        if record.diagnosis[key] is not None:
            values[names[record.relative]].append((record.prefix, float(record.diagnosis[key])))
    return values


def _fewer(names: Mapping[str, str | None], order: Sequence[str]) -> dict[str, str]:
    """Keep the most frequent groups; the rest become `OTHERS`, and what is missing `UNKNOWN`."""
    common = [name for name, _ in Counter(n for n in names.values() if n).most_common(GROUPS)]
    kept = {*common, *order}
    return {
        scan: UNKNOWN if not name else name if name in kept else OTHERS
        for scan, name in names.items()
    }


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
            [cell(metric, measures[metric]) for metric in classification.METRICS],
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


def _agreement_rows(cohort: Cohort, evaluation: Evaluation) -> list[tuple[ScanRecord, Any]]:
    if evaluation.agreement is None:
        return []
    by_name = {record.relative: record for record in cohort.records}
    return [(by_name[scan], row) for scan, row in evaluation.agreement.metrics.items()]


def _agreement_means(evaluation: Evaluation) -> list[tuple[str, tuple[str, str, str]]]:
    if evaluation.agreement is None:
        return []
    measures = evaluation.agreement.measures
    metrics = (*segmentation.METRICS, "pooled_dsc")
    return [(HEADINGS[metric][0], cell(metric, measures[metric])) for metric in metrics]


class StepCost(NamedTuple):
    """What a step cost.

    Parameters
    ----------
    step : str
        In words.
    scans : int
        Scans in which it was measured.
    wall_seconds, cpu_seconds : float
        Medians over them; of all cores.
    memory_gb : float
        Largest peak of a process.
    share : float
        Of the longest step's median, for a bar.
    """

    step: str
    scans: int
    wall_seconds: float
    cpu_seconds: float
    memory_gb: float
    share: float


def step_costs(records: Sequence[ScanRecord]) -> list[StepCost]:
    """Summarise what processing cost, step by step.

    Parameters
    ----------
    records : sequence of ScanRecord
        Scans; those whose run did not measure it count for nothing.

    Returns
    -------
    list of StepCost
        In the order in which a scan goes through them.
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
