"""The cohort as its page and its tables see it, and its evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from msnmo_bids.bids.records import ScanRecord
from msnmo_bids.evaluation.crossval import CrossValidation
from msnmo_bids.evaluation.crossval import REFERENCE
from msnmo_bids.evaluation.statistics import DRAWS
from msnmo_bids.evaluation.summary import Measure, summarise
from msnmo_bids.group.accuracy import (
    Accuracy,
    accuracy_figures,
    as_results,
    limits_of_accuracy,
    measure_accuracy,
)
from msnmo_bids.group.agreement import (
    Metrics,
    bland_altman_figure,
    compare_all,
    failures_figure,
    limits_of_agreement,
    worst_first,
)
from msnmo_bids.group.covariates import Covariates
from msnmo_bids.group.review_list import ReviewItem
from msnmo_bids.meta.plots import forest_plot
from msnmo_bids.meta.pooling import analyse
from msnmo_bids.meta.report import sentences
from msnmo_bids.meta.site_studies import OF_A_SCAN, SITE, site_studies


@dataclass(frozen=True)
class Cohort:
    """All scans and what is known of them.

    Parameters
    ----------
    records : list of ScanRecord
        In order.
    classes : list of str
        Diagnosis classes of the network.
    positive : str
        The positive one; empty without results.
    covariates : dict of str to Covariates
        What the raw data set says, by scan.
    review_list : list of ReviewItem
        What to look at first.
    quality : dict of str to (str, list of str)
        Colour and reasons by scan; empty where there are no quality files.
    rows : list of dict
        The table of all scans.
    columns : dict of str to dict
        Its columns.
    notes : list of str
        What a reader must know of the choice of scans, and what in the raw data set's tables and
        sidecars could not be used, or was guessed.
    """

    records: list[ScanRecord]
    classes: list[str]
    positive: str
    covariates: dict[str, Covariates]
    review_list: list[ReviewItem]
    quality: dict[str, tuple[str, list[str]]]
    rows: list[dict[str, Any]]
    columns: dict[str, dict[str, Any]]
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Agreement:
    """Lesion masks against manual ones.

    Parameters
    ----------
    metrics : dict of str to dict
        By scan, the worst first.
    problems : dict of str to str
        Scan -> why it was not compared, for scans with results.
    measures : dict of str to Measure
        Over all scans, by metric.
    limits : tuple of float or None
        Bias and limits of agreement of the volumes, in ml.
    """

    metrics: dict[str, Metrics]
    problems: dict[str, str]
    measures: dict[str, Measure]
    limits: tuple[float, float, float] | None


@dataclass(frozen=True)
class Evaluation:
    """What a cohort with known diagnoses or manual masks says of the model.

    Parameters
    ----------
    accuracy : Accuracy or None
        Of the diagnoses.
    agreement : Agreement or None
        Of the lesion masks.
    pooling : list of (str, list of str, Path or None)
        Of DSC, accuracy, sensitivity and specificity over the sites: measure, paragraphs, and
        forest plot (SVG) unless no site has a value to pool. Empty with fewer than two sites.
    figures : dict of str to Path or None
        PNG files by name.
    limits : list of str
        Why the diagnoses are not compared, or not all of them, in sentences.
    """

    accuracy: Accuracy | None
    agreement: Agreement | None
    pooling: list[tuple[str, list[str], Path | None]]
    figures: dict[str, Path | None]
    limits: list[str] = field(default_factory=list)


def evaluate(
    cohort: Cohort,
    output_dir: Path,
    masks: Mapping[str, Path],
    no_mask: Mapping[str, str],
    figures: Path,
) -> Evaluation:
    """Evaluate the model on the cohort, as far as diagnoses and manual masks are known.

    Parameters
    ----------
    cohort : Cohort
        All scans.
    output_dir : Path
        Output folder.
    masks : mapping of str to Path
        Scan -> manual mask.
    no_mask : mapping of str to str
        Scan -> why there is none.
    figures : Path
        Folder of the figures.

    Returns
    -------
    Evaluation
    """
    metrics, problems = compare_all(output_dir, cohort.records, masks)
    found = as_results(
        cohort.records, cohort.covariates, cohort.classes, cohort.positive, metrics, output_dir
    )
    drawn: dict[str, Path | None] = {}
    accuracy = measure_accuracy(found) if cohort.classes else None
    if accuracy is not None:
        drawn |= accuracy_figures(found, accuracy.measures, figures)
    agreement = None
    if masks:
        done = {record.relative for record in cohort.records if record.diagnosis}
        problems |= {scan: reason for scan, reason in no_mask.items() if scan in done}
        agreement = _agreement(found, metrics, problems)
        drawn["failures"] = failures_figure(
            output_dir,
            cohort.records,
            {scan: own.diagnosis for scan, own in cohort.covariates.items()},
            masks,
            list(agreement.metrics),
            figures / "group_failures.png",
        )
        scans = found.models[REFERENCE].scans
        drawn["bland_altman"] = bland_altman_figure(scans, figures / "group_bland-altman.png")
    pooling = _pool(cohort, metrics, figures) if accuracy or agreement else []
    limits = limits_of_accuracy(found)
    return Evaluation(accuracy, agreement, pooling, drawn, limits)


def _agreement(
    found: CrossValidation, metrics: Mapping[str, Metrics], problems: Mapping[str, str]
) -> Agreement:
    scans = found.models[REFERENCE].scans
    known = scans.dropna(subset=["true_volume_ml", "predicted_volume_ml"])
    limits = limits_of_agreement(
        known["true_volume_ml"].to_numpy(), known["predicted_volume_ml"].to_numpy()
    )
    ordered = {scan: metrics[scan] for scan in worst_first(metrics)}
    measures = summarise(found, REFERENCE, draws=DRAWS, seed=0)
    return Agreement(ordered, dict(problems), measures, limits)


def _pool(
    cohort: Cohort, metrics: Mapping[str, Metrics], figures: Path
) -> list[tuple[str, list[str], Path | None]]:
    """Pool accuracy and DSC over the sites; scans without a site are left out."""
    rows = []
    for record in cohort.records:
        own = cohort.covariates[record.relative]
        if own.site and record.diagnosis:
            dsc = metrics.get(record.relative, {}).get("dsc")
            called = str(record.diagnosis["Diagnosis"])
            rows.append((own.site, record.subject, dsc, own.diagnosis, called))
    scans = pd.DataFrame(rows, columns=OF_A_SCAN)
    if scans[SITE].nunique() < 2:
        return []
    made: list[tuple[str, list[str], Path | None]] = []
    for data in site_studies(scans, classes=cohort.classes, positive=cohort.positive):
        if data.studies:
            found = analyse(data)
            plot = forest_plot(found, figures / f"sites_{data.name.lower()}_forest")
            made.append((data.measure, sentences(found), plot.with_suffix(".svg")))
        else:
            left = " ".join(f"{name}: {reason}." for name, reason in data.left_out)
            made.append((data.measure, [f"Nothing to pool. {left}"], None))
    return made
