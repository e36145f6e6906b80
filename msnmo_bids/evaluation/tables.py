"""Tables 3 to 9 of the paper from the results, beside its own numbers: TSV, Markdown, LaTeX.

Each model has three lines: the mean of the folds (what the paper reports), the value over all test
scans with its 95 % interval, and the paper's number.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from msnmo_bids.bids.dataset import write_text, write_tsv
from msnmo_bids.evaluation.crossval import MISSING, REFERENCE, CrossValidation
from msnmo_bids.evaluation.metrics import CLASS_METRICS, MASK_METRICS
from msnmo_bids.evaluation.statistics import Test, holm
from msnmo_bids.evaluation.summary import POOLED, Measure, compare

TESTED = ("dsc", "auc")

#: Heading of each metric, and the factor from the value to what is shown.
HEADINGS: dict[str, tuple[str, float]] = {
    "dsc": ("DSC (%)", 100), "ppv": ("PPV (%)", 100), "tpr": ("TPR (%)", 100),
    "vd": ("VD (%)", 100), "lesion_f1": ("Lesion F1 (%)", 100),
    "lesion_tpr": ("Lesion TPR (%)", 100), "lesion_fpr": ("Lesion FPR (%)", 100),
    "hd95": ("HD95 (mm)", 1), "assd": ("ASSD (mm)", 1), "pooled_dsc": ("Pooled DSC (%)", 100),
    "pooled_ppv": ("Pooled PPV (%)", 100), "pooled_tpr": ("Pooled TPR (%)", 100),
    "pooled_vd": ("Pooled VD (%)", 100), "acc": ("ACC (%)", 100), "sn": ("SN (%)", 100),
    "sp": ("SP (%)", 100), "auc": ("AUC (%)", 100), "ece": ("ECE (%)", 100),
    "brier": ("Brier (%)", 100),
}  # fmt: skip

#: Marks a model of which something is missing.
MARK = "†"


@dataclass(frozen=True)
class Row:
    """One model of a table.

    Parameters
    ----------
    model : str
        Name of its folder.
    label : str
        Name in the paper.
    measures : dict of str to Measure
        By metric; empty when the model was not run.
    paper : dict of str to float
        The paper's numbers (%).
    tests, corrected : dict of str to Test, and to float or None
        Joint model against this one, and the p-value after Holm's correction, by metric.
    gap : str
        What is missing of its results; empty when nothing is.
    """

    model: str
    label: str
    measures: Mapping[str, Measure]
    paper: Mapping[str, float]
    tests: Mapping[str, Test]
    corrected: Mapping[str, float | None]
    gap: str = ""


@dataclass(frozen=True)
class Table:
    """A table of results: a row per model, a column per metric.

    ``name`` is the stem of its files, ``title`` stands above it, ``note`` under it.
    """

    name: str
    title: str
    metrics: tuple[str, ...]
    rows: list[Row]
    note: str = ""

    @property
    def tested(self) -> list[str]:
        """Metrics with a test."""
        return [metric for metric in self.metrics if metric in TESTED]

    @property
    def headings(self) -> list[str]:
        """Column headings."""
        tests = [f"p, {short_name(metric)} (Holm)" for metric in self.tested]
        shown = [HEADINGS[metric][0] for metric in self.metrics]
        return ["Method", "Value", *shown, "Scans (subjects)", *tests]


@lru_cache(maxsize=1)
def paper() -> dict[str, Any]:
    """Return what the paper's tables hold.

    ``Models``: label and numbers (%) by model; ``Tables``: title, metrics and models by number.
    """
    file = files("msnmo_bids.evaluation") / "data" / "paper.json"
    return json.loads(file.read_text(encoding="utf-8"))


def label(model: str) -> str:
    """Return a model's name in the paper; its own where the paper has none."""
    return paper()["Models"].get(model, {"label": model})["label"]


def build_tables(
    found: CrossValidation, measures: Mapping[str, Mapping[str, Measure]]
) -> list[Table]:
    """Fill the paper's tables, 3 to 9, and two with every metric of every model.

    `measures` are by model and metric. p-values are corrected within each table and metric.
    """
    tables = [
        _table(
            found, measures, f"table-{number}", f"Table {number}. {about['title']}",
            about["metrics"], about["models"], about.get("note", ""),
        )
        for number, about in paper()["Tables"].items()
    ]  # fmt: skip
    every = [*paper()["Models"], *(name for name in measures if name not in paper()["Models"])]
    for name, metrics in (
        ("segmentation", (*MASK_METRICS, *POOLED)),
        ("classification", CLASS_METRICS),
    ):
        there = [m for m in every if m in measures and any(measures[m][k].scans for k in metrics)]
        title = f"All metrics of {name}, all models"
        tables.append(_table(found, measures, name, title, metrics, there, ""))
    return tables


def short_name(metric: str) -> str:
    """Return a metric's heading without its unit.

    Examples
    --------
    >>> short_name("hd95")
    'HD95'
    """
    return HEADINGS[metric][0].split(" (")[0]


def _table(
    found: CrossValidation,
    measures: Mapping[str, Mapping[str, Measure]],
    name: str,
    title: str,
    metrics: Sequence[str],
    models: Sequence[str],
    note: str,
) -> Table:
    baselines = [m for m in models if m in measures and m != REFERENCE]
    tests: dict[str, dict[str, Test]] = {m: {} for m in models}
    corrected: dict[str, dict[str, float | None]] = {m: {} for m in models}
    if REFERENCE in measures:
        for metric in (m for m in metrics if m in TESTED):
            made = [compare(found, REFERENCE, baseline, metric=metric) for baseline in baselines]
            for baseline, test, p in zip(baselines, made, holm([t.p for t in made]), strict=True):
                tests[baseline][metric], corrected[baseline][metric] = test, p
    rows = [
        Row(
            model=m,
            label=label(m),
            measures=measures.get(m, {}),
            paper=paper()["Models"].get(m, {}).get("paper", {}),
            tests=tests[m],
            corrected=corrected[m],
            gap=found.models[m].gap if m in found.models else "not run",
        )
        for m in models
    ]
    return Table(name, title, tuple(metrics), rows, note)


def write_table(table: Table, folder: Path) -> None:
    """Write a table into a folder, as TSV (all digits), Markdown and LaTeX."""
    columns = list(_flat(table, Row("", "", {}, {}, {}, {})))
    write_tsv(folder / f"{table.name}.tsv", columns, [_flat(table, row) for row in table.rows])
    write_text(folder / f"{table.name}.md", _markdown(table))
    write_text(folder / f"{table.name}.tex", _latex(table))


def lines(table: Table, row: Row) -> list[list[str]]:
    """Write a model's cells out: mean of the folds, all scans, the paper.

    These are one to three lines with a cell for each heading; the first cell is the model's name,
    with a mark when it is incomplete.
    """
    mark = MARK if row.gap else ""
    written = []
    shown = [row.measures.get(metric) for metric in table.metrics]
    tests = [_p(row, metric) for metric in table.tested]
    blank = [""] * len(tests)
    if row.measures:
        folds = [_number(m, metric) for m, metric in zip(shown, table.metrics, strict=True)]
        written.append([row.label + mark, "mean of folds", *folds, "", *blank])
        everything = [_ranged(m, metric) for m, metric in zip(shown, table.metrics, strict=True)]
        written.append([row.label + mark, "all scans [95 %]", *everything, _count(shown), *tests])
    else:
        none = [MISSING] * len(table.metrics)
        written.append([row.label, "not run", *none, "", *blank])
    if any(metric in row.paper for metric in table.metrics):
        printed = [f"{row.paper[m]:.2f}" if m in row.paper else MISSING for m in table.metrics]
        written.append([row.label, "paper", *printed, "", *blank])
    return written


def _number(measure: Measure | None, metric: str) -> str:
    if measure is None or measure.folds is None:
        return MISSING
    return f"{measure.folds * HEADINGS[metric][1]:.2f}"


def _ranged(measure: Measure | None, metric: str) -> str:
    return MISSING if measure is None else measure.text(HEADINGS[metric][1])


def _count(measures: Sequence[Measure | None]) -> str:
    """Return the largest number of scans of a row, with its people."""
    counts = [(m.scans, m.subjects) for m in measures if m is not None]
    scans, subjects = max(counts, default=(0, 0))
    return f"{scans} ({subjects})"


def _p(row: Row, metric: str) -> str:
    if row.model == REFERENCE or metric not in row.tests:
        return ""
    test, corrected = row.tests[metric], row.corrected[metric]
    if test.p is None or corrected is None:
        return MISSING
    return f"{_small(test.p)} ({_small(corrected)})"


def _small(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _flat(table: Table, row: Row) -> dict[str, Any]:
    """Return a row of the TSV: every number of a model, shares from 0 to 1."""
    flat: dict[str, Any] = {"model": row.model, "label": row.label, "missing": row.gap}
    for metric in table.metrics:
        measure = row.measures.get(metric)
        flat[f"{metric}_mean_of_folds"] = measure and measure.folds
        flat[metric] = measure and measure.value
        flat[f"{metric}_low"] = measure and measure.interval.low
        flat[f"{metric}_high"] = measure and measure.interval.high
        flat[f"{metric}_scans"] = measure and measure.scans
        flat[f"{metric}_subjects"] = measure and measure.subjects
        flat[f"{metric}_reason"] = measure and (measure.reason or measure.interval.reason)
        printed = row.paper.get(metric)
        flat[f"{metric}_paper"] = None if printed is None else round(printed / 100, 6)
    for metric in table.tested:
        test = row.tests.get(metric)
        flat[f"{metric}_difference"] = test and test.difference
        flat[f"{metric}_p"] = test and test.p
        flat[f"{metric}_p_holm"] = row.corrected.get(metric)
        flat[f"{metric}_test_subjects"] = test and test.subjects
        flat[f"{metric}_test_reason"] = test and test.reason
    return flat


def _markdown(table: Table) -> str:
    head = "| " + " | ".join(table.headings) + " |"
    rule = "|" + "---|" * len(table.headings)
    body = ["| " + " | ".join(line) + " |" for row in table.rows for line in lines(table, row)]
    text = [f"**{table.title}**", "", head, rule, *body]
    for remark in remarks(table):
        text += ["", remark]
    return "\n".join(text) + "\n"


def _latex(table: Table) -> str:
    """Write a fragment for the package booktabs; a model's name stands on its first line only."""
    body: list[str] = []
    for row in table.rows:
        if body:
            body.append(r"\addlinespace")
        for number, line in enumerate(lines(table, row)):
            name = "" if number else line[0]
            body.append(" & ".join(map(_tex, [name, *line[1:]])) + r" \\")
    whole = [
        r"\begin{table}",
        rf"\caption{{{_tex(table.title)}}}",
        rf"\begin{{tabular}}{{ll{'r' * (len(table.headings) - 2)}}}",
        r"\toprule",
        " & ".join(map(_tex, table.headings)) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        *(rf"\par\footnotesize {_tex(remark)}" for remark in remarks(table)),
        r"\end{table}",
    ]
    return "\n".join(whole) + "\n"


def _tex(text: str) -> str:
    for plain, command in (
        ("\\", r"\textbackslash "), ("%", r"\%"), ("&", r"\&"), ("_", r"\_"), ("#", r"\#"),
        ("$", r"\$"), ("†", r"\textdagger{}"), ("<", r"$<$"), ("…", r"\ldots{}"),
    ):  # fmt: skip
        text = text.replace(plain, command)
    return text


def remarks(table: Table) -> list[str]:
    """Return what a reader must know, in sentences: note, what is missing, tests not made."""
    found = [table.note] if table.note else []
    found += [f"† {row.label}: {row.gap}." for row in table.rows if row.gap and row.measures]
    for row in table.rows:
        for metric in table.metrics:
            measure = row.measures.get(metric)
            if measure is not None and measure.scans and measure.reason and not row.gap:
                found.append(
                    f"{row.label}, {short_name(metric)}: no mean of folds ({measure.reason})."
                )
        for metric, test in row.tests.items():
            if test.reason:
                found.append(f"{row.label}, {short_name(metric)}: no test ({test.reason}).")
    return found
