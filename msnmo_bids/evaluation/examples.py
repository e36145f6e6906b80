"""Example volumes that a cross-validation keeps for the figures."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from msnmo_bids.errors import BadInputError
from msnmo_bids.evaluation.crossval import CrossValidation
from msnmo_bids.evaluation.paper_tables import REFERENCE
from msnmo_bids.reports.slices import Volume


@dataclass
class Example:
    """One test scan, with what the models found in it.

    Parameters
    ----------
    name : str
        Stem of its files.
    diagnosis : str
        True class, ``n/a`` when it is not known.
    image : Volume
        z-scores, outside the brain as dark as the darkest voxel; in mm from the corner.
    brain : ndarray of bool, (X, Y, Z)
        Where the image is not background.
    truth : ndarray of bool, (X, Y, Z)
        Manual mask.
    predictions : dict of str to ndarray of bool, (X, Y, Z)
        By model.
    cams : dict of str to ndarray, (K, X, Y, Z)
        Class activation of each class, by model.
    """

    name: str
    diagnosis: str
    image: Volume
    brain: np.ndarray
    truth: np.ndarray
    predictions: dict[str, np.ndarray] = field(default_factory=dict)
    cams: dict[str, np.ndarray] = field(default_factory=dict)


def read_examples(found: CrossValidation) -> list[Example]:
    """Read the examples of all models; those of one scan become one.

    Parameters
    ----------
    found : CrossValidation
        All results.

    Returns
    -------
    list of Example
        With a manual mask; those that most models have first, then by name, the diagnoses in turn.

    Raises
    ------
    BadInputError
        If a file lacks an array, or differs in shape from another model's of the same scan.
    """
    examples: dict[tuple[str, str], Example] = {}
    for model in found.models.values():
        for fold, folder in model.folds.items():
            for file in sorted((folder / "examples").glob("*.npz")):
                _add(examples, (fold, file.stem), model.name, file, model.scans)
    ordered = sorted(
        (example for example in examples.values() if example.truth.any()),
        key=lambda e: (-len(e.predictions), -len(e.cams), e.name),
    )
    turn: dict[str, int] = {}
    places = []
    for example in ordered:
        turn[example.diagnosis] = turn.get(example.diagnosis, -1) + 1
        places.append((turn[example.diagnosis], example.diagnosis))
    return [ordered[k] for k in sorted(range(len(ordered)), key=places.__getitem__)]


def _add(
    examples: dict[tuple[str, str], Example],
    key: tuple[str, str],
    model: str,
    file: Path,
    scans: pd.DataFrame,
) -> None:
    try:
        with np.load(file, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise BadInputError(f"cannot be read ({error})", file=file) from error
    if lacking := {"image", "zooms"} - set(arrays):
        raise BadInputError(f"arrays are missing: {', '.join(sorted(lacking))}", file=file)
    if "truth" not in arrays:
        return
    if key not in examples:
        examples[key] = _example(file.stem, arrays, _diagnosis(file.stem, scans))
    example = examples[key]
    for name in ("truth", "prediction", "cams"):
        if name in arrays and arrays[name].shape[-3:] != example.image.data.shape:
            raise BadInputError(f"{name} has another shape than the image", file=file)
    if "prediction" in arrays:
        example.predictions[model] = arrays["prediction"] > 0
    if "cams" in arrays:
        example.cams[model] = arrays["cams"].astype(np.float32)


def _example(name: str, arrays: dict[str, np.ndarray], diagnosis: str) -> Example:
    """Read image and mask; the background, a mid-grey 0 among z-scores, becomes dark."""
    image = arrays["image"].astype(np.float32)
    brain = image != 0
    dark = np.where(brain, image, image.min(initial=0.0))
    affine = np.diag([*np.asarray(arrays["zooms"], float).ravel()[:3], 1.0])
    return Example(name, diagnosis, Volume(dark, affine), brain, arrays["truth"] > 0)


def _diagnosis(stem: str, scans: pd.DataFrame) -> str:
    """Find an example's diagnosis by the name of its scan, or by that of the subject in it."""
    for column in ("scan", "participant_id"):
        hits = [name for name in scans[column] if name and (name == stem or name in stem)]
        if len(set(hits)) == 1:
            return str(scans["diagnosis"][scans[column] == hits[0]].iloc[0])
    return "n/a"


def model_of_cams(examples: list[Example]) -> str | None:
    """Return the model whose class activation is drawn: the joint one if it is there."""
    names = {name for example in examples for name in example.cams}
    return REFERENCE if REFERENCE in names else min(names, default=None)
