"""The decision on a scan: which diagnosis is named, or why none is.

The classes are those of the weights (`class_names`), which have them from the training
(``msnmo-train --classes``, `JointConfig.classes` in ``model/config.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msnmo_bids.vocabulary import (
    AMBER,
    DISAGREEMENT,
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
    votes: Sequence[Mapping[str, float]] = (),
    distance: float | None = None,
    farthest: float | None = None,
) -> Decision:
    """Name the likeliest class, or say why none is named.

    Parameters
    ----------
    probabilities : mapping
        Calibrated, by class; they add up to 1.
    lesions : int
        Number that was found.
    quality : mapping
        ``Level`` and ``Reasons`` of :func:`msnmo_bids.quality.scan_quality`.
    limits : mapping of str to float or None, optional
        The least probability with which a class is named; None: it never is. A class that is not
        here has no limit.
    votes : sequence of mapping, optional
        The probabilities of each network of an ensemble, and of the mirror image.
    distance, farthest : float, optional
        Of the scan from the training scans (:mod:`msnmo_bids.model.sharing`), and the largest with
        which a class is named.
    """
    probabilities = _rounded(probabilities)
    likeliest = _likeliest(probabilities)
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
    elif doubt := _doubt(probabilities, likeliest, limits or {}, votes):
        flags.append(doubt[0])
        reasons.append(doubt[1])
    reason = ". ".join(reasons) or None
    return Decision(INDETERMINATE if reason else likeliest, reason, probabilities, tuple(flags))


def _doubt(
    probabilities: Mapping[str, float],
    likeliest: str,
    limits: Mapping[str, float | None],
    votes: Sequence[Mapping[str, float]],
) -> tuple[str, str] | None:
    """Return why the scores do not allow to name the likeliest class: a flag and a sentence."""
    if likeliest in LOOK_ALIKES:
        return LOW_PROBABILITY, (
            f"The lesions look most like {LOOK_ALIKES[likeliest]}, on which no disease is named"
        )
    least = limits.get(likeliest, 0.0)
    if least is None:
        return LOW_PROBABILITY, (
            f"These weights never name {likeliest}, because they would be wrong too often"
        )
    if probabilities[likeliest] < least:
        return LOW_PROBABILITY, (
            f"{likeliest} has the highest score but is named only at {least:g} or above; more "
            "lesions typical of one disease would be needed"
        )
    if others := sum(_likeliest(vote) != likeliest for vote in votes):
        return DISAGREEMENT, (
            f"{others} of {len(votes)} networks or mirrored views favour another class than their "
            "mean does"
        )
    return None


def _likeliest(probabilities: Mapping[str, float]) -> str:
    return max(probabilities, key=probabilities.__getitem__)


def _rounded(probabilities: Mapping[str, float]) -> dict[str, float]:
    """Round to six decimals so that the sum is 1; what is left goes to the largest."""
    rounded = {name: round(float(value), 6) for name, value in probabilities.items()}
    largest = _likeliest(rounded)
    rest = sum(value for name, value in rounded.items() if name != largest)
    return {**rounded, largest: round(1 - rest, 6)}
