"""Lesions of MS, of NMOSD and of small-vessel disease, placed by published priors.

The total load is drawn first and then filled, because samples that are too light teach a network
to under-segment heavy scans. Numbers and places follow published cohorts: lesion volumes are
log-normal, MS lesions lie around the lateral ventricles, under the cortex, in the deep white
matter and infratentorially; NMOSD's are few, punctate, or sheets along the ependyma of the third
and fourth ventricle, the dorsal medulla, the corticospinal tract, or large and fluffy.
"""

from __future__ import annotations

import numpy as np

from msnmo_bids.simulation.anatomy import Head
from msnmo_bids.simulation.lesion_shapes import ShapeLibrary
from msnmo_bids.simulation.stamping import LesionMap, Stamper

#: Share of the heads with lesions that have hyperintensities of small vessels besides.
_VASCULAR_SHARE = 0.15

#: Share of the juxtacortical lesions of MS that follow the U-fibres.
_U_FIBRE_SHARE = 0.4

#: What becomes of a lesion until the next visit, with its share.
_CHANGES = {"stable": 0.76, "enlarging": 0.12, "shrinking": 0.08, "vanished": 0.04}
#: Mean number of new lesions, and where they appear.
_NEW_LESIONS = {"MS": 1.6, "NMOSD": 0.6}
_NEW_PLACES = {
    "MS": (("periventricular", "deep", "juxtacortical", "infratentorial"), (0.4, 0.25, 0.2, 0.15)),
    "NMOSD": (("deep", "juxtacortical", "lower_ependyma", "medulla"), (0.4, 0.3, 0.2, 0.1)),
}

_MS_PLACES = ("periventricular", "deep", "juxtacortical", "infratentorial", "basal")
_MS_SHARES = (0.46, 0.20, 0.15, 0.16, 0.03)
#: Lesions at the ventricles are the large ones, those at the cortex and in the brainstem small.
_MS_SIZES = (2.0, 1.0, 0.5, 0.5, 0.5)


def draw_load(rng: np.random.Generator, diagnosis: str = "MS") -> float:
    """Draw the total lesion volume of a scan.

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    diagnosis : {"MS", "NMOSD", "HC"}, optional
        Whose load. To train a classifier, draw the loads of all classes as for MS, so that the
        volume alone does not tell them apart.

    Returns
    -------
    float
        ml. MS: one tenth is 0, another tenth below 1, a sixth above 25. NMOSD: a third is 0, the
        rest about 1 ml. HC: 0.
    """
    if diagnosis == "HC":
        return 0.0
    if diagnosis == "NMOSD":
        load = 0.0 if rng.random() < 1 / 3 else rng.lognormal(np.log(1.2), 1.2)
        return float(min(load, 40.0))
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
    *,
    typicality: float = 1.0,
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
    typicality : float, optional
        Share of the load that follows the disease's own pattern, 0 to 1; the rest follows the
        other's.

    Returns
    -------
    LesionMap
    """
    stamper = Stamper(head, rng, shapes)
    if diagnosis == "HC" or load <= 0:
        return stamper.result()
    own, other = (_fill_ms, _fill_nmosd) if diagnosis == "MS" else (_fill_nmosd, _fill_ms)
    if typicality > 0:
        own(stamper, typicality * load * 1000.0)
    if typicality < 1:
        other(stamper, load * 1000.0)
    if rng.random() < _VASCULAR_SHARE:
        for _ in range(rng.integers(1, 7)):
            stamper.lesion("deep", float(rng.uniform(10, 60)), soft=0.7, kind="vascular")
    return stamper.result()


def follow_up(
    head: Head,
    before: LesionMap,
    diagnosis: str,
    rng: np.random.Generator,
    shapes: ShapeLibrary | None = None,
) -> LesionMap:
    """Let the lesions of a head change until its next visit.

    Most stay as they are; some grow or shrink by up to two millimetres at their border, a few
    vanish, and new ones appear. A lesion keeps its label.

    Parameters
    ----------
    head : Head
        The same head.
    before : LesionMap
        Its lesions at the visit before.
    diagnosis : {"MS", "NMOSD", "HC"}
        Whose lesions.
    rng : numpy.random.Generator
        Source of randomness.
    shapes : ShapeLibrary, optional
        Real lesion shapes.

    Returns
    -------
    LesionMap
    """
    stamper = Stamper(head, rng, shapes)
    for record in before.records:
        stamp = before.stamps.get(record.label)
        if stamp is None:  # it had vanished before
            stamper.records.append(record)
            continue
        change = str(rng.choice(list(_CHANGES), p=list(_CHANGES.values())))
        stamper.again(record, stamp, change)
    stamper.change = "new"
    if diagnosis != "HC" and before.records:
        for _ in range(rng.poisson(_NEW_LESIONS[diagnosis])):
            volume = float(np.clip(rng.lognormal(3.9, 0.9), 14, 1500))
            places, shares = _NEW_PLACES[diagnosis]
            stamper.lesion(str(rng.choice(places, p=shares)), volume, soft=rng.uniform(0.5, 1.0))
    return stamper.result()


def _fill_ms(stamper: Stamper, target: float) -> None:
    rng = stamper.rng
    if target > 8000 and rng.random() < 0.8:
        share = rng.uniform(0.3, 0.7) * target
        thickness = rng.uniform(3.5, 6.0) + 1.5 * np.log1p(target / 8000)
        stamper.shell(stamper.head.to_lateral, thickness, share, "confluent")
    shares = rng.dirichlet(np.asarray(_MS_SHARES) * 12)
    while stamper.needs_more(target):
        left = target - stamper.filled
        typical = 3.6 + 0.45 * np.log1p(target / 4000)
        number = int(rng.choice(len(_MS_PLACES), p=shares))
        place, size = _MS_PLACES[number], _MS_SIZES[number] * rng.lognormal(typical, 1.3)
        volume = float(np.clip(size, 8, max(40.0, min(left, 12000.0))))
        if place == "infratentorial":
            volume = min(volume, 900.0)
        if place == "juxtacortical" and rng.random() < _U_FIBRE_SHARE:
            stamper.u_fibre(volume)
            continue
        stamper.lesion(place, volume, soft=rng.uniform(0.5, 1.0))


def _fill_nmosd(stamper: Stamper, target: float) -> None:
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
