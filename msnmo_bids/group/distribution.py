"""The lesion load on the group's page: one dot per scan, by group or by age, on a log axis."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from msnmo_bids.bids.records import ScanRecord
from msnmo_bids.group.cohort import Cohort
from msnmo_bids.reports.page import class_colour

WIDTH = 560
LEFT, RIGHT, TOP, FOOT = 168, 16, 12, 44
LANE = 58
SCATTER_HEIGHT = 260
NAME_LENGTH = 22  # letters of a group's name that have room
TICKS = (0.1, 1, 10, 100, 1000, 10000)
VOLUME_FLOOR_ML, COUNT_FLOOR = 0.01, 0.5
#: Groups of a distribution; the rest is put together.
GROUPS = 12
OTHERS, UNKNOWN = "others", "not known"
_PLAIN = "#4c6a83"
_VOLUME = "Lesion volume (ml)"


@dataclass(frozen=True)
class Dot:
    """One scan: where it lies (pixels) and what it is called."""

    x: float
    y: float
    name: str
    value: float


@dataclass(frozen=True)
class Lane:
    """The scans of one group, with the box of their quartiles."""

    name: str
    colour: str
    y: float
    dots: list[Dot]
    quartiles: tuple[float, float, float]

    @property
    def short(self) -> str:
        """The name, cut to the room that there is."""
        cut = self.name[: NAME_LENGTH - 1].rstrip() + "…"
        return self.name if len(self.name) <= NAME_LENGTH else cut


@dataclass(frozen=True)
class Scatter:
    """All that the template needs to draw a quantity over the age."""

    title: str
    width: int
    height: int
    left: int
    right: int
    bottom: int
    groups: list[tuple[str, str, list[Dot]]]
    ticks: list[tuple[float, str]]
    x_ticks: list[tuple[float, str]]


@dataclass(frozen=True)
class Plot:
    """All that the template needs to draw a distribution."""

    title: str
    by: str
    width: int
    height: int
    left: int
    right: int
    bottom: int
    lanes: list[Lane]
    ticks: list[tuple[float, str]]


def plots(
    cohort: Cohort, groups: Sequence[str], colours: Mapping[str, str]
) -> list[Plot | Scatter]:
    """Lay out the distributions of the lesion load over the scans with results.

    They are by the known diagnosis, site, scanner and age, where any of the scans has these, and by
    the model's pattern, one of `groups`.
    """
    covariates, found = cohort.covariates, cohort.done
    made: list[Plot | Scatter] = []
    for by, name in (
        ("diagnosis in participants.tsv", "diagnosis"),
        ("site", "site"),
        ("scanner", "scanner"),
    ):
        names = {r.relative: getattr(covariates[r.relative], name) for r in found}
        if any(names.values()):
            order = cohort.classes if name == "diagnosis" else []
            made.append(_volumes(found, _fewer(names, order), by, cohort.classes))
    if any(covariates[r.relative].age is not None for r in found):
        made.append(_by_age(cohort))
    of_model = {r.relative: str(r.diagnosis["Diagnosis"]) for r in found}
    for title, key, floor, label in (
        (_VOLUME, "LesionVolume", VOLUME_FLOOR_ML, "≤ 0.01"),
        ("Lesions", "LesionCount", COUNT_FLOOR, "0"),
    ):
        known, by = _values(found, key, of_model, groups), "the model's pattern"
        made.append(distribution(title, known, colours, by=by, floor=floor, floor_label=label))
    return [plot for plot in made if isinstance(plot, Scatter) or plot.lanes]


def _volumes(
    found: Sequence[ScanRecord], names: Mapping[str, str], by: str, classes: list[str]
) -> Plot:
    groups = list(dict.fromkeys(names.values()))
    groups.sort(key=lambda name: (name in (OTHERS, UNKNOWN), name not in classes, name))
    values = _values(found, "LesionVolume", names, groups)
    colours = {name: class_colour(classes, name) if name in classes else _PLAIN for name in groups}
    return distribution(
        _VOLUME, values, colours, by=by, floor=VOLUME_FLOOR_ML, floor_label="≤ 0.01"
    )


def _by_age(cohort: Cohort) -> Scatter:
    points: dict[str, list[tuple[str, float, float]]] = {}
    for record in cohort.done:
        own = cohort.covariates[record.relative]
        volume = record.diagnosis["LesionVolume"]
        if own.age is not None and volume is not None:
            name = own.diagnosis or UNKNOWN
            points.setdefault(name, []).append((record.prefix, own.age, float(volume)))
    points = dict(sorted(points.items()))
    colours = {name: class_colour(cohort.classes, name) for name in points}
    return over_age(_VOLUME, points, colours, floor=VOLUME_FLOOR_ML, floor_label="≤ 0.01")


def _values(
    found: Sequence[ScanRecord], key: str, names: Mapping[str, str], groups: Sequence[str]
) -> dict[str, list[tuple[str, float]]]:
    values: dict[str, list[tuple[str, float]]] = {name: [] for name in groups}
    for record in found:
        if record.diagnosis[key] is not None:
            values[names[record.relative]].append((record.prefix, float(record.diagnosis[key])))
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
    title: str,
    groups: Mapping[str, Sequence[tuple[str, float]]],
    colours: Mapping[str, str],
    *,
    by: str,
    floor: float,
    floor_label: str,
) -> Plot:
    """Lay out a distribution by group; dots that would cover each other are moved by a fixed rule.

    Parameters
    ----------
    title, by : str
        Quantity and unit; what the groups are.
    groups : mapping of str to sequence of (str, float)
        Group -> names and values; empty groups are left out.
    colours : mapping of str to str
        Group -> colour.
    floor, floor_label : float, str
        Values below it, 0 above all, are drawn at the axis' low end; what stands there.
    """
    filled = {name: values for name, values in groups.items() if values}
    largest = max((value for values in filled.values() for _, value in values), default=1.0)
    top = _top(largest, floor)

    def place(value: float) -> float:
        share = _share(value, floor, top)
        return round(LEFT + 8 + share * (WIDTH - LEFT - RIGHT - 16), 1)

    lanes = []
    for number, (name, values) in enumerate(filled.items()):
        middle = TOP + LANE * (number + 0.5)
        quartiles = np.percentile([value for _, value in values], [25, 50, 75])
        box = tuple(place(float(value)) for value in quartiles)
        dots = _swarm([(place(value), label, value) for label, value in values], middle)
        lanes.append(Lane(name, colours[name], middle, dots, box))  # type: ignore[arg-type]
    bottom = TOP + LANE * len(filled)
    ticks = [(place(tick), f"{tick:g}") for tick in TICKS if floor < tick <= top]
    ticks = [(place(floor), floor_label), *ticks]
    return Plot(title, by, WIDTH, bottom + FOOT, LEFT, WIDTH - RIGHT, bottom, lanes, ticks)


def over_age(
    title: str,
    groups: Mapping[str, Sequence[tuple[str, float, float]]],
    colours: Mapping[str, str],
    *,
    floor: float,
    floor_label: str,
) -> Scatter:
    """Lay out a quantity over the age, as `distribution`; `groups` have names, ages and values."""
    filled = {name: points for name, points in groups.items() if points}
    ages = [age for points in filled.values() for _, age, _ in points] or [0.0]
    top = _top(max((v for points in filled.values() for *_, v in points), default=1.0), floor)
    first, last = 10 * np.floor(min(ages) / 10), 10 * np.ceil((max(ages) + 0.1) / 10)
    left, right, bottom = 56, WIDTH - RIGHT, SCATTER_HEIGHT - FOOT

    def x(age: float) -> float:
        return round(left + 10 + float((age - first) / (last - first)) * (right - left - 20), 1)

    def y(value: float) -> float:
        return round(bottom - 6 - _share(value, floor, top) * (bottom - TOP - 12), 1)

    drawn = [
        (name, colours[name], [Dot(x(age), y(value), label, value) for label, age, value in points])
        for name, points in filled.items()
    ]
    ticks = [(y(floor), floor_label), *((y(t), f"{t:g}") for t in TICKS if floor < t <= top)]
    x_ticks = [(x(age), f"{age:g}") for age in np.arange(first, last + 1, 10)]
    return Scatter(title, WIDTH, SCATTER_HEIGHT, left, right, bottom, drawn, ticks, x_ticks)


def _top(largest: float, floor: float) -> float:
    return next((tick for tick in TICKS if tick >= largest and tick > floor), largest * 1.1)


def _share(value: float, floor: float, top: float) -> float:
    """Return where a value lies between floor (0) and top (1), logarithmically."""
    return float(np.log10(max(value, floor) / floor) / np.log10(top / floor))


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
