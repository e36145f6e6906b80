"""A small cross-validation: random but plausible masks and probabilities of several models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from msnmo_bids.bids.dataset import write_tsv
from msnmo_bids.evaluation import measures
from msnmo_bids.evaluation.crossval_results import scan_columns
from msnmo_bids.evaluation.metrics import compare_masks

CLASSES = ("MS", "NMOSD")
SHAPE = (18, 20, 16)
ZOOMS = (4.0, 4.0, 4.0)
#: What a model does: share of wrong voxels at a lesion's edge, and skill of its probabilities.
MODELS = {
    "joint": (0.3, 1.6),
    "unet": (0.5, None),
    "only_segmentation": (0.4, None),
    "only_classification": (None, 0.9),
    "resnet50": (None, 0.7),
    "rule": (None, "rule"),
}


@pytest.fixture(autouse=True, scope="module")
def _few_draws():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measures, "DRAWS", 200)
        yield


def head(rng: np.random.Generator, lesions: int) -> tuple[np.ndarray, np.ndarray]:
    """An ellipsoid of z-scores with dark ventricles, and a mask of balls in it."""
    grid = np.indices(SHAPE).astype(float)
    centre = (np.array(SHAPE) - 1) / 2
    radius = np.sqrt(sum(((g - c) / (c * 0.9)) ** 2 for g, c in zip(grid, centre, strict=True)))
    image = np.where(radius < 1, rng.normal(0.1, 0.3, SHAPE), 0)
    ventricle = (np.abs(np.abs(grid[0] - centre[0]) - 2) < 1) & (radius < 0.45)
    image[ventricle] = -2
    mask = np.zeros(SHAPE, bool)
    places = np.argwhere((radius < 0.75) & ~ventricle)
    for place in places[rng.choice(len(places), lesions, replace=False)]:
        distance = np.sqrt(sum((g - p) ** 2 for g, p in zip(grid, place, strict=True)))
        mask |= (distance < rng.uniform(1, 2.5)) & (radius < 0.95) & ~ventricle
    image[mask] = rng.normal(1.6, 0.2, int(mask.sum()))
    return image.astype(np.float16), mask


def predict(rng: np.random.Generator, truth: np.ndarray, error: float) -> np.ndarray:
    """Flip a share of the voxels on both sides of the mask's edge."""
    edge = ndimage.binary_dilation(truth) & ~ndimage.binary_erosion(truth)
    return truth ^ (edge & (rng.random(truth.shape) < error))


@pytest.fixture(scope="session")
def make_crossval() -> Callable[..., Path]:
    return write_crossval


def write_crossval(
    out: Path,
    *,
    subjects: int = 16,
    folds: int = 2,
    models: Sequence[str] = tuple(MODELS),
    classes: Sequence[str] = CLASSES,
    seed: int = 0,
) -> Path:
    """Write a cross-validation as the training leaves it; every third subject has two scans."""
    rng = np.random.default_rng(seed)
    people = []
    for number in range(subjects):
        diagnosis = classes[number % len(classes)]
        site = "Ulm" if (number // 2) % 4 == 0 else f"{diagnosis} centre"
        people.append({
            "participant_id": f"sub-{number:02}", "dataset": "demo", "site": site,
            "diagnosis": diagnosis, "fold": (number // 2) % folds,
        })  # fmt: skip
    write_tsv(out / "folds.tsv", list(people[0]), people)
    scans = [
        {**person, "session_id": f"ses-{visit}", "scan": f"{person['participant_id']}_ses-{visit}",
         "head": head(rng, int(rng.integers(0, 9)))}
        for number, person in enumerate(people)
        for visit in range(1, 3 if number % 3 == 0 else 2)
    ]  # fmt: skip
    for model in models:
        for fold in range(folds):
            own = [scan for scan in scans if scan["fold"] == fold]
            write_fold(out / "models" / model / f"fold-{fold}", MODELS[model], own, classes, rng)
    return out


def write_fold(folder: Path, skill: tuple, scans: list[dict], classes, rng) -> None:
    error, power = skill
    rows = []
    for scan in scans:
        image, truth = scan["head"]
        row = {key: value for key, value in scan.items() if key != "head"}
        arrays = {"image": image, "truth": truth.astype(np.uint8), "zooms": np.array(ZOOMS)}
        if error is not None:
            found = predict(rng, truth, error)
            row |= compare_masks(truth, found, ZOOMS)
            arrays["prediction"] = found.astype(np.uint8)
        if power is not None:
            chance = probabilities(rng, classes.index(scan["diagnosis"]), len(classes), power)
            row |= {f"prob_{name}": p for name, p in zip(classes, chance, strict=True)}
        if error is not None and power is not None:
            soft = ndimage.gaussian_filter(truth.astype(float), 1.5)
            arrays["cams"] = np.stack([soft * (k + 1) for k in range(len(classes))])
            arrays["cams"] = arrays["cams"].astype(np.float16)
        rows.append(row)
        if error is not None and len(rows) <= 3:
            (folder / "examples").mkdir(parents=True, exist_ok=True)
            np.savez_compressed(
                folder / "examples" / f"{scan['dataset']}_{scan['scan']}.npz", **arrays
            )
    write_tsv(folder / "scans.tsv", scan_columns(classes), rows)
    if power == "rule":
        return
    steps = np.arange(1, 401)
    loss = 1.5 * np.exp(-steps / 120) + 0.4 + rng.normal(0, 0.08, steps.size)
    lines = ["step,rate,seconds,total,segmentation,classification,cross,validation_total"]
    for step, value in zip(steps, loss, strict=True):
        validation = f"{value + 0.1:.4f}" if step % 50 == 0 else ""
        lines.append(f"{step},0.0001,{step * 0.7:.1f},{value:.4f},{value / 2:.4f},,,{validation}")
    (folder / "curves.csv").write_text("\n".join(lines) + "\n")


def probabilities(rng: np.random.Generator, label: int, classes: int, power) -> np.ndarray:
    if power == "rule":
        called = label if rng.random() < 0.75 else int(rng.integers(classes))
        return np.eye(classes)[called]
    logits = rng.normal(0, 1, classes)
    logits[label] += power
    return np.exp(logits) / np.exp(logits).sum()
