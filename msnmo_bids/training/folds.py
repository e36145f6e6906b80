"""Folds of a cross-validation: by participant, stratified.

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
from typing import Any

import numpy as np

from msnmo_bids.bids.dataset import write_tsv
from msnmo_bids.bids.text_files import read_tsv
from msnmo_bids.errors import MsnmoError
from msnmo_bids.evaluation.crossval_results import SUBJECT_COLUMNS
from msnmo_bids.labelled.scans import Person
from msnmo_bids.training.prepared import PreparedScan

NO_DIAGNOSIS = "n/a"


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

    def split(
        self, scans: Iterable[PreparedScan], fold: int
    ) -> tuple[list[PreparedScan], list[PreparedScan]]:
        """Return the scans to train on and those to test on, for a fold from 1 to ``number``."""
        return _apart(scans, {person for person, own in self.of.items() if own == fold})


def participants_of(scans: Iterable[PreparedScan]) -> list[Participant]:
    """Return the participants of scans, sorted by data set and label."""
    by_person = defaultdict(list)
    for scan in scans:
        by_person[scan.person].append(scan.labelled)
    found = []
    for (dataset, subject), own in by_person.items():
        sites = Counter(scan.site for scan in own)
        site = min(sites, key=lambda site: (-sites[site], site))
        diagnosis = next((scan.diagnosis for scan in own if scan.diagnosis), NO_DIAGNOSIS)
        with_mask = any(scan.mask is not None for scan in own)
        found.append(Participant(dataset, subject, site, diagnosis, len(own), with_mask))
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


def get_folds(path: Path, scans: Iterable[PreparedScan], number: int, seed: int = 0) -> Folds:
    """Draw the folds of scans and write them (``folds.tsv``, a row per participant).

    Where the file is there already, of a run before, the folds must be the same.

    Raises
    ------
    MsnmoError
        As `draw_folds`, or the file holds the folds of other data, another number or seed.
    """
    participants = participants_of(scans)
    folds = draw_folds(participants, number, seed)
    rows: list[dict[str, Any]] = [
        {
            "participant_id": f"sub-{who.subject}",
            "dataset": who.dataset,
            "site": who.site,
            "diagnosis": who.diagnosis,
            "fold": str(folds.of[who.person]),
        }
        for who in participants
    ]
    if not path.exists():
        write_tsv(path, SUBJECT_COLUMNS, rows)
    there = {tuple(row.get(column) for column in SUBJECT_COLUMNS) for row in read_tsv(path).rows}
    drawn = {tuple(" ".join(row[column].split()) for column in SUBJECT_COLUMNS) for row in rows}
    if other := there ^ drawn:
        example = min(other, key=str)
        raise MsnmoError(
            "holds the folds of other data, or of another number or seed (look at "
            f"{example[1]}/{example[0]})",
            file=path,
            remedy="Give the data, --folds and --seed that it was made with, or remove the file "
            "(what was trained on these folds must then be trained again)",
        )
    return folds


def split_validation(
    scans: Sequence[PreparedScan], share: float = 0.2, seed: int = 0
) -> tuple[list[PreparedScan], list[PreparedScan]]:
    """Set aside a share of the training participants, to see when a training should end.

    The participants are dealt out as for folds, into ``round(1 / share)`` parts; the part that
    shows most diagnoses is set aside. The only participant of a diagnosis stays in the training.
    Take another seed for each fold. The share is from 0 to 0.5; nobody is set aside where it is 0,
    or of one participant. Both lists are in the order of ``scans``.
    """
    own = participants_of(scans)
    parts = min(round(1 / share), len(own)) if share else 0
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
    return _apart(scans, {who.person for who in movable if dealt[who.person] == best})


def _apart(
    scans: Iterable[PreparedScan], people: set[Person]
) -> tuple[list[PreparedScan], list[PreparedScan]]:
    """Part scans: those of other people, those of these people."""
    parts: tuple[list[PreparedScan], list[PreparedScan]] = [], []
    for scan in scans:
        parts[scan.person in people].append(scan)
    return parts


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
