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
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_TIE = 1e-7  # a half may be rounded either way
_ABOUT = json.loads(Path(__file__).with_name("data").joinpath("tables.json").read_text("utf-8"))
#: Name of each table, and the description of each of its columns.
TABLES = {name: {column: _ABOUT["columns"][column] for column in columns}
          for name, columns in _ABOUT["tables"].items()}  # fmt: skip


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
    """Pool every measure; write ``tables/``, ``figures/``, ``meta.txt`` and a page, the path given.

    Parameters
    ----------
    poolings : sequence of Studies
        One per measure; those without any study are named and left out.
    sources, notes : sequence of str
        What was read; what the page's reader must know of it.
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
            version=get_version(), data_uri=data_uri, rounded=rounded,
        )  # fmt: skip
        write_text(out / name, text)
    return out / PAGE


def sentences(found: Analysis) -> list[str]:
    """Return paragraphs that say what was pooled, how, and with which result."""
    words = {"rule": RULE, "model_names": MODEL_NAMES, "rounded": rounded}
    text = render("findings.txt.j2", found=found, **words)
    return [" ".join(block.split()) for block in text.split("\n\n") if block.strip()]


def checks(found: Analysis) -> list[Check]:
    """Compare an analysis with its `Studies.printed`, in that order.

    A key that says nothing computed here does not agree.
    """
    data, pooled = found.data, found.pooled
    estimates = {MODEL_NAMES[model]: own for model, own in pooled.estimates.items()}
    estimates |= {f"Without {name}": own.chosen for name, own in found.without.items()}
    estimates |= {f"Subgroup {column}: {value}": own.estimates[FIXED]
                  for column, groups in found.subgroups.items()
                  for value, own in groups.items()}  # fmt: skip
    computed = {what: list(data.numbers(estimate)) for what, estimate in estimates.items()}
    computed |= {"Q": [pooled.q], "tau²": [pooled.tau2], "I² (%)": [100 * (pooled.i2 or 0.0)]}
    computed |= {f"Q between {name}": [own[FIXED].q] for name, own in found.between.items()}
    return [_check(what, text, computed.get(what, [])) for what, text in data.printed.items()]


def _check(what: str, text: str, values: list[float]) -> Check:
    printed = _NUMBER.findall(text)
    if len(printed) != len(values):
        return Check(what, text, "n/a", False, "not a result of this analysis")
    digits = [len(number.partition(".")[2]) for number in printed]
    ours = list(map(rounded, values, digits))
    wrong = [(own, its) for own, value, its, k in zip(ours, values, printed, digits, strict=True)
             if abs(value - float(its)) > 0.5 * 10.0**-k + _TIE]  # fmt: skip
    dropped = any(own[:k] + own[k + 1 :] == its for own, its in wrong for k in range(len(own)))
    hint, words = "a digit was dropped in print" if dropped else "", iter(ours)
    return Check(what, text, _NUMBER.sub(lambda _: next(words), text), not wrong, hint)


def table_rows(found: Analysis) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each of `TABLES`: numbers in full; missing ones are None or lack."""
    data, pooled = found.data, found.pooled
    if isinstance(found.egger, str):
        egger: dict[str, Any] = {"egger_reason": found.egger}
    else:
        egger = {"egger_intercept": found.egger[0], "egger_p": found.egger[1]}
    overall = [row | egger for row in _by_model(data, pooled)]
    if pooled.prediction:
        low, high = map(data.shown, pooled.prediction)
        overall[1] |= {"prediction_low": low, "prediction_high": high}
    groups: list[dict[str, Any]] = []
    for column, own in found.subgroups.items():
        for value, group in own.items():
            groups += _by_model(data, group, column=column, value=value)
        total = sum(group.studies for group in own.values())
        for model, test in found.between[column].items():
            groups.append({"column": column, "value": "between", "studies": total, "model": model,
                           "q": test.q, "df": test.df, "p": test.p, "i2": test.i2})  # fmt: skip
    without = [row for name, own in found.without.items()
               for row in _by_model(data, own, without=name)]  # fmt: skip
    people = data.pooled["subjects"]
    studies = [
        {"study": name, "subjects": None if np.isnan(people[name]) else int(people[name]),
         **{f"weight_{model}": own[k] for model, own in pooled.weights.items()},
         **data.numbers(study)._asdict()}
        for k, (name, study) in enumerate(data.studies.items())
    ]  # fmt: skip
    studies += [{"study": name, "left_out": reason} for name, reason in data.left_out]
    rows = (studies, overall, groups, without)
    return {name: [{"measure": data.measure, **row} for row in own]
            for name, own in zip(TABLES, rows, strict=True)}  # fmt: skip


def _by_model(data: Studies, pooled: Pooled, **about: str) -> list[dict[str, Any]]:
    """Return a row of the fixed effect and one of random effects."""
    return [{**about, **vars(pooled), **data.numbers(estimate)._asdict(), "model": model,
             "chosen": "yes" if model == pooled.model else "no"}
            for model, estimate in pooled.estimates.items()]  # fmt: skip


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
    for check in (check for check in compared if not check.agrees):
        logger.warning("%s, %s: computed %s, printed %s%s", measure, check.what, check.computed,
                       check.printed, f" ({check.hint})" if check.hint else "")  # fmt: skip
    return {"anchor": anchor, "found": found, "paragraphs": sentences(found), "figures": figures,
            "checks": compared, "rows": table_rows(found)}  # fmt: skip


def _slug(text: str) -> str:
    return re.sub(r"\W+", "-", text.lower()).strip("-")
