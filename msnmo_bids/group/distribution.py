"""The lesion load on the group's page: one dot per scan, by group or by age, on a log axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from msnmo_bids.bids.records import ScanRecord
from msnmo_bids.group.cohort import Cohort
from msnmo_bids.reports.page import class_colour

WIDTH = 560
LEFT, RIGHT, TOP, FOOT = 168, 16, 12, 44
LANE = 58
SCATTER_LEFT, SCATTER_HEIGHT = 56, 260
NAME_LENGTH = 22  # letters of a group's name that have room
TICKS = (0.1, 1, 10, 100, 1000, 10000)
#: Groups of a distribution; the rest is put together.
GROUPS = 12
OTHERS, UNKNOWN = "others", "not known"
_PLAIN = "#4c6a83"

Tick = tuple[float, str]


class Quantity(NamedTuple):
    """A key of the diagnosis file; values below the floor, 0 above all, are drawn there."""

    key: str
    title: str
    floor: float
    floor_label: str


VOLUME = Quantity("LesionVolume", "Lesion volume (ml)", 0.01, "≤ 0.01")
COUNT = Quantity("LesionCount", "Lesions", 0.5, "0")


@dataclass(frozen=True)
class Dot:
    """One scan: where it lies (pixels) and what it is called."""

    x: float
    y: float
    name: str
    value: float


@dataclass(frozen=True)
class Group:
    """The scans of one group; of a distribution, the middle of its lane and its quartiles too."""

    name: str
    colour: str
    dots: list[Dot]
    y: float = 0.0
    quartiles: tuple[float, ...] = ()

    @property
    def short(self) -> str:
        """The name, cut to the room that there is."""
        cut = self.name[: NAME_LENGTH - 1].rstrip() + "…"
        return self.name if len(self.name) <= NAME_LENGTH else cut


@dataclass(frozen=True)
class Plot:
    """What the template draws (pixels): a distribution in lanes, or, with ``ages``, a scatter."""

    title: str
    by: str
    height: float
    left: float
    bottom: float
    groups: list[Group]
    ticks: list[Tick]
    ages: Sequence[Tick] = ()
    width: float = WIDTH
    right: float = WIDTH - RIGHT


def plots(cohort: Cohort, groups: Sequence[str], colours: Mapping[str, str]) -> list[Plot]:
    """Lay out the distributions of the lesion load over the scans with results.

    They are by the known diagnosis, site, scanner and age, where any of the scans has these, and by
    the model's pattern, one of `groups`.
    """
    covariates, done, classes = cohort.covariates, cohort.done, cohort.classes
    made = []
    for name in ("diagnosis", "site", "scanner"):
        by = "diagnosis in participants.tsv" if name == "diagnosis" else name
        known = {r.relative: getattr(covariates[r.relative], name) for r in done}
        if any(known.values()):
            names = _fewer(known, classes if name == "diagnosis" else [])
            last = (OTHERS, UNKNOWN)
            order = sorted(set(names.values()), key=lambda n: (n in last, n not in classes, n))
            own = {n: class_colour(classes, n) if n in classes else _PLAIN for n in order}
            made.append(distribution(VOLUME, _values(done, VOLUME, names, order), own, by=by))
    if any(covariates[r.relative].age is not None for r in done):
        made.append(_over_age(cohort))
    of_model = {r.relative: str(r.diagnosis["Diagnosis"]) for r in done}
    for quantity in (VOLUME, COUNT):
        values = _values(done, quantity, of_model, groups)
        made.append(distribution(quantity, values, colours, by="the model's pattern"))
    return [plot for plot in made if plot.groups]


def _values(
    found: Sequence[ScanRecord],
    quantity: Quantity,
    names: Mapping[str, str],
    groups: Sequence[str],
) -> dict[str, list[tuple[str, float]]]:
    values: dict[str, list[tuple[str, float]]] = {name: [] for name in groups}
    for record in found:
        if (value := record.diagnosis[quantity.key]) is not None:
            values[names[record.relative]].append((record.prefix, float(value)))
    return values


def _fewer(names: Mapping[str, str | None], order: Sequence[str]) -> dict[str, str]:
    """Keep the most frequent groups; the rest become `OTHERS`, and what is missing `UNKNOWN`."""
    common = [name for name, _ in Counter(n for n in names.values() if n).most_common(GROUPS)]
    kept = {*common, *order}
    return {
        scan: UNKNOWN if not name else name if name in kept else OTHERS
        for scan, name in names.items()
    }


def distribution(
    quantity: Quantity,
    groups: Mapping[str, Sequence[tuple[str, float]]],
    colours: Mapping[str, str],
    *,
    by: str,
) -> Plot:
    """Lay out a distribution by group; dots that would cover each other are moved by a fixed rule.

    Groups have names and values; empty ones are left out. `by` says what the groups are.
    """
    filled = {name: values for name, values in groups.items() if values}
    values = (value for points in filled.values() for _, value in points)
    place, ticks = _scale(quantity, values, LEFT + 8, WIDTH - RIGHT - 8)
    lanes = []
    for number, (name, points) in enumerate(filled.items()):
        middle = TOP + LANE * (number + 0.5)
        quartiles = np.percentile([value for _, value in points], [25, 50, 75])
        dots = _swarm([(place(value), label, value) for label, value in points], middle)
        box = tuple(place(float(value)) for value in quartiles)
        lanes.append(Group(name, colours[name], dots, middle, box))
    bottom = TOP + LANE * len(filled)
    return Plot(quantity.title, by, bottom + FOOT, LEFT, bottom, lanes, ticks)


def _over_age(cohort: Cohort) -> Plot:
    """Lay out the lesion volume over the age, by known diagnosis."""
    points: dict[str, list[tuple[str, float, float]]] = {}
    for record in cohort.done:
        own, volume = cohort.covariates[record.relative], record.diagnosis[VOLUME.key]
        if own.age is not None and volume is not None:
            name = own.diagnosis or UNKNOWN
            points.setdefault(name, []).append((record.prefix, own.age, float(volume)))
    ages = [age for group in points.values() for _, age, _ in group] or [0.0]
    first, last = 10 * np.floor(min(ages) / 10), 10 * np.ceil((max(ages) + 0.1) / 10)
    bottom = SCATTER_HEIGHT - FOOT
    values = (value for group in points.values() for *_, value in group)
    y, ticks = _scale(VOLUME, values, bottom - 6, TOP + 6)

    def x(age: float) -> float:
        room = WIDTH - RIGHT - SCATTER_LEFT - 20
        return round(SCATTER_LEFT + 10 + float((age - first) / (last - first)) * room, 1)

    drawn = [
        Group(name, class_colour(cohort.classes, name), [Dot(x(a), y(v), s, v) for s, a, v in them])
        for name, them in sorted(points.items())
    ]
    decades = [(x(age), f"{age:g}") for age in np.arange(first, last + 1, 10)]
    return Plot(
        VOLUME.title, "age", SCATTER_HEIGHT, SCATTER_LEFT, bottom, drawn, ticks, ages=decades
    )


def _scale(
    quantity: Quantity, values: Iterable[float], start: float, end: float
) -> tuple[Callable[[float], float], list[Tick]]:
    """Return where a value lies between two pixels, logarithmically, and the ticks there."""
    floor, largest = quantity.floor, max(values, default=1.0)
    top = next((tick for tick in TICKS if tick >= largest and tick > floor), largest * 1.1)

    def place(value: float) -> float:
        share = float(np.log10(max(value, floor) / floor) / np.log10(top / floor))
        return round(start + share * (end - start), 1)

    ticks = [(place(tick), f"{tick:g}") for tick in TICKS if floor < tick <= top]
    return place, [(place(floor), quantity.floor_label), *ticks]


def _swarm(points: Sequence[tuple[float, str, float]], middle: float) -> list[Dot]:
    """Move dots up and down from the lane's middle until they do not cover each other."""
    taken: list[tuple[float, float]] = []
    dots = []
    steps = [0.0, *(sign * 6.0 * k for k in range(1, 4) for sign in (-1, 1))]
    for x, name, value in sorted(points, key=lambda point: (point[0], point[1])):
        near = [(a, b) for a, b in taken[-40:] if abs(a - x) < 8]
        free = (s for s in steps if all((a - x) ** 2 + (b - s) ** 2 >= 49 for a, b in near))
        offset = next(free, steps[len(taken) % len(steps)])
        taken.append((x, offset))
        dots.append(Dot(x, middle + offset, name, value))
    return dots
