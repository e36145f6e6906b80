"""Four ways to tell the diseases apart, on the same people."""

from __future__ import annotations

import numpy as np
import pytest

from dev import compare_paths
from dev.compare_paths import Case, by_branch, by_convolutions, by_features, load, waves
from dev.fit_diagnosis import areas
from dev.simulated_people import LOG_VOLUME, Person, write_cubes, write_table
from msnmo_bids.lesions.descriptors import DESCRIPTORS

_X, _Z = (list(DESCRIPTORS).index(name) for name in ("mni_x", "mni_z"))


def _person(number: int) -> Person:
    """Return someone whose lesions lie high (MS), or low, and are fewer (NMOSD)."""
    rng = np.random.default_rng(number)
    label = number % 2
    rows = rng.normal(size=(4 - 2 * label, len(DESCRIPTORS))).astype(np.float32)
    rows[:, LOG_VOLUME] = rng.uniform(3, 6, len(rows))
    rows[:, _X], rows[:, _Z] = 20, (40, -40)[label] + 5 * rng.normal(size=len(rows))
    every = np.ones(len(rows), bool)
    return Person(
        true=rows, found=rows, seen=every, false=~every, label=label, typicality=1.0,
        matched=bool(number // 2 % 2), head=f"head {number % 5}", weights="w",
    )  # fmt: skip


@pytest.fixture(autouse=True)
def few_epochs(monkeypatch):
    monkeypatch.setattr(compare_paths, "EPOCHS", 10)


@pytest.fixture
def cases(tmp_path) -> list[Case]:
    made = []
    for number in range(30):
        person, file = _person(number), tmp_path / f"{number:05d}.npz"
        image = np.random.default_rng(number).normal(size=(32,) * 3)
        probability = np.zeros((32,) * 3)
        probability[8:16, 8:16, (4, 20)[person.label == 0] :][:, :, :8] = 1
        write_cubes(file, image, probability)
        made.append(Case(person, file))
    return made


@pytest.mark.parametrize("judge", [by_branch, by_features(waves), by_features(load)])
def test_people_who_differ_are_told_apart(cases, judge):
    scores = judge(cases[:20], cases[20:])
    tested = [case.person for case in cases[20:]]
    assert areas(tested, scores, np.ones(len(tested), bool))["found"] > 0.9


def test_maps_of_place_are_means_by_volume():
    rows = np.zeros((2, len(DESCRIPTORS)), np.float32)
    rows[:, LOG_VOLUME] = np.log([300, 100])
    rows[1, _Z] = 60
    apart = [waves(rows[[k]]) for k in (0, 1)]
    assert not np.allclose(*apart)
    np.testing.assert_allclose(waves(rows), 0.75 * apart[0] + 0.25 * apart[1], rtol=1e-4)


def test_the_convolutional_path_sees_the_lesions(cases):
    before = by_convolutions(1e-6, width=0.25)(cases, cases)
    assert before.shape == (len(cases),)
    for case in cases:
        with np.load(case.cubes) as cubes:
            image = cubes["image"]
        write_cubes(case.cubes, image.repeat(2, 0).repeat(2, 1).repeat(2, 2), np.zeros((32,) * 3))
    assert not np.allclose(by_convolutions(1e-6, width=0.25)(cases, cases), before)


def test_the_program_compares_all_on_the_same_people(cases, tmp_path, monkeypatch, capsys):
    write_table(tmp_path / "people.npz", {k: case.person for k, case in enumerate(cases)})
    words = [tmp_path / "people.npz", tmp_path, "--minutes", 1e-6, "--folds", 2]
    monkeypatch.setattr("sys.argv", ["compare_paths", *map(str, words)])
    compare_paths.main()
    said = capsys.readouterr().out
    assert said.startswith("12 people of 30")
    for name in ("lesion branch", "maps of place", "number and volume", "convolutional path"):
        assert name in said
