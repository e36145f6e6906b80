"""Write a meta-analysis: tables with dictionaries, forest and funnel plots, text and page."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from msnmo_bids.bids.dataset import write_json, write_text, write_tsv
from msnmo_bids.evaluation.figures import figure_file
from msnmo_bids.meta.pooling import FIXED, MODEL_NAMES, RANDOM, RULE, Analysis, Pooled, analyse
from msnmo_bids.meta.studies import Numbers, Studies, Z, rounded
from msnmo_bids.reports.page import data_uri, render

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger(__name__)
PAGE, TEXT = "meta.html", "meta.txt"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_TIE = 1e-7  # a half may be rounded either way
_BLUE, _ORANGE = "#0072B2", "#D55E00"
_ROW = 0.27  # inches
_CHARACTER = 0.082  # inches, at the size of the labels
_SIZE = 9.0
_DIAMONDS = {"chosen": "black", "other": "white", "subgroup": "0.6"}
#: Ticks of a logit axis.
_PERCENT = np.array([0.1, 1, 5, 20, 50, 80, 95, 99, 99.9])
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

    Measures without any study are named and left out. The page says what was read (`sources`), and
    what its reader must know of it.
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
            data_uri=data_uri, rounded=rounded,
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


class _Line(NamedTuple):
    """A line of a forest plot; ``kind``: study, prediction, heading, note or one of `_DIAMONDS`."""

    label: str
    kind: str
    numbers: Numbers | None = None
    weight: float = 0.0


def forest_plot(found: Analysis, stem: Path, column: str | None = None) -> Path:
    """Draw each study with its interval, the pooled diamonds and the prediction interval.

    The files are `stem` with their suffixes. With a `column` the studies stand under its values,
    each with its own diamond (fixed effect).
    """
    lines, published = _lines(found, column), found.data.reference
    heaviest = max(line.weight for line in lines)
    label_width = max(len(line.label) for line in lines) * _CHARACTER + 0.2
    size = label_width + 7.2, _ROW * len(lines) + (1.35 if published else 1.05)
    files = stem.with_suffix(".svg"), stem.with_suffix(".png")
    with figure_file(size, *files) as figure:
        widths: dict[str, Any] = {"width_ratios": (label_width, 4.2, 3.0), "wspace": 0}
        names, axes, results = figure.subplots(1, 3, sharey=True, gridspec_kw=widths)
        style: dict[str, Any] = {"ha": "right", "va": "center", "size": _SIZE}
        for y, line in enumerate(lines):
            bold = "bold" if line.kind in ("heading", "chosen") else "normal"
            names.text(0, y, line.label, va="center", size=_SIZE, weight=bold)
            if line.numbers:
                _draw(axes, y, line, line.numbers, heaviest)
                effect, low, high = map(rounded, line.numbers)
                text = f"{'' if line.kind == 'prediction' else effect} [{low}, {high}]"
                results.text(0.72, y, text, weight=bold, **style)
            if line.weight:
                results.text(1, y, f"{rounded(100 * line.weight, 1)} %", **style)
        results.text(0.62, -1, "95 % interval", **style)
        results.text(1, -1, "weight", **style)
        names.set_axis_off()
        results.set_axis_off()
        if published:
            text, (centre, left, right) = published
            axes.axvspan(left, right, color=_ORANGE, alpha=0.12, lw=0)
            axes.axvline(centre, color=_ORANGE, ls="--", lw=1, label=text)
            figure.legend(loc="outside lower center", fontsize=_SIZE, frameon=False)
        axes.set(ylim=(len(lines) - 0.3, -1.6), xlabel=found.data.measure, xmargin=0.06)
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False, labelleft=False)
    return files[1]


def _lines(found: Analysis, column: str | None) -> list[_Line]:
    data, pooled = found.data, found.pooled
    weighted = zip(data.studies.items(), pooled.weights[pooled.model], strict=True)
    studies = {name: _Line(name, "study", data.numbers(its), own) for (name, its), own in weighted}
    lines = [] if column else list(studies.values())
    for value, own in found.subgroups[column].items() if column else ():
        lines.append(_Line(f"{column}: {value}", "heading"))
        members = data.pooled.index[data.pooled[column] == value]
        lines += [studies[name]._replace(label=f"   {name}") for name in members]
        if own.studies > 1:
            lines.append(_Line("   fixed effect", "subgroup", data.numbers(own.estimates[FIXED])))
    if pooled.studies == 1:
        return lines
    for model, estimate in pooled.estimates.items():
        kind = "chosen" if model == pooled.model else "other"
        lines.append(_Line(MODEL_NAMES[model], kind, data.numbers(estimate)))
    if pooled.model == RANDOM and pooled.prediction:
        numbers = Numbers(*map(data.shown, (pooled.chosen.effect, *pooled.prediction)))
        lines.append(_Line("95 % prediction interval", "prediction", numbers))
    i2 = rounded(100 * (pooled.i2 or 0), 2)
    return [*lines, _Line(f"I² {i2} %, tau² {rounded(pooled.tau2, 2)}", "note")]


def _draw(axes: Axes, y: int, line: _Line, numbers: Numbers, heaviest: float) -> None:
    effect, low, high = numbers
    if line.kind in _DIAMONDS:
        corners = [low, effect, high, effect], [y, y - 0.3, y, y + 0.3]
        axes.fill(*corners, fc=_DIAMONDS[line.kind], ec="black", lw=0.9, zorder=3)
    else:
        width = 3 if line.kind == "prediction" else 1.1
        axes.plot([low, high], [y, y], color="black", lw=width, solid_capstyle="butt")
    if line.kind == "study":
        axes.plot(effect, y, "s", color=_BLUE, ms=3 + 5 * np.sqrt(line.weight / heaviest))
    elif line.kind == "chosen":
        axes.axvline(effect, color="0.6", lw=0.8, zorder=0)


def funnel_plot(found: Analysis, stem: Path) -> Path:
    """Draw standard errors over effects, with the region where 95 % of the studies should lie."""
    data, table, centre = found.data, found.data.pooled, found.pooled.chosen.effect
    top = 1.25 * table["se"].max()
    files = stem.with_suffix(".svg"), stem.with_suffix(".png")
    with figure_file((6.4, 4.6), *files) as figure:
        axes = figure.subplots()
        ends = [centre - Z * top, centre, centre + Z * top]
        axes.plot(ends, [top, 0, top], color="0.5", ls="--", lw=1)
        axes.axvline(centre, color="0.5", lw=1)
        axes.plot(table["effect"], table["se"], "o", color=_BLUE, ms=6, alpha=0.8, mec="white")
        # Names of equal errors alternately above and below; of many, none.
        ordered = sorted(data.studies.items(), key=lambda item: item[1].effect)
        for number, (name, study) in enumerate(ordered if len(ordered) <= 30 else ()):
            sign, side = (1, "bottom") if number % 2 else (-1, "top")
            axes.annotate(name, study, xytext=(3, 7 * sign), textcoords="offset points", size=7,
                          rotation=35 * sign, va=side, rotation_mode="anchor")  # fmt: skip
        axes.set(ylim=(top, 0), ylabel="standard error" + (" (logit)" if data.logit else ""))
        axes.set(xlabel=data.measure, xmargin=0.12)
        if data.logit:
            limits = axes.get_xlim()
            axes.set_xticks(np.log(_PERCENT / (100 - _PERCENT)), [f"{x:.4g}" for x in _PERCENT])
            axes.set_xlim(limits)
        axes.set_title(
            f"{MODEL_NAMES[found.pooled.model]} {rounded(data.shown(centre))}; dashed: where 95 % "
            "would lie\nif all differences were chance",
            fontsize=_SIZE + 0.5,
        )
    return files[1]
