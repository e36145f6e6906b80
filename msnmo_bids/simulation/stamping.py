"""Put single lesions into a head: as shapes, as bands along a surface, along the cortex."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from scipy import ndimage

from msnmo_bids.preprocessing.geometry import box_around, enlarged
from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Head
from msnmo_bids.simulation.assets import ShapeLibrary, ovoid, random_rotation
from msnmo_bids.simulation.deformation import smooth_noise
from msnmo_bids.simulation.places import Places

#: A voxel is lesion from this share of the full contrast on. In the manual masks of seven real
#: scans the outermost voxels have two thirds of it, and the next ones outside a quarter.
RIM = 0.4
_MAX_LESIONS = 220
_MAX_TRIES = 1000  # a head may lack the places, a speck may vanish when it is smoothed
#: Lesions are nearly as bright at the rim as in the core: the blurred shape saturates.
_EDGE_GAIN = 1.3
_EDGE_BLUR = 0.65  # of what is asked for
#: The blur widens a lesion's outline, so its shape is made smaller by about half of that (mm).
_WIDENED = 0.25
_OUTLINE = 0.3  # share of a voxel from which it belongs to a lesion that grows or shrinks
#: How much further a confluent band reaches where lesions are most frequent, in thicknesses.
_GATHERED = 2.5
_REAL_SHARE = 0.75  # of the lesions, when there is a library of real shapes
_CENTRES_TRIED = 4  # to leave lesions apart that would else merge
_REACH = 14  # voxels that a lesion along the cortex may extend from its centre


@dataclass(frozen=True)
class LesionRecord:
    """One simulated lesion.

    `kind` says what it is and where it was put (``"periventricular"``, ``"ependymal"``, ...),
    `place` is the centre of its box (RAS mm), `volume` that before lesions merge (mm³; 0 when it
    has vanished), `label` its number in `LesionMap.labels` at all visits. `change` since the visit
    before is ``"new"``, ``"stable"``, ``"enlarging"``, ``"shrinking"``, ``"vanished"`` (then or
    earlier), or None at the first visit.
    """

    kind: str
    place: tuple[float, float, float]
    volume: float
    label: int = 0
    change: str | None = None


@dataclass(frozen=True)
class Stamp:
    """What a lesion was made of, so that it can be rendered again, grown or shrunk.

    `shape`, (x, y, z) float32, is the share of each voxel that is lesion, before it is blurred, and
    `box` where it lies on the grid of the head; `soft` is the blur of its border (mm, s.d.),
    `level` its brightness relative to white matter, `hole` how much darker its core is.
    """

    shape: np.ndarray
    box: tuple[slice, ...]
    soft: float
    level: float
    hole: float = 0.0


@dataclass
class LesionMap:
    """Lesions on the grid of a head, (X, Y, Z).

    `profile` is the share of the full contrast, 0 to 1, `brightness` the intensity of the lesion
    tissue relative to white matter (both float32), `labels` (uint16) the number of the lesion that
    is strongest at a voxel, 0 outside of the mask. `stamps` are what the lesions of the next visit
    are made from, by label.
    """

    profile: np.ndarray
    brightness: np.ndarray
    labels: np.ndarray
    records: list[LesionRecord] = field(default_factory=list)
    stamps: dict[int, Stamp] = field(default_factory=dict)

    @property
    def mask(self) -> np.ndarray:
        """The lesion mask as a rater would draw it, bool."""
        return self.profile >= RIM


class Stamper:
    """Puts single lesions into a head and keeps count of the filled volume."""

    def __init__(self, head: Head, rng: np.random.Generator, shapes: ShapeLibrary | None) -> None:
        self.head, self.rng, self.shapes = head, rng, shapes
        self.places = Places(head)
        self.profile = np.zeros(head.tissue.shape, np.float32)
        self.brightness = np.ones(head.tissue.shape, np.float32)
        self.labels = np.zeros(head.tissue.shape, np.uint16)
        self.records: list[LesionRecord] = []
        self.stamps: dict[int, Stamp] = {}
        self.change: str | None = None
        self.base = rng.normal(1.53, 0.12)
        self.filled = 0.0
        self.tries = 0
        self.spacing = head.spacing
        self.voxel = self.spacing**3  # mm³

    def result(self) -> LesionMap:
        """Return what was placed."""
        return LesionMap(self.profile, self.brightness, self.labels, self.records, self.stamps)

    def needs_more(self, target: float) -> bool:
        """Whether the target (mm³) is not reached and one more try makes sense."""
        self.tries += 1
        return (
            self.filled < target and len(self.records) < _MAX_LESIONS and self.tries <= _MAX_TRIES
        )

    def centre(self, place: str, gather: bool = False) -> np.ndarray | None:
        """Draw where to put a lesion (voxel), if possible outside of the lesions that are there."""
        found, weights = self.places.candidates(place, gather=gather)
        if not found.size:
            return None
        lesions = self.labels.reshape(-1)
        for voxel in found[np.searchsorted(weights, self.rng.random(_CENTRES_TRIED))]:
            if not lesions[voxel]:
                break
        return np.array(np.unravel_index(voxel, self.profile.shape), dtype=np.float64)

    def hollow(self, brightness: float) -> None:
        """Give the core of the lesion placed last a brightness relative to white matter."""
        core = ndimage.binary_erosion(self.labels == self.records[-1].label)
        self.brightness[core] = brightness

    def stamp(
        self, points: np.ndarray, centre: np.ndarray, kind: str, *, volume: float, soft: float
    ) -> None:
        """Add a lesion of a volume (mm³), given by points (mm) around a centre (voxel).

        Each point stands for the same part of the volume, so that a lesion smaller than a voxel
        fills only a part of it.
        """
        index = np.round(points / self.spacing + centre).astype(int)
        pad = 3 + int(2 * soft / self.spacing)
        low = np.maximum(index.min(axis=0) - pad, 0)
        high = np.minimum(index.max(axis=0) + pad + 1, self.profile.shape)
        if (high - low < 1).any():
            return
        keep = ((index >= low) & (index < high)).all(axis=1)
        size = tuple(high - low)
        flat = np.ravel_multi_index(tuple((index[keep] - low).T), size)
        points_inside = np.bincount(flat, minlength=int(np.prod(size))).reshape(size)
        share = points_inside * (volume / len(points) / self.voxel)
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        self.add(np.minimum(share, 1.0).astype(np.float32), box, kind, soft=soft)

    def add(self, local: np.ndarray, box: tuple[slice, ...], kind: str, *, soft: float) -> None:
        """Blend a shape, 0 to 1 on a box of the grid, into the lesion map."""
        profile = self._profile(local, box, soft)
        volume = self._volume(profile)
        if volume == 0:
            return
        level = self.base + self.rng.normal(0, 0.07) + 0.03 * np.log10(volume / 100)
        hole = 0.0
        if volume > 2500 and self.rng.random() < 0.2:
            hole = self.rng.uniform(0.05, 0.25)
        stamp = Stamp(local, box, soft, max(level, 1.25), hole)
        label = 1 + max((record.label for record in self.records), default=0)
        record = LesionRecord(kind, self._place(box), volume, label, self.change)
        self._blend(profile, stamp, record)

    def again(self, record: LesionRecord, stamp: Stamp, change: str) -> None:
        """Put a lesion of the visit before in again, changed or not."""
        if change in ("enlarging", "shrinking"):
            stamp = _resized(stamp, change, self.rng, self.profile.shape, self.spacing)
        profile = self._profile(stamp.shape, stamp.box, stamp.soft)
        volume = self._volume(profile)
        if change == "vanished" or volume == 0:
            self.records.append(replace(record, volume=0.0, change="vanished"))
            return
        record = replace(record, place=self._place(stamp.box), volume=volume, change=change)
        self._blend(profile, stamp, record)

    def _volume(self, profile: np.ndarray) -> float:
        """Volume of a lesion to its rim (mm³)."""
        return self.voxel * float((profile >= RIM).sum())

    def _profile(self, local: np.ndarray, box: tuple[slice, ...], soft: float) -> np.ndarray:
        """Share of the full contrast that a shape gives the voxels of its box."""
        blurred = ndimage.gaussian_filter(local, _EDGE_BLUR * soft / self.spacing)
        return np.minimum(blurred * self.places.tissue_share[box] * _EDGE_GAIN, 1.0)

    def _blend(self, profile: np.ndarray, stamp: Stamp, record: LesionRecord) -> None:
        """Put a lesion where it is stronger than what is there."""
        box = stamp.box
        level = np.full(profile.shape, stamp.level, np.float32)
        if stamp.hole:
            core = ndimage.gaussian_filter(stamp.shape, 3.0 / self.spacing)
            level -= stamp.hole * np.clip((core - 0.6) / 0.4, 0, 1)
        stronger = profile > self.profile[box]
        inside = profile >= RIM
        self.filled += self.voxel * float((inside & (self.profile[box] < RIM)).sum())
        self.brightness[box][stronger] = level[stronger]
        self.labels[box][stronger & inside] = record.label
        np.maximum(self.profile[box], profile, out=self.profile[box])
        self.records.append(record)
        self.stamps[record.label] = stamp

    def _place(self, box: tuple[slice, ...]) -> tuple[float, float, float]:
        """Centre of a box (RAS mm)."""
        centre = [(s.start + s.stop - 1) / 2 for s in box]
        x, y, z = self.head.affine[:3, :3] @ centre + self.head.affine[:3, 3]
        return float(x), float(y), float(z)

    def lesion(
        self,
        place: str,
        volume: float,
        *,
        soft: float,
        elongation: float = 1.0,
        kind: str | None = None,
        gather: bool = False,
        centre: np.ndarray | None = None,
    ) -> None:
        """Place one lesion of a volume (mm³) to its rim, unless the head has no such place.

        What `gather` does, `Places.candidates` tells. A centre (voxel) that is given is not drawn.
        """
        volume = max(volume ** (1 / 3) - _WIDENED, 0.7 * volume ** (1 / 3)) ** 3
        centre = self.centre(place, gather) if centre is None else centre
        if centre is None:
            return
        points = None
        if self.shapes is not None and elongation == 1 and self.rng.random() < _REAL_SHARE:
            points = self.shapes.draw(volume, self.rng)
        if points is not None:
            scale = (volume / len(points)) ** (1 / 3)
            turn = random_rotation(self.rng) if place != "periventricular" else np.eye(3)
            points = _scaled(points, scale, self.spacing) @ turn.T
        else:
            points = ovoid(volume, self.rng, elongation=elongation) @ self._axes(place, centre).T
        self.stamp(points, centre, kind or place, volume=volume, soft=soft)

    def _axes(self, place: str, centre: np.ndarray) -> np.ndarray:
        """Orientation of an ovoid, long axis first: Dawson's fingers stand on the ventricle."""
        tilt = random_rotation(self.rng)
        if place == "periventricular":
            away = self._gradient(self.head.to_lateral, centre)
            tilt[:, 0] = away + 0.2 * self.rng.standard_normal(3) if away.any() else tilt[:, 0]
        if place in ("corticospinal", "medulla", "area_postrema"):
            tilt = np.eye(3)[[1, 2, 0]] + self.rng.normal(0, 0.1, (3, 3))
        q, _ = np.linalg.qr(tilt)
        return q

    @staticmethod
    def _gradient(distance: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Direction in which a distance grows, of length 1 (or 0)."""
        index, last = np.round(centre).astype(int), np.array(distance.shape) - 1
        slope = np.zeros(3)
        for axis, step in enumerate(3 * np.eye(3, dtype=int)):
            low, high = np.maximum(index - step, 0), np.minimum(index + step, last)
            slope[axis] = float(distance[tuple(high)]) - float(distance[tuple(low)])
        length = np.linalg.norm(slope)
        return slope / length if length else slope

    def u_fibre(self, volume: float, *, gather: bool = False) -> bool:
        """Place a lesion (mm³) in the white matter along a fold of the cortex; False if none."""
        place = self.centre("juxtacortical", gather)
        if place is None:
            return False
        centre = [int(c) for c in place]
        box = enlarged([slice(c, c + 1) for c in centre], _REACH, self.profile.shape)
        thickness = self.rng.uniform(1.5, 3.0) / DISTANCE_STEP
        index = np.argwhere(self.places.white[box] & (self.head.to_cortex[box] <= thickness))
        if not len(index):
            return False
        offset = index - np.subtract(centre, [s.start for s in box])
        nearest = np.argsort((offset**2).sum(axis=1), kind="stable")
        nearest = nearest[: int(volume / self.voxel)]
        local = np.zeros([s.stop - s.start for s in box], np.float32)
        local[tuple(index[nearest].T)] = 1.0
        self.add(local, box, "u_fibre", soft=0.6)
        return True

    def shell(
        self,
        distance: np.ndarray,
        thickness: float,
        target: float,
        kind: str,
        inside: np.ndarray | None = None,
        rough: float = 1.2,
    ) -> None:
        """Add a band of varying thickness (mm) along a surface, of about a target volume (mm³).

        By default it lies in tissue, a confluent one in white matter; a rough one varies in
        thickness.
        """
        noise = smooth_noise(self.profile.shape, 14.0 / self.spacing, self.rng)
        level = distance.astype(np.float32) * DISTANCE_STEP / max(thickness, 1.0) - rough * noise
        if kind == "confluent":
            level -= _GATHERED * np.sqrt(self.head.frequency / np.float32(255))
        if inside is None:
            inside = self.places.white if kind == "confluent" else self.places.tissue_share > 0.9
        inside = inside & (distance > 0) & (distance * DISTANCE_STEP < 4 * thickness + 3)
        levels = level[inside]
        if levels.size < 30:
            return
        share = min(target / (levels.size * self.voxel), 0.85)
        band = inside & (level < np.quantile(levels, share))
        if not band.any():
            return
        box = box_around(band, 3)
        self.add(band[box].astype(np.float32), box, kind, soft=0.8)


def _resized(
    stamp: Stamp,
    change: str,
    rng: np.random.Generator,
    shape: tuple[int, ...],
    spacing: float,
) -> Stamp:
    """Grow or shrink a lesion at its border."""
    margin = 3 if change == "enlarging" else 0
    box = enlarged(stamp.box, margin, shape)
    padding = [(s.start - b.start, b.stop - s.stop) for s, b in zip(stamp.box, box, strict=True)]
    lesion = np.pad(stamp.shape, padding) > _OUTLINE
    if change == "enlarging":
        grown = ndimage.distance_transform_edt(~lesion) * spacing <= rng.uniform(1.0, 2.2)
    else:
        depth = ndimage.distance_transform_edt(np.pad(lesion, 1))[1:-1, 1:-1, 1:-1] * spacing
        grown = depth > rng.uniform(1.0, 1.8)
    return replace(stamp, shape=grown.astype(np.float32), box=box)


def _scaled(points: np.ndarray, scale: float, spacing: float) -> np.ndarray:
    """Scale the voxels of 1 mm that a shape is made of, in parts that leave no gap on the grid."""
    parts = int(np.ceil(1.5 * scale / spacing))
    offset = (np.arange(parts) + 0.5) / parts - 0.5
    shift = np.stack(np.meshgrid(*[offset] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    return ((points[:, None] + shift[None]) * scale).reshape(-1, 3)
