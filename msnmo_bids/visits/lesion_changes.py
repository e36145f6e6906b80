"""Which lesion of one visit is which of the other, and whether it is new, enlarging and so on.

Segmenting a head twice gives two masks that differ, mostly at the borders. So a lesion counts as
changed only where its outline changed by more than that, and where the images changed with it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy import ndimage, sparse

from msnmo_bids.lesions.threshold import CONNECTIVITY_26
from msnmo_bids.preprocessing.geometry import enlarged

#: Share of a lesion within the border's width of another from which they are the same, moved.
_SHARE_NEAR = 0.5
_RING = 6  # voxels (mm) around a lesion whose tissue it is compared with
_RING_INNER = 2
_LEAST_CONTRAST = 0.05  # of the brain's median; what is no brighter is not a lesion to compare


@dataclass(frozen=True)
class ChangeRule:
    """How much a lesion must change to count as changed."""

    #: Lesions that appear or vanish, and differences of volume, must be as large as this (mm³): a
    #: sphere of 3 mm.
    least_volume: float = 14.0
    #: Up to this area (mm²) the first, then the second of the following limits holds (1992 rule).
    #: Area is that of the great circle of the sphere with the lesion's volume.
    small_area: float = 67.0
    #: An enlarging lesion's area grows by more than this factor, a shrinking one's falls by it.
    small_ratio: float = 1.45
    large_ratio: float = 1.24
    #: Share of the border's width by which test-retest moves an outline: a difference of volume
    #: must exceed that share times the width times the surface.
    border_share: float = 0.25
    #: A lesion that is found at one visit only is uncertain if it has at least this share of its
    #: contrast at the other visit as well.
    visible_share: float = 0.4
    #: Likewise, what a lesion gains or loses must have had less than this share of its contrast.
    grown_share: float = 0.6
    #: A lesion of which less than this share of the volume was there before is new, and one of
    #: which less than this is left has vanished.
    remnant_share: float = 0.1
    #: A lesion is uncertain if less than this share of it lies in the other visit's brain mask.
    covered_share: float = 0.8

    def record(self) -> dict[str, float]:
        """Return the limits for a sidecar."""
        return {name.title().replace("_", ""): value for name, value in asdict(self).items()}


DEFAULT_RULE = ChangeRule()


def match_lesions(earlier: np.ndarray, later: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Give the lesions of two visits common numbers.

    Connected lesions (26 neighbours) of the two visits that overlap are one; so are lesions that
    merged or fell apart. A lesion that overlaps none belongs to the one that it lies beside, if
    half of it is within the border's width: the registration may be that far off.

    The masks are (X, Y, Z) bool in the half-way space (1 mm voxels); `width`, (3,), is the
    uncertainty of a border along each axis (mm). Return int32, (X, Y, Z): 1 to n in the lesions of
    either visit, by decreasing volume of both together, 0 elsewhere.
    """
    first, count = ndimage.label(earlier, structure=CONNECTIVITY_26)
    second, others = ndimage.label(later, structure=CONNECTIVITY_26)
    both = earlier & later
    links = np.unique(np.stack([first[both], second[both]]), axis=1)
    links = np.concatenate([links, _nearby(first, second, links, width)], axis=1)
    graph = sparse.coo_matrix(
        (np.ones(links.shape[1]), (links[0], links[1] + count)),
        shape=(count + others + 1, count + others + 1),
    )
    _, joined = sparse.csgraph.connected_components(graph, directed=False)
    joint = np.where(earlier, joined[first], np.where(later, joined[second + count], -1))
    return _numbered(joint)


def _nearby(
    first: np.ndarray, second: np.ndarray, links: np.ndarray, width: np.ndarray
) -> np.ndarray:
    """Return links (2, n) of lesions that overlap none to those that they lie beside."""
    found = [np.empty((2, 0), dtype=links.dtype)]
    for own, other, flipped in ((first, second, False), (second, first, True)):
        linked = links[int(flipped)]
        lonely = np.setdiff1d(np.unique(own[own > 0]), linked)
        if not lonely.size or not other.any():
            continue
        where = np.isin(own, lonely)
        distance, nearest = ndimage.distance_transform_edt(
            other == 0, sampling=1 / width, return_indices=True
        )
        numbers = own[where]
        near = distance[where] <= 1
        beside = other[tuple(axis[where] for axis in nearest)]
        sizes = np.bincount(numbers)
        inside = np.bincount(numbers[near], minlength=len(sizes))
        moved = np.flatnonzero((sizes > 0) & (inside >= _SHARE_NEAR * sizes))
        kept = near & np.isin(numbers, moved)
        pair = np.unique(np.stack([numbers[kept], beside[kept]]), axis=1)
        found.append(pair[::-1] if flipped else pair)
    return np.concatenate(found, axis=1)


def _numbered(joint: np.ndarray) -> np.ndarray:
    """Renumber by decreasing volume, ties in the order of the array; -1 becomes 0."""
    values, first, counts = np.unique(joint[joint >= 0], return_index=True, return_counts=True)
    order = np.lexsort((first, -counts))
    lookup = np.zeros(int(values.max(initial=-1)) + 2, dtype=np.int32)
    lookup[values[order] + 1] = np.arange(1, len(values) + 1)
    return lookup[joint + 1]


@dataclass(frozen=True)
class Visit:
    """One visit in the half-way space, (X, Y, Z) each."""

    flair: np.ndarray  #: float32: preprocessed FLAIR, any unit.
    #: bool: masks.
    brain: np.ndarray
    lesions: np.ndarray


def classify(
    labels: np.ndarray, earlier: Visit, later: Visit, width: np.ndarray
) -> list[dict[str, Any]]:
    """Say of each lesion what became of it, by `DEFAULT_RULE`.

    `labels`, (X, Y, Z), and `width` are those of :func:`match_lesions`, voxels of 1 mm³.

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
        box = enlarged(found, _RING, labels.shape)
        cut = _Lesion(
            labels[box] == number,
            earlier.lesions[box],
            later.lesions[box],
            tissue[box],
            (earlier.brain[box], later.brain[box]),
            (images[0][box], images[1][box] / gain),
        )
        rows.append({"index": number, **_judge(cut, float(np.mean(width)))})
    return rows


@dataclass(frozen=True)
class _Lesion:
    """The box around one lesion: masks (its own, all earlier, all later, free tissue), images."""

    own: np.ndarray
    earlier: np.ndarray
    later: np.ndarray
    tissue: np.ndarray
    brains: tuple[np.ndarray, np.ndarray]
    images: tuple[np.ndarray, np.ndarray]


def _judge(lesion: _Lesion, width: float) -> dict[str, Any]:
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
    if min(volumes) < DEFAULT_RULE.remnant_share * max(volumes):
        row["change"] = "new" if grows else "vanished"
        row["reason"] = _doubt(lesion, max(volumes), int(not grows), row["contrast_ratio"])
        if row["reason"]:
            row["change"] = "uncertain"
    elif _beyond_border(before, after, width):
        ratio = row["contrast_ratio"]
        if ratio is not None and ratio < DEFAULT_RULE.grown_share:
            row["change"] = "enlarging" if grows else "shrinking"
    return row


def _doubt(lesion: _Lesion, volume: float, without: int, ratio: float | None) -> str:
    """Say why a lesion that was not found at the visit `without` may be there; empty if not."""
    if volume < DEFAULT_RULE.least_volume:
        return "small"
    if lesion.brains[without][lesion.own].mean() < DEFAULT_RULE.covered_share:
        return "not_covered"
    if ratio is None or ratio >= DEFAULT_RULE.visible_share:
        return "no_difference"
    return ""


def _beyond_border(before: np.ndarray, after: np.ndarray, width: float) -> bool:
    """Say whether two outlines of a lesion differ by more than test-retest explains."""
    rule = DEFAULT_RULE
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
    """Return the lesion contrast, later to earlier scan, by voxels of lesions at both visits."""
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
