"""Read what a cross-validation left in its folder, and see whether it is complete.

::

    OUT/folds.tsv                           participant_id dataset site diagnosis fold
    OUT/models/<name>/fold-<k>/scans.tsv    one row per test scan, columns of `scan_columns`
    OUT/models/<name>/fold-<k>/curves.csv   the training
    OUT/models/<name>/fold-<k>/examples/    volumes for the figures
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from msnmo_bids.errors import BadInputError, ExitCode, MsnmoError, UsageError
from msnmo_bids.evaluation.metrics import MASK_METRICS, VOLUMES, probability_columns
from msnmo_bids.text import natural_key

IDENTITY = ("dataset", "participant_id", "session_id", "scan")
_OF_A_SCAN = (*IDENTITY, "site", "diagnosis", "fold")
_OF_A_SUBJECT = ("participant_id", "dataset", "site", "diagnosis", "fold")
MISSING = "n/a"
#: The table whose presence completes a fold.
SCANS = "scans.tsv"
CURVES = "curves.csv"
#: Folders of the joint model and of the radiologists' rule.
REFERENCE, RULE = "joint", "rule"
#: The positive diagnosis of sensitivity, specificity and ROC, where it is a class.
POSITIVE = "NMOSD"


def positive_class(asked: str | None, classes: Sequence[str]) -> str:
    """Return the positive diagnosis: the one asked for, else `POSITIVE`, else the last class.

    Raises
    ------
    UsageError
        If it is none of the classes.

    Examples
    --------
    >>> positive_class(None, ("MS", "NMOSD", "HC"))
    'NMOSD'
    """
    chosen = asked or (POSITIVE if POSITIVE in classes else classes[-1])
    if chosen not in classes:
        raise UsageError(f"--positive {chosen} is none of {', '.join(classes)}")
    return chosen


def scan_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of a fold's ``scans.tsv``, for diagnoses of these names."""
    measured = [*MASK_METRICS, *VOLUMES]
    return [*_OF_A_SCAN, *measured, *probability_columns(classes)]


@dataclass(frozen=True)
class ModelResults:
    """The test scans of one model over its folds.

    Parameters
    ----------
    name : str
        Name of its folder.
    scans : DataFrame
        One row per scan, columns of `scan_columns` and ``subject``; the index names the scan. NaN:
        n/a. Texts are never missing.
    folds : dict of str to Path
        Folder of each fold that is there.
    missing_folds : tuple of str
        Folds of the plan without a ``scans.tsv``.
    missing_subjects : tuple of str
        Subjects of the folds that are there, but without a scan.
    """

    name: str
    scans: pd.DataFrame
    folds: dict[str, Path]
    missing_folds: tuple[str, ...] = ()
    missing_subjects: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether every subject of the plan was tested."""
        return not self.missing_folds and not self.missing_subjects

    @property
    def segments(self) -> bool:
        """Whether any scan has a DSC."""
        return bool(self.scans["dsc"].notna().any())

    def classifies(self, classes: Sequence[str]) -> bool:
        """Whether any scan has class probabilities."""
        return bool(self.scans[probability_columns(classes)].notna().all(axis=1).any())

    @property
    def gap(self) -> str:
        """What is missing, in words; empty when nothing is."""
        parts = []
        if self.missing_folds:
            plural = "s" if len(self.missing_folds) > 1 else ""
            parts.append(f"fold{plural} {', '.join(self.missing_folds)} missing")
        if self.missing_subjects:
            names = ", ".join(self.missing_subjects[:5])
            more = ", …" if len(self.missing_subjects) > 5 else ""
            parts.append(f"{len(self.missing_subjects)} subjects without a scan ({names}{more})")
        return "; ".join(parts)


@dataclass(frozen=True)
class CrossValidation:
    """All models of a cross-validation.

    Parameters
    ----------
    out : Path
        Its folder.
    plan : DataFrame
        One row per subject: columns of ``folds.tsv`` and ``subject``.
    classes, positive : tuple of str, str
        Diagnoses, in the order of the networks; the positive one.
    models : dict of str to ModelResults
        By name.
    """

    out: Path
    plan: pd.DataFrame
    classes: tuple[str, ...]
    positive: str
    models: dict[str, ModelResults]

    @property
    def folds(self) -> list[str]:
        """Names of the planned folds."""
        return sorted(self.plan["fold"].unique(), key=natural_key)


def read_crossval(out: Path, *, classes: Sequence[str], positive: str) -> CrossValidation:
    """Read the cross-validation in a folder; classes are in the order of the networks.

    Raises
    ------
    MsnmoError
        If there is no plan or no result, a table lacks columns or holds text for numbers, a scan
        was tested twice, or in another fold than its subject's.
    """
    if positive not in classes:
        raise MsnmoError(
            f"the positive class {positive} is none of {', '.join(classes)}",
            exit_code=ExitCode.USAGE,
        )
    plan_file = out / "folds.tsv"
    plan = _read(plan_file, _OF_A_SUBJECT)
    if plan["subject"].duplicated().any():
        twice = plan["subject"][plan["subject"].duplicated()].iloc[0]
        raise BadInputError(f"{twice} is listed twice", file=plan_file)
    models = {}
    for folder in sorted((out / "models").glob("*"), key=lambda path: natural_key(path.name)):
        if any(folder.glob(f"fold-*/{SCANS}")):
            models[folder.name] = _read_model(folder, plan, classes)
    if not models:
        raise MsnmoError(
            "no fold of any model has a scans.tsv",
            file=out / "models",
            remedy="Run the cross-validation first",
            exit_code=ExitCode.INPUT_MISSING,
        )
    return CrossValidation(out, plan, tuple(classes), positive, models)


def read_curves(path: Path) -> list[dict[str, float]]:
    """Read the complete rows of ``curves.csv``; the last one may have been cut by a kill.

    The numbers are by column, without empty cells. Rows that hold anything else are left out; a
    table that is missing has none.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    rows: list[dict[str, float]] = []
    for row in csv.DictReader(io.StringIO(whole)):
        with suppress(TypeError, ValueError):
            rows.append({name: float(cell) for name, cell in row.items() if cell})
    return rows


def _read_model(folder: Path, plan: pd.DataFrame, classes: Sequence[str]) -> ModelResults:
    files = sorted(folder.glob(f"fold-*/{SCANS}"), key=lambda path: natural_key(path.parent.name))
    planned = dict(zip(plan["subject"], plan["fold"], strict=True))
    tables = []
    for file in files:
        table = _read(file, scan_columns(classes))
        here = file.parent.name.removeprefix("fold-")
        for subject in table["subject"]:
            if planned.get(subject) != here:
                raise BadInputError(
                    f"{subject} was tested in fold {here}, planned is "
                    f"{planned.get(subject, 'none')}",
                    file=file,
                    remedy="Test every model with the folds of folds.tsv",
                )
        tables.append(table.assign(fold=here))
    scans = pd.concat(tables)
    if scans.index.has_duplicates:
        twice = scans.index[scans.index.duplicated()][0]
        raise BadInputError(f"{twice} was tested twice", file=folder)
    folds = {file.parent.name.removeprefix("fold-"): file.parent for file in files}
    tested = set(scans["subject"])
    return ModelResults(
        folder.name,
        scans,
        folds,
        tuple(sorted(set(plan["fold"]) - set(folds), key=natural_key)),
        tuple(s for s, fold in planned.items() if fold in folds and s not in tested),
    )


def _read(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table: texts as they are, numbers as such, ``subject`` and an index added."""
    try:
        table = pd.read_csv(
            file, sep="\t", dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE
        )
    except FileNotFoundError:
        raise MsnmoError(
            "the file is missing",
            file=file,
            remedy="Give the output folder of a cross-validation",
            exit_code=ExitCode.INPUT_MISSING,
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BadInputError(f"no table ({error})", file=file) from error
    if lacking := [name for name in columns if name not in table.columns]:
        raise BadInputError(f"columns are missing: {', '.join(lacking)}", file=file)
    for name in columns:
        if name not in (*_OF_A_SCAN, *_OF_A_SUBJECT):
            table[name] = _numbers(table[name], file)
    table["subject"] = table["dataset"] + "/" + table["participant_id"]
    keys = [name for name in IDENTITY if name in table.columns]
    table.index = pd.Index(["/".join(row) for row in table[keys].to_numpy()], name="key")
    return table


def _numbers(column: pd.Series, file: Path) -> pd.Series:
    try:
        return pd.to_numeric(column.where(column != MISSING, np.nan)).astype(float)
    except ValueError as error:
        raise BadInputError(f"{column.name}: {error}", file=file) from error
