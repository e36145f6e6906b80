"""The group level, from what participants wrote: tables, maps, figures and one page.

The page shows what to look at first, then the table of all scans, then the figures.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from msnmo_bids.bids.dataset import atomic_path, write_bidsignore
from msnmo_bids.bids.names import io_spec, report_path
from msnmo_bids.bids.records import ScanRecord, Status, class_names, in_order
from msnmo_bids.decision import INDETERMINATE, diseases_of
from msnmo_bids.evaluation.crossval_results import positive_class
from msnmo_bids.evaluation.figures import OVERLAY
from msnmo_bids.evaluation.measures import DRAWS, Measure
from msnmo_bids.evaluation.metrics import CLASS_METRICS, MASK_METRICS, factor, heading, short_name
from msnmo_bids.group.cohort import Cohort, Columns, read_covariates
from msnmo_bids.group.distribution import plots
from msnmo_bids.group.evaluation import NO_RESULT, Evaluation, evaluate
from msnmo_bids.group.frequency import frequency_figure, group_by_class, write_frequency_maps
from msnmo_bids.group.review_list import KINDS, outliers, read_quality, review_list
from msnmo_bids.group.tables import column_dictionary, table_row, write_tables
from msnmo_bids.reports.page import class_colour, data_uri, render
from msnmo_bids.vocabulary import NO_REAL_NMOSD

logger = logging.getLogger(__name__)

#: Rows of the list of what to look at first, and of others beside; the tables hold all.
SHOWN = 100


@dataclass(frozen=True)
class GroupSettings:
    """What the user asks of the group level.

    Without a positive diagnosis of sensitivity and ROC it is NMOSD, or else the last class. By
    scan, ``masks`` are manual lesion masks and ``no_mask`` why there is none; both are empty when
    none were asked for.
    """

    columns: Columns = field(default_factory=Columns)
    positive: str = ""
    masks: Mapping[str, Path] = field(default_factory=dict)
    no_mask: Mapping[str, str] = field(default_factory=dict)


def write_group(
    output_dir: Path,
    scans: Sequence[ScanRecord],
    *,
    bids_dir: Path | None = None,
    settings: GroupSettings | None = None,
    notes: Sequence[str] = (),
) -> list[Path]:
    """Write the tables ``group_*.tsv``, the page ``group_FLAIR.html``, maps and ``phenotype/``.

    Every scan is a row, the failed and the pending ones with ``n/a`` and the reason.

    Parameters
    ----------
    scans : sequence of ScanRecord
        Every scan of the data set, as it stands on disk
        (:func:`~msnmo_bids.bids.records.read_scan`).
    bids_dir : Path, optional
        Raw data set: what its tables and sidecars say stands beside the model's results.
    notes : sequence of str, optional
        What a reader must know of the choice of scans.

    Returns
    -------
    list of Path
        What was written, the page last.

    Raises
    ------
    UsageError
        If a column or the positive class does not exist.
    """
    asked = settings or GroupSettings()
    cohort = _cohort(output_dir, in_order(scans), bids_dir, asked, notes)
    figures = output_dir / io_spec()["reports"]["group_figures"]
    evaluation = evaluate(cohort, output_dir, asked.masks, asked.no_mask, figures)
    for limit in evaluation.limits:
        logger.warning("%s", limit)
    maps = _frequency_maps(output_dir, cohort)
    map_figure = frequency_figure(maps, figures / "group_frequency.png")
    written = write_tables(output_dir, cohort, evaluation)
    write_bidsignore(output_dir)
    target = output_dir / io_spec()["reports"]["group_page"]
    with atomic_path(target) as temporary:
        text = _page(cohort, evaluation, maps=maps, map_figure=map_figure)
        temporary.write_text(text, encoding="utf-8")
    return [*written, *(path for path, _ in maps.values()), target]


def _cohort(
    output_dir: Path,
    records: list[ScanRecord],
    bids_dir: Path | None,
    asked: GroupSettings,
    notes: Sequence[str],
) -> Cohort:
    """Gather all scans, `records` in order, and what is known of them."""
    classes = class_names(records)
    covariates, unused = read_covariates(
        bids_dir, [r.relative for r in records], asked.columns, classes
    )
    apart, quality = outliers(records), read_quality(output_dir, records)
    rows = [
        table_row(r, classes, covariates[r.relative], apart.get(r.relative, ())) for r in records
    ]
    return Cohort(
        records=records,
        classes=classes,
        positive=positive_class(asked.positive, classes) if classes else asked.positive,
        covariates=covariates,
        review_list=review_list(records, apart, quality),
        quality=quality,
        rows=rows,
        columns=column_dictionary(classes, covariates.values()),
        notes=[*notes, *unused],
    )


def _frequency_maps(output_dir: Path, cohort: Cohort) -> dict[str, tuple[Path, int]]:
    """Write a map for each diagnosis of the raw data set; without any, of the model."""
    if cohort.with_diagnoses:
        meaning = "Classes: the raw data set's diagnosis."
        known = {scan: own.diagnosis for scan, own in cohort.covariates.items() if own.diagnosis}
    else:
        meaning = "Classes: the model's."
        known = {r.relative: str(r.diagnosis["Diagnosis"]) for r in cohort.records if r.diagnosis}
    groups = group_by_class(cohort.records, known)
    return write_frequency_maps(output_dir, groups, meaning=f"{meaning} {NO_REAL_NMOSD}")


def _page(cohort: Cohort, evaluation: Evaluation, *, map_figure: Path | None, **more: Any) -> str:
    """Write the page out: HTML that asks for nothing from elsewhere."""
    accuracy, records = evaluation.accuracy, cohort.records
    named = [str(record.diagnosis["Diagnosis"]) for record in cohort.done]
    diseases = diseases_of(cohort.classes)
    groups = list(dict.fromkeys([*diseases, INDETERMINATE, *sorted(named)]))
    colours = {name: class_colour(cohort.classes, name) for name in groups}
    return render(
        "group.html.j2",
        cohort=cohort,
        records=list(zip(records, cohort.rows, strict=True)),
        by_name={record.relative: record for record in records},
        participants=len({record.subject for record in records}),
        count={s: sum(record.status == s for record in records) for s in Status},
        decisions=[(name, named.count(name)) for name in groups],
        quality_counts=Counter(colour for colour, _ in cohort.quality.values()),
        review_list=_review_list(cohort),
        with_site=any(own.site for own in cohort.covariates.values()),
        filters=_filters(cohort),
        common=_common_flags(cohort.done),
        evaluation=evaluation,
        notes=cohort.notes + ([] if accuracy else evaluation.limits),
        draws=DRAWS,
        confusion_columns=[*diseases, INDETERMINATE, NO_RESULT],
        class_metrics=CLASS_METRICS,
        mask_metrics=MASK_METRICS,
        disagreeing=_disagreeing(cohort),
        colours=colours,
        plots=plots(cohort, groups, colours),
        map_uri=data_uri(map_figure) if map_figure else None,
        overlay_means=OVERLAY,
        costs=step_costs(cohort.done),
        cell=cell,
        data_uri=data_uri,
        factor=factor,
        heading=heading,
        short_name=short_name,
        link=link,
        shown_rows=SHOWN,
        table_name=io_spec()["reports"]["group_table"],
        **more,
    )


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
    records, covariates = cohort.records, cohort.covariates.values()
    choices = {
        ("status", "Status"): {str(r.status) for r in records},
        ("quality", "Quality"): {colour for colour, _ in cohort.quality.values()},
        ("pattern", "Pattern"): {str(r.diagnosis["Diagnosis"]) for r in records if r.diagnosis},
        ("known", "participants.tsv"): {own.diagnosis or "n/a" for own in covariates},
        ("site", "Site"): {own.site or "n/a" for own in covariates},
    }
    return [(*name, sorted(values)) for name, values in choices.items() if len(values) > 1]


def _review_list(cohort: Cohort) -> list[tuple[str, str, int, list[Any]]]:
    """Return kind, title, number and the first ones of what to look at, in order."""
    by_kind = {kind: [i for i in cohort.review_list if i.kind == kind] for kind in KINDS}
    return [(kind, KINDS[kind], len(of), of[:SHOWN]) for kind, of in by_kind.items() if of]


def cell(metric: str, measure: Measure) -> tuple[str, str, str]:
    """Return a measure's value, its interval or why there is none, and on how many it is."""
    number = f"n = {measure.scans} ({measure.subjects})"
    if measure.value is None:
        number = "" if measure.scans else "no scans"
    return *measure.text(factor(metric)), number


def _disagreeing(cohort: Cohort) -> list[tuple[ScanRecord, str, str]]:
    """Return the scans that the model names otherwise than the raw data set."""
    known = [(record, cohort.covariates[record.relative].diagnosis) for record in cohort.done]
    return [
        (record, diagnosis, named)
        for record, diagnosis in known
        if diagnosis and (named := str(record.diagnosis["Diagnosis"])) in cohort.classes
        if named != diagnosis
    ]


def step_costs(records: Sequence[ScanRecord]) -> list[dict[Hashable, Any]]:
    """Summarise what processing cost, in the order in which a scan goes through the steps.

    By step: number of scans that measured it, medians of wall and processor time (s, of all cores),
    largest peak of a process (GB), and share of the longest step's median.
    """
    costs = [{"step": step, **cost} for one in records for step, cost in one.steps.items()]
    if not costs:
        return []
    by_step = pd.DataFrame(costs).groupby("step", sort=False)
    seconds = by_step[["WallSeconds", "CPUSeconds"]].median()
    table = seconds.assign(
        scans=by_step.size(),
        MemoryGB=by_step["MemoryGB"].max(),
        share=seconds["WallSeconds"] / (seconds["WallSeconds"].max() or 1),
    )
    return table.reset_index().to_dict("records")
