"""Lesions of MS, of NMOSD and of small-vessel disease, placed by published priors.

The total load is drawn first and then filled, because samples that are too light teach a network
to under-segment heavy scans. Lesion volumes are log-normal. MS lesions lie around the lateral
ventricles, under the cortex, in the deep white matter and infratentorially; NMOSD's are few,
punctate, or sheets along the ependyma, in the brainstem, along the corticospinal tract, or large
and fluffy.

Where, in per cent of the people with lesions of the brain (MS / NMOSD):

* Matthews et al. 2013, "Distinction of seropositive NMO spectrum disorder and MS brain lesion
  distribution", Neurology 80:1330-1337, and like cohorts: midbrain 8 / 22, pons 31 / 9, medulla
  11 / 17, any of the brainstem 42 / 30, cerebellum 17 / 0, its peduncles 17 / 4, third ventricle
  0 / 4, fourth 3 / 13, area postrema 0 / 4;
* "Comparison between the cranial magnetic resonance imaging features of neuromyelitis optica
  spectrum disorder versus multiple sclerosis in Taiwanese patients", BMC Neurology 2014, 14:218:
  linear ependymal lesions 0 / 28, Dawson's fingers 55 / 44, U-fibres 62 / 48.

Cohorts differ, so how typical a case looks is a setting; what it borrows from the other disease
keeps to these figures.

Age-related small-vessel disease looks like both and is neither: caps and bands along the lateral
ventricles, punctate to confluent lesions of the deep white matter on both sides alike, lesions of
basal ganglia and central pons, lacunes; callosum and U-fibres are spared (Wardlaw et al. 2013,
"Neuroimaging standards for research into small vessel disease", Lancet Neurology 12:822-838;
Fazekas et al. 1987, AJR 149:351-356).
"""

from __future__ import annotations

import numpy as np

from msnmo_bids.simulation.anatomy import Head
from msnmo_bids.simulation.assets import ShapeLibrary
from msnmo_bids.simulation.stamping import LesionMap, Stamper

#: Share of the heads with lesions that have hyperintensities of small vessels besides.
_VASCULAR_SHARE = 0.15

#: Share of the juxtacortical lesions of MS that follow the U-fibres.
_U_FIBRE_SHARE = 0.4

#: Total lesion volume of MS (ml) at these shares of the people with lesions, between which its
#: logarithm is linear: median 14, quartiles 1.8 and 28.5; a tenth of them below 0.8.
_LOAD_SHARES = (0.0, 0.10, 0.25, 0.5, 0.75, 1.0)
_LOADS = (0.1, 0.8, 1.8, 14.0, 28.5, 70.0)
#: Share of the people without any lesion of the brain.
_WITHOUT_LESIONS = {"MS": 0.03, "NMOSD": 1 / 3, "HC": 1.0, "SVD": 0.0}
#: ln of the number of lesions of MS and of the volume (mm³) of one: mean and s.d. The few over 1 ml
#: hold most of the load: they and the confluent ones are what the small ones leave of it.
_LOG_COUNT, _LOG_LOAD = (4.3, 0.9), (2.14, 1.47)
_COUNT_FOLLOWS_LOAD = 0.6  # correlation of the logarithms
_LOG_VOLUME = (3.0, 1.5)  # 3.27 and 1.37 of those that come out at 3 mm³ or more
_LARGE = 1000.0  # mm³

#: ln of the number of lesions of NMOSD outside of its typical locations: mean and s.d.
_LOG_COUNT_NMOSD = (float(np.log(6)), 0.9)
_PUNCTATE_SHARE = 0.7  # of them; the others are up to 200 mm³
_U_FIBRE_SHARE_NMOSD = 0.15  # of the juxtacortical ones, so that half of the people have one

#: What becomes of a lesion until the next visit, with its share.
_CHANGES = {"stable": 0.76, "enlarging": 0.12, "shrinking": 0.08, "vanished": 0.04}
#: Mean number of new lesions, and where they appear.
_NEW_LESIONS = {"MS": 1.6, "NMOSD": 0.6, "SVD": 0.8}
_NEW_PLACES = {
    "MS": (
        ("periventricular", "deep", "juxtacortical", "pons", "cerebellar"),
        (0.4, 0.25, 0.2, 0.07, 0.08),
    ),
    "NMOSD": (
        ("hemispheric", "juxtacortical", "fourth_ventricle", "medulla"),
        (0.5, 0.35, 0.05, 0.1),
    ),
    "SVD": (("vascular", "basal"), (0.8, 0.2)),
}

#: Where lesions of MS lie: share of the people with one there, share of their lesions, and size
#: relative to the mean. Those at the ventricles are large, those at the cortex and in the brainstem
#: small.
_MS_PLACES = {
    "periventricular": (1.0, 0.42, 1.6),
    "deep": (0.97, 0.24, 1.0),
    "juxtacortical": (0.83, 0.17, 0.6),
    "pons": (0.31, 0.06, 0.6),
    "midbrain": (0.08, 0.02, 0.6),
    "medulla": (0.11, 0.02, 0.6),
    "cerebellar": (0.30, 0.06, 0.6),
    "basal": (0.4, 0.04, 0.6),
}
#: What a less typical NMOSD borrows of them: Dawson's fingers and U-fibres.
_BORROWED_OF_MS = {"periventricular": (1.0, 0.6, 1.6), "juxtacortical": (1.0, 0.4, 0.6)}

#: Share of the people with NMOSD and lesions who have a sheet along the lateral ventricles: with
#: those below, 28 % have a sheet.
_LATERAL_SHEET = 0.21
#: Likewise of a lesion at the third ventricle, and how many of the lesions at it or at the fourth
#: are sheets.
_THIRD_VENTRICLE, _SHEET_SHARE = 0.04, 0.5
#: Share of them with lesions of the brainstem, and where those with any have some.
_BRAINSTEM = 0.30
_BRAINSTEM_PLACES = {
    "midbrain": 0.22 / _BRAINSTEM,
    "pons": 0.09 / _BRAINSTEM,
    "medulla": 0.13 / _BRAINSTEM,
    "area_postrema": 0.04 / _BRAINSTEM,
    "fourth_ventricle": 0.13 / _BRAINSTEM,
}

#: Small-vessel disease: ln of the lesion volume (ml): median 8, quartiles 4 and 16 (Fazekas 1-3).
_LOG_LOAD_SVD = (float(np.log(8.0)), 1.0)
_BAND_SHARE = (0.25, 0.6)  # of the load
_ASYMMETRY = 4.0  # s.d. of where a lesion lies, against its mirror image (mm)
_PUNCTATE = (3.2, 0.8)  # ln of the volume (mm³) of a lesion of the deep white matter
_CONFLUENT = (7.3, 0.8)  # likewise, of the large ones
_BASAL_SHARE, _PONS_SHARE, _LACUNE_SHARE = 0.6, 0.3, 0.5  # of the people
_ROUGH = 0.35  # bands are smooth and as thick on both sides
_CORE = 0.4  # brightness of a lacune's fluid, relative to white matter


def draw_load(
    rng: np.random.Generator, diagnosis: str = "MS", *, without: float | None = None
) -> float:
    """Draw the total lesion volume of a scan (ml).

    MS: 0 in 3 of 100 people, else median 14, quartiles 1.8 and 28.5. NMOSD: a third is 0, the rest
    about 1 ml. SVD: median 8, quartiles 4 and 16. HC: 0.

    Parameters
    ----------
    diagnosis : {"MS", "NMOSD", "SVD", "HC"}, optional
        Whose load. To train a classifier, draw the loads of all classes as for MS, so that the
        volume alone does not tell them apart.
    without : float, optional
        Share of the people without lesions; by default as published.
    """
    if rng.random() < (_WITHOUT_LESIONS[diagnosis] if without is None else without):
        return 0.0
    if diagnosis == "NMOSD":
        return float(min(rng.lognormal(np.log(1.2), 1.2), 40.0))
    if diagnosis == "SVD":
        return float(np.clip(rng.lognormal(*_LOG_LOAD_SVD), 0.3, 60.0))
    return float(np.exp(np.interp(rng.random(), _LOAD_SHARES, np.log(_LOADS))))


def place_lesions(
    head: Head,
    diagnosis: str,
    load: float,
    rng: np.random.Generator,
    shapes: ShapeLibrary | None = None,
    *,
    typicality: float = 1.0,
) -> LesionMap:
    """Fill a head with lesions of a diagnosis up to a total load (ml); 0 gives none.

    Parameters
    ----------
    diagnosis : {"MS", "NMOSD", "SVD", "HC"}
        Whose lesions; SVD is age-related small-vessel disease.
    typicality : float, optional
        Share of the load that follows the disease's own pattern, 0 to 1. The rest follows what is
        published of the other's in this disease: MS borrows punctate and fluffy lesions of the
        hemispheres, NMOSD Dawson's fingers and U-fibres. Of no effect for SVD.
    """
    stamper = Stamper(head, rng, shapes)
    if diagnosis == "HC" or load <= 0:
        return stamper.result()
    if diagnosis == "SVD":
        _fill_small_vessels(stamper, load * 1000.0)
        return stamper.result()
    own, other = (_fill_ms, _fill_nmosd) if diagnosis == "MS" else (_fill_nmosd, _fill_ms)
    if typicality > 0:
        own(stamper, typicality * load * 1000.0)
    if typicality < 1:
        other(stamper, (1 - typicality) * load * 1000.0, borrowed=True)
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
    """Let the lesions of a head at the visit before change until its next visit.

    Most stay as they are; some grow or shrink by one to two millimetres at their border, a few
    vanish, and new ones appear. A lesion keeps its label.
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
            place, soft = str(rng.choice(places, p=shares)), rng.uniform(0.5, 1.0)
            stamper.lesion(place, volume, soft=soft, gather=diagnosis == "MS")
    return stamper.result()


def _fill_ms(stamper: Stamper, target: float, *, borrowed: bool = False) -> None:
    """Draw the small lesions, put what they leave of the load beside the ventricles, then them."""
    rng, before = stamper.rng, stamper.filled
    places = _BORROWED_OF_MS if borrowed else _MS_PLACES
    present = [place for place, (people, _, _) in places.items() if rng.random() < people]
    shares = rng.dirichlet([12 * places[place][1] for place in present])
    small = _small_volumes(rng, target)
    rest = target - small.sum()
    if rest < _LARGE / 2:  # too little for a large one
        small *= target / small.sum()
    if rest > 6000 and not borrowed and rng.random() < 0.85:
        thickness = rng.uniform(3.5, 6.0) + 1.5 * np.log1p(rest / 8000)
        share = rng.uniform(0.4, 0.85) * rest
        stamper.shell(stamper.head.to_lateral, thickness, share, "confluent")
    while stamper.needs_more(before + rest - _LARGE / 2):
        left = max(before + rest - stamper.filled, _LARGE)
        volume = float(np.clip(rng.lognormal(7.8, 0.8), _LARGE, left))
        place = "deep" if rng.random() < 0.1 and not borrowed else "periventricular"
        stamper.lesion(place, volume, soft=rng.uniform(0.5, 1.0), gather=True)
    for mean_volume in small:
        if not stamper.needs_more(before + 1.2 * target):
            break
        place = present[int(rng.choice(len(present), p=shares))]
        volume = max(float(mean_volume) * places[place][2], 4.0)
        if place == "juxtacortical" and volume > 12 and rng.random() < _U_FIBRE_SHARE:
            stamper.u_fibre(volume, gather=True)
            continue
        stamper.lesion(place, volume, soft=rng.uniform(0.5, 1.0), gather=True)


def _small_volumes(rng: np.random.Generator, target: float) -> np.ndarray:
    """Draw the volumes (mm³) of the lesions up to 1 ml, no more of them than fill the target."""
    mean, deviation = _LOG_LOAD
    load = (np.log(target / 1000) - mean) / deviation
    mean, deviation = _LOG_COUNT
    own = np.sqrt(1 - _COUNT_FOLLOWS_LOAD**2) * rng.standard_normal()
    count = int(np.clip(np.exp(mean + deviation * (_COUNT_FOLLOWS_LOAD * load + own)), 1, 200))
    volumes = np.minimum(rng.lognormal(*_LOG_VOLUME, count), _LARGE)
    kept = int(np.searchsorted(np.cumsum(volumes), target)) + 1
    return volumes[:kept]


def _fill_nmosd(stamper: Stamper, target: float, *, borrowed: bool = False) -> None:
    """Place what is typical of the disease, large lesions of the hemispheres and small ones."""
    rng, before = stamper.rng, stamper.filled
    # Sheets and lesions of the third ventricle and the area postrema are not published in MS, and
    # it has its own infratentorial ones.
    if not borrowed:
        _typical_of_nmosd(stamper, target)
    small = _small_volumes_nmosd(rng, target)
    rest = target - small.sum()
    while stamper.needs_more(before + rest):
        left = max(before + rest - stamper.filled, 200.0)
        volume = min(left, float(rng.lognormal(8.6, 0.7)))
        place = "basal" if not borrowed and rng.random() < 0.1 else _hemispheric(rng)
        fluffy = volume > _LARGE
        stamper.lesion(place, volume, soft=rng.uniform(1.5, 3.0) if fluffy else 0.8)
    for volume in small:
        if not stamper.needs_more(before + 1.2 * target):
            break
        place = _hemispheric(rng)
        along = place == "juxtacortical" and volume > 12 and rng.random() < _U_FIBRE_SHARE_NMOSD
        if not (along and stamper.u_fibre(float(volume))):
            stamper.lesion(place, float(volume), soft=0.6)


def _hemispheric(rng: np.random.Generator) -> str:
    return "juxtacortical" if rng.random() < 0.4 else "hemispheric"


def _typical_of_nmosd(stamper: Stamper, target: float) -> None:
    """Place sheets along the ventricles, lesions of brainstem and corticospinal tract."""
    rng = stamper.rng
    if rng.random() < _LATERAL_SHEET:
        part = min(target * rng.uniform(0.2, 0.5), 9000.0)
        stamper.shell(stamper.head.to_lateral, 1.8, part, "ependymal")
    places = ["third_ventricle"] if rng.random() < _THIRD_VENTRICLE else []
    if rng.random() < _BRAINSTEM:
        places += [place for place, share in _BRAINSTEM_PLACES.items() if rng.random() < share]
    for place in places:
        volume = min(target, float(rng.uniform(30, 500)))
        if place.endswith("ventricle") and rng.random() < _SHEET_SHARE:
            part = min(target * rng.uniform(0.2, 0.5), 2500.0)
            stamper.shell(stamper.places.to_lower(place), 1.5, part, "ependymal")
        else:
            long = 2.0 if place in ("medulla", "area_postrema") else 1.0
            stamper.lesion(place, volume, soft=0.8, elongation=long)
    if rng.random() < 0.20:
        volume = min(target, float(rng.uniform(400, 3000)))
        stamper.lesion("corticospinal", volume, soft=1.2, elongation=3.0)


def _small_volumes_nmosd(rng: np.random.Generator, target: float) -> np.ndarray:
    """Draw the volumes (mm³) of the punctate and other small lesions, within the target."""
    count = int(np.clip(rng.lognormal(*_LOG_COUNT_NMOSD), 1, 60))
    punctate = rng.random(count) < _PUNCTATE_SHARE
    volumes = np.where(punctate, rng.uniform(10, 65, count), rng.uniform(65, 200, count))
    kept = int(np.searchsorted(np.cumsum(volumes), target)) + 1
    return volumes[:kept]


def _fill_small_vessels(stamper: Stamper, target: float) -> None:
    """Place bands along the ventricles, what lies in small places, and pairs of deep lesions."""
    rng, before = stamper.rng, stamper.filled
    band = target * rng.uniform(*_BAND_SHARE)
    inside = stamper.places.white & ~stamper.places.near_midline
    thickness = rng.uniform(2.0, 5.0)
    lateral = stamper.head.to_lateral
    stamper.shell(lateral, thickness, band, "vascular_band", inside=inside, rough=_ROUGH)
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
