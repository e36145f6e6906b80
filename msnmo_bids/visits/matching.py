"""Which lesion of one visit is which of the other."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, sparse

from msnmo_bids.lesions.mask import CONNECTIVITY_26

#: Share of a lesion within the border's width of another from which they are the same, moved.
_SHARE_NEAR = 0.5


def match_lesions(earlier: np.ndarray, later: np.ndarray, width: np.ndarray) -> np.ndarray:
    """Give the lesions of two visits common numbers.

    Connected lesions (26 neighbours) of the two visits that overlap are one; so are lesions that
    merged or fell apart. A lesion that overlaps none belongs to the one that it lies beside, if
    half of it is within the border's width: the registration may be that far off.

    Parameters
    ----------
    earlier, later : ndarray of bool, (X, Y, Z)
        Lesion masks in the half-way space (1 mm voxels).
    width : ndarray, (3,)
        Uncertainty of a border along each axis (mm).

    Returns
    -------
    ndarray, (X, Y, Z), int32
        1 to n in the lesions of either visit, by decreasing volume of both together, 0 elsewhere.
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
