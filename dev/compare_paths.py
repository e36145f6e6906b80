"""Four ways to tell MS from NMOSD, the same people: ``python -m dev.compare_paths TABLE CUBES``.

The lesion branch; maps of place ("waves"): products of cosines over the brain, averaged over the
lesions by their volume, and a linear layer; number and volume of the lesions alone, the same; and
the paper's convolutional path, guided by the lesion probability, on the cubes that `fit_diagnosis
--cubes` keeps, trained for so many minutes per fifth. Each person is judged without anyone of the
same head. The people of the folds that were asked for are the test.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from dev.fit_diagnosis import EPOCHS, FOLDS, areas, fit_branch, folds_of, logits_of
from dev.simulated_people import LOG_VOLUME, SICK, Person, read_table
from msnmo_bids.lesions.descriptors import DESCRIPTORS
from msnmo_bids.model.config import JointConfig
from msnmo_bids.model.joint import JointNetwork

logger = logging.getLogger(__name__)

#: Products of cosines whose wave numbers have squares of at most this sum.
_WAVES = 26
#: From the midsagittal plane, back and floor of the brain to its side, front and top (MNI mm).
_EXTENT = {"mni_x": (0.0, 75.0), "mni_y": (-108.0, 76.0), "mni_z": (-72.0, 84.0)}
_BATCH, _RATE, _WEIGHT_DECAY = 4, 1e-3, 0.02


@dataclass(frozen=True)
class Case:
    """A sick person of whom something is found, with the file of image and lesion probability."""

    person: Person
    cubes: Path


#: Learns from some and returns the scores of others: the higher, the more NMOSD.
Method = Callable[[Sequence[Case], Sequence[Case]], np.ndarray]


def by_branch(known: Sequence[Case], tested: Sequence[Case]) -> np.ndarray:
    """Judge by a lesion branch of three fits."""
    branch = fit_branch([case.person for case in known], 3, EPOCHS, seed=0)
    logits = logits_of(branch, [case.person.found for case in tested])
    return logits[:, 1] - logits[:, 0]


def waves(lesions: np.ndarray) -> np.ndarray:
    """Return the maps of place, averaged over lesions (N, D) by their volume: (maps,)."""
    names = list(DESCRIPTORS)
    places = [
        np.clip((lesions[:, names.index(axis)] - low) / (high - low), 0, 1)
        for axis, (low, high) in _EXTENT.items()
    ]
    numbers = range(math.isqrt(_WAVES) + 1)
    waves = [wave for wave in product(numbers, repeat=3) if 0 < sum(k * k for k in wave) <= _WAVES]
    maps = [
        np.prod([np.cos(np.pi * k * at) for k, at in zip(wave, places, strict=True)], axis=0)
        for wave in waves
    ]
    weights = np.exp(lesions[:, LOG_VOLUME])
    return np.average(maps, axis=1, weights=weights)


def load(lesions: np.ndarray) -> np.ndarray:
    """Return logarithms of the number of lesions (N, D) and of their volume."""
    return np.log([len(lesions), np.exp(lesions[:, LOG_VOLUME]).sum()])


def by_features(features: Callable[[np.ndarray], np.ndarray]) -> Method:
    """Judge by a linear layer on numbers of a person."""

    def judge(known: Sequence[Case], tested: Sequence[Case]) -> np.ndarray:
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
        rows = np.stack([features(case.person.found) for case in known])
        model.fit(rows, [case.person.label for case in known])
        return np.asarray(
            model.decision_function(np.stack([features(case.person.found) for case in tested]))
        )

    return judge


def by_convolutions(minutes: float, width: float = 0.5) -> Method:
    """Judge by the convolutional path, trained for so many minutes."""

    def judge(known: Sequence[Case], tested: Sequence[Case]) -> np.ndarray:
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        network = JointNetwork(JointConfig(sharing="local").scaled(width))
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        optimizer = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=_WEIGHT_DECAY)
        began, done, steps = time.monotonic(), 0.0, 0
        while done < 1:
            for group in optimizer.param_groups:
                group["lr"] = _RATE * (1 + math.cos(math.pi * done)) / 2
            batch = [known[k] for k in rng.integers(len(known), size=_BATCH)]
            logits = _logits(network, batch, rng)
            labels = torch.tensor([case.person.label for case in batch])
            loss = torch.nn.functional.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            steps += 1
            done = (time.monotonic() - began) / 60 / minutes
            if steps % 100 == 0:
                logger.info("step %d, %.0f %% of the time, loss %.3f", steps, 100 * done, loss)
        logger.info("%d steps of %d people", steps, _BATCH)
        network.eval()
        with torch.inference_mode():
            logits = torch.cat([_logits(network, [case]) for case in tested])
        return (logits[:, 1] - logits[:, 0]).numpy()

    return judge


def _logits(
    network: JointNetwork, cases: Sequence[Case], rng: np.random.Generator | None = None
) -> torch.Tensor:
    """Return the logits of the convolutional path, (B, K); with `rng` half of them mirrored."""
    images, lesions = [], []
    for case in cases:
        with np.load(case.cubes) as cubes:
            image = cubes["image"].astype(np.float32)
            probability = cubes["probability"].astype(np.float32) / 255
        if rng is not None and rng.random() < 0.5:
            image, probability = image[::-1].copy(), probability[::-1].copy()
        images.append(image)
        lesions.append(probability)
    image, probability = (torch.from_numpy(np.stack(part))[:, None] for part in (images, lesions))
    image = image.contiguous(memory_format=torch.channels_last_3d)
    return network.forward_classification(network.forward_features(image), probability)[0]


def main() -> None:
    """Compare, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="people (people.npz of fit_diagnosis)")
    parser.add_argument("cubes", type=Path, help="folder of their cubes")
    parser.add_argument("--minutes", type=float, default=60, help="of a convolutional training")
    parser.add_argument("--folds", type=int, default=1, help="fifths of the heads to test")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    table = read_table(options.table).items()
    cases = [
        Case(person, options.cubes / f"{number:05d}.npz")
        for number, person in table
        if 0 <= person.label < len(SICK) and len(person.found)
    ]
    folds = folds_of([case.person for case in cases])
    methods = {
        "lesion branch": by_branch,
        "maps of place": by_features(waves),
        "number and volume": by_features(load),
        "convolutional path": by_convolutions(options.minutes),
    }
    tested = folds < options.folds
    rows = {}
    for name, judge in methods.items():
        scores = np.zeros(len(cases))
        for one in range(min(options.folds, FOLDS)):
            known, others = (np.flatnonzero((folds == one) == inside) for inside in (False, True))
            scores[others] = judge([cases[k] for k in known], [cases[k] for k in others])
        rows[name] = areas([case.person for case in cases], scores, tested)
        logger.info("%s: %s", name, rows[name])
    print(f"{tested.sum()} people of {len(cases)}")
    print(pd.DataFrame(rows).T.round(3).to_string())


if __name__ == "__main__":
    main()
