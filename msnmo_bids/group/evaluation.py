"""What the cohort tells of the model: its diagnoses, its masks against manual ones, by site.

The cohort is put into the form of a cross-validation of one model, so that both are measured alike.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd

from msnmo_bids.bids.names import derivative_name
from msnmo_bids.bids.records import ScanRecord
from msnmo_bids.decision import INDETERMINATE
from msnmo_bids.errors import MsnmoError
from msnmo_bids.evaluation.crossval_results import (
    MISSING,
    REFERENCE,
    CrossValidation,
    Example,
    ModelResults,
    scan_columns,
)
from msnmo_bids.evaluation.figures import (
    CASES,
    calibration_figure,
    figure_file,
    overlay_figure,
    roc_figure,
)
from msnmo_bids.evaluation.measures import Measure, classified, guesses, summarise
from msnmo_bids.evaluation.metrics import MASK_METRICS, VOLUMES, compare_masks, probability_columns
from msnmo_bids.group.cohort import Cohort
from msnmo_bids.labelled.lesion_masks import read_lesion_mask
from msnmo_bids.meta.pooling import analyse
from msnmo_bids.meta.report import forest_plot, sentences
from msnmo_bids.meta.site_studies import OF_A_SCAN, SITE, site_studies
from msnmo_bids.preprocessing.geometry import FORM_TOLERANCE_MM, corner_distance
from msnmo_bids.preprocessing.nifti_file import open_nifti
from msnmo_bids.reports.slices import load_ras
from msnmo_bids.text import listed, natural_key

logger = logging.getLogger(__name__)

#: Only scans for which the model names a diagnosis.
NAMED = "named diagnoses"
NO_RESULT = "no result"
ALL_SITES = "all"
#: Sites with a ROC curve of their own, and scans of a site from which it has a calibration.
CURVES = 6
CALIBRATION_SCANS = 30
_FOLD = "1"
_COPY = 100  # voxels; a rater may agree with a smaller mask voxel by voxel

Metrics = dict[str, float | None]


@dataclass(frozen=True)
class Accuracy:
    """How the model's diagnoses agree with those of the raw data set.

    ``confusion`` has site, diagnosis in the raw data set, and number of scans by what the model
    says: a class, `INDETERMINATE` or `NO_RESULT`. Measures are by which scans (`ALL_SITES` with a
    score, `NAMED`, and one per site) and metric. ``scored``, ``named``, ``known``: scans with a
    score, with a named diagnosis, and all whose diagnosis is a class. ``guesses``: share of the
    people for whom a guess by the site, and by the majority, is right.
    """

    confusion: list[tuple[str, str, dict[str, int]]]
    measures: dict[str, dict[str, Measure]]
    scored: int
    named: int
    known: int
    guesses: tuple[float, float] | None


@dataclass(frozen=True)
class Agreement:
    """Lesion masks against manual ones.

    ``metrics`` are by scan, the lowest DSC first, of equal ones the largest difference of the
    volumes; ``problems`` say why a scan with results was not compared; ``measures`` are over all
    scans. ``limits``: mean difference of the volumes (model - manual, ml) and its limits of
    agreement, mean -/+ 1.96 s.d. (Bland and Altman 1986); None with fewer than three scans.
    """

    metrics: dict[str, Metrics]
    problems: dict[str, str]
    measures: dict[str, Measure]
    limits: tuple[float, float, float] | None


@dataclass(frozen=True)
class Evaluation:
    """What a cohort with known diagnoses or manual masks says of the model.

    ``pooling`` is of DSC, accuracy, sensitivity and specificity over the sites: measure,
    paragraphs, and forest plot (SVG) unless no site has a value to pool; it is empty with fewer
    than two sites. Figures are PNG files by name. ``limits`` say why the diagnoses are not
    compared, or not all of them.
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

    By scan, `masks` has the manual mask, `no_mask` why there is none; the folder `figures` gets the
    figures.
    """
    metrics, problems = _compare_all(output_dir, cohort.records, masks)
    found = _as_results(cohort, metrics)
    drawn: dict[str, Path | None] = {}
    accuracy = _accuracy(found) if cohort.classes else None
    if accuracy is not None:
        drawn |= _accuracy_figures(found, accuracy.measures, figures)
    agreement = None
    if masks:
        done = {record.relative for record in cohort.records if record.diagnosis}
        problems |= {scan: reason for scan, reason in no_mask.items() if scan in done}
        agreement = _agreement(found, metrics, problems)
        drawn["failures"] = _failures_figure(
            cohort, output_dir, masks, list(agreement.metrics), figures / "group_failures.png"
        )
        drawn["bland_altman"] = _bland_altman_figure(
            found.models[REFERENCE].scans, agreement.limits, figures / "group_bland-altman.png"
        )
    pooling = _pool(cohort, metrics, figures) if accuracy or agreement else []
    return Evaluation(accuracy, agreement, pooling, drawn, _limits_of_accuracy(found))


def _compare_all(
    output_dir: Path, records: Sequence[ScanRecord], masks: Mapping[str, Path]
) -> tuple[dict[str, Metrics], dict[str, str]]:
    """Compare each scan's lesion mask with its manual one; say why one could not be compared."""
    metrics: dict[str, Metrics] = {}
    problems: dict[str, str] = {}
    alike: dict[bytes, list[str]] = defaultdict(list)
    for record in records:
        scan = record.relative
        if not record.diagnosis or scan not in masks:
            continue
        file = output_dir / record.folder / derivative_name(record.prefix, "lesion_mask")
        try:
            found = read_lesion_mask(file)
            truth = read_lesion_mask(masks[scan], open_nifti(file).affine)  # both are RAS
            away = corner_distance(truth.affine, found.affine, found.shape)
            if truth.shape == found.shape and away > FORM_TOLERANCE_MM:
                raise ValueError(
                    f"the manual mask lies up to {away:.1f} mm away from what was found"
                )
            zooms = nib.affines.voxel_sizes(found.affine)
            both = np.asarray(truth.dataobj), np.asarray(found.dataobj)
            large = both[0].sum() >= _COPY
            if large and np.array_equal(*both):
                raise ValueError("the manual mask is a copy of the one that msnmo found")
            metrics[scan] = compare_masks(*both, zooms)
            if large:
                alike[hashlib.sha256(both[0].tobytes()).digest()].append(scan)
        except (MsnmoError, OSError, ValueError) as error:
            problems[scan] = getattr(error, "problem", str(error))
            logger.warning("%s: not compared with its manual mask: %s", scan, error)
    people = {record.relative: record.subject for record in records}
    for scans in alike.values():
        for scan in scans:
            others = listed(other for other in scans if people[other] != people[scan])
            if not others:
                continue
            problems[scan] = f"its manual mask is a copy of that of {others}: correct one of them"
            logger.warning("%s: not compared with its manual mask: %s", scan, problems[scan])
            del metrics[scan]
    return metrics, problems


def _as_results(cohort: Cohort, comparisons: Mapping[str, Metrics]) -> CrossValidation:
    """Put the cohort into the form of a cross-validation, all in one fold.

    The models are `REFERENCE`, `NAMED` and ``Site <name>`` for each of several sites. A scan
    without lesions has no pattern, and so no probabilities.
    """
    classes, rows = cohort.classes, []
    for record in cohort.records:
        known = cohort.covariates[record.relative]
        row: dict[str, Any] = {
            "dataset": "",
            "participant_id": f"sub-{record.subject}",
            "session_id": record.session or MISSING,
            "scan": record.relative,
            "site": known.site or MISSING,
            "diagnosis": known.diagnosis or MISSING,
            "fold": _FOLD,
            "subject": record.subject,
            "called_as": str(record.diagnosis["Diagnosis"]) if record.diagnosis else NO_RESULT,
        }
        scores = record.diagnosis["Probabilities"] if record.has_pattern else {}
        row |= {f"prob_{name}": scores.get(name) for name in classes}
        rows.append(row | comparisons.get(record.relative, {}))
    columns = [*scan_columns(classes), "subject", "called_as"]
    table = pd.DataFrame(rows, columns=columns, index=[row["scan"] for row in rows])
    measured = [*MASK_METRICS, *VOLUMES, *probability_columns(classes)]
    table[measured] = table[measured].astype(float)
    parts = {REFERENCE: table, NAMED: table[table["called_as"].isin(classes)]}
    sites = sorted(set(table["site"]), key=natural_key)
    if len(sites) > 1:
        parts |= {f"Site {site}": table[table["site"] == site] for site in sites}
    models = {name: ModelResults(name, part) for name, part in parts.items()}
    plan = table.drop_duplicates("subject")
    return CrossValidation(plan, tuple(classes), cohort.positive, models)


def _accuracy(found: CrossValidation) -> Accuracy | None:
    """Compare the model's diagnoses with those of the raw data set; None where none is known."""
    table = found.models[REFERENCE].scans
    if (table["diagnosis"] == MISSING).all():
        return None
    measures = {ALL_SITES if m == REFERENCE else m: summarise(found, m) for m in found.models}
    return Accuracy(
        confusion=_confusion(table, found.classes),
        measures=measures,
        scored=len(classified(found, table)),
        named=len(classified(found, found.models[NAMED].scans)),
        known=int(table["diagnosis"].isin(found.classes).sum()),
        guesses=guesses(found),
    )


def _confusion(
    table: pd.DataFrame, classes: Sequence[str]
) -> list[tuple[str, str, dict[str, int]]]:
    """Count what the model says by site and known diagnosis, classes first."""
    others = sorted(set(table["diagnosis"]) - {*classes, MISSING}, key=natural_key)
    sites = sorted(set(table["site"]), key=natural_key)
    parts = [(ALL_SITES, table)]
    if len(sites) > 1:
        parts += [(site, table[table["site"] == site]) for site in sites]
    rows = []
    for site, part in parts:
        counts = part.groupby(["diagnosis", "called_as"]).size().unstack(fill_value=0)
        counts = counts.reindex(columns=[*classes, INDETERMINATE, NO_RESULT], fill_value=0)
        rows += [
            (site, diagnosis, counts.loc[diagnosis].to_dict())
            for diagnosis in [*classes, *others, MISSING]
            if diagnosis in counts.index
        ]
    return rows


def _limits_of_accuracy(found: CrossValidation) -> list[str]:
    """Say in sentences why accuracy cannot be measured, and which diagnoses count in no metric.

    There are none where every scan has a diagnosis that is a class.
    """
    table, classes = found.models[REFERENCE].scans, found.classes
    if not classes:
        return ["Accuracy is not measured: no scan has results."]
    known = table["diagnosis"][table["diagnosis"] != MISSING]
    if known.empty:
        return ["Accuracy is not measured: the tables of the data set give no diagnosis."]
    said = []
    others = Counter(known[~known.isin(classes)])
    if others:
        names = listed(f"{name} ({number})" for name, number in others.most_common())
        said.append(
            f"Diagnoses that are not a class of the weights ({', '.join(classes)}), with their "
            f"number of scans, count in no metric: {names}."
        )
    if others.total() == len(known):
        return [f"Accuracy is not measured. {said[0]}"]
    scored = classified(found, table)
    if scored.empty:
        return [*said, "Accuracy is not measured: no scan with a diagnosis has lesions."]
    if scored["diagnosis"].nunique() == 1:
        said.append(
            f"All scans with a score and a diagnosis are {scored['diagnosis'].iloc[0]}: what needs "
            "another class, such as the area under the ROC curve, is n/a."
        )
    return said


def _accuracy_figures(
    found: CrossValidation, measures: Mapping[str, Mapping[str, Measure]], folder: Path
) -> dict[str, Path | None]:
    """Draw ROC curves and calibration, for all scans and the largest sites."""
    sites = [name for name in found.models if name not in (REFERENCE, NAMED)]
    sites = sorted(sites, key=lambda name: -len(found.models[name].scans))[:CURVES]
    sites.sort(key=natural_key)
    large = [n for n in sites if len(classified(found, found.models[n].scans)) >= CALIBRATION_SCANS]
    roc, calibration = folder / "group_roc.png", folder / "group_calibration.png"
    areas = {**measures, REFERENCE: measures[ALL_SITES]}
    title = "Scores against the known diagnosis"
    return {
        "roc": roc_figure(found, [*sites, REFERENCE], areas, roc, title=title),
        "calibration": calibration_figure(found, [*large, REFERENCE], calibration),
    }


def _agreement(
    found: CrossValidation, metrics: Mapping[str, Metrics], problems: dict[str, str]
) -> Agreement:
    scans = found.models[REFERENCE].scans.dropna(subset=list(VOLUMES))
    difference = scans["predicted_volume_ml"] - scans["true_volume_ml"]
    limits = None
    if len(scans) >= 3:
        bias, half = float(difference.mean()), 1.96 * float(difference.std())
        limits = bias, bias - half, bias + half
    ordered = pd.DataFrame({"dsc": scans["dsc"], "wrong": -difference.abs(), "scan": scans.index})
    worst = ordered.sort_values(["dsc", "wrong", "scan"])["scan"]
    by_scan = {scan: metrics[scan] for scan in worst}
    return Agreement(by_scan, problems, summarise(found, REFERENCE), limits)


def _failures_figure(
    cohort: Cohort, output_dir: Path, masks: Mapping[str, Path], worst: Sequence[str], out: Path
) -> Path | None:
    """Draw the first `CASES` of the `worst` scans: FLAIR, manual mask, found, missed and false."""
    by_name = {record.relative: record for record in cohort.records}
    examples = []
    for scan in worst[:CASES]:
        record = by_name[scan]
        folder = output_dir / record.folder
        try:
            flair = load_ras(folder / derivative_name(record.prefix, "preproc"))
            file = folder / derivative_name(record.prefix, "lesion_mask")
            found = load_ras(file)
            truth = np.asarray(read_lesion_mask(masks[scan], open_nifti(file).affine).dataobj) > 0
        except MsnmoError as error:
            logger.warning("%s: left out of the pictures of failures: %s", scan, error)
            continue
        name = cohort.covariates[scan].diagnosis or MISSING
        brain, lesions = flair.data > 0, {REFERENCE: found.data > 0}
        examples.append(Example(record.prefix, name, flair, brain, truth, lesions))
    return overlay_figure(examples, [REFERENCE], out) if examples else None


def _bland_altman_figure(
    scans: pd.DataFrame, limits: tuple[float, float, float] | None, out: Path
) -> Path | None:
    """Draw the difference of the volumes over their mean, with the limits of agreement (PNG)."""
    if limits is None:
        return None
    true, found = (scans[name] for name in VOLUMES)
    with figure_file((7.2, 4.6), out) as figure:
        axes = figure.subplots()
        axes.scatter((true + found) / 2, found - true, s=22, alpha=0.7, color="#0072B2", lw=0)
        names = ("mean", "− 1.96 s.d.", "+ 1.96 s.d.")
        style: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "fontsize": 8}
        style |= {"xycoords": ("axes fraction", "data"), "xytext": (-2, 3)}
        for value, name, line in zip(limits, names, ("-", "--", "--"), strict=True):
            axes.axhline(value, color="0.4", lw=1, ls=line)
            axes.annotate(f"{name}: {value:.2f}", (1, value), **style)
        axes.set(xlabel="mean of both volumes (ml)", ylabel="model − manual (ml)")
    return out


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
