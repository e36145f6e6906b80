"""Lesions of MS, of NMOSD and of small-vessel disease, placed by published priors.

The total load is drawn first and then filled, because samples that are too light teach a network
to under-segment heavy scans. Numbers and places follow published cohorts: lesion volumes are
log-normal, MS lesions lie around the lateral ventricles, under the cortex, in the deep white
matter and infratentorially; NMOSD's are few, punctate, or sheets along the ependyma of the third
and fourth ventricle, the dorsal medulla, the corticospinal tract, or large and fluffy.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Head, Tissue
from msnmo_bids.simulation.lesion_shapes import ShapeLibrary, ovoid, random_rotation
from msnmo_bids.simulation.random_fields import smooth_noise

#: Raters draw the outer rim: a voxel is lesion from this share of the full contrast on.
RIM = 0.25
_STAMP_SMOOTHING = 0.7
_MAX_LESIONS = 160
_MAX_TRIES = 1000  # a head may lack the places, a speck may vanish when it is smoothed


@dataclass(frozen=True)
class LesionRecord:
    """One simulated lesion: its kind, place (RAS mm) and volume before merging (mm³)."""

    kind: str
    place: tuple[float, float, float]
    volume: float


@dataclass
class LesionMap:
    """Lesions on the grid of a head.

    Parameters
    ----------
    profile : ndarray, (X, Y, Z), float32
        Share of the full contrast, 0 to 1.
    brightness : ndarray, (X, Y, Z), float32
        Intensity of the lesion tissue relative to white matter.
    records : list of LesionRecord
        The lesions.
    """

    profile: np.ndarray
    brightness: np.ndarray
    records: list[LesionRecord] = field(default_factory=list)

    @property
    def mask(self) -> np.ndarray:
        """The lesion mask as a rater would draw it, bool."""
        return self.profile >= RIM


def draw_load(rng: np.random.Generator) -> float:
    """Draw the total lesion volume of an MS-like scan.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    float
        ml; one tenth is 0, another tenth below 1, a sixth above 25.
    """
    kind = rng.random()
    if kind < 0.10:
        return 0.0
    if kind < 0.20:
        return float(rng.uniform(0.1, 1.0))
    if kind < 0.37:
        return float(rng.uniform(25.0, 70.0))
    load = 0.0
    while not 1.0 <= load <= 25.0:
        load = float(rng.lognormal(2.14, 1.1))
    return load


def place_lesions(
    head: Head,
    diagnosis: str,
    load: float,
    rng: np.random.Generator,
    shapes: ShapeLibrary | None = None,
) -> LesionMap:
    """Fill a head with lesions up to a total load.

    Parameters
    ----------
    head : Head
        The head.
    diagnosis : {"MS", "NMOSD", "HC"}
        Whose lesions.
    load : float
        Total volume (ml); 0 gives none.
    rng : numpy.random.Generator
        Source of randomness.
    shapes : ShapeLibrary, optional
        Real lesion shapes; without it ovoids are made.

    Returns
    -------
    LesionMap
    """
    stamper = _Stamper(head, rng, shapes)
    if diagnosis != "HC" and load > 0:
        (_fill_ms if diagnosis == "MS" else _fill_nmosd)(stamper, load * 1000.0)
    return stamper.result()


class _Stamper:
    """Puts single lesions into a head and keeps count of the filled volume."""

    def __init__(self, head: Head, rng: np.random.Generator, shapes: ShapeLibrary | None) -> None:
        self.head, self.rng, self.shapes = head, rng, shapes
        self.profile = np.zeros(head.tissue.shape, np.float32)
        self.brightness = np.ones(head.tissue.shape, np.float32)
        self.records: list[LesionRecord] = []
        self.base = rng.normal(1.5, 0.12)
        self.filled = 0.0
        self.tries = 0
        tissue = head.tissue
        self.white = tissue == Tissue.WHITE_MATTER
        brain = (tissue >= Tissue.WHITE_MATTER) & (tissue <= Tissue.BRAINSTEM)
        csf = (tissue >= Tissue.LATERAL_VENTRICLE) & (tissue <= Tissue.CSF)
        self.tissue_share = np.where(brain & ~csf, 1.0, 0.0).astype(np.float32)
        self.tissue_share[tissue == Tissue.CORTEX] = 0.6
        self._candidates: dict[str, np.ndarray] = {}

    def result(self) -> LesionMap:
        """Return what was placed."""
        return LesionMap(self.profile, self.brightness, self.records)

    def needs_more(self, target: float) -> bool:
        """Whether the target (mm³) is not reached and one more try makes sense."""
        self.tries += 1
        return (
            self.filled < target and len(self.records) < _MAX_LESIONS and self.tries <= _MAX_TRIES
        )

    def candidates(self, place: str) -> np.ndarray:
        """Flat indices of the voxels where a lesion of this place may be centred."""
        if place not in self._candidates:
            self._candidates[place] = np.flatnonzero(self._place_mask(place))
        return self._candidates[place]

    def _place_mask(self, place: str) -> np.ndarray:
        head, step = self.head, DISTANCE_STEP
        lateral, cortex = head.to_lateral, head.to_cortex
        if place == "periventricular":
            return self.white & (lateral <= 4 / step)
        if place == "juxtacortical":
            return self.white & (cortex <= 3 / step) & (lateral > 8 / step)
        if place == "deep":
            return self.white & (lateral > 5 / step) & (cortex > 3 / step)
        if place == "basal":
            return head.tissue == Tissue.DEEP_GREY
        if place == "infratentorial":
            return (head.tissue == Tissue.BRAINSTEM) | (head.tissue == Tissue.CEREBELLAR_WHITE)
        if place == "lower_ependyma":
            near = head.to_lower <= 3 / step
            return near & (self.tissue_share > 0.9)
        if place == "medulla":
            stem = head.tissue == Tissue.BRAINSTEM
            levels = np.flatnonzero(stem.any(axis=(0, 1)))
            low = np.zeros_like(stem)
            if levels.size:
                cut = levels[0] + int(0.4 * levels.size)
                low[:, :, levels[0] + int(0.1 * levels.size) : cut] = True
            return stem & low
        if place == "corticospinal":
            return self.white & (lateral > 4 / step) & (lateral < 16 / step) & (cortex > 5 / step)
        raise ValueError(f"unknown place {place!r}")

    def stamp(self, points: np.ndarray, centre: np.ndarray, kind: str, *, soft: float) -> None:
        """Add a lesion given by points (mm) around a centre (voxel)."""
        index = np.round(points + centre).astype(int)
        pad = 3 + int(2 * soft)
        low = np.maximum(index.min(axis=0) - pad, 0)
        high = np.minimum(index.max(axis=0) + pad + 1, self.profile.shape)
        if (high - low < 1).any():
            return
        keep = ((index >= low) & (index < high)).all(axis=1)
        local = np.zeros(tuple(high - low), np.float32)
        local[tuple((index[keep] - low).T)] = 1.0
        self.add(local, tuple(slice(a, b) for a, b in zip(low, high, strict=True)), kind, soft=soft)

    def add(self, local: np.ndarray, box: tuple[slice, ...], kind: str, *, soft: float) -> None:
        """Blend a binary shape on a box of the grid into the lesion map."""
        profile = ndimage.gaussian_filter(local, soft) * self.tissue_share[box]
        np.minimum(profile * 1.15, 1.0, out=profile)
        volume = float((profile >= RIM).sum())
        if volume == 0:
            return
        brightness = self.base + self.rng.normal(0, 0.07) + 0.03 * np.log10(volume / 100)
        if volume > 2500 and self.rng.random() < 0.2:
            core = ndimage.gaussian_filter(local, 3.0)
            hole = self.rng.uniform(0.05, 0.25) * np.clip((core - 0.6) / 0.4, 0, 1)
        else:
            hole = 0.0
        stronger = profile > self.profile[box]
        self.filled += float(((profile >= RIM) & (self.profile[box] < RIM)).sum())
        level = np.broadcast_to(np.asarray(max(brightness, 1.18) - hole), profile.shape)
        self.brightness[box][stronger] = level[stronger]
        np.maximum(self.profile[box], profile, out=self.profile[box])
        centre = [(s.start + s.stop - 1) / 2 for s in box]
        place = self.head.affine[:3, :3] @ centre + self.head.affine[:3, 3]
        x, y, z = (float(v) for v in place)
        self.records.append(LesionRecord(kind, (x, y, z), volume))

    def lesion(
        self, place: str, volume: float, *, soft: float = _STAMP_SMOOTHING, elongation: float = 1.0
    ) -> bool:
        """Place one lesion of a volume (mm³); False when the head has no such place."""
        found = self.candidates(place)
        if not found.size:
            return False
        centre = np.array(
            np.unravel_index(self.rng.choice(found), self.profile.shape), dtype=np.float64
        )
        real = (
            self.shapes is not None
            and len(self.shapes)
            and elongation == 1
            and self.rng.random() < 0.75
        )
        if real and self.shapes is not None:
            points = self.shapes.points[self.rng.integers(len(self.shapes))]
            scale = (volume / len(points)) ** (1 / 3)
            turn = random_rotation(self.rng) if place != "periventricular" else np.eye(3)
            points = _densified(points, scale) @ turn.T
        else:
            points = ovoid(volume, self.rng, elongation=elongation) @ self._axes(place).T
        self.stamp(points, centre, place, soft=soft)
        return True

    def _axes(self, place: str) -> np.ndarray:
        """Orientation of an ovoid: x (away from the ventricle's long axis) or vertical tracts."""
        tilt = random_rotation(self.rng)
        if place == "periventricular":
            tilt = np.eye(3) + self.rng.normal(0, 0.25, (3, 3))
        if place in ("corticospinal", "medulla"):
            tilt = np.eye(3)[[1, 2, 0]] + self.rng.normal(0, 0.1, (3, 3))
        q, _ = np.linalg.qr(tilt)
        return q

    def shell(self, distance: np.ndarray, thickness: float, target: float, kind: str) -> None:
        """Add a band of varying thickness (mm) along a surface, of about a target volume (mm³)."""
        noise = smooth_noise(self.profile.shape, 14.0, self.rng)
        level = distance.astype(np.float32) * DISTANCE_STEP / max(thickness, 1.0) - 1.2 * noise
        inside = self.white if kind == "confluent" else self.tissue_share > 0.9
        inside = inside & (distance > 0) & (distance * DISTANCE_STEP < 4 * thickness + 3)
        levels = level[inside]
        if levels.size < 30:
            return
        share = min(target / levels.size, 0.85)
        band = inside & (level < np.quantile(levels, share))
        found = ndimage.find_objects(band.astype(np.uint8))
        if not found:
            return
        box = tuple(
            slice(max(0, s.start - 3), min(n, s.stop + 3))
            for s, n in zip(found[0], band.shape, strict=True)
        )
        self.add(band[box].astype(np.float32), box, kind, soft=0.8)


def _densified(points: np.ndarray, scale: float) -> np.ndarray:
    """Scale 1 mm points; a magnified shape is sampled twice an axis so that no gaps appear."""
    if scale <= 1.05:
        return points * scale
    shift = np.stack(np.meshgrid(*[(-0.25, 0.25)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return ((points[:, None] + shift[None]) * scale).reshape(-1, 3)


_MS_PLACES = ("periventricular", "deep", "juxtacortical", "infratentorial", "basal")
_MS_SHARES = (0.46, 0.20, 0.15, 0.16, 0.03)


def _fill_ms(stamper: _Stamper, target: float) -> None:
    rng = stamper.rng
    if target > 8000 and rng.random() < 0.8:
        share = rng.uniform(0.3, 0.7) * target
        thickness = rng.uniform(3.5, 6.0) + 1.5 * np.log1p(target / 8000)
        stamper.shell(stamper.head.to_lateral, thickness, share, "confluent")
    shares = rng.dirichlet(np.asarray(_MS_SHARES) * 12)
    while stamper.needs_more(target):
        left = target - stamper.filled
        typical = 3.6 + 0.45 * np.log1p(target / 4000)
        volume = float(np.clip(rng.lognormal(typical, 1.3), 8, max(40.0, min(left, 12000.0))))
        place = str(rng.choice(_MS_PLACES, p=shares))
        if place == "infratentorial":
            volume = min(volume, 900.0)
        stamper.lesion(place, volume, soft=rng.uniform(0.5, 1.0))


def _fill_nmosd(stamper: _Stamper, target: float) -> None:
    rng = stamper.rng
    lower = stamper.head.to_lower
    if rng.random() < 0.45:
        stamper.shell(lower, 1.5, min(target * rng.uniform(0.2, 0.5), 2500.0), "ependymal")
    if rng.random() < 0.30:
        part = min(target * rng.uniform(0.2, 0.5), 9000.0)
        stamper.shell(stamper.head.to_lateral, 1.8, part, "ependymal")
    if rng.random() < 0.30:
        stamper.lesion(
            "medulla", min(target, float(rng.uniform(60, 500))), soft=0.8, elongation=2.0
        )
    if rng.random() < 0.20:
        volume = min(target, float(rng.uniform(400, 3000)))
        stamper.lesion("corticospinal", volume, soft=1.2, elongation=3.0)
    while stamper.needs_more(target):
        left = target - stamper.filled
        if left > 1500 and rng.random() < 0.8:
            volume = min(left, float(rng.lognormal(8.6, 0.7)))
            place = str(rng.choice(("deep", "juxtacortical", "basal"), p=(0.6, 0.3, 0.1)))
            stamper.lesion(place, volume, soft=rng.uniform(1.5, 3.0))
        else:
            place = str(rng.choice(("deep", "juxtacortical", "lower_ependyma", "infratentorial"),
                                   p=(0.4, 0.3, 0.2, 0.1)))  # fmt: skip
            stamper.lesion(place, float(rng.uniform(10, 65 if left < 800 else 200)), soft=0.6)
