"""What the cohort tells of the model: its masks against manual ones, its diagnoses, by site."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from msnmo_bids.bids.names import derivative_name
from msnmo_bids.bids.records import ScanRecord
from msnmo_bids.errors import MsnmoError
from msnmo_bids.evaluation.crossval import REFERENCE, CrossValidation
from msnmo_bids.evaluation.metrics import VOLUMES, compare_masks
from msnmo_bids.evaluation.overlays import CASES, Example, overlay_figure
from msnmo_bids.evaluation.plots import figure_file
from msnmo_bids.evaluation.summary import Measure, summarise
from msnmo_bids.group.accuracy import (
    Accuracy,
    accuracy_figures,
    as_results,
    limits_of_accuracy,
    measure_accuracy,
)
from msnmo_bids.group.cohort import Cohort
from msnmo_bids.labelled.lesion_masks import read_lesion_mask
from msnmo_bids.meta.plots import forest_plot
from msnmo_bids.meta.pooling import analyse
from msnmo_bids.meta.report import sentences
from msnmo_bids.meta.site_studies import OF_A_SCAN, SITE, site_studies
from msnmo_bids.reports.slices import load_ras

logger = logging.getLogger(__name__)

Metrics = dict[str, float | None]


def compare_all(
    output_dir: Path, records: Sequence[ScanRecord], masks: Mapping[str, Path]
) -> tuple[dict[str, Metrics], dict[str, str]]:
    """Compare each scan's lesion mask with its manual one, of `masks` by scan.

    Returns
    -------
    metrics : dict
        Scan -> as `compare_masks` gives them.
    problems : dict
        Scan -> why it could not be compared.
    """
    metrics: dict[str, Metrics] = {}
    problems: dict[str, str] = {}
    for record in records:
        if not record.diagnosis or record.relative not in masks:
            continue
        try:
            metrics[record.relative] = compare_one(output_dir, record, masks[record.relative])
        except (MsnmoError, OSError, ValueError) as error:
            problems[record.relative] = getattr(error, "problem", str(error))
            logger.warning("%s: not compared with its manual mask: %s", record.relative, error)
    return metrics, problems


def compare_one(output_dir: Path, record: ScanRecord, manual: Path) -> Metrics:
    """Compare one scan's lesion mask with the manual one, both in RAS order.

    Raises
    ------
    MsnmoError, OSError, ValueError
        If a mask cannot be read, or the two differ in shape.
    """
    truth = read_lesion_mask(manual)
    found = read_lesion_mask(
        output_dir / record.folder / derivative_name(record.prefix, "lesion_mask")
    )
    zooms = nib.affines.voxel_sizes(found.affine)
    return compare_masks(np.asarray(truth.dataobj), np.asarray(found.dataobj), zooms)


def worst_first(metrics: Mapping[str, Metrics]) -> list[str]:
    """Return the scans by increasing DSC; equal ones by the volume that was wrong, largest first.

    Examples
    --------
    >>> worst_first({"a": {"dsc": 0.9}, "b": {"dsc": 0.1}})
    ['b', 'a']
    """

    def key(scan: str) -> tuple[float, float, str]:
        row = metrics[scan]
        wrong = abs((row.get("predicted_volume_ml") or 0.0) - (row.get("true_volume_ml") or 0.0))
        return (1.0 if row["dsc"] is None else row["dsc"]), -wrong, scan

    return sorted(metrics, key=key)


def failures_figure(
    cohort: Cohort, output_dir: Path, masks: Mapping[str, Path], worst: Sequence[str], out: Path
) -> Path | None:
    """Draw the scans with the lowest DSC: FLAIR, manual mask, what was found, missed and false.

    Of `worst`, scans from the worst on, the first `CASES` are drawn (PNG); None without a scan.
    """
    by_name = {record.relative: record for record in cohort.records}
    examples = []
    for scan in worst[:CASES]:
        record = by_name[scan]
        folder = output_dir / record.folder
        flair = load_ras(folder / derivative_name(record.prefix, "preproc"))
        brain = flair.data > 0
        truth = np.asarray(read_lesion_mask(masks[scan]).dataobj) > 0
        found = load_ras(folder / derivative_name(record.prefix, "lesion_mask")).data > 0
        name = cohort.covariates[scan].diagnosis or "n/a"
        examples.append(Example(record.prefix, name, flair, brain, truth, {REFERENCE: found}))
    return overlay_figure(examples, [REFERENCE], out)


def limits_of_agreement(true: np.ndarray, found: np.ndarray) -> tuple[float, float, float] | None:
    """Return the mean difference of volumes (N,) and its limits of agreement.

    These are the mean of `found` (by the model) - `true` (by hand), and it -/+ 1.96 s.d. (Bland and
    Altman 1986); None with fewer than three scans.

    Examples
    --------
    >>> import numpy as np
    >>> limits_of_agreement(np.array([1.0, 2, 3]), np.array([2.0, 3, 4]))
    (1.0, 1.0, 1.0)
    """
    if true.size < 3:
        return None
    difference = found - true
    bias, half = float(difference.mean()), 1.96 * float(difference.std(ddof=1))
    return bias, bias - half, bias + half


def bland_altman_figure(
    scans: pd.DataFrame, limits: tuple[float, float, float] | None, out: Path
) -> Path | None:
    """Draw the difference of the volumes over their mean, with `limits_of_agreement` (PNG).

    The scans have the columns `VOLUMES`; None without limits.
    """
    if limits is None:
        return None
    known = scans.dropna(subset=list(VOLUMES))
    true, found = (known[name].to_numpy() for name in VOLUMES)
    with figure_file((7.2, 4.6), out) as figure:
        axes = figure.subplots()
        axes.scatter((true + found) / 2, found - true, s=22, alpha=0.7, color="#0072B2", lw=0)
        names = ("mean", "− 1.96 s.d.", "+ 1.96 s.d.")
        for value, name, line in zip(limits, names, ("-", "--", "--"), strict=True):
            axes.axhline(value, color="0.4", lw=1, ls=line)
            axes.annotate(
                f"{name}: {value:.2f}", (1, value), xycoords=("axes fraction", "data"),
                xytext=(-2, 3), textcoords="offset points", ha="right", fontsize=8,
            )  # fmt: skip
        axes.set(xlabel="mean of both volumes (ml)", ylabel="model − manual (ml)")
    return out


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
    output_dir, figures : Path
        Output folder, and where the figures go.
    masks, no_mask : mapping of str
        Scan -> manual mask; scan -> why there is none.
    """
    metrics, problems = compare_all(output_dir, cohort.records, masks)
    found = as_results(cohort, metrics, output_dir)
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
            cohort, output_dir, masks, list(agreement.metrics), figures / "group_failures.png"
        )
        scans = found.models[REFERENCE].scans
        drawn["bland_altman"] = bland_altman_figure(
            scans, agreement.limits, figures / "group_bland-altman.png"
        )
    pooling = _pool(cohort, metrics, figures) if accuracy or agreement else []
    limits = limits_of_accuracy(found)
    return Evaluation(accuracy, agreement, pooling, drawn, limits)


def _agreement(
    found: CrossValidation, metrics: Mapping[str, Metrics], problems: Mapping[str, str]
) -> Agreement:
    known = found.models[REFERENCE].scans.dropna(subset=list(VOLUMES))
    limits = limits_of_agreement(*(known[name].to_numpy() for name in VOLUMES))
    ordered = {scan: metrics[scan] for scan in worst_first(metrics)}
    measures = summarise(found, REFERENCE)
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
