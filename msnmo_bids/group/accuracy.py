"""The cohort as results of one model, so that its evaluation is that of a cross-validation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from msnmo_bids.bids.records import ScanRecord
from msnmo_bids.diagnosis import INDETERMINATE
from msnmo_bids.evaluation.crossval import REFERENCE, CrossValidation, ModelResults, scan_columns
from msnmo_bids.evaluation.metrics import MASK_METRICS, VOLUMES, probability_columns
from msnmo_bids.evaluation.plots import calibration_figure, roc_figure
from msnmo_bids.evaluation.summary import Measure, classified, guesses, summarise
from msnmo_bids.group.cohort import Cohort
from msnmo_bids.text import listed, natural_key

#: Only scans for which the model names a diagnosis.
NAMED = "named diagnoses"
NO_RESULT = "no result"
ALL_SITES = "all"
#: Sites with a ROC curve of their own, and scans of a site from which it has a calibration.
CURVES = 6
CALIBRATION_SCANS = 30
_FOLD = "1"


@dataclass(frozen=True)
class Accuracy:
    """How the model's diagnoses agree with those of the raw data set.

    Parameters
    ----------
    confusion : list of (str, str, dict of str to int)
        Site, diagnosis in the raw data set, and number of scans by what the model says: a class,
        `INDETERMINATE` or `NO_RESULT`.
    measures : dict of str to dict of str to Measure
        By model (`REFERENCE` for all scans with a score, `NAMED`, and one per site) and metric.
    scored, named, known : int
        Scans with a score, with a named diagnosis, and all whose diagnosis is a class.
    guesses : tuple of float or None
        Share of the people for whom a guess by the site, and by the majority, is right.
    """

    confusion: list[tuple[str, str, dict[str, int]]]
    measures: dict[str, dict[str, Measure]]
    scored: int
    named: int
    known: int
    guesses: tuple[float, float] | None


def as_results(
    cohort: Cohort, comparisons: Mapping[str, Mapping[str, float | None]], out: Path
) -> CrossValidation:
    """Put the cohort into the form that `msnmo_bids.evaluation` measures.

    Returns
    -------
    CrossValidation
        Models `REFERENCE`, `NAMED` and ``Site <name>`` for each of several sites, all in one fold.
        A scan without lesions has no pattern, and so no probabilities; its metrics are those of
        `compare_masks` in `comparisons`.
    """
    classes, rows = cohort.classes, []
    for record in cohort.records:
        known = cohort.covariates[record.relative]
        row: dict[str, Any] = {
            "dataset": "",
            "participant_id": f"sub-{record.subject}",
            "session_id": record.session or "n/a",
            "scan": record.relative,
            "site": known.site or "n/a",
            "diagnosis": known.diagnosis or "n/a",
            "fold": _FOLD,
            "subject": record.subject,
            "called_as": called(record),
        }
        scores = (record.diagnosis.get("Probabilities") or {}) if record.has_pattern else {}
        row |= {f"prob_{name}": scores.get(name) for name in classes}
        rows.append(row | dict(comparisons.get(record.relative, {})))
    columns = [*scan_columns(classes), "subject", "called_as"]
    table = pd.DataFrame(rows, columns=columns, index=[row["scan"] for row in rows])
    measured = [*MASK_METRICS, *VOLUMES]
    measured += probability_columns(classes)
    table[measured] = table[measured].astype(float)
    parts = {REFERENCE: table, NAMED: table[table["called_as"].isin(classes)]}
    sites = sorted(set(table["site"]), key=natural_key)
    if len(sites) > 1:
        parts |= {f"Site {site}": table[table["site"] == site] for site in sites}
    models = {name: ModelResults(name, part, {}) for name, part in parts.items()}
    people = table.drop_duplicates("subject")
    plan = people[["participant_id", "dataset", "site", "diagnosis", "fold", "subject"]]
    return CrossValidation(out, plan, tuple(classes), cohort.positive, models)


def called(record: ScanRecord) -> str:
    """Return what the model says of a scan: a class, `INDETERMINATE` or `NO_RESULT`."""
    return str(record.diagnosis["Diagnosis"]) if record.diagnosis else NO_RESULT


def measure_accuracy(found: CrossValidation) -> Accuracy | None:
    """Compare the model's diagnoses with those of the raw data set; None where none is known."""
    table = found.models[REFERENCE].scans
    if not (table["diagnosis"] != "n/a").any():
        return None
    return Accuracy(
        confusion=_confusion(table, found.classes),
        measures={name: summarise(found, name) for name in found.models},
        scored=len(classified(found, table)),
        named=len(classified(found, found.models[NAMED].scans)),
        known=int(table["diagnosis"].isin(found.classes).sum()),
        guesses=guesses(found),
    )


def limits_of_accuracy(found: CrossValidation) -> list[str]:
    """Say in sentences why accuracy cannot be measured, and which diagnoses count in no metric.

    There are none where every scan has a diagnosis that is a class.
    """
    table = found.models[REFERENCE].scans
    classes = list(found.classes)
    if not classes:
        return ["Accuracy is not measured: no scan has results."]
    known = table["diagnosis"][table["diagnosis"] != "n/a"]
    others = Counter(known[~known.isin(classes)])
    names = listed(f"{name} ({number})" for name, number in others.most_common())
    said = (
        [
            f"Diagnoses that are not a class of the weights ({', '.join(classes)}), with their "
            f"number of scans, count in no metric: {names}."
        ]
        if others
        else []
    )
    scored = classified(found, table)
    if known.empty:
        return ["Accuracy is not measured: the tables of the data set give no diagnosis."]
    if len(others) and sum(others.values()) == len(known):
        return [f"Accuracy is not measured. {said[0]}"]
    if not len(scored):
        return [*said, "Accuracy is not measured: no scan with a diagnosis has lesions."]
    if len(set(scored["diagnosis"])) == 1:
        only = scored["diagnosis"].iloc[0]
        said.append(
            f"All scans with a score and a diagnosis are {only}: what needs another class, such "
            "as the area under the ROC curve, is n/a."
        )
    return said


def accuracy_figures(
    found: CrossValidation, measures: Mapping[str, Mapping[str, Measure]], folder: Path
) -> dict[str, Path | None]:
    """Draw ROC curves and calibration, for all scans and by site.

    Returns
    -------
    dict of str to Path or None
        PNG files by ``roc`` and ``calibration``; None where there is nothing to draw.
    """
    sites = [name for name in found.models if name not in (REFERENCE, NAMED)]
    sites = sorted(sites, key=lambda name: -len(found.models[name].scans))[:CURVES]
    sites.sort(key=natural_key)
    large = [n for n in sites if len(classified(found, found.models[n].scans)) >= CALIBRATION_SCANS]
    roc, calibration = folder / "group_roc.png", folder / "group_calibration.png"
    title = "Scores against the known diagnosis"
    return {
        "roc": roc_figure(found, [*sites, REFERENCE], measures, roc, title=title),
        "calibration": calibration_figure(found, [*large, REFERENCE], calibration),
    }


def _confusion(
    table: pd.DataFrame, classes: Sequence[str]
) -> list[tuple[str, str, dict[str, int]]]:
    """Count what the model says by site and known diagnosis, classes first."""
    names = sorted(set(table["diagnosis"]) - {*classes, "n/a"}, key=natural_key)
    columns = [*classes, INDETERMINATE, NO_RESULT]
    sites = sorted(set(table["site"]), key=natural_key)
    counts: Counter[tuple[str, str, str]] = Counter()
    for site, diagnosis, named in table[["site", "diagnosis", "called_as"]].itertuples(index=False):
        counts[site, diagnosis, named] += 1
        counts[ALL_SITES, diagnosis, named] += 1
    rows = []
    for site in [ALL_SITES, *(sites if len(sites) > 1 else [])]:
        for diagnosis in [*classes, *names, "n/a"]:
            numbers = {column: counts[site, diagnosis, column] for column in columns}
            if any(numbers.values()):
                rows.append((site, diagnosis, numbers))
    return rows
