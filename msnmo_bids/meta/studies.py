"""Studies or sites with one measure, ready to be pooled; reading them from a table."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_HALF_UP, Decimal
from itertools import combinations
from pathlib import Path
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from msnmo_bids.bids.raw_metadata import cell
from msnmo_bids.bids.text_files import GUESSED, TWICE, UNEVEN, Note, Table, read_json, read_tsv
from msnmo_bids.errors import BadInputError, MissingInputError
from msnmo_bids.evaluation.measures import LEVEL
from msnmo_bids.text import listed

logger = logging.getLogger(__name__)

#: Half a 95 % interval by the normal distribution, in standard errors.
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)
#: Added to right and wrong where one of them is 0, as metafor and RevMan's diagnostic tests do.
CORRECTION = 0.5
#: Measures that lie between 0 and 100.
SHARES = tuple(f"{name} (%)" for name in ("DSC", "PPV", "TPR", "ACC", "SN", "SP", "AUC"))
#: The studies that Daqqaq et al. pooled; beside it (``.json``) what their paper prints.
PUBLISHED = Path(__file__).with_name("data") / "meta-analysis.tsv"
NO_MEASURE = "Effect"
_ABOVE_0 = ("se", "sd", "subjects", "total")
_NUMBERS = (*_ABOVE_0, "effect", "ci_low", "ci_high", "events")
_OF_A_STUDY = ("effect", "se", "subjects", "left_out")
_KNOWN = ("study", "measure", "left_out", *_NUMBERS)
#: Names of rows that may sum up the others.
_SUM = r"pooled\b.*|(total|overall|summary)\W*"
#: Standard errors of one row that are further apart may contradict each other: rounded ones, and
#: intervals of a dozen people by the t distribution, are not.
_APART = 0.2
#: An interval whose middle is further from the effect, in widths, was made on another scale.
_LOPSIDED = 0.1


class Estimate(NamedTuple):
    """An effect and its standard error, on the scale on which it is pooled."""

    effect: float
    se: float


class Doubt(NamedTuple):
    """What a reader must know of a table, and the measures that it is about."""

    measures: Sequence[str]
    said: str


class Numbers(NamedTuple):
    """An effect and its 95 % interval, on the scale of the measure."""

    effect: float
    low: float
    high: float


@dataclass(frozen=True)
class Studies:
    """What is pooled into one number.

    The measure is a heading with its unit, such as ``DSC (%)``. The table has one row per study,
    under its name. ``effect`` and ``se``, above 0: on the scale of the pooling; ``subjects``:
    people in it, NaN when unknown; ``left_out``: why it cannot be pooled, empty where it can. All
    others are subgroup columns, empty when unknown. With ``logit`` effects are logits of shares;
    they are shown in percent, others as they are. ``noun`` says what a study is (``study``,
    ``site``, ``folder``), ``notes`` what a reader must know, ``printed`` what a paper prints, by
    the names of `msnmo_bids.meta.report.checks`.
    """

    measure: str
    table: pd.DataFrame
    logit: bool = False
    noun: str = "study"
    notes: tuple[str, ...] = ()
    printed: Mapping[str, str] = field(default_factory=dict)

    @property
    def pooled(self) -> pd.DataFrame:
        """Rows of the studies that are pooled."""
        return self.table[self.table["left_out"] == ""]

    @property
    def studies(self) -> dict[str, Estimate]:
        """The studies that are pooled, by name."""
        return {name: Estimate(*pair) for name, *pair in self.pooled[["effect", "se"]].itertuples()}

    @property
    def left_out(self) -> list[tuple[str, str]]:
        """Name and reason of those that are not."""
        return [(str(name), why) for name, why in self.table["left_out"].items() if why]

    @property
    def columns(self) -> list[str]:
        """Subgroup columns."""
        return [str(name) for name in self.table if name not in _OF_A_STUDY]

    @property
    def name(self) -> str:
        """The measure without its unit: ``DSC`` of ``DSC (%)``."""
        return self.measure.split(" (")[0]

    @property
    def plural(self) -> str:
        """What several studies are."""
        return "studies" if self.noun == "study" else f"{self.noun}s"

    @property
    def reference(self) -> tuple[str, Numbers] | None:
        """What the shipped paper has pooled (%), in words too; None for what it has not.

        None as well for studies that have a paper of their own.
        """
        about = sidecar(PUBLISHED)["Reference"].get(self.measure)
        if about is None or self.printed:
            return None
        numbers = Numbers(about["effect"], about["low"], about["high"])
        return "{}: {:.2f} [{:.2f}, {:.2f}]".format(about["label"], *numbers), numbers

    def shown(self, value: float) -> float:
        """Return what is on the scale of the pooling on that of the measure (%, for logits).

        Not beyond 0 and 100 for `SHARES`, whose intervals by the normal distribution know no ends.
        """
        if self.logit:
            return float(100 / (1 + np.exp(-value)))
        return min(max(value, 0.0), 100.0) if self.measure in SHARES else value

    def numbers(self, estimate: Estimate) -> Numbers:
        """Return an effect with its 95 % interval, on the scale of the measure."""
        effect, half = estimate.effect, Z * estimate.se
        return Numbers(*map(self.shown, (effect, effect - half, effect + half)))

    def text(self, estimate: Estimate) -> str:
        """Return an effect with its interval as the paper writes it: ``63.78 [58.29, 69.27]``."""
        return "{} [{}, {}]".format(*map(rounded, self.numbers(estimate)))


def log_odds(right: pd.Series, total: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return the logits of shares, ln(right / wrong), and their errors, √(1 / right + 1 / wrong).

    A person of several scans may count in part. Where right or wrong is 0, `CORRECTION` is added
    to both: a logit needs it, and the share is then not the one observed.
    """
    wrong = total - right
    extra = CORRECTION * (np.minimum(right, wrong) < 1e-9)
    right, wrong = right + extra, wrong + extra
    return np.log(right / wrong), np.sqrt(1 / right + 1 / wrong)


def rounded(value: float, digits: int = 2) -> str:
    """Round a half up, and take for a half what is one up to the ninth decimal.

    Examples
    --------
    >>> rounded(62.625), rounded(66.695), f"{66.695:.2f}"
    ('62.63', '66.70', '66.69')
    """
    unit = Decimal(1).scaleb(-digits)
    return str(Decimal(str(round(value, 9))).quantize(unit, ROUND_HALF_UP))


def read_studies(file: Path, columns: Sequence[str] | None = None) -> list[Studies]:
    """Read a table of studies: those of each measure, in the order of the table.

    Parameters
    ----------
    file : Path
        Tab-separated; ``msnmo-meta --help`` lists the columns. What the file beside it
        (``.json``) has as ``Printed``, by measure, is `Studies.printed`.
    columns : sequence of str, optional
        Subgroup columns; by default all others in which studies share values, but not all.

    Raises
    ------
    MsnmoError
        If the file is missing (66) or no such table (65): the error names line and column.
    """
    texts = _read(file)
    others = [str(name) for name in texts if name not in _KNOWN]
    if lacking := [name for name in columns or () if name not in others]:
        remedy = f"Choose subgroups of {', '.join(others)}"
        raise BadInputError(f"there is no column '{lacking[0]}'", file=file, remedy=remedy)
    numbers = _numbers(file, texts)
    printed = sidecar(file).get("Printed", {})
    if not isinstance(printed, dict) or not all(map(_are_texts, printed.values())):
        problem = "'Printed' is no list of measures with what a paper prints of each"
        raise BadInputError(problem, file=file.with_suffix(".json"), remedy="Correct or remove it")
    doubts = [
        *_check_shares(file, texts["measure"], numbers),
        *_check_names(texts[texts["left_out"] == ""]),
        *_check_contradictions(texts, numbers),
        *_check_intervals(texts["measure"], numbers),
    ]
    for doubt in doubts:
        logger.warning("%s: %s", file, doubt.said)
    found = []
    for measure, rows in texts.groupby("measure", sort=False):
        table, logit = _effects(numbers.loc[rows.index], rows["left_out"])
        values = rows[table["left_out"] == ""].replace("", None)
        shared = [name for name in others if 1 < values[name].nunique() < values[name].count()]
        table = table.join(rows[list(columns or shared)]).set_index(rows["study"])
        notes = tuple(f"{doubt.said}." for doubt in doubts if measure in doubt.measures)
        prints = printed.get(measure, {})
        found.append(Studies(str(measure), table, logit, notes=notes, printed=prints))
    return found


def _are_texts(values: Any) -> bool:
    return isinstance(values, dict) and all(isinstance(text, str) for text in values.values())


def _check_names(texts: pd.DataFrame) -> Iterator[Doubt]:
    """Say which measures may be one, which studies may be, and which rows may sum up others."""
    for names in _alike(texts["measure"]):
        said = (
            f"{listed(map(repr, names))} are pooled apart: write them alike if they are one measure"
        )
        yield Doubt(names, said)
    for measure, studies in texts.groupby("measure", sort=False)["study"]:
        for names in _alike(studies):
            said = (
                f"{measure}: {listed(map(repr, names))} (lines "
                f"{_lines(studies.isin(names))}) may be one study and count each: if they are, "
                "keep one of them"
            )
            yield Doubt([str(measure)], said)
        sums = studies.str.fullmatch(_SUM, case=False)
        if sums.any():
            said = (
                f"{measure}: {listed(map(repr, studies[sums]))} (lines {_lines(sums)}) may sum up "
                "the others and count beside them: if so, leave them out (column left_out) or "
                "remove them"
            )
            yield Doubt([str(measure)], said)


def _alike(names: Iterable[str]) -> list[list[str]]:
    """Group the names that differ in capitals, blanks and punctuation alone."""
    alike: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        told = "".join(sign for sign in name.casefold() if sign.isalnum() or sign in "+<>")
        alike.setdefault(f"{told}{'-' * name.endswith('-')}", []).append(name)
    return [group for group in alike.values() if len(group) > 1]


def _lines(which: pd.Series) -> str:
    """Return the lines at which something is true, in words."""
    return listed(map(str, which.index[which]))


def _lines_by_measure(which: pd.Series, measures: pd.Series) -> Iterator[tuple[str, str]]:
    """Return each measure of which something is true anywhere, and the lines, in words."""
    for measure, rows in which.groupby(measures, sort=False):
        if rows.any():
            yield str(measure), _lines(rows)


def _check_contradictions(texts: pd.DataFrame, numbers: pd.DataFrame) -> Iterator[Doubt]:
    """Say where columns of one row give different effects or standard errors."""
    errors = _errors(numbers[numbers["effect"].notna()])
    taken = errors.notna().idxmax(axis=1)
    pairs = [
        ("standard error", used, other,
         (taken == used) & ((errors[other] / errors[used] - 1).abs() > _APART))
        for used, other in combinations(errors, 2)
    ]  # fmt: skip
    # A unit of the last digit; a share may stand in percent or as a fraction of 1.
    rounding = 1.0 * 10.0 ** -texts["effect"].str.partition(".")[2].str.len() + 1e-9
    gaps = [numbers["effect"] - unit * numbers["events"] / numbers["total"] for unit in (100, 1)]
    off = (gaps[0].abs() > rounding) & (gaps[1].abs() > rounding)
    for what, used, other, wrong in [("effect", "effect", "events and total", off), *pairs]:
        for measure, lines in _lines_by_measure(wrong, texts["measure"]):
            said = (
                f"{measure}: by {other} the {what} is not the one used, from {used} (lines "
                f"{lines}): if one of them is wrong, correct or remove it"
            )
            yield Doubt([measure], said)


def _check_intervals(measures: pd.Series, numbers: pd.DataFrame) -> Iterator[Doubt]:
    """Say which intervals are used and do not lie evenly about their effects."""
    low, high = numbers["ci_low"], numbers["ci_high"]
    uneven = ((low + high) / 2 - numbers["effect"]).abs() > _LOPSIDED * (high - low)
    for measure, lines in _lines_by_measure(uneven & numbers["se"].isna(), measures):
        said = (
            f"{measure}: intervals are lopsided (lines {lines}), as by logarithms, logits or exact "
            "methods: half their width counts as if they were even; give 'se', or 'events' and "
            "'total', for what the study computed with"
        )
        yield Doubt([measure], said)


def _check_shares(file: Path, measures: pd.Series, numbers: pd.DataFrame) -> Iterator[Doubt]:
    """Refuse shares in percent that cannot be; say which measures look like fractions of 1.

    Raises
    ------
    BadInputError
        An effect of a measure in percent is below 0 or above 100.
    """
    percent = measures.str.contains("(%)", regex=False) & numbers["effect"].notna()
    for line, effect in numbers.loc[percent, "effect"].items():
        if not 0 <= effect <= 100:
            problem = f"line {line}, column 'effect': {effect:g} is not a share in percent"
            raise BadInputError(problem, file=file, remedy="Write it in percent, from 0 to 100")
    for measure, effects in numbers.loc[percent, "effect"].groupby(measures[percent]):
        if (small := effects <= 1).any():
            many = "all" if small.all() else "some"
            said = (
                f"{measure}: in percent, and {many} effects are 1 or less (lines {_lines(small)}): "
                "if they are fractions of 1, multiply them by 100"
            )
            yield Doubt([str(measure)], said)


def sidecar(file: Path) -> dict[str, Any]:
    """Return what the JSON file beside a table holds; empty without one, an error if it is none."""
    beside = file.with_suffix(".json")
    if not beside.exists():
        return {}
    try:
        content, notes = read_json(beside)
    except ValueError as error:
        remedy = "Correct it or remove it"
        raise BadInputError(f"no JSON ({error})", file=beside, remedy=remedy) from error
    for note in notes:
        logger.warning("%s: %s", beside, note)
    return content if isinstance(content, dict) else {}


def _read(file: Path) -> pd.DataFrame:
    """Read the cells as text by line of the file, empty where missing; all known columns."""
    read = _with_known_names(read_tsv(file))
    if not (read.columns or read.problem):
        remedy = "Give a tab-separated table of studies"
        raise MissingInputError("the table is missing", file=file, remedy=remedy)
    faults = {note.what: note.about for note in reversed(read.notes)}
    twice, uneven = faults.get(TWICE), faults.get(UNEVEN)
    if GUESSED in faults:
        logger.warning("%s: %s", file, GUESSED)
    effects = "effect" in read.columns or {"events", "total"} <= set(read.columns)
    for wrong, problem, remedy in (
        (read.problem, f"no text table ({read.problem})", "Save it as tab-separated text (UTF-8)"),
        ("study" not in read.columns or not effects,
         f"columns are missing; there are {', '.join(read.columns)}",
         "Give 'study' and either 'effect' with 'se', with 'ci_low' and 'ci_high', or with 'sd' "
         "and 'subjects'; or 'events' and 'total', separated by tabs"),
        (twice, f"the column '{twice}' appears twice", "Remove one of them"),
        (uneven, f"line {uneven} has another number of cells than the header",
         "Write n/a in empty cells, and one tab between two cells"),
        (not read.rows, "the table has no study", "Add one line per study"),
    ):  # fmt: skip
        if wrong:
            raise BadInputError(problem, file=file, remedy=remedy)
    names = dict.fromkeys([*read.columns, *_KNOWN])
    cells = [{name: cell(row, name) for name in names} for row in read.rows]
    table = pd.DataFrame(cells, list(read.lines))
    return table.assign(measure=table["measure"].replace("", NO_MEASURE))


def _with_known_names(table: Table) -> Table:
    """Return a table whose known columns have their names: ``CI low`` is ``ci_low``."""
    told = {name: name.casefold().replace(" ", "_") for name in table.columns}
    names = {name: plain if plain in _KNOWN else name for name, plain in told.items()}
    twice = [Note(TWICE, name) for name, count in Counter(names.values()).items() if count > 1]
    return replace(
        table,
        columns=tuple(names.values()),
        rows=tuple({names[name]: text for name, text in row.items()} for row in table.rows),
        notes=(*table.notes, *twice),
    )


def _numbers(file: Path, texts: pd.DataFrame) -> pd.DataFrame:
    """Return the numbers of a table; raise an error for what cannot be.

    They are NaN where missing, and in rows that the table leaves out, of which only name and reason
    are looked at.
    """
    every, pooled = texts, texts["left_out"] == ""
    texts = texts.where(pooled, "")
    known = texts[list(_NUMBERS)].apply(pd.to_numeric, errors="coerce").astype(float)
    for column, wrong, problem, remedy in (
        ("study", every["study"] == "", "the name is missing", "Name every study"),
        ("study", texts.duplicated(["measure", "study"]) & pooled,
         "'{study}' appears twice for {measure}",
         "Give each study one line per measure, and studies of one year a letter"),
        *((name, (texts[name] != "") & ~np.isfinite(known[name]), f"'{{{name}}}' is not a number",
           "Write a number, or n/a") for name in _NUMBERS),
        *((name, known[name] <= 0, f"{{{name}}} is not above 0", "Correct it, or write n/a")
          for name in _ABOVE_0),
        ("ci_low", known.eval("ci_low >= ci_high"), "{ci_low} is not below ci_high, {ci_high}",
         "Correct them"),
        ("effect", known.eval("effect < ci_low or effect > ci_high"),
         "{effect} is not in its interval", "Correct them"),
        ("events", known.eval("events < 0 or events > total or events % 1 > 0 or total % 1 > 0"),
         "{events} of {total} is not a share", "Write how many of how many, in whole numbers"),
        ("left_out", every["left_out"].str.casefold().isin(("no", "false", "0")),
         "'{left_out}' is not a reason", "Write n/a where a study is pooled, else why it is not"),
    ):  # fmt: skip
        for line, row in every[wrong].iterrows():
            text = f"line {line}, column '{column}': {problem.format_map(row)}"
            raise BadInputError(text, file=file, remedy=remedy)
    return known


def _errors(known: pd.DataFrame) -> pd.DataFrame:
    """Return the standard errors by the columns that give them; the first there is is used."""
    return pd.DataFrame({
        "se": known["se"],
        "ci_low and ci_high": (known["ci_high"] - known["ci_low"]) / (2 * Z),
        "sd and subjects": known["sd"] / np.sqrt(known["subjects"]),
    })  # fmt: skip


def _effects(known: pd.DataFrame, left_out: pd.Series) -> tuple[pd.DataFrame, bool]:
    """Return what `Studies.table` has besides subgroups, and whether effects are logits.

    `left_out` is why the table itself leaves a study out.
    """
    effect, subjects, no_effect = known["effect"], known["subjects"], "it has no effect"
    if logit := bool(effect.isna().all()):
        subjects, no_effect = known["total"], "it has no effect, or no events and total"
        effect, se = log_odds(known["events"], subjects)
    else:
        se = _errors(known).bfill(axis=1)["se"]
    no_error = "it has neither standard error, interval nor s.d. and number of subjects"
    found = np.select([effect.isna(), se.isna()], [no_effect, no_error], "")
    why = left_out.where(left_out != "", found)
    return pd.DataFrame(dict(zip(_OF_A_STUDY, (effect, se, subjects, why), strict=True))), logit
