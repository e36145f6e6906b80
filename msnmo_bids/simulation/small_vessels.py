"""Small-vessel disease of age: what looks like MS or NMOSD and is neither.

Caps and bands along the lateral ventricles, punctate to confluent lesions of the deep white matter
on both sides alike, lesions of basal ganglia and central pons, lacunes; callosum and U-fibres are
spared, ventricles are wide (Wardlaw et al. 2013, "Neuroimaging standards for research into small
vessel disease", Lancet Neurology 12:822-838; Fazekas et al. 1987, AJR 149:351-356).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Head, Tissue
from msnmo_bids.simulation.stamping import Stamper

NAME = "SVD"

#: ln of the lesion volume (ml): median 8, quartiles 4 and 16 (Fazekas 1 to 3).
LOG_LOAD = (float(np.log(8.0)), 1.0)
_WIDER = (0.5, 4.0)  # by how much atrophy widens the lateral ventricles (mm)
_BAND_SHARE = (0.25, 0.6)  # of the load
_ASYMMETRY = 4.0  # s.d. of where a lesion lies, against its mirror image (mm)
_PUNCTATE = (3.2, 0.8)  # ln of the volume (mm³) of a lesion of the deep white matter
_CONFLUENT = (7.3, 0.8)  # likewise, of the large ones
_BASAL_SHARE, _PONS_SHARE, _LACUNE_SHARE = 0.6, 0.3, 0.5  # of the people
_SEPTUM = 4.0  # mm from the median plane: what parts the ventricles stays
_ROUGH = 0.35  # bands are smooth and as thick on both sides
_CORE = 0.4  # brightness of a lacune's fluid, relative to white matter


def aged(head: Head, rng: np.random.Generator) -> Head:
    """Return a head with wider lateral ventricles: what lies beside them became fluid."""
    wider = rng.uniform(*_WIDER) / DISTANCE_STEP
    beside = (head.tissue == Tissue.WHITE_MATTER) | (head.tissue == Tissue.DEEP_GREY)
    away = np.abs(np.arange(len(beside)) - head.median_plane) * head.spacing
    septum = head.septum & (away < _SEPTUM).reshape(-1, 1, 1)
    fluid = beside & (head.to_lateral <= wider) & ~septum
    tissue = np.where(fluid, np.uint8(Tissue.LATERAL_VENTRICLE), head.tissue)
    nearer = np.maximum(head.to_lateral.astype(np.float32) - wider, 0).astype(np.uint8)
    return replace(head, tissue=tissue, to_lateral=nearer)


def fill(stamper: Stamper, target: float) -> None:
    """Place the lesions of a person up to a volume (mm³)."""
    rng, before = stamper.rng, stamper.filled
    band = target * rng.uniform(*_BAND_SHARE)
    inside = stamper.places.white & ~stamper.places.near_midline
    stamper.shell(
        stamper.head.to_lateral,
        rng.uniform(2.0, 5.0),
        band,
        "vascular_band",
        inside=inside,
        rough=_ROUGH,
    )
    _small_places(stamper, target)
    left = before + target - stamper.filled
    confluent = left > 2000 and rng.random() < 0.7
    while stamper.needs_more(before + target):
        left = max(before + target - stamper.filled, 20.0)
        large = confluent and left > 1000 and rng.random() < 0.3
        volume = float(np.clip(rng.lognormal(*(_CONFLUENT if large else _PUNCTATE)), 8, left))
        soft = float(rng.uniform(1.2, 2.5)) if large else 0.7
        centre = stamper.centre("vascular")
        if centre is None:
            return
        for place in (centre, _mirrored(stamper, centre)):
            if place is not None:
                stamper.lesion("vascular", volume, soft=soft, centre=place)


def _small_places(stamper: Stamper, target: float) -> None:
    """Place lesions of basal ganglia and central pons, and lacunes."""
    rng = stamper.rng
    for place, share in (("basal", _BASAL_SHARE), ("pons", _PONS_SHARE)):
        if rng.random() < share:
            for _ in range(rng.integers(1, 6)):
                volume = min(float(rng.uniform(12, 150)), target / 4)
                stamper.lesion(place, volume, soft=0.7, kind=f"vascular_{place}")
    if rng.random() < _LACUNE_SHARE:
        for _ in range(rng.integers(1, 4)):
            place = "basal" if rng.random() < 0.6 else "vascular"
            before = len(stamper.records)
            stamper.lesion(place, float(rng.uniform(60, 400)), soft=0.6, kind="lacune")
            if len(stamper.records) > before:
                stamper.hollow(_CORE)


def _mirrored(stamper: Stamper, centre: np.ndarray) -> np.ndarray | None:
    """Return about the mirror image of a place, None where no such lesion lies there."""
    place = centre + stamper.rng.normal(0, _ASYMMETRY / stamper.spacing, 3)
    place[0] = 2 * stamper.head.median_plane - place[0]
    index = np.round(place).astype(int)
    inside = ((index >= 0) & (index < stamper.profile.shape)).all()
    return place if inside and stamper.places.is_at("vascular", index) else None
