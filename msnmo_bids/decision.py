"""The decision on a scan: which diagnosis is named, or why none is.

The classes are those of the weights (`class_names`), which have them from the training
(``msnmo-train --classes``, `JointConfig.classes` in ``model/config.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from msnmo_bids.vocabulary import (
    AMBER,
    LOOK_ALIKES,
    LOW_PROBABILITY,
    NO_LESION,
    QUALITY_AMBER,
    QUALITY_RED,
    RED,
    UNFAMILIAR,
)

INDETERMINATE = "indeterminate"


@dataclass(frozen=True)
class Decision:
    """What is said of a scan."""

    diagnosis: str  #: A class, or `INDETERMINATE`.
    reason: str | None  #: Why none is named: sentences.
    probabilities: Mapping[str, float]  #: By class, rounded to six decimals; they add up to 1.
    flags: tuple[str, ...]  #: The reasons for programs, and what a reader should know besides.


def decide(
    probabilities: Mapping[str, float],
    *,
    lesions: int,
    quality: Mapping[str, Any],
    limits: Mapping[str, float | None] | None = None,
    distance: float | None = None,
    farthest: float | None = None,
) -> Decision:
    """Name the likeliest disease, or say why none is named.

    What only looks like a disease (`LOOK_ALIKES`) is never named.

    Parameters
    ----------
    probabilities : mapping
        Calibrated, by class; they add up to 1.
    lesions : int
        Number that was found.
    quality : mapping
        ``Level`` and ``Reasons`` of :func:`msnmo_bids.quality.scan_quality`.
    limits : mapping of str to float or None, optional
        Of `doubt_of_scores`.
    distance, farthest : float, optional
        Of the scan from the training scans (:mod:`msnmo_bids.model.sharing`), and the largest with
        which a class is named.
    """
    probabilities = _rounded(probabilities)
    disease, _ = likeliest_disease(probabilities)
    flags, reasons = [], []
    level = quality["Level"]
    if level == RED:
        flags.append(QUALITY_RED)
        reasons.append("The image's quality is red: " + ", ".join(quality["Reasons"]))
    elif level == AMBER:
        flags.append(QUALITY_AMBER)
    if distance is not None and farthest is not None and distance > farthest:
        flags.append(UNFAMILIAR)
        reasons.append(
            f"The scan is unlike the training scans (distance {distance:.2f}, limit {farthest:.2f})"
        )
    if not lesions:
        flags.append(NO_LESION)
        reasons.append("No lesion was found, so there is no pattern to classify")
    elif doubt := doubt_of_scores(probabilities, limits or {}):
        flags.append(LOW_PROBABILITY)
        reasons.append(doubt)
    reason = ". ".join(reasons) or None
    return Decision(INDETERMINATE if reason else disease, reason, probabilities, tuple(flags))


def doubt_of_scores(
    probabilities: Mapping[str, float], limits: Mapping[str, float | None]
) -> str | None:
    """Say why scores, by class, do not allow us to name a disease; None if they do.

    The limit of a disease is the least share of what the diseases score together with which it is
    named; None: it never is. The limit of what only looks like a disease is the highest score
    beside which a disease is named; without one that is the disease's own. A disease without a
    limit is named whatever its share.
    """
    disease, share = likeliest_disease(probabilities)
    least = limits.get(disease, 0.0)
    doubts = []
    if least is None:
        doubts.append(f"These weights never name {disease}, because they would be wrong too often")
    elif share < least:
        doubts.append(
            f"{disease} has {share:.3f} of what {' and '.join(diseases_of(probabilities))} score "
            f"together and is named only from {least:g} on; more lesions typical of one disease "
            "would be needed"
        )
    for name in LOOK_ALIKES.keys() & probabilities.keys():
        most = limits.get(name)
        if probabilities[name] > (probabilities[disease] if most is None else most):
            limit = "" if most is None else f", at most {most:g} is allowed"
            doubts.append(
                f"The lesions look too much like {LOOK_ALIKES[name]} (score "
                f"{probabilities[name]:.3f}{limit}), on which no disease is named"
            )
    return ". ".join(doubts) or None


def diseases_of(classes: Iterable[str]) -> list[str]:
    """Return those of some classes that can be named."""
    return [name for name in classes if name not in LOOK_ALIKES]


def likeliest_disease(probabilities: Mapping[str, float]) -> tuple[str, float]:
    """Return the class that scores highest of those that can be named, and its share of them."""
    diseases = {name: probabilities[name] for name in diseases_of(probabilities)}
    likeliest = _likeliest(diseases)
    return likeliest, diseases[likeliest] / (sum(diseases.values()) or 1.0)


def _likeliest(probabilities: Mapping[str, float]) -> str:
    return max(probabilities, key=probabilities.__getitem__)


def _rounded(probabilities: Mapping[str, float]) -> dict[str, float]:
    """Round to six decimals so that the sum is 1; what is left goes to the largest."""
    rounded = {name: round(float(value), 6) for name, value in probabilities.items()}
    largest = _likeliest(rounded)
    rest = sum(value for name, value in rounded.items() if name != largest)
    return {**rounded, largest: round(1 - rest, 6)}
