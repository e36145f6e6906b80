"""Write what a cross-validation has found: the paper's tables for one's own data, figures, page.

Each model has two lines: the mean of the folds (what the paper reports), and the value over all
test scans with its 95 % interval.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import write_text, write_tsv
from msnmo_bids.evaluation.crossval_results import (
    MISSING,
    REFERENCE,
    RULE,
    CrossValidation,
    label,
    read_crossval,
    read_examples,
)
from msnmo_bids.evaluation.figures import (
    OVERLAY,
    activation_figure,
    calibration_figure,
    overlay_figure,
    roc_figure,
)
from msnmo_bids.evaluation.measures import (
    DRAWS,
    SITE_COLUMNS,
    Measure,
    PairedTest,
    cells,
    compare,
    guesses,
    site_rows,
    summarise,
)
from msnmo_bids.evaluation.metrics import (
    CLASS_METRICS,
    MASK_METRICS,
    POOLED,
    factor,
    heading,
    short_name,
)
from msnmo_bids.model import registry
from msnmo_bids.reports.page import data_uri, render

logger = logging.getLogger(__name__)
PAGE = "crossval.html"
#: Metrics by which the joint model is tested against the others.
TESTED = ("dsc", "auc")
_SEGMENTATION, _CLASSIFICATION = MASK_METRICS[:4], CLASS_METRICS[:4]
#: Title and metrics of each table of the paper; `registry` knows its models.
TABLES = {
    3: ("Comparison of methods for lesion segmentation", _SEGMENTATION),
    4: ("Comparison of methods for classification", _CLASSIFICATION),
    5: ("Influence of joint learning on segmentation", _SEGMENTATION),
    6: ("Influence of joint learning on classification", _CLASSIFICATION),
    7: ("Influence of the information-sharing module", (*_SEGMENTATION, *_CLASSIFICATION)),
    8: ("Influence of the lesion guidance module on classification", _CLASSIFICATION),
    9: ("Influence of the cross-task loss", (*_SEGMENTATION, *_CLASSIFICATION)),
}
AREAS = "Over all test scans; in brackets the 95 % interval of the area."
ACTIVATION = (
    "Pink speaks for the class, green against it, against the mean of the classes. It shows what "
    "the network used, not what caused a lesion."
)


@dataclass(frozen=True)
class Row:
    """One model of a table, by the name of its folder.

    By metric, measures (empty when the model was not run), and tests of the joint model against
    this one with the p-value after Holm's correction; ``gap`` says what is missing of its results.
    """

    model: str
    measures: Mapping[str, Measure]
    tests: Mapping[str, tuple[PairedTest, float | None]]
    gap: str


@dataclass(frozen=True)
class Table:
    """A table of results, a row per model: ``name`` is the stem of its file."""

    name: str
    title: str
    metrics: Sequence[str]
    rows: list[Row]

    @property
    def tested(self) -> list[str]:
        """Metrics with a test."""
        return [metric for metric in self.metrics if metric in TESTED]

    @property
    def headings(self) -> list[str]:
        """Column headings of :func:`lines`."""
        tests = [f"p, {short_name(metric)} (Holm)" for metric in self.tested]
        return ["Method", "Value", *map(heading, self.metrics), "Scans (subjects)", *tests]


def write_evaluation(
    out: Path,
    *,
    classes: Sequence[str],
    positive: str,
    notes: Sequence[str],
) -> Path:
    """Evaluate a cross-validation: write ``tables/``, ``figures/`` and the page, the path given.

    Incomplete models are named in the page, and in a warning.

    Parameters
    ----------
    out : Path
        Folder of the cross-validation, as `msnmo_bids.evaluation.crossval_results` describes it.
    classes, positive : sequence of str, str
        Diagnoses, in the order of the networks; the positive one (NMOSD in the paper).
    notes : sequence of str
        What the page's reader must know of the data: which are simulated, whether any real NMOSD
        was used. They stand at its top.

    Raises
    ------
    MsnmoError
        If there is nothing to read, or a table is malformed.
    """
    found = read_crossval(out, classes=classes, positive=positive)
    gaps = [(label(model.name), model.gap) for model in found.models.values() if model.gap]
    for name, gap in gaps:
        logger.warning("%s is incomplete: %s", name, gap)
    measures = {name: summarise(found, name) for name in found.models}
    tables = build_tables(found, measures)
    for table in tables:
        rows = [_flat(table, row) for row in table.rows]
        write_tsv(out / "tables" / f"{table.name}.tsv", list(rows[0]), rows)
    sites = site_rows(found)
    write_tsv(out / "tables" / "sites.tsv", SITE_COLUMNS, sites)
    text = render(
        "crossval.html.j2",
        tables=tables,
        lines=lines,
        remarks=remarks,
        figures=_draw(found, measures, out / "figures"),
        data_uri=data_uri,
        sites=sites,
        guesses=guesses(found),
        gaps=gaps,
        not_run=[label(name) for name in registry.names() if name not in found.models],
        scans=len(set().union(*(model.scans.index for model in found.models.values()))),
        label=label,
        notes=notes,
        found=found,
        draws=DRAWS,
    )
    write_text(out / PAGE, text)
    return out / PAGE


def build_tables(
    found: CrossValidation, measures: Mapping[str, Mapping[str, Measure]]
) -> list[Table]:
    """Fill the paper's tables, 3 to 9, and two with every metric of every model.

    `measures` are by model and metric. p-values are corrected within each table and metric.
    """
    tables = [
        _table(found, measures, f"table-{k}", f"Table {k}. {title}", metrics, _models_of(k))
        for k, (title, metrics) in TABLES.items()
    ]
    for name, metrics in (
        ("segmentation", (*MASK_METRICS, *POOLED)),
        ("classification", CLASS_METRICS),
    ):
        there = [m for m, own in measures.items() if any(own[metric].scans for metric in metrics)]
        title = f"All metrics of {name}, all models"
        if there:
            tables.append(_table(found, measures, name, title, metrics, there))
    return tables


def _models_of(*numbers: int) -> list[str]:
    """Return the models of some of the paper's tables, each once, the joint one last."""
    names = dict.fromkeys(name for number in numbers for name in registry.names(number))
    return sorted([*names, *([RULE] if 4 in numbers else [])], key=lambda name: name == REFERENCE)


def _table(
    found: CrossValidation,
    measures: Mapping[str, Mapping[str, Measure]],
    name: str,
    title: str,
    metrics: Sequence[str],
    models: Sequence[str],
) -> Table:
    """Make a table of models, with the joint model's tests against the others that were run."""
    others = [m for m in models if REFERENCE in measures and m in measures and m != REFERENCE]
    tests: dict[str, dict[str, tuple[PairedTest, float | None]]] = {model: {} for model in models}
    for metric in TESTED:
        if metric in metrics:
            made = [compare(found, REFERENCE, other, metric=metric) for other in others]
            corrected = holm([test.p for test in made])
            for other, test, p in zip(others, made, corrected, strict=True):
                tests[other][metric] = test, p
    rows = [
        Row(m, measures.get(m, {}), tests[m], found.models[m].gap if m in measures else "not run")
        for m in models
    ]
    return Table(name, title, metrics, rows)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Correct a family of tests by Holm's method; tests that were not made do not count.

    Examples
    --------
    >>> holm([0.01, None, 0.04])
    [0.02, None, 0.04]
    """
    from statsmodels.stats.multitest import multipletests

    made = [p for p in p_values if p is not None]
    corrected = iter(multipletests(made, method="holm")[1] if made else ())
    return [None if p is None else float(next(corrected)) for p in p_values]


def lines(table: Table, row: Row) -> list[list[str]]:
    """Write a model's cells out, one for each heading: mean of the folds, all scans.

    It is one line where the model was not run. The first cell is the model's name, with a † when it
    is incomplete.
    """
    name, blank = label(row.model), [""] * len(table.tested)
    if not row.measures:
        return [[name, "not run", *[MISSING] * len(table.metrics), "", *blank]]
    name += "†" if row.gap else ""
    shown = {metric: row.measures[metric] for metric in table.metrics}
    folds = [
        MISSING if measure.folds is None else f"{measure.folds * factor(metric):.2f}"
        for metric, measure in shown.items()
    ]
    everything = [" ".join(measure.text(factor(m))).strip() for m, measure in shown.items()]
    scans, subjects = max((measure.scans, measure.subjects) for measure in shown.values())
    tests = [_p(*row.tests.get(metric, (None, None))) for metric in table.tested]
    return [
        [name, "mean of folds", *folds, "", *blank],
        [name, "all scans [95 %]", *everything, f"{scans} ({subjects})", *tests],
    ]


def _p(test: PairedTest | None, corrected: float | None) -> str:
    if test is None:
        return ""
    if test.p is None or corrected is None:
        return MISSING
    one, other = ("< 0.001" if p < 0.001 else f"{p:.3f}" for p in (test.p, corrected))
    return f"{one} ({other})"


def _flat(table: Table, row: Row) -> dict[str, Any]:
    """Return a row of the TSV: every number of a model, shares from 0 to 1."""
    flat: dict[str, Any] = {"model": row.model, "label": label(row.model), "missing": row.gap}
    for metric in table.metrics:
        own = row.measures.get(metric)
        flat |= {
            f"{metric}_mean_of_folds": own and own.folds,
            **cells(metric, own),
            f"{metric}_reason": own and (own.reason or own.interval.reason),
        }
    for metric in table.tested:
        test, corrected = row.tests.get(metric, (None, None))
        flat |= {
            f"{metric}_difference": test and test.difference,
            f"{metric}_p": test and test.p,
            f"{metric}_p_holm": corrected,
            f"{metric}_test_subjects": test and test.subjects,
            f"{metric}_test_reason": test and test.reason,
        }
    return flat


def remarks(table: Table) -> list[str]:
    """Return what a reader must know, in sentences: what is missing, tests not made."""
    found = [f"† {label(row.model)}: {row.gap}." for row in table.rows if row.gap and row.measures]
    if table.name == "table-4":
        found.append("The rule, the radiologists' criteria, is not in the paper's table.")
    for row in table.rows:
        names = {metric: f"{label(row.model)}, {short_name(metric)}" for metric in table.metrics}
        for metric, name in names.items():
            own = row.measures.get(metric)
            if own is not None and own.scans and own.reason and not row.gap:
                found.append(f"{name}: no mean of folds ({own.reason}).")
        for metric, (test, _) in row.tests.items():
            if test.reason:
                found.append(f"{names[metric]}: no test ({test.reason}).")
    return found


def _draw(
    found: CrossValidation, measures: Mapping[str, Mapping[str, Measure]], folder: Path
) -> list[tuple[Path, str, str]]:
    """Draw all figures for which there are data: PNG file, title, caption."""
    examples = read_examples(found)
    classifiers, ablations = _models_of(4), _models_of(6, 7, 8, 9)
    classifiers += [name for name in found.models if name not in (*registry.names(), RULE)]
    segmenting, joint = ([m for m in _models_of(k) if m in found.models] for k in (3, 5))
    file = folder / "figure-9_roc.png"
    roc = roc_figure(found, classifiers, measures, file, title="Joint model and classifiers")
    file = folder / "figure-11_roc.png"
    ablated = roc_figure(found, ablations, measures, file, title="Joint model and its ablations")
    share = f"Share of {found.positive} among scans of about equal probability, in five bins."
    overlay = overlay_figure(examples, segmenting, folder / "figure-8_overlay.png")
    joint_overlay = overlay_figure(examples, joint, folder / "figure-10_overlay.png")
    activation = activation_figure(found, examples, folder / "figure-12_cam.png")
    drawn = [
        (roc, "ROC curves of the classifiers (Fig. 9 of the paper)", AREAS),
        (ablated, "ROC curves of the ablations (Fig. 11)", AREAS),
        (calibration_figure(found, classifiers, folder / "calibration.png"), "Calibration", share),
        (overlay, "Lesions found by the segmentation methods (Fig. 8)", OVERLAY),
        (joint_overlay, "Lesions found with and without classification (Fig. 10)", OVERLAY),
        (activation, "Class activation beside the manual mask (Fig. 12)", ACTIVATION),
    ]
    return [(file, title, text) for file, title, text in drawn if file is not None]
