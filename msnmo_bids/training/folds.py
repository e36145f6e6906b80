"""Folds of a cross-validation: by participant, stratified, saved and read again.

All sessions of a participant lie in one fold. The same label in two data sets is two participants.
Participants are dealt out one by one, those of one diagnosis and site after the other, each to the
fold that has the fewest of, in this order: the same diagnosis and site, the same diagnosis, the
same site, participants with a lesion mask (where this one has one), scans. So in every stratum, and
in every diagnosis, the folds differ by one participant at most, also where a stratum has fewer
participants than there are folds (scikit-learn's ``StratifiedGroupKFold`` refuses some of these
and balances others less).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from msnmo_bids.bids.dataset import write_tsv
from msnmo_bids.bids.text_files import read_tsv
from msnmo_bids.errors import MsnmoError
from msnmo_bids.labelled.scans import LabelledScan, Person

COLUMNS = ("participant_id", "dataset", "site", "diagnosis", "fold")
NO_DIAGNOSIS = "n/a"


class OfPerson(Protocol):
    """Anything that belongs to a participant: `LabelledScan`, `PreparedScan`."""

    @property
    def person(self) -> Person:
        """Data set and label of the participant."""


_T = TypeVar("_T", bound=OfPerson)


@dataclass(frozen=True, order=True)
class Participant:
    """What the folds are stratified by.

    The site is where most of the scans were made (of several, the first by name), the diagnosis a
    class or `NO_DIAGNOSIS`; `with_mask` says whether any scan has a lesion mask.
    """

    dataset: str
    subject: str
    site: str
    diagnosis: str
    scans: int = 1
    with_mask: bool = False

    @property
    def person(self) -> Person:
        """Data set and label."""
        return self.dataset, self.subject


@dataclass(frozen=True)
class Folds:
    """Which fold, counted from 1, each participant is tested in, and how many folds there are."""

    number: int
    of: Mapping[Person, int]

    def split(self, scans: Iterable[_T], fold: int) -> tuple[list[_T], list[_T]]:
        """Return the scans to train on and those to test on, for a fold from 1 to ``number``.

        Raises
        ------
        ValueError
            There is no such fold.
        """
        if not 1 <= fold <= self.number:
            raise ValueError(f"there is no fold {fold} (there are 1 to {self.number})")
        training: list[_T] = []
        test: list[_T] = []
        for scan in scans:
            (test if self.of[scan.person] == fold else training).append(scan)
        return training, test


def participants_of(scans: Iterable[LabelledScan]) -> list[Participant]:
    """Return the participants of scans, sorted by data set and label."""
    by_person: dict[Person, list[LabelledScan]] = defaultdict(list)
    for scan in scans:
        by_person[scan.person].append(scan)
    found = []
    for (dataset, subject), own in by_person.items():
        sites = Counter(scan.site for scan in own)
        diagnoses = [scan.diagnosis for scan in own if scan.diagnosis is not None]
        found.append(
            Participant(
                dataset,
                subject,
                min(sites, key=lambda site: (-sites[site], site)),
                diagnoses[0] if diagnoses else NO_DIAGNOSIS,
                len(own),
                any(scan.mask is not None for scan in own),
            )
        )
    return sorted(found)


def draw_folds(participants: Sequence[Participant], number: int, seed: int = 0) -> Folds:
    """Draw stratified folds of participants, whose order does not matter; equal seeds, equal folds.

    Raises
    ------
    MsnmoError
        There are fewer than two folds, or fewer participants than folds.
    """
    if not 2 <= number <= len(participants):
        raise MsnmoError(
            f"{len(participants)} participants cannot be divided into {number} folds",
            remedy="Ask for at least 2 folds, and for no more than there are participants",
        )
    return Folds(number, _deal(participants, number, np.random.default_rng(seed)))


def get_folds(path: Path, scans: Iterable[LabelledScan], number: int, seed: int = 0) -> Folds:
    """Return the folds that a file (``folds.tsv``) holds; where there is none, draw and write them.

    Raises
    ------
    MsnmoError
        As `read_folds` and `draw_folds`, or the file has another number of folds.
    """
    participants = participants_of(scans)
    if path.exists():
        folds = read_folds(path, participants)
        if folds.number != number:
            raise MsnmoError(
                f"it holds {folds.number} folds, not {number}",
                file=path,
                remedy=f"Ask for {folds.number} folds, or remove the file to draw new ones",
            )
        return folds
    folds = draw_folds(participants, number, seed)
    write_folds(path, folds, participants)
    return folds


def write_folds(path: Path, folds: Folds, participants: Sequence[Participant]) -> None:
    """Write the folds of all participants (``folds.tsv``), one row each."""
    rows: list[dict[str, Any]] = [
        {
            "participant_id": f"sub-{who.subject}",
            "dataset": who.dataset,
            "site": who.site,
            "diagnosis": who.diagnosis,
            "fold": folds.of[who.person],
        }
        for who in sorted(participants)
    ]
    write_tsv(path, COLUMNS, rows)


def read_folds(path: Path, participants: Sequence[Participant]) -> Folds:
    """Read folds and check that they are of these participants.

    Raises
    ------
    MsnmoError
        The file is not such a table, or its participants, sites or diagnoses are not these.
    """
    rows = read_tsv(path).rows
    if not rows or not set(COLUMNS) <= rows[0].keys():
        raise _bad(path, f"is not a table with the columns {', '.join(COLUMNS)}")
    saved: dict[Person, dict[str, str]] = {}
    folds: dict[Person, int] = {}
    for row in rows:
        person = (row["dataset"], str(row["participant_id"]).removeprefix("sub-"))
        if person in saved:
            raise _bad(path, f"names {_name(person)} twice")
        if not str(row["fold"]).isdecimal() or int(row["fold"]) < 1:
            raise _bad(path, f"has the fold '{row['fold']}' for {_name(person)}")
        saved[person], folds[person] = row, int(row["fold"])
    number = max(folds.values())
    if empty := set(range(1, number + 1)) - set(folds.values()):
        raise _bad(path, f"has nobody in fold {min(empty)}")
    _compare(path, saved, participants)
    return Folds(number, folds)


def split_validation(
    scans: Sequence[_T], participants: Sequence[Participant], share: float = 0.2, seed: int = 0
) -> tuple[list[_T], list[_T]]:
    """Set aside a share of the training participants, to see when a training should end.

    The participants are dealt out as for folds, into ``round(1 / share)`` parts; the part that
    shows most diagnoses is set aside. The only participant of a diagnosis stays in the training.
    `participants` may hold others than those of the scans; take another seed for each fold.

    Returns
    -------
    training, validation : list
        In the order of ``scans``; the second is empty where there is but one participant.

    Raises
    ------
    ValueError
        The share is not above 0 and at most 0.5.
    """
    if not 0 < share <= 0.5:
        raise ValueError(f"share must be above 0 and at most 0.5, not {share}")
    present = {scan.person for scan in scans}
    own = [who for who in participants if who.person in present]
    parts = min(round(1 / share), len(own))
    if parts < 2:
        return list(scans), []
    dealt = _deal(own, parts, np.random.default_rng(seed))
    sizes = Counter(who.diagnosis for who in own)
    movable = [who for who in own if sizes[who.diagnosis] > 1]

    def shown(part: int) -> tuple[int, int, int]:
        members = [who for who in movable if dealt[who.person] == part]
        diagnoses = {who.diagnosis for who in members} - {NO_DIAGNOSIS}
        return len(diagnoses), sum(who.with_mask for who in members), len(members)

    best = max(range(1, parts + 1), key=lambda part: (shown(part), -part))
    aside = {who.person for who in movable if dealt[who.person] == best}
    return (
        [scan for scan in scans if scan.person not in aside],
        [scan for scan in scans if scan.person in aside],
    )


def _deal(
    participants: Sequence[Participant], number: int, rng: np.random.Generator
) -> dict[Person, int]:
    """Deal participants out to folds (see the module's text)."""
    people = sorted(participants)
    people = [people[index] for index in rng.permutation(len(people))]
    people.sort(key=lambda who: (who.diagnosis, who.site, not who.with_mask, -who.scans))
    order = rng.permutation(number)  # which fold is first among equals
    counts: list[Counter[Any]] = [Counter() for _ in range(number)]
    folds: dict[Person, int] = {}
    for who in people:
        groups = [(who.diagnosis, who.site), ("diagnosis", who.diagnosis), ("site", who.site)]

        def cost(fold: int, who: Participant = who, groups: list = groups) -> tuple[int, ...]:
            count = counts[fold]
            masks = count["masks"] if who.with_mask else 0
            return (*(count[group] for group in groups), masks, count["scans"], count["people"])

        fold = min(order, key=cost)
        counts[fold].update(groups)
        counts[fold].update({"masks": who.with_mask, "scans": who.scans, "people": 1})
        folds[who.person] = int(fold) + 1
    return folds


def _compare(
    path: Path, saved: Mapping[Person, Mapping[str, str]], participants: Sequence[Participant]
) -> None:
    now = {who.person: who for who in participants}
    if new := sorted(now.keys() - saved.keys()):
        raise _bad(path, f"has no fold for {_several(new)}")
    if gone := sorted(saved.keys() - now.keys()):
        raise _bad(path, f"has a fold for {_several(gone)}, who cannot be used now")
    for person, who in sorted(now.items()):
        for column in ("diagnosis", "site"):
            then = saved[person][column]
            if then != getattr(who, column):
                raise _bad(
                    path, f"says {column} {then} of {_name(person)}, now {getattr(who, column)}"
                )


def _bad(path: Path, problem: str) -> MsnmoError:
    return MsnmoError(
        problem,
        file=path,
        remedy="Give the data that the folds were made for, or remove the file to draw new folds "
        "(what was trained on the old ones must then be trained again)",
    )


def _several(people: Sequence[Person]) -> str:
    more = f" and {len(people) - 3} more" if len(people) > 3 else ""
    return ", ".join(map(_name, people[:3])) + more


def _name(person: Person) -> str:
    return f"{person[0]}/sub-{person[1]}"
