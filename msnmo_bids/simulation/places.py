"""Where in a head lesions may be put."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Head, Tissue

#: What is added to the frequency of lesions (0 to 255), so that none of its places is excluded.
_ANYWHERE = 2.0
_DEEP_REACH = 14.0  # mm from the lateral ventricles: deep lesions fall off exponentially
#: Parts of the brainstem as shares of its height.
_STEM = {"medulla": (0.1, 0.4), "pons": (0.4, 0.7), "midbrain": (0.7, 1.0)}
_CALLOSUM = 8.0  # mm from the median plane: where it crosses


class Places:
    """The places of a head by name, such as ``"periventricular"`` or ``"area_postrema"``.

    `white`, (X, Y, Z) bool, is white matter but the septum, `tissue_share` how much of a lesion's
    contrast a voxel can take, 0 to 1.
    """

    def __init__(self, head: Head) -> None:
        self.head, tissue = head, head.tissue
        self.white = (tissue == Tissue.WHITE_MATTER) & ~head.septum
        brain = (tissue >= Tissue.WHITE_MATTER) & (tissue <= Tissue.BRAINSTEM)
        csf = (tissue >= Tissue.LATERAL_VENTRICLE) & (tissue <= Tissue.CSF)
        self.tissue_share = np.where(brain & ~csf, 1.0, 0.0).astype(np.float32)
        self.tissue_share[tissue == Tissue.CORTEX] = 0.6
        self.tissue_share[head.septum] = 0.0
        self._candidates: dict[tuple[str, bool], tuple[np.ndarray, np.ndarray]] = {}

    def candidates(self, place: str, *, gather: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return the voxels where a lesion of a place, a part of the brain, may be centred.

        With `gather`, lesions gather where those of MS do, as far as the head knows that. If not,
        deep ones grow rarer with the distance to the lateral ventricles, others are anywhere alike.
        The results are flat indices, (n,), and the sums of the probabilities up to each, 1 at the
        end.
        """
        if (place, gather) not in self._candidates:
            found = np.flatnonzero(self._mask(place))
            weights = np.ones(len(found))
            if gather and self.head.frequency.any():
                weights = self.head.frequency.reshape(-1)[found] + _ANYWHERE
            elif place == "deep":
                away = self.head.to_lateral.reshape(-1)[found] * np.float32(DISTANCE_STEP)
                weights = np.exp(-away / _DEEP_REACH)
            sums = np.cumsum(weights)
            self._candidates[place, gather] = found, sums / sums[-1] if found.size else sums
        return self._candidates[place, gather]

    def _mask(self, place: str) -> np.ndarray:
        head, step = self.head, DISTANCE_STEP
        lateral, cortex = head.to_lateral, head.to_cortex
        if place == "periventricular":
            return self.white & (lateral <= 4 / step)
        if place == "juxtacortical":
            return self.white & (cortex <= 3 / step) & (lateral > 8 / step)
        if place == "deep":
            return self.white & (lateral > 5 / step) & (cortex > 3 / step)
        if place == "vascular":
            return self.white & (lateral > 4 / step) & (cortex > 4 / step) & ~self.near_midline
        if place == "hemispheric":
            return self.white & (lateral > 10 / step) & (cortex > 2 / step)
        if place == "basal":
            return (head.tissue == Tissue.DEEP_GREY) & (head.to_lower > 3 / step)
        if place == "cerebellar":
            return head.tissue == Tissue.CEREBELLAR_WHITE
        if place.endswith("ventricle"):
            return (self.to_lower(place) <= 3 / step) & (self.tissue_share > 0.9)
        if place == "area_postrema":
            return self._stem("medulla") & (head.to_lower <= 4 / step)
        if place in _STEM:
            return self._stem(place) & (head.to_lower > 2 / step)
        if place == "corticospinal":
            return self.white & (lateral > 4 / step) & (lateral < 16 / step) & (cortex > 5 / step)
        raise ValueError(f"unknown place {place!r}")

    @cached_property
    def near_midline(self) -> np.ndarray:
        """Where the callosum crosses, (X, Y, Z) bool: near the median plane."""
        away = np.abs(np.arange(len(self.white)) - self.head.median_plane) * self.head.spacing
        return np.broadcast_to((away < _CALLOSUM).reshape(-1, 1, 1), self.white.shape)

    def is_at(self, place: str, index: np.ndarray) -> bool:
        """Whether a voxel, (3,) int, belongs to a place."""
        found, _ = self.candidates(place)
        return int(np.ravel_multi_index(index.tolist(), self.white.shape)) in found

    def _stem(self, part: str) -> np.ndarray:
        stem = self.head.tissue == Tissue.BRAINSTEM
        levels = np.flatnonzero(stem.any(axis=(0, 1)))
        inside = np.zeros_like(stem)
        if levels.size:
            low, high = (levels[0] + int(share * levels.size) for share in _STEM[part])
            inside[:, :, low:high] = True
        return stem & inside

    def to_lower(self, ventricle: str) -> np.ndarray:
        """Return the distance to "third_ventricle" or to "fourth_ventricle" alone, (X, Y, Z) uint8.

        In quarters of a millimetre; 255 nearer to the level of the other one.
        """
        tissue, levels = self.head.tissue, []
        for kind in (Tissue.THIRD_VENTRICLE, Tissue.FOURTH_VENTRICLE):
            where = np.flatnonzero((tissue == kind).any(axis=(0, 1)))
            levels.append(float(where.mean()) if where.size else -np.inf)
        distance = self.head.to_lower.copy()
        border = int(np.clip(np.mean(levels), 0, tissue.shape[2]))
        away = slice(border) if ventricle == "third_ventricle" else slice(border, None)
        distance[:, :, away] = 255
        return distance
