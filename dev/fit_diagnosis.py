"""Fit the lesion branch to simulated people: ``python -m dev.fit_diagnosis OUT --anatomy DIR ...``.

People whom the weights have looked at are taken from OUT or ``--table``; the others are made first
and kept in OUT, in a folder named after the weights that look at them, so that a run that was
stopped goes on. Every person is judged by fits that saw nobody with the same head; calibration and
limits of naming come from these judgements, and are themselves judged on people they were not made
from.
OUT/lesion_branch.safetensors, OUT/diagnosis.json and OUT/people.npz, the table, are the result.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from sklearn.metrics import roc_auc_score

from dev.asset_options import add_asset_options, assets_of
from dev.detection import sensitivity_by_site
from dev.naming import find_limits, fit_calibration, named
from dev.simulated_people import (
    CLASSES,
    SICK,
    SMALL_VESSELS,
    Person,
    name_of,
    people,
    read_table,
    write_table,
)
from msnmo_bids.bids.dataset import atomic_path, write_json
from msnmo_bids.evaluation.metrics import calibration_error
from msnmo_bids.lesions.descriptors import DESCRIPTORS
from msnmo_bids.model.calibration import Calibration
from msnmo_bids.model.classification import LesionBranch
from msnmo_bids.model.config import SEGMENTATION, JointConfig
from msnmo_bids.simulation.assets import SimulationAssets

FOLDS = 5
EPOCHS = 60
_BATCH = 100  # people
_LEARNING_RATE, _WEIGHT_DECAY = 3e-3, 1e-2
_TRUE_SHARE = 0.15  # of the times that a person's true lesions are shown, with nothing missed
_SMALL_VESSELS = 0.3  # people with small-vessel disease, relative to all others
SPACING = 1.25  # mm, of the heads: half the time of 1 mm


_DISEASES, _LOOK_ALIKES = slice(0, len(SICK)), slice(len(SICK), len(CLASSES))

#: Of a branch; the convolutional classifier is not built.
CONFIG = JointConfig(tasks=(SEGMENTATION,), classes=CLASSES, lesion_descriptors=len(DESCRIPTORS))


def fit_branch(shown: Sequence[Person], fits: int, epochs: int, seed: int) -> LesionBranch:
    """Fit a branch to the people who are not healthy: two questions, each by fits of its own.

    Which disease is learnt from those with one alone, so that what looks like them moves no more
    than the units of the descriptors; whether it is what looks like them is learnt from all, beside
    the first answer, which stays.

    Parameters
    ----------
    shown : sequence of Person
        At each epoch anew: what is found of them, or, for a few, their true lesions.
    fits : int
        Whose mean the branch is; they differ in their start and in the order of the people.
    epochs, seed : int
        How long, and which random numbers.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    everyone = [person for person in shown if person.label >= 0]
    sick = [person for person in everyone if person.label < len(SICK)]
    rows = torch.from_numpy(np.concatenate([person.true for person in everyone]))
    diseases = _mean_of_fits(rows, fits, lambda one: _descend(one, sick, epochs, rng, _DISEASES))
    if len(sick) == len(everyone):
        return diseases.eval()

    def learn(one: LesionBranch) -> None:
        _descend(one, everyone, epochs, rng, _LOOK_ALIKES, beside=diseases)

    alike = _mean_of_fits(rows, fits, learn)
    for branch in (diseases, alike):  # the mean of all fits is to be the sum of both answers
        for head in _heads(branch):
            head.weight.data *= 2
            head.bias.data *= 2
    diseases.fits.extend(alike.fits)
    return diseases.eval()


def _mean_of_fits(
    rows: torch.Tensor, fits: int, learn: Callable[[LesionBranch], None]
) -> LesionBranch:
    branches = []
    for _ in range(fits):
        branch = LesionBranch(CONFIG)
        branch.standardize(rows)
        learn(branch)
        branches.append(branch)
    branch, *others = branches
    branch.fits.extend(other.fits[0] for other in others)
    return branch


def _heads(branch: LesionBranch) -> list[torch.nn.Linear]:
    return [cast(torch.nn.Linear, fit.head) for fit in branch.fits]


def _descend(
    branch: LesionBranch,
    shown: Sequence[Person],
    epochs: int,
    rng: np.random.Generator,
    classes: slice,
    beside: LesionBranch | None = None,
) -> None:
    """Learn the logits of some classes, those of the others being 0 or what is `beside`."""
    [head] = _heads(branch)
    other = np.delete(np.arange(len(CLASSES)), classes)
    head.weight.data[other] = head.bias.data[other] = 0
    until = classes.stop  # look-alikes are told from the diseases, not these from look-alikes
    steps = epochs * -(-len(shown) // _BATCH)
    optimizer = torch.optim.AdamW(
        branch.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        order = rng.permutation(len(shown))
        for first in range(0, len(shown), _BATCH):
            batch = [shown[k] for k in order[first : first + _BATCH]]
            lesions = _joined([p.true if rng.random() < _TRUE_SHARE else p.found for p in batch])
            labels = torch.tensor([person.label for person in batch])
            logits = branch(*lesions)
            if beside is not None:
                logits = logits + beside(*lesions).detach()
            loss = torch.nn.functional.cross_entropy(logits[:, :until], labels)
            optimizer.zero_grad()
            loss.backward()
            for parameter in head.parameters():
                assert parameter.grad is not None
                parameter.grad[other] = 0
            optimizer.step()
            schedule.step()


def _joined(lesions: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Join the lesions of several scans: rows, the scan of each, number of scans."""
    scan = np.repeat(np.arange(len(lesions)), [len(rows) for rows in lesions])
    return torch.from_numpy(np.concatenate(lesions)), torch.from_numpy(scan), len(lesions)


@torch.inference_mode()
def logits_of(branch: LesionBranch, lesions: Sequence[np.ndarray]) -> np.ndarray:
    """Return the logits of scans, (scans, K) float64."""
    return branch(*_joined(lesions)).double().numpy()


def folds_of(shown: Sequence[Person]) -> np.ndarray:
    """Return the fifth of each person, (people,) int: all of the same head are in one."""
    heads = np.array([person.head for person in shown])
    fold_of = {head: number % FOLDS for number, head in enumerate(sorted(set(heads)))}
    return np.array([fold_of[head] for head in heads])


def judge(shown: Sequence[Person], fits: int, epochs: int) -> np.ndarray:
    """Judge what is found of every person by fits without anyone of the same head.

    Return their logits, (people, K).
    """
    folds = folds_of(shown)
    result = np.zeros((len(shown), len(CLASSES)))
    for fold in sorted(set(folds)):
        branch = fit_branch(
            [p for p, own in zip(shown, folds, strict=True) if own != fold],
            fits,
            epochs,
            seed=int(fold),
        )
        inside = np.flatnonzero(folds == fold)
        result[inside] = logits_of(branch, [shown[k].found for k in inside])
        logging.info("fold %d of %d", fold + 1, folds.max() + 1)
    return result


def calibrate(
    logits: np.ndarray, counts: np.ndarray, labels: np.ndarray, matched: np.ndarray
) -> tuple[Calibration, dict[str, float | None], np.ndarray, np.ndarray]:
    """Calibrate and choose limits; apply to each fifth of the people what the others give.

    Scores and limits are for people as they come, with the loads of their diseases: those whose
    load was drawn alike for both diseases (`matched`) are judged, and nothing is fitted to them but
    the limit that keeps diseases from being named on what looks like them.

    Returns
    -------
    calibration : Calibration
        Of all.
    limits : dict of str to float or None
        Of all (`find_limits`).
    probabilities : ndarray, (people, K)
        Cross-fitted.
    names : ndarray of int, (people,)
        The class that is named, cross-fitted; -1 for none.
    """
    found = (labels >= 0) & (counts > 0)
    part = np.arange(len(labels)) % FOLDS
    probabilities, names = np.zeros(logits.shape), np.full(len(labels), -1)

    def fitted(rows: np.ndarray) -> tuple[Calibration, dict[str, float | None]]:
        own = rows & ~matched
        calibration = fit_calibration(logits[own], labels[own], f"{own.sum()} simulated people")
        scores = calibration.probabilities(logits[rows])
        return calibration, find_limits(scores, labels[rows], ~matched[rows])

    for one in range(FOLDS):
        calibration, limits = fitted(found & (part != one))
        own = part == one
        probabilities[own] = calibration.probabilities(logits[own])
        names[own] = named(probabilities[own], limits)
    names[counts == 0] = -1
    return *fitted(found), probabilities, names


def summarise(
    shown: Sequence[Person], counts: np.ndarray, probabilities: np.ndarray, names: np.ndarray
) -> dict[str, Any]:
    """Tell how good cross-fitted scores and names are."""
    labels = np.array([person.label for person in shown])
    sick, said = (labels >= 0) & (labels < len(SICK)), names >= 0
    usable = sick & (counts > 0)
    score = probabilities[:, 1] / probabilities[:, : len(SICK)].sum(axis=1).clip(1e-9)
    return {
        "people": int(sick.sum()),
        "found": int(usable.sum()),
        "auc": areas(shown, score, usable),
        "ece": calibration_error(labels[usable] == 1, score[usable]) if usable.any() else None,
        "named": _share(said[sick]),
        "named_by_class": {
            name: _share(said[labels == number]) for number, name in enumerate(CLASSES)
        },
        "wrong": _share((names != labels)[sick & said]),
        "wrong_by_name": {
            name: _share(labels[sick & (names == number)] != number)
            for number, name in enumerate(SICK)
        },
        "named_healthy": _share(said[labels < 0]),
    }


def areas(
    shown: Sequence[Person], scores: np.ndarray, usable: np.ndarray
) -> dict[str, float | None]:
    """Return areas under the ROC curve: of all who are `usable`, by kind of load, by typicality."""
    groups: dict[str, np.ndarray] = {"found": usable}
    for matched in (False, True):
        loads = usable & (np.array([person.matched for person in shown]) == matched)
        groups["matched loads" if matched else "loads of the diseases"] = loads
    for typicality in sorted({person.typicality for person in shown}, reverse=True):
        alike = np.array([person.typicality == typicality for person in shown])
        groups[f"typicality {typicality:g}"] = usable & alike
    labels = np.array([person.label for person in shown])
    return {name: _area(labels[k], scores[k]) for name, k in groups.items()}


def _area(labels: np.ndarray, scores: np.ndarray) -> float | None:
    return float(roc_auc_score(labels, scores)) if len(set(labels.tolist())) == 2 else None


def _share(which: np.ndarray) -> float | None:
    return float(which.mean()) if len(which) else None


def collect(options: argparse.Namespace) -> list[Person]:
    """Return the people, by number: from OUT, from the table, or made now; write OUT's table."""

    @cache
    def assets() -> SimulationAssets:
        native = assets_of(options)
        return SimulationAssets([head.resampled(SPACING) for head in native.heads], native.shapes)

    weights = name_of(options.weights)
    kept = read_table(options.table) if options.table else {}
    table = {number: one for number, one in kept.items() if one.weights == weights}
    folder = options.out / f"people-{weights}"

    wanted = _numbers(options.people)
    made = [number for number in wanted if (folder / f"{number:05d}.npz").exists()]
    missing = [number for number in wanted if number not in made and number not in table]
    if missing:
        parts = [missing[k :: options.threads] for k in range(options.threads)]
        side_by_side(
            [partial(_make, folder, part, assets, options.weights, options.cubes) for part in parts]
        )
    known = table | dict(people(folder, made + missing, assets, options.weights))
    file = options.out / "people.npz"
    write_table(file, {number: known[number] for number in wanted})
    return list(read_table(file).values())  # rounded: a fit to the table alone is the same


def _make(
    folder: Path,
    numbers: Sequence[int],
    assets: Callable[[], SimulationAssets],
    weights: Path,
    cubes: Path | None,
) -> None:
    torch.set_num_threads(1)
    for _ in people(folder, numbers, assets, weights, cubes):
        pass


def side_by_side(works: Sequence[Callable[[], None]]) -> None:
    """Do works in a process each, forked from this one.

    Raises
    ------
    RuntimeError
        One of them failed.
    """
    processes = [get_context("fork").Process(target=work) for work in works]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    if failed := [process.exitcode for process in processes if process.exitcode]:
        raise RuntimeError(f"{len(failed)} of {len(works)} processes failed")


def _numbers(count: int) -> list[int]:
    """Return numbers of people: of the diseases and none, and then of small-vessel disease."""
    return [*range(count), *range(SMALL_VESSELS, SMALL_VESSELS + round(count * _SMALL_VESSELS))]


def main() -> None:
    """Make who is missing, fit, judge, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of people and results")
    add_asset_options(parser, needs_shapes=True)
    parser.add_argument("--people", type=int, default=2000, help="default: %(default)s")
    parser.add_argument("--weights", type=Path, required=True, help="that look at them")
    parser.add_argument("--table", type=Path, help="people that weights have looked at")
    parser.add_argument("--cubes", type=Path, help="folder for what is made: image and lesions")
    parser.add_argument("--fits", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="default: %(default)s")
    parser.add_argument("--threads", type=int, default=2, help="and people side by side")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    shown = collect(options)
    torch.set_num_threads(options.threads)
    logits = judge(shown, options.fits, options.epochs)
    counts = np.array([len(person.found) for person in shown])
    labels = np.array([person.label for person in shown])
    matched = np.array([person.matched for person in shown])
    calibration, limits, probabilities, names = calibrate(logits, counts, labels, matched)
    summary: dict[str, Any] = {
        **summarise(shown, counts, probabilities, names),
        "sensitivity": sensitivity_by_site(shown),
    }
    branch = fit_branch(shown, options.fits, options.epochs, seed=FOLDS)
    with atomic_path(options.out / "lesion_branch.safetensors") as temporary:
        save_file({k: v.contiguous() for k, v in branch.state_dict().items()}, temporary)
    summary |= {
        "descriptors": list(DESCRIPTORS),
        "fits": len(branch.fits),
        "classes": CLASSES,
        "calibration": asdict(calibration),
        "everyone": len(shown),
        "limits": limits,
    }
    write_json(options.out / "diagnosis.json", summary)
    print(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()
