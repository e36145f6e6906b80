"""Simulated people as the lesion branch reads them: a row of descriptors per lesion.

A person depends on the number and the weights alone, and is a file in a folder, so that a run that
was stopped goes on. Lesions are those of the true mask and those that the weights find. Regions
come from the simulated scan as they do in the app, by registration of the atlas. Many people are
kept in one table (`write_table`), small enough for the repository.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.lesions.descriptors import DESCRIPTORS, describe_lesions
from msnmo_bids.lesions.regions import Regions, locate_regions
from msnmo_bids.lesions.threshold import LesionCriteria, find_lesions, label_lesions
from msnmo_bids.model.inference import predict
from msnmo_bids.model.weights import read_metadata
from msnmo_bids.preprocessing.cube import from_cube
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.simulation.imaging import PRESETS, Protocol, random_protocol
from msnmo_bids.simulation.lesion_placement import draw_load
from msnmo_bids.simulation.sample import (
    SimulatedScan,
    prepared_scan,
    simulate_scan,
)

SEED = 2501  # one per simulator: people of another one are others
SICK, HEALTHY = ("MS", "NMOSD"), "HC"
#: What the branch tells apart: the diseases, and what looks like them and is never named.
CLASSES = (*SICK, "SVD")
#: From this number on people have small-vessel disease.
SMALL_VESSELS = 100_000
LOG_VOLUME = list(DESCRIPTORS).index("log_volume")
_HEALTHY_EVERY = 9
_TYPICALITIES = (1.0, 1.0, 0.8, 0.6)
_PROTOCOLS = (*PRESETS.values(), None, None, None)  # None: drawn freely
_OF_PERSON = ("label", "typicality", "matched", "head", "weights")
_CORRECTED = 0.65  # share of the logarithm of the bias field that N4 takes away


@dataclass(frozen=True)
class Person:
    """One simulated person.

    Parameters
    ----------
    true : ndarray of float32, (N, D)
        Descriptors of the lesions of the true mask.
    found : ndarray of float32, (M, D)
        Descriptors of the lesions that the weights find.
    seen : ndarray of bool, (N,)
        Which true lesions are found, at least in part.
    false : ndarray of bool, (M,)
        Which found lesions have no part in a true one.
    label : int
        Number of the class in `CLASSES`; -1 for a healthy person.
    typicality : float
        Share of the load that follows the disease's own pattern.
    matched : bool
        Whether the load was drawn alike for both diseases.
    head : str
        Whose anatomy.
    weights : str
        The weights that find (`name_of`).
    """

    true: np.ndarray
    found: np.ndarray
    seen: np.ndarray
    false: np.ndarray
    label: int
    typicality: float
    matched: bool
    head: str
    weights: str


def make_person(
    number: int, assets: SimulationAssets, weights: Path, cubes: Path | None = None
) -> Person:
    """Simulate a person in whom weights find lesions.

    The number decides on everything; diagnoses, protocols and kinds of load take turns. Image and
    lesion probability are kept in the folder `cubes`, if there is one (`write_cubes`).
    """
    rng = np.random.default_rng((SEED, number))
    healthy = number % _HEALTHY_EVERY == _HEALTHY_EVERY - 1
    diagnosis = HEALTHY if healthy else SICK[number % 2]
    matched = bool(number // 2 % 2)
    if number >= SMALL_VESSELS:
        healthy, diagnosis = False, CLASSES[-1]
    protocol = protocol_of(number // 4, rng)
    typicality = float(rng.choice(_TYPICALITIES))
    loads_of = str(rng.choice(SICK)) if matched else diagnosis
    head = assets.heads[int(rng.integers(len(assets.heads)))]
    scan = simulate_scan(
        head, rng, diagnosis=diagnosis, protocol=protocol, shapes=assets.shapes,
        load=0.0 if healthy else draw_load(rng, loads_of, without=0.0), typicality=typicality,
    )  # fmt: skip
    label = -1 if healthy else CLASSES.index(diagnosis)
    rows = _rows(scan, rng, weights, cubes and cubes / f"{number:05d}.npz")
    return Person(
        **rows, label=label, typicality=typicality, matched=matched, head=head.name,
        weights=name_of(weights),
    )  # fmt: skip


def protocol_of(number: int, rng: np.random.Generator) -> Protocol:
    """Return the protocol whose turn it is: the presets, and as often ones drawn freely."""
    return _PROTOCOLS[number % len(_PROTOCOLS)] or random_protocol(rng)


def _rows(
    scan: SimulatedScan, rng: np.random.Generator, weights: Path, cubes: Path | None
) -> dict[str, np.ndarray]:
    """Describe true and found lesions; say which true ones are seen, which found are false."""
    zooms, voxel = scan.zooms.tolist(), float(scan.zooms.prod())
    metadata = read_metadata(weights)
    cube, brain, transform = prepared_scan(scan, rng, metadata.cube_shape)
    found = predict(cube, weights, precision="auto").probability
    assert found is not None, "the weights segment"
    if cubes is not None:
        write_cubes(cubes, cube, found)
    probability = from_cube(found, transform) * brain
    labels = find_lesions(probability, voxel, metadata.criteria).labels
    truth = label_lesions(scan.lesion_mask * brain, voxel, LesionCriteria().min_volume)
    regions = corrected_regions(scan, brain)
    return {
        "true": describe_lesions(truth, regions, zooms),
        "found": describe_lesions(labels, regions, zooms),
        "seen": np.isin(np.arange(1, truth.max() + 1), truth[labels > 0]),
        "false": ~np.isin(np.arange(1, labels.max() + 1), labels[truth > 0]),
    }


def write_cubes(file: Path, image: np.ndarray, probability: np.ndarray) -> None:
    """Write z-scores (float16) and lesion probability (uint8, 255 is 1) at half their resolution.

    A voxel is the mean of eight: for networks that see the whole head (`dev.compare_paths`).
    """
    halves = []
    for values in (image, probability):
        sides = [part for side in values.shape for part in (side // 2, 2)]
        halves.append(values.reshape(sides).mean((1, 3, 5)))
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(
            stream,
            image=halves[0].astype(np.float16),
            probability=np.round(255 * halves[1]).astype(np.uint8),
        )


def corrected_regions(scan: SimulatedScan, brain: np.ndarray) -> Regions:
    """Locate the regions of a scan, (X, Y, Z), whose bias is corrected as well as N4 does."""
    return locate_regions(scan.image / scan.bias**_CORRECTED, brain, scan.zooms.tolist())


def people(
    folder: Path,
    numbers: Sequence[int],
    assets: Callable[[], SimulationAssets],
    weights: Path,
    cubes: Path | None = None,
) -> Iterator[tuple[int, Person]]:
    """Read people of a folder; make those that it lacks, of what `assets` returns."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        file = folder / f"{number:05d}.npz"
        if not file.exists():
            with atomic_path(file) as temporary, temporary.open("wb") as stream:
                np.savez(stream, **vars(make_person(number, assets(), weights, cubes)))
            logging.info("person %d of %d", number, len(numbers))
        with np.load(file) as stored:
            arrays = {name: stored[name] for name in stored.files}
        yield number, Person(**{k: v if v.ndim else v.item() for k, v in arrays.items()})


def name_of(weights: Path) -> str:
    """Name what finds lesions in weights, and in whom: 12 hexadecimal digits.

    However the weights classify.
    """
    digest = hashlib.sha256()
    tensors = load_file(weights)
    for name in sorted(tensors):
        if not name.startswith("lesion_branch."):
            digest.update(name.encode() + tensors[name].numpy().tobytes())
    said = read_metadata(weights)
    digest.update(repr((SEED, said.criteria, said.normalization, said.format_version)).encode())
    return digest.hexdigest()[:12]


def write_table(file: Path, everyone: Mapping[int, Person]) -> None:
    """Write people, by number, into one file."""
    columns: dict[str, Any] = {"numbers": np.array(list(everyone))}
    for name in ("true", "found", "seen", "false"):
        parts = [getattr(person, name) for person in everyone.values()]
        columns[f"{name}_count"] = np.array([len(part) for part in parts])
        rows = np.concatenate(parts)
        columns[name] = rows.astype(np.float16) if rows.dtype == np.float32 else rows
    for name in _OF_PERSON:
        columns[name] = np.array([getattr(person, name) for person in everyone.values()])
    with atomic_path(file) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **columns)


def read_table(file: Path) -> dict[int, Person]:
    """Read the people of a table, by number."""
    with np.load(file) as table:
        columns = {name: table[name] for name in table.files}
    parts: dict[str, Any] = {}
    for name in ("true", "found", "seen", "false"):
        rows = columns[name]
        rows = rows.astype(np.float32) if rows.dtype == np.float16 else rows
        parts[name] = np.split(rows, np.cumsum(columns[f"{name}_count"])[:-1])
    for name in _OF_PERSON:
        parts[name] = columns[name].tolist()
    everyone = zip(*parts.values(), strict=True)
    people = [Person(**dict(zip(parts, values, strict=True))) for values in everyone]
    return dict(zip(columns["numbers"].tolist(), people, strict=True))
