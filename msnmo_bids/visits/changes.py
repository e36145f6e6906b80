"""Whether a lesion is new, enlarging, stable, shrinking or vanished, or whether nobody can say.

Segmenting a head twice gives two masks that differ, mostly at the borders. So a lesion counts as
changed only where its outline changed by more than that, and where the images changed with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from msnmo_bids.visits.rule import DEFAULT_RULE, ChangeRule


@dataclass(frozen=True)
class Visit:
    """One visit in the half-way space, (X, Y, Z) each.

    Parameters
    ----------
    flair : ndarray, float32
        Preprocessed FLAIR, any unit.
    brain, lesions : ndarray of bool
        Masks.
    """

    flair: np.ndarray
    brain: np.ndarray
    lesions: np.ndarray


def classify(
    labels: np.ndarray,
    earlier: Visit,
    later: Visit,
    width: np.ndarray,
    rule: ChangeRule = DEFAULT_RULE,
) -> list[dict[str, Any]]:
    """Say of each lesion what became of it.

    Parameters
    ----------
    labels : ndarray, (X, Y, Z)
        From :func:`~msnmo_bids.visits.matching.match_lesions`, voxels of 1 mm³.
    earlier, later : Visit
        The two visits.
    width : ndarray, (3,)
        Uncertainty of a border along each axis (mm).
    rule : ChangeRule
        Limits.

    Returns
    -------
    list of dict
        By label: ``index``, ``change`` (one of `CHANGES`), ``reason`` (why it is uncertain, else
        empty), ``volume_earlier_mm3``, ``volume_later_mm3``, ``area_ratio`` (later to earlier,
        None where it has no volume at one visit), ``contrast_ratio`` (of what appeared or
        vanished: its contrast at the visit without it to that with it; None where nothing did).
    """
    images = [_in_units_of_brain(visit) for visit in (earlier, later)]
    tissue = earlier.brain & later.brain & (labels == 0)
    gain = _lesion_gain(images, labels, earlier.lesions & later.lesions, tissue)
    rows = []
    for number, found in enumerate(ndimage.find_objects(labels), start=1):
        box = tuple(
            slice(max(0, s.start - _RING), min(n, s.stop + _RING))
            for s, n in zip(found, labels.shape, strict=True)
        )
        cut = _Lesion(
            labels[box] == number,
            earlier.lesions[box],
            later.lesions[box],
            tissue[box],
            (earlier.brain[box], later.brain[box]),
            (images[0][box], images[1][box] / gain),
        )
        rows.append({"index": number, **_judge(cut, float(np.mean(width)), rule)})
    return rows


_RING = 6  # voxels (mm) around a lesion whose tissue it is compared with
_RING_INNER = 2
_LEAST_CONTRAST = 0.05  # of the brain's median; what is no brighter is not a lesion to compare


@dataclass(frozen=True)
class _Lesion:
    """The box around one lesion: masks (its own, all earlier, all later, free tissue), images."""

    own: np.ndarray
    earlier: np.ndarray
    later: np.ndarray
    tissue: np.ndarray
    brains: tuple[np.ndarray, np.ndarray]
    images: tuple[np.ndarray, np.ndarray]


def _judge(lesion: _Lesion, width: float, rule: ChangeRule) -> dict[str, Any]:
    """Return the change of one lesion with what it rests on."""
    before, after = lesion.own & lesion.earlier, lesion.own & lesion.later
    volumes = float(np.count_nonzero(before)), float(np.count_nonzero(after))
    row: dict[str, Any] = {
        "change": "stable",
        "reason": "",
        "volume_earlier_mm3": volumes[0],
        "volume_later_mm3": volumes[1],
        "area_ratio": (volumes[1] / volumes[0]) ** (2 / 3) if min(volumes) > 0 else None,
        "contrast_ratio": None,
    }
    grows = volumes[1] > volumes[0]
    changed = (after & ~before) if grows else (before & ~after)
    if changed.any():
        row["contrast_ratio"] = _contrast_ratio(lesion, changed, with_lesion=int(grows))
    if min(volumes) < rule.remnant_share * max(volumes):
        row["change"] = "new" if grows else "vanished"
        row["reason"] = _doubt(lesion, max(volumes), int(not grows), row["contrast_ratio"], rule)
        if row["reason"]:
            row["change"] = "uncertain"
    elif _beyond_border(before, after, width, rule):
        ratio = row["contrast_ratio"]
        if ratio is not None and ratio < rule.grown_share:
            row["change"] = "enlarging" if grows else "shrinking"
    return row


def _doubt(
    lesion: _Lesion, volume: float, without: int, ratio: float | None, rule: ChangeRule
) -> str:
    """Say why a lesion that was found at one visit only may be there at both; empty if it may not.

    `without` is the visit (0 or 1) at which it was not found.
    """
    if volume < rule.least_volume:
        return "small"
    if lesion.brains[without][lesion.own].mean() < rule.covered_share:
        return "not_covered"
    if ratio is None or ratio >= rule.visible_share:
        return "no_difference"
    return ""


def _beyond_border(before: np.ndarray, after: np.ndarray, width: float, rule: ChangeRule) -> bool:
    """Say whether two outlines of a lesion differ by more than test-retest explains."""
    small, large = sorted((float(np.count_nonzero(before)), float(np.count_nonzero(after))))
    explained = rule.border_share * width * (_surface(before) + _surface(after)) / 2
    if large - small < max(rule.least_volume, explained):
        return False
    area = np.pi * (3 * small / (4 * np.pi)) ** (2 / 3)
    limit = rule.small_ratio if area < rule.small_area else rule.large_ratio
    return bool((large / small) ** (2 / 3) > limit)


def _surface(mask: np.ndarray) -> float:
    """Estimate the surface (mm²) from the voxels' outer faces, of which a slope has too many."""
    padded = np.pad(mask, 1).astype(np.int8)
    faces = sum(np.count_nonzero(np.diff(padded, axis=axis)) for axis in range(3))
    return 2 / 3 * float(faces)


def _in_units_of_brain(visit: Visit) -> np.ndarray:
    inside = visit.flair[visit.brain]
    return visit.flair / max(float(np.median(inside)), 1e-6) if inside.size else visit.flair


def _lesion_gain(
    images: list[np.ndarray], labels: np.ndarray, common: np.ndarray, tissue: np.ndarray
) -> float:
    """Return the later scan's lesion contrast relative to the earlier one's.

    From voxels that are lesion at both visits; 1 where these are few, or where it would be odd.
    """
    if np.count_nonzero(common) < 100 or not tissue.any():
        return 1.0
    ring = ndimage.binary_dilation(labels > 0, iterations=_RING) & tissue
    if not ring.any():
        return 1.0
    first, second = (float(np.median(i[common]) - np.median(i[ring])) for i in images)
    return float(np.clip(second / first, 0.5, 2.0)) if min(first, second) > 0 else 1.0


def _contrast_ratio(lesion: _Lesion, changed: np.ndarray, *, with_lesion: int) -> float | None:
    """Return the contrast of a place to the tissue around, at the visit without to that with it."""
    near = ndimage.binary_dilation(lesion.own, iterations=_RING_INNER)
    ring = ndimage.binary_dilation(lesion.own, iterations=_RING) & ~near & lesion.tissue
    if np.count_nonzero(ring) < 20:
        return None
    contrasts = [float(np.mean(image[changed]) - np.median(image[ring])) for image in lesion.images]
    present, absent = contrasts[with_lesion], contrasts[1 - with_lesion]
    return absent / present if present > _LEAST_CONTRAST else None
