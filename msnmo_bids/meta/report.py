"""Write a meta-analysis: tables with dictionaries, forest and funnel plots, text and page."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from msnmo_bids.bids.dataset import write_json, write_text, write_tsv
from msnmo_bids.meta.plots import forest_plot, funnel_plot
from msnmo_bids.meta.pooling import FIXED, MODEL_NAMES, RULE, Analysis, Pooled, analyse
from msnmo_bids.meta.studies import Studies, rounded
from msnmo_bids.reports.page import data_uri, render
from msnmo_bids.version import get_version

logger = logging.getLogger(__name__)
PAGE, TEXT = "meta.html", "meta.txt"
_NUMBER = re.compile(r"-?\d+(?:\.(\d+))?")
_TIE = 1e-7  # a half may be rounded either way
_ABOUT = json.loads(Path(__file__).with_name("data").joinpath("tables.json").read_text("utf-8"))
#: Name of each table, and the description of each of its columns.
TABLES = {
    name: {column: _ABOUT["columns"][column] for column in columns}
    for name, columns in _ABOUT["tables"].items()
}


class Check(NamedTuple):
    """A printed result, ``what`` by its key in the sidecar, beside the computed one.

    ``agrees``: whether the computed numbers, here with as many digits, round to the printed ones;
    ``hint``: what may have gone wrong in print, empty when nothing is known.
    """

    what: str
    printed: str
    computed: str
    agrees: bool
    hint: str = ""


def write_meta(
    out: Path, poolings: Sequence[Studies], *, sources: Sequence[str], notes: Sequence[str] = ()
) -> Path:
    """Pool every measure, and write ``tables/``, ``figures/``, ``meta.txt`` and ``meta.html``.

    Parameters
    ----------
    out : Path
        Folder.
    poolings : sequence of Studies
        One a measure; those without any study are named and left out.
    sources : sequence of str
        What was read.
    notes : sequence of str, optional
        What the page's reader must know of the data.

    Returns
    -------
    Path
        The page.
    """
    for data in poolings:
        for name, reason in data.left_out:
            logger.warning("%s, %s: left out (%s)", data.measure, name, reason)
    sections = [_section(analyse(data), out / "figures") for data in poolings if data.studies]
    for name, columns in TABLES.items():
        rows = [row for section in sections for row in section["rows"][name]]
        write_tsv(out / "tables" / f"{name}.tsv", list(columns), rows)
        write_json(out / "tables" / f"{name}.json", columns)
    for name in (TEXT, PAGE):
        text = render(
            f"{name}.j2", sections=sections, sources=sources, notes=notes, tables=TABLES,
            empty=[data for data in poolings if not data.studies], rule=RULE,
            version=get_version(), data_uri=data_uri, **IN_WORDS,
        )  # fmt: skip
        write_text(out / name, text)
    return out / PAGE


def sentences(found: Analysis) -> list[str]:
    """Return paragraphs that say what was pooled, how, and with which result."""
    text = render("findings.txt.j2", found=found, rule=RULE, model_names=MODEL_NAMES, **IN_WORDS)
    return [" ".join(block.split()) for block in text.split("\n\n") if block.strip()]


def heterogeneity(pooled: Pooled) -> str:
    """Write Q, I² and tau² of at least two studies."""
    return (
        f"Q = {rounded(pooled.q)} (df = {pooled.df}, {p_text(pooled.p)}), "
        f"I² = {rounded(100 * (pooled.i2 or 0))} %, tau² = {rounded(pooled.tau2, 3)}"
    )


def egger_text(found: Analysis) -> str:
    """Write the result of Egger's test."""
    if isinstance(found.egger, str):
        return f"not estimable ({found.egger})"
    return f"intercept {rounded(found.egger[0])}, {p_text(found.egger[1])}"


def p_text(p: float | None) -> str:
    """Write a p-value.

    Examples
    --------
    >>> p_text(0.0), p_text(0.0421)
    ('p < 0.001', 'p = 0.042')
    """
    return f"p = {p:.3f}" if p is not None and p >= 0.001 else "p < 0.001"


#: What the templates call.
IN_WORDS = {"rounded": rounded, "heterogeneity": heterogeneity, "egger_text": egger_text,
            "p_text": p_text}  # fmt: skip


def checks(found: Analysis) -> list[Check]:
    """Compare an analysis with what a paper prints.

    Parameters
    ----------
    found : Analysis
        A meta-analysis; its `Studies.printed` is what is compared.

    Returns
    -------
    list of Check
        In the order of the sidecar. A key that says nothing computed here does not agree.
    """
    data, pooled = found.data, found.pooled
    estimates = {MODEL_NAMES[model]: own for model, own in pooled.estimates.items()}
    estimates |= {f"Without {name}": own.chosen for name, own in found.without.items()}
    computed = {"Q": [pooled.q], "tau²": [pooled.tau2], "I² (%)": [100 * (pooled.i2 or 0.0)]}
    for column, groups in found.subgroups.items():
        computed[f"Q between {column}"] = [found.between[column][FIXED].q]
        for value, own in groups.items():
            estimates[f"Subgroup {column}: {value}"] = own.estimates[FIXED]
    computed |= {what: list(data.numbers(estimate)) for what, estimate in estimates.items()}
    return [_check(what, text, computed.get(what, [])) for what, text in data.printed.items()]


def _check(what: str, text: str, values: list[float]) -> Check:
    printed = [(number[0], len(number[1] or "")) for number in _NUMBER.finditer(text)]
    if len(printed) != len(values):
        return Check(what, text, "n/a", False, "not a result of this analysis")
    ours, wrong = [], []
    for value, (number, digits) in zip(values, printed, strict=True):
        ours.append(rounded(value, digits))
        if abs(value - float(number)) > 0.5 * 10.0**-digits + _TIE:
            wrong.append((number, ours[-1]))
    dropped = any(
        own[:k] + own[k + 1 :] == number for number, own in wrong for k in range(len(own))
    )
    words = iter(ours)
    computed = _NUMBER.sub(lambda _: next(words), text)
    return Check(what, text, computed, not wrong, "a digit was dropped in print" if dropped else "")


def table_rows(found: Analysis) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each of `TABLES`: numbers in full; missing ones are None or lack."""
    data, pooled = found.data, found.pooled
    overall = _by_model(data, pooled)
    if pooled.prediction:
        low, high = map(data.shown, pooled.prediction)
        overall[1] |= {"prediction_low": low, "prediction_high": high}
    for row in overall:
        if isinstance(found.egger, str):
            row["egger_reason"] = found.egger
        else:
            row["egger_intercept"], row["egger_p"] = found.egger
    groups: list[dict[str, Any]] = []
    for column, own in found.subgroups.items():
        for value, group in own.items():
            groups += [{"column": column, "value": value, **row} for row in _by_model(data, group)]
        total = sum(group.studies for group in own.values())
        for model, test in found.between[column].items():
            groups.append({"column": column, "value": "between", "studies": total, "model": model,
                           "q": test.q, "df": test.df, "p": test.p, "i2": test.i2})  # fmt: skip
    without = [
        {"without": name, **row}
        for name, own in found.without.items()
        for row in _by_model(data, own)
    ]
    tables = {"studies": _studies(found), "pooled": overall, "subgroups": groups,
              "leave-one-out": without}  # fmt: skip
    return {
        name: [{"measure": data.measure, **row} for row in rows] for name, rows in tables.items()
    }


def _studies(found: Analysis) -> list[dict[str, Any]]:
    data, weights = found.data, found.pooled.weights
    rows: list[dict[str, Any]] = []
    for k, (name, study) in enumerate(data.studies.items()):
        subjects = data.pooled["subjects"].iloc[k]
        row = {"study": name, "subjects": None if np.isnan(subjects) else int(subjects)}
        row |= {f"weight_{model}": own[k] for model, own in weights.items()}
        rows.append(row | data.numbers(study)._asdict())
    return rows + [{"study": name, "left_out": reason} for name, reason in data.left_out]


def _by_model(data: Studies, pooled: Pooled) -> list[dict[str, Any]]:
    """Return a row of the fixed effect and one of random effects."""
    common = {name: getattr(pooled, name) for name in ("studies", "q", "df", "p", "i2", "tau2")}
    return [
        {**common, "model": model, "chosen": "yes" if model == pooled.model else "no",
         **data.numbers(estimate)._asdict()}
        for model, estimate in pooled.estimates.items()
    ]  # fmt: skip


def _section(found: Analysis, folder: Path) -> dict[str, Any]:
    """Draw a measure's figures, and return what the templates show of it."""
    measure = found.data.measure
    anchor = _slug(measure) or "effect"
    figures = [("Forest plot", forest_plot(found, folder / f"{anchor}_forest"))]
    for column in found.subgroups:
        stem = folder / f"{anchor}_forest_{_slug(column)}"
        figures.append((f"Forest plot by {column}", forest_plot(found, stem, column)))
    if found.pooled.studies > 2:
        figures.append(("Funnel plot", funnel_plot(found, folder / f"{anchor}_funnel")))
    compared = checks(found)
    for check in compared:
        if not check.agrees:
            logger.warning("%s, %s: computed %s, printed %s%s", measure, check.what, check.computed,
                           check.printed, f" ({check.hint})" if check.hint else "")  # fmt: skip
    return {"anchor": anchor, "found": found, "paragraphs": sentences(found), "figures": figures,
            "checks": compared, "rows": table_rows(found)}  # fmt: skip


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")
