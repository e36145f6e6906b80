"""How much a lesion must change to count as changed."""

from __future__ import annotations

from dataclasses import asdict, dataclass

#: Voxel size of the half-way space (mm).
SPACING_MM = 1.0


@dataclass(frozen=True)
class ChangeRule:
    """How much a lesion must change to count as changed.

    Parameters
    ----------
    least_volume : float
        Lesions that appear or vanish, and differences of volume, must be as large as this (mm³):
        a sphere of 3 mm.
    small_area : float
        Up to this area (mm²) the first, then the second of the following limits holds (1992
        rule). Area is that of the great circle of the sphere with the lesion's volume.
    small_ratio, large_ratio : float
        An enlarging lesion's area grows by more than this factor, a shrinking one's falls by it.
    border_share : float
        Share of the border's width by which test-retest moves an outline: a difference of volume
        must exceed that share times the width times the surface.
    visible_share : float
        A lesion that is found at one visit only is uncertain if it has at least this share of
        its contrast at the other visit as well.
    grown_share : float
        Likewise, what a lesion gains or loses must have had less than this share of its contrast.
    remnant_share : float
        A lesion of which less than this share of the volume was there before is new, and one of
        which less than this is left has vanished.
    covered_share : float
        A lesion is uncertain if less than this share of it lies in the other visit's brain mask.
    """

    least_volume: float = 14.0
    small_area: float = 67.0
    small_ratio: float = 1.45
    large_ratio: float = 1.24
    border_share: float = 0.25
    visible_share: float = 0.4
    grown_share: float = 0.6
    remnant_share: float = 0.1
    covered_share: float = 0.8

    def record(self) -> dict[str, float]:
        """Return the limits for a sidecar."""
        return {name.title().replace("_", ""): value for name, value in asdict(self).items()}


DEFAULT_RULE = ChangeRule()
