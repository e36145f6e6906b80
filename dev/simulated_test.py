"""Test weights on simulated scans that no training has drawn.

What comes out says how well the simulator's patterns are told apart and its lesions are found; it
is not a statement about patients. Masks are compared on the scan's own grid, as the app writes
them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dev.simulated_people import HEALTHY, SICK, corrected_regions
from msnmo_bids.evaluation.metrics import compare_masks, dice
from msnmo_bids.evaluation.rule import rule_diagnosis
from msnmo_bids.lesions.descriptors import describe_lesions
from msnmo_bids.lesions.threshold import find_lesions
from msnmo_bids.model.inference import LesionClassification, Prediction, classify_lesions, predict
from msnmo_bids.model.weights import WeightsMetadata, read_metadata
from msnmo_bids.preprocessing.cube import from_cube
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.simulation.imaging import PRESETS, random_protocol
from msnmo_bids.simulation.lesion_placement import draw_load
from msnmo_bids.simulation.sample import SimulatedScan, prepared_scan, simulate_scan

#: Trainings take small seeds; tests take this one and those above it.
FIRST_SEED = 777_000
ANY_PROTOCOL = "any"
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_TYPICALITIES = (1.0, 0.8, 0.6)


@dataclass(frozen=True)
class Case:
    """One simulated scan of a test.

    Parameters
    ----------
    number : int
        Counts the cases; with the test's seed it decides on everything.
    diagnosis : {"MS", "NMOSD", "HC"}
        Whose lesions.
    protocol : str
        A preset, or ``"any"``: drawn freely.
    typicality : float
        Share of the load that follows the disease's own pattern.
    """

    number: int
    diagnosis: str
    protocol: str
    typicality: float


def plan_cases(each: int) -> Iterator[Case]:
    """Plan a test: diagnoses, protocols and how typical the lesions are take turns.

    There are `each` cases of each of the three diagnoses.
    """
    protocols = (*PRESETS, ANY_PROTOCOL)
    for turn in range(each):
        for place, diagnosis in enumerate((*SICK, HEALTHY)):
            yield Case(
                number=3 * turn + place,
                diagnosis=diagnosis,
                protocol=protocols[turn % len(protocols)],
                typicality=_TYPICALITIES[(turn // len(protocols)) % len(_TYPICALITIES)],
            )


def simulate_case(
    case: Case,
    assets: SimulationAssets,
    rng: np.random.Generator,
    *,
    matched: bool = False,
) -> SimulatedScan:
    """Simulate the scan of a case; a person with MS or NMOSD has lesions.

    `rng` is the case's own, `matched` is of `load_of`.
    """
    head = assets.heads[int(rng.integers(len(assets.heads)))]
    any_protocol = case.protocol == ANY_PROTOCOL
    protocol = random_protocol(rng) if any_protocol else PRESETS[case.protocol]
    load = load_of(case.diagnosis, rng, matched=matched)
    return simulate_scan(
        head, rng, diagnosis=case.diagnosis, load=load, protocol=protocol,
        shapes=assets.shapes, typicality=case.typicality,
    )  # fmt: skip


def load_of(diagnosis: str, rng: np.random.Generator, *, matched: bool = False) -> float:
    """Draw the lesion load of a person (ml), above 0 for a sick one.

    With `matched` that of a sick person is drawn as for MS or as for NMOSD, whichever the disease,
    so that the volume tells nothing, be it large or small.
    """
    as_of = str(rng.choice(SICK)) if matched else diagnosis
    return draw_load(rng, as_of, without=0.0) if diagnosis != HEALTHY else 0.0


def evaluate_case(
    case: Case,
    scan: SimulatedScan,
    weights: Path,
    rng: np.random.Generator,
    *,
    precision: str = "fp32",
    with_rule: bool = False,
) -> dict[str, Any]:
    """Apply weights to a simulated scan and compare them with the truth.

    `rng` is for errors of skull stripping. A row has the case, the measures of
    :func:`~msnmo_bids.evaluation.metrics.compare_masks`, ``dsc_0.3`` ..., volumes (ml),
    ``logit_CLASS`` and ``prob_CLASS``, and with `with_rule` what the radiologists' rule says of the
    lesions found.
    """
    metadata = read_metadata(weights)
    cube, brain, transform = prepared_scan(scan, rng, metadata.cube_shape)

    found = predict(cube, weights, precision=precision)
    if found.probability is None:
        raise ValueError("these weights do not segment")
    zooms = tuple(scan.zooms)
    probability = from_cube(found.probability, transform) * brain
    labels = find_lesions(probability, float(np.prod(zooms)), metadata.criteria).labels
    truth = scan.lesion_mask > 0
    row: dict[str, Any] = {
        "number": case.number,
        "diagnosis": case.diagnosis,
        "protocol": case.protocol,
        "typicality": case.typicality,
        "found_count": int(labels.max()),
        **compare_masks(truth.astype(np.uint8), labels, zooms),
        **{f"dsc_{level}": _dsc(probability > level, truth) for level in THRESHOLDS},
    }
    regions = corrected_regions(scan, brain)
    if metadata.classifies_lesions:
        row |= _scores(classify_lesions(describe_lesions(labels, regions, zooms), weights))
    else:
        row |= _scores(found)
    if with_rule:
        row["rule"] = rule_diagnosis(labels, *regions)
    return row


def truth_features(scan: SimulatedScan) -> dict[str, float]:
    """Count the true lesions of a simulated scan by kind, and their volume (ml) by kind.

    What can be known at best of the diagnosis: see the ceiling in `dev.accuracy`.
    """
    features: dict[str, float] = {}
    for record in scan.lesions.records:
        for name, value in (("count", 1.0), ("ml", record.volume / 1000)):
            key = f"{name}_{record.kind}"
            features[key] = features.get(key, 0.0) + value
    return features


def _scores(found: Prediction | LesionClassification) -> dict[str, Any]:
    if found.class_logits is None or found.class_probabilities is None:
        raise ValueError("these weights do not classify")
    row: dict[str, Any] = {}
    for number, name in enumerate(found.class_names):
        row[f"logit_{name}"] = float(found.class_logits[number])
        row[f"prob_{name}"] = float(found.class_probabilities[number])
    return row


def _dsc(found: np.ndarray, true: np.ndarray) -> float:
    return dice(int((found & true).sum()), int(true.sum()), int(found.sum()))


def describe(metadata: WeightsMetadata) -> Mapping[str, Any]:
    """Return what identifies the tested weights."""
    return {
        "name": metadata.name,
        "version": metadata.version,
        "sha256": metadata.sha256,
        "threshold": metadata.threshold,
        "min_lesion_volume": metadata.min_lesion_volume,
        "calibration": asdict(metadata.calibration),
        "naming_limits": metadata.naming_limits,
    }
