"""Read a table of published results, one row a study."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msnmo_bids.errors import BadInputError, ExitCode, MsnmoError
from msnmo_bids.evaluation.meta.analysis import Study
from msnmo_bids.evaluation.meta.studies import Studies, share_study

#: 97.5 % quantile of the normal distribution, by which a printed 95 % interval becomes an error.
Z = 1.959963984540054
MISSING = frozenset({"", "n/a", "NA"})
NUMBERS = ("effect", "se", "ci_low", "ci_high", "sd", "subjects", "events", "total")
KNOWN = ("study", "measure", *NUMBERS)
NO_MEASURE = "Effect"
COLUMNS_NEEDED = (
    "Give 'study' and either 'effect' with 'se', with 'ci_low' and 'ci_high', or with 'sd' and "
    "'subjects'; or 'events' and 'total'"
)


@dataclass(frozen=True)
class _Row:
    """A line of the table.

    Parameters
    ----------
    file : Path
        The table.
    line : int
        Its number in the file; the header is line 1.
    cells : mapping of str to str
        Text by column.
    """

    file: Path
    line: int
    cells: Mapping[str, str]

    def text(self, column: str) -> str:
        """Return a cell; empty where it is missing."""
        text = " ".join((self.cells.get(column) or "").split())
        return "" if text in MISSING else text

    def number(self, column: str) -> float | None:
        """Return a number; None where it is missing."""
        text = self.text(column)
        if not text:
            return None
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise self.error(column, f"'{text}' is no number", "Write a number, or n/a")
        return value

    def positive(self, column: str, *, zero: bool = False) -> float | None:
        """Return a number above 0 (or 0); None where it is missing."""
        value = self.number(column)
        if value is not None and (value < 0 or (value == 0 and not zero)):
            limit = "0 or above" if zero else "above 0"
            raise self.error(column, f"{value:g} is not {limit}", "Correct it, or write n/a")
        return value

    def error(self, column: str, problem: str, remedy: str) -> BadInputError:
        """Return an error that names file, line and column."""
        return BadInputError(
            f"line {self.line}, column '{column}': {problem}", file=self.file, remedy=remedy
        )


def read_studies(file: Path, columns: Sequence[str] | None = None) -> list[Studies]:
    """Read a table of studies.

    Parameters
    ----------
    file : Path
        Tab-separated. Columns: ``study``; ``measure`` (heading with its unit, such as
        ``DSC (%)``); ``effect`` with ``se``, with ``ci_low`` and ``ci_high`` (95 %), or with
        ``sd`` and ``subjects``; or ``events`` and ``total``, which are pooled as logits. All others
        can be subgroups.
    columns : sequence of str, optional
        Subgroup columns; by default all others in which studies share values, but not all.

    Returns
    -------
    list of Studies
        One a measure, in the order of the table. A study without an effect or an error is left out.
        What the file beside it (``.json``) has as ``Printed``, by measure, is their `printed`.

    Raises
    ------
    MsnmoError
        If the file is missing (66) or no such table (65): the error names line and column.
    """
    rows = _rows(file)
    header = list(rows[0].cells)
    lacking = [name for name in columns or () if name not in header]
    if lacking:
        raise BadInputError(
            f"there is no column '{lacking[0]}'", file=file,
            remedy=f"Choose subgroups of {', '.join(c for c in header if c not in KNOWN)}",
        )  # fmt: skip
    others = [name for name in header if name not in KNOWN] if columns is None else list(columns)
    measures: dict[str, list[_Row]] = {}
    for row in rows:
        measures.setdefault(row.text("measure") or NO_MEASURE, []).append(row)
    printed = _sidecar(file).get("Printed", {})
    found = (_studies(name, own, others, columns is None) for name, own in measures.items())
    return [replace(data, printed=printed.get(data.measure, {})) for data in found]


def _sidecar(file: Path) -> dict[str, Any]:
    """Return what stands beside the table; empty when nothing does."""
    beside = file.with_suffix(".json")
    try:
        content = json.loads(beside.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BadInputError(
            f"no JSON ({error})", file=beside, remedy="Correct it or remove it"
        ) from error
    return content if isinstance(content, dict) else {}


def _rows(file: Path) -> list[_Row]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, delimiter="\t", restkey="", restval=None)
            rows = [_Row(file, reader.line_num, cells) for cells in reader]
            header = list(reader.fieldnames or ())
    except FileNotFoundError:
        raise MsnmoError(
            "the table is missing", file=file, remedy="Give a tab-separated table of studies",
            exit_code=ExitCode.INPUT_MISSING,
        ) from None  # fmt: skip
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInputError(
            f"no text table ({error})", file=file, remedy="Save it as tab-separated text (UTF-8)"
        ) from error
    if not ({"effect"} <= set(header) or {"events", "total"} <= set(header)) or (
        "study" not in header
    ):
        raise BadInputError(
            f"columns are missing; there are {', '.join(header) or 'none'}", file=file,
            remedy=COLUMNS_NEEDED + ", separated by tabs",
        )  # fmt: skip
    for name in header:
        if header.count(name) > 1:
            raise BadInputError(
                f"the column '{name}' stands there twice", file=file, remedy="Remove one of them"
            )
    for row in rows:
        if len(row.cells) != len(header) or None in row.cells.values():
            raise BadInputError(
                f"line {row.line} has another number of cells than the header", file=file,
                remedy="Write n/a in empty cells, and one tab between two cells",
            )  # fmt: skip
    if not rows:
        raise BadInputError("the table has no study", file=file, remedy="Add one line a study")
    return rows


def _studies(measure: str, rows: Sequence[_Row], others: Sequence[str], guess: bool) -> Studies:
    logit = not any(row.text("effect") for row in rows)
    found: dict[str, Study | str] = {}
    for row in rows:
        name = row.text("study")
        if not name:
            raise row.error("study", "the name is missing", "Name every study")
        if name in found:
            raise row.error(
                "study", f"'{name}' stands there twice for {measure}",
                "Give each study one line a measure, and studies of one year a letter",
            )  # fmt: skip
        groups = {column: row.text(column) for column in others if row.text(column)}
        found[name] = _share(row, name, groups) if logit else _effect(row, name, groups)
    studies = tuple(study for study in found.values() if isinstance(study, Study))
    left = tuple((name, reason) for name, reason in found.items() if isinstance(reason, str))
    shared = [c for c in others if not guess or _is_group([s.groups.get(c) for s in studies])]
    return Studies(measure, studies, logit, left, tuple(shared))


def _effect(row: _Row, name: str, groups: Mapping[str, str]) -> Study | str:
    effect, subjects = row.number("effect"), row.positive("subjects")
    if effect is None:
        return "it has no effect"
    se = row.positive("se")
    low, high = row.number("ci_low"), row.number("ci_high")
    if se is None and low is not None and high is not None:
        if not low < high:
            raise row.error("ci_low", f"{low:g} is not below ci_high, {high:g}", "Correct them")
        if not low <= effect <= high:
            raise row.error("effect", f"{effect:g} is not in its interval", "Correct them")
        se = (high - low) / (2 * Z)
    sd = row.positive("sd")
    if se is None and sd is not None and subjects is not None:
        se = sd / math.sqrt(subjects)
    if se is None:
        return "it has neither standard error, interval nor s.d. and number of subjects"
    return Study(name, effect, se, None if subjects is None else int(subjects), groups)


def _share(row: _Row, name: str, groups: Mapping[str, str]) -> Study | str:
    events, total = row.positive("events", zero=True), row.positive("total")
    if events is None or total is None:
        return "it has no effect, or no events and total"
    if events > total or total != int(total):
        raise row.error(
            "events", f"{events:g} of {total:g} is no share", "Write how many of how many"
        )
    return share_study(name, events, int(total), groups)


def _is_group(values: Sequence[str | None]) -> bool:
    """Say whether some, but not all, have a value in common."""
    known = [value for value in values if value]
    return 1 < len(set(known)) < len(known)
