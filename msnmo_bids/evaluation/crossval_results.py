"""Read what a cross-validation left in its folder, and see whether it is complete.

::

    OUT/folds.tsv                           participant_id dataset site diagnosis fold
    OUT/models/<name>/fold-<k>/scans.tsv    one row per test scan, columns of `scan_columns`
    OUT/models/<name>/fold-<k>/fold.json    data and settings that it was made with
    OUT/models/<name>/fold-<k>/curves.csv   the training
    OUT/models/<name>/fold-<k>/examples/    volumes for the figures
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from msnmo_bids.errors import BadInputError, MissingInputError, UsageError
from msnmo_bids.evaluation.metrics import MASK_METRICS, VOLUMES, probability_columns
from msnmo_bids.model import registry
from msnmo_bids.reports.slices import Volume
from msnmo_bids.text import listed, natural_key

IDENTITY = ("dataset", "participant_id", "session_id", "scan")
_OF_A_SCAN = (*IDENTITY, "site", "diagnosis", "fold")
SUBJECT_COLUMNS = ("participant_id", "dataset", "site", "diagnosis", "fold")
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


def label(model: str) -> str:
    """Return a model's name in the paper; its own where the paper has none."""
    if model == RULE:
        return "Rule (sites of lesions)"
    return registry.entry(model).label if model in registry.names() else model


def scan_columns(classes: Sequence[str]) -> list[str]:
    """Return the columns of a fold's ``scans.tsv``, for diagnoses of these names."""
    return [*_OF_A_SCAN, *MASK_METRICS, *VOLUMES, *probability_columns(classes)]


@dataclass(frozen=True)
class ModelResults:
    """The test scans of one model, and the folder of each fold that is there.

    ``scans`` has one row per scan, columns of `scan_columns` and ``subject``; the index names the
    scan. NaN: n/a; texts are never missing. ``gap`` says what of the plan was not tested; it is
    empty when nothing is missing.
    """

    name: str
    scans: pd.DataFrame
    folds: dict[str, Path] = field(default_factory=dict)
    gap: str = ""


@dataclass(frozen=True)
class CrossValidation:
    """All models of a cross-validation, by name.

    ``plan`` has one row per subject, columns of ``folds.tsv`` and ``subject``; ``classes`` are in
    the order of the networks.
    """

    plan: pd.DataFrame
    classes: tuple[str, ...]
    positive: str
    models: dict[str, ModelResults]

    @property
    def folds(self) -> list[str]:
        """Names of the planned folds."""
        return sorted(self.plan["fold"].unique(), key=natural_key)


def read_crossval(out: Path, *, classes: Sequence[str], positive: str) -> CrossValidation:
    """Read the cross-validation in a folder; classes, `positive` one of them, as the networks'.

    Raises
    ------
    MsnmoError
        If there is no plan or no result, a table lacks columns or holds text for numbers, a scan
        was tested twice, or in another fold than its subject's.
    """
    plan = _read(out / "folds.tsv", SUBJECT_COLUMNS)
    for subject in plan["subject"][plan["subject"].duplicated()]:
        raise BadInputError(f"{subject} is listed twice", file=out / "folds.tsv")
    folders = {file.parents[1] for file in out.glob(f"models/*/fold-*/{SCANS}")}
    if not folders:
        raise MissingInputError(
            "no fold of any model has a scans.tsv",
            file=out / "models",
            remedy="Run the cross-validation first",
        )
    ordered = sorted(folders, key=lambda path: natural_key(path.name))
    models = {folder.name: _read_model(folder, plan, classes) for folder in ordered}
    return CrossValidation(plan, tuple(classes), positive, models)


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
    folds = {file.parent.name.removeprefix("fold-"): file.parent for file in files}
    planned = dict(zip(plan["subject"], plan["fold"], strict=True))
    tables = []
    for fold, place in folds.items():
        table = _read(place / SCANS, scan_columns(classes)).assign(fold=fold)
        for subject in table["subject"]:
            if (due := planned.get(subject, "none")) != fold:
                raise BadInputError(
                    f"{subject} was tested in fold {fold}, planned is {due}",
                    file=place / SCANS,
                    remedy="Test every model with the folds of folds.tsv",
                )
        tables.append(table)
    scans = pd.concat(tables)
    for twice in scans.index[scans.index.duplicated()]:
        raise BadInputError(f"{twice} was tested twice", file=folder)
    tested = set(scans["subject"])
    untested = [s for s, fold in planned.items() if fold in folds and s not in tested]
    return ModelResults(folder.name, scans, folds, _gap({*plan["fold"]} - {*folds}, untested))


def _gap(folds: set[str], subjects: list[str]) -> str:
    parts = []
    if folds:
        plural = "s" if len(folds) > 1 else ""
        parts.append(f"fold{plural} {', '.join(sorted(folds, key=natural_key))} missing")
    if subjects:
        parts.append(f"{len(subjects)} subjects without a scan ({listed(subjects, 5)})")
    return "; ".join(parts)


def _read(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Read a table: texts as they are, numbers as such, ``subject`` and an index added."""
    try:
        table = pd.read_csv(
            file, sep="\t", dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE
        )
    except FileNotFoundError:
        raise MissingInputError(
            "the file is missing", file=file, remedy="Give the output folder of a cross-validation"
        ) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise BadInputError(f"no table ({error})", file=file) from error
    if lacking := [name for name in columns if name not in table.columns]:
        raise BadInputError(f"columns are missing: {', '.join(lacking)}", file=file)
    for name in (name for name in columns if name not in (*_OF_A_SCAN, *SUBJECT_COLUMNS)):
        try:
            table[name] = pd.to_numeric(table[name].where(table[name] != MISSING)).astype(float)
        except ValueError as error:
            raise BadInputError(f"{name}: {error}", file=file) from error
    table["subject"] = table["dataset"] + "/" + table["participant_id"]
    keys = [name for name in IDENTITY if name in table.columns]
    table.index = pd.Index(["/".join(row) for row in table[keys].to_numpy()], name="key")
    return table


@dataclass
class Example:
    """One test scan, by the stem of its files, with what the models found in it.

    The true class is ``n/a`` when it is not known. The image holds z-scores, outside the brain as
    dark as the darkest voxel, in mm from the corner. Brain, manual mask (``truth``) and, by model,
    predictions are bool, (X, Y, Z), and class activation is (K, X, Y, Z).
    """

    name: str
    diagnosis: str
    image: Volume
    brain: np.ndarray
    truth: np.ndarray
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    cams: dict[str, np.ndarray] = field(default_factory=dict)


def read_examples(found: CrossValidation) -> list[Example]:
    """Read the examples of all models that have a manual mask; those of one scan become one.

    Those that most models have come first, then by name, the diagnoses in turn.

    Raises
    ------
    BadInputError
        If a file lacks an array, or differs in shape from another model's of the same scan.
    """
    examples: dict[tuple[str, str], Example] = {}
    for model in found.models.values():
        for fold, folder in model.folds.items():
            for file in sorted((folder / "examples").glob("*.npz")):
                arrays = _arrays(file)
                if "truth" not in arrays:
                    continue
                known = examples.get((fold, file.stem)) or _example(file.stem, arrays, model.scans)
                examples[fold, file.stem] = known
                _add(known, model.name, arrays, file)
    ordered = sorted(
        (example for example in examples.values() if example.truth.any()),
        key=lambda e: (-len(e.predictions), -len(e.cams), e.name),
    )
    turn: Counter[str] = Counter()
    places = []
    for example in ordered:
        places.append((turn[example.diagnosis], example.diagnosis))
        turn[example.diagnosis] += 1
    return [ordered[k] for k in sorted(range(len(ordered)), key=places.__getitem__)]


def _arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = dict(stored)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadInputError(f"cannot be read ({error})", file=file) from error
    if lacking := {"image", "zooms"} - set(arrays):
        raise BadInputError(f"arrays are missing: {', '.join(sorted(lacking))}", file=file)
    return arrays


def _example(name: str, arrays: dict[str, np.ndarray], scans: pd.DataFrame) -> Example:
    """Read image and mask; the background, a mid-grey 0 among z-scores, becomes dark."""
    image = arrays["image"].astype(np.float32)
    brain = image != 0
    dark = np.where(brain, image, image.min(initial=0.0))
    affine = np.diag([*np.asarray(arrays["zooms"], float).ravel()[:3], 1.0])
    return Example(name, _diagnosis(name, scans), Volume(dark, affine), brain, arrays["truth"] > 0)


def _add(example: Example, model: str, arrays: dict[str, np.ndarray], file: Path) -> None:
    for name in {"truth", "prediction", "cams"} & set(arrays):
        if arrays[name].shape[-3:] != example.image.data.shape:
            raise BadInputError(f"{name} has another shape than the image", file=file)
    if "prediction" in arrays:
        example.predictions[model] = arrays["prediction"] > 0
    if "cams" in arrays:
        example.cams[model] = arrays["cams"].astype(np.float32)


def _diagnosis(stem: str, scans: pd.DataFrame) -> str:
    """Find an example's diagnosis by its name, that of data set and scan."""
    own = scans["diagnosis"][scans["dataset"] + "_" + scans["scan"] == stem]
    return MISSING if own.empty else str(own.iloc[0])
