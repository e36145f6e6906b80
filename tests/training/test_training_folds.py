from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from msnmo_bids.bids.scans import Scan
from msnmo_bids.errors import MsnmoError
from msnmo_bids.labelled.scans import LabelledScan
from msnmo_bids.training.folds import (
    NO_DIAGNOSIS,
    Participant,
    draw_folds,
    get_folds,
    participants_of,
    split_validation,
)
from msnmo_bids.training.prepared import PreparedScan


def scan(
    dataset: str = "d",
    subject: str = "01",
    session: str | None = None,
    site: str = "A",
    diagnosis: str | None = "MS",
    mask: bool = False,
) -> PreparedScan:
    prefix = f"sub-{subject}" + (f"_ses-{session}" if session else "")
    raw = Scan(Path(prefix), Path(), prefix, subject, session, prefix, "")
    labelled = LabelledScan(
        dataset, subject, session, site, diagnosis, raw, Path("mask") if mask else None
    )
    return PreparedScan(labelled, Path())


def cohort(*strata: tuple[int, str, str]) -> list[Participant]:
    """Return participants: how many of which diagnosis and site."""
    kinds = [(site, diagnosis) for count, diagnosis, site in strata for _ in range(count)]
    return [Participant("d", f"{n:03d}", *kind) for n, kind in enumerate(kinds)]


people = st.lists(
    st.tuples(
        st.sampled_from(("MS", "NMOSD", NO_DIAGNOSIS)),
        st.sampled_from(("A", "B", "C")),
        st.integers(1, 4),
        st.booleans(),
    ),
    min_size=5,
    max_size=60,
).map(
    lambda rows: [
        Participant("d", f"{n:03d}", site, diagnosis, scans, with_mask)
        for n, (diagnosis, site, scans, with_mask) in enumerate(rows)
    ]
)


def spread(counts: Counter, groups: int, number: int) -> int:
    """Return the largest difference of two folds in the counts of one group."""
    names = {group for group, _ in counts}
    return max(
        (
            max(counts[name, f] for f in range(1, number + 1))
            - min(counts[name, f] for f in range(1, number + 1))
            for name in names
        ),
        default=0,
    )


@given(people, st.integers(2, 5), st.integers(0, 99))
def test_every_stratum_and_diagnosis_is_spread_evenly(participants, number, seed):
    folds = draw_folds(participants, number, seed)
    assert folds.of.keys() == {who.person for who in participants}
    strata = Counter(((w.diagnosis, w.site), folds.of[w.person]) for w in participants)
    diagnoses = Counter((w.diagnosis, folds.of[w.person]) for w in participants)
    sites = Counter((w.site, folds.of[w.person]) for w in participants)
    total = Counter(("all", folds.of[w.person]) for w in participants)
    assert spread(strata, 9, number) <= 1
    assert spread(diagnoses, 3, number) <= 1
    assert spread(sites, 3, number) <= 3
    assert spread(total, 1, number) <= 3


@given(people, st.integers(0, 99))
def test_folds_depend_on_the_seed_and_not_on_the_order(participants, seed):
    folds = draw_folds(participants, 3, seed)
    assert folds == draw_folds(participants[::-1], 3, seed)


def test_another_seed_gives_other_folds():
    participants = cohort((20, "MS", "A"), (20, "NMOSD", "A"))
    assert draw_folds(participants, 5, 0) != draw_folds(participants, 5, 1)


@pytest.mark.filterwarnings("ignore:The least populated class")
@hypothesis_settings(max_examples=30)
@given(people)
def test_no_worse_than_scikit_learn(participants):
    number = 3
    strata = [f"{who.diagnosis} {who.site}" for who in participants]
    folds = draw_folds(participants, number)
    ours = Counter(zip(strata, (folds.of[who.person] for who in participants), strict=True))
    if max(Counter(strata).values()) < number:
        return  # scikit-learn refuses it
    groups = np.arange(len(participants))
    splitter = StratifiedGroupKFold(number, shuffle=True, random_state=0)
    theirs: Counter = Counter()
    for fold, (_, test) in enumerate(splitter.split(groups, strata, groups), start=1):
        theirs.update((strata[index], fold) for index in test)
    assert spread(ours, 9, number) <= spread(theirs, 9, number)


def test_masks_and_scans_are_spread_too():
    participants = [
        Participant("d", f"{n:02d}", "A", "MS", scans=1 + 3 * (n < 5), with_mask=n % 4 == 0)
        for n in range(20)
    ]
    folds = draw_folds(participants, 5)
    masks = Counter(folds.of[who.person] for who in participants if who.with_mask)
    scans: Counter = Counter()
    for who in participants:
        scans[folds.of[who.person]] += who.scans
    assert set(masks.values()) == {1}
    assert max(scans.values()) - min(scans.values()) <= 1


@pytest.mark.parametrize("number", [1, 4])
def test_too_few_participants_or_folds(number):
    with pytest.raises(MsnmoError, match=f"3 participants cannot be divided into {number} folds"):
        draw_folds(cohort((3, "MS", "A")), number)


def test_all_sessions_of_a_participant_lie_in_one_fold():
    scans = [
        scan(dataset, subject, session)
        for dataset in ("a", "b")
        for subject in ("01", "02", "03")
        for session in ("1", "2")
    ]
    folds = draw_folds(participants_of(scans), 3)
    seen = []
    for fold in (1, 2, 3):
        training, test = folds.split(scans, fold)
        assert len(test) == 4
        assert not {s.person for s in training} & {s.person for s in test}
        assert sorted(map(scans.index, training + test)) == list(range(12))
        seen += test
    assert sorted(map(scans.index, seen)) == list(range(12))


def test_a_participant_is_what_most_scans_say():
    scans = [
        scan(session="1", site="B"),
        scan(session="2", site="A", mask=True),
        scan(session="3", site="B"),
        scan(subject="02", site="B", diagnosis=None),
    ]
    assert participants_of(scans) == [
        Participant("d", "01", "B", "MS", 3, True),
        Participant("d", "02", "B", NO_DIAGNOSIS, 1, False),
    ]


def test_folds_are_written_once(tmp_path):
    scans = [scan(subject=f"{n:02d}", site="two words" if n % 2 else "A") for n in range(12)]
    path = tmp_path / "folds.tsv"
    first = get_folds(path, scans, 3, seed=0)
    assert get_folds(path, scans[::-1], 3, seed=0) == first
    header, *rows = path.read_text().splitlines()
    assert header == "participant_id\tdataset\tsite\tdiagnosis\tfold"
    assert len(rows) == 12
    with pytest.raises(MsnmoError, match="another number or seed"):
        get_folds(path, scans, 4)


@pytest.mark.parametrize(
    ("change", "seed"),
    [
        (lambda scans: scans[1:], 0),
        (lambda scans: [*scans, scan(subject="99")], 0),
        (lambda scans: [scan(subject="00", site="B"), *scans[1:]], 0),
        (lambda scans: [scan(subject="00", diagnosis="HC"), *scans[1:]], 0),
        (lambda scans: scans, 1),
    ],
)
def test_folds_of_other_data_are_refused(tmp_path, change, seed):
    scans = [scan(subject=f"{n:02d}") for n in range(9)]
    path = tmp_path / "folds.tsv"
    get_folds(path, scans, 3)
    with pytest.raises(MsnmoError, match="holds the folds of other data") as caught:
        get_folds(path, change(scans), 3, seed)
    assert str(path) in str(caught.value)
    assert "remove the file" in str(caught.value)


def scans_of(participants: list[Participant]) -> list[PreparedScan]:
    return [
        scan(who.dataset, who.subject, str(session), who.site,
             None if who.diagnosis == NO_DIAGNOSIS else who.diagnosis, who.with_mask)
        for who in participants
        for session in range(who.scans)
    ]  # fmt: skip


def diagnoses(scans: list[PreparedScan]) -> set[str | None]:
    return {scan.labelled.diagnosis for scan in scans}


@given(people, st.sampled_from((0.1, 0.2, 0.33, 0.5)), st.integers(0, 9))
def test_validation_participants_are_set_aside(participants, share, seed):
    scans = scans_of(participants)
    training, validation = split_validation(scans, share, seed)
    assert sorted(map(scans.index, training + validation)) == list(range(len(scans)))
    trained, aside = ({s.person for s in part} for part in (training, validation))
    assert not trained & aside
    assert diagnoses(training) == diagnoses(scans)
    assert len(aside) <= share * len(participants) * 1.25 + 3
    counts = Counter(who.diagnosis for who in participants)
    if max(counts.values()) > 1:
        assert aside
    common = {d for d, n in counts.items() if n >= round(1 / share) and n > 1 and d != NO_DIAGNOSIS}
    assert common <= diagnoses(validation)


def test_nobody_is_set_aside_of_one():
    assert split_validation([scan()]) == ([scan()], [])
