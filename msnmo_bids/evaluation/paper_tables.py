"""Tables 3 to 9 of the paper from the results, beside the paper's own numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any

from msnmo_bids.evaluation import classification, segmentation
from msnmo_bids.evaluation.crossval import CrossValidation
from msnmo_bids.evaluation.statistics import Test, holm
from msnmo_bids.evaluation.summary import POOLED, Measure, compare

REFERENCE = "joint"
RULE = "rule"
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
    """A table of results.

    Parameters
    ----------
    name : str
        Stem of its files.
    title : str
        Above the table.
    metrics : tuple of str
        Columns.
    rows : list of Row
        Models.
    note : str
        Under the table.
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
    """Return rows, columns and numbers of the paper's tables.

    Returns
    -------
    dict
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
    """Fill the paper's tables, and two with every metric of every model.

    Parameters
    ----------
    found : CrossValidation
        All results.
    measures : mapping of str to mapping of str to Measure
        By model and metric.

    Returns
    -------
    list of Table
        ``table-3`` to ``table-9``, then ``segmentation`` and ``classification``. p-values are
        corrected within each table and metric.
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
        ("segmentation", (*segmentation.METRICS, *POOLED)),
        ("classification", classification.METRICS),
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
