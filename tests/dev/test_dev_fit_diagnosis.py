"""The fit of the lesion branch: people, what is found of them, calibration, limits, the program."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.special import expit

from dev import fit_diagnosis
from dev.detection import sensitivity_by_site
from dev.fit_diagnosis import (
    CONFIG,
    calibrate,
    fit_branch,
    judge,
    logits_of,
    side_by_side,
    summarise,
)
from dev.naming import LARGEST_RISK, find_limits, fit_calibration, named
from dev.simulated_people import (
    CLASSES,
    LOG_VOLUME,
    SMALL_VESSELS,
    Person,
    make_person,
    name_of,
    people,
    read_table,
    write_cubes,
    write_table,
)
from msnmo_bids.lesions.descriptors import DESCRIPTORS
from msnmo_bids.model.calibration import Calibration
from msnmo_bids.model.classification import LesionBranch
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import WeightsMetadata, load_weights, save_weights
from msnmo_bids.simulation.assets import SimulationAssets

LOWER, DEEP = (list(DESCRIPTORS).index(name) for name in ("lower_least", "cortex_least"))


def person(number: int, seen_by: str = "these") -> Person:
    """Return someone whose lesions lie nearer to the lower ventricles in class 1, deep in 2."""
    rng = np.random.default_rng(number)
    label = -1 if number % 9 == 8 else 2 if number % 7 == 4 else number % 2
    rows = rng.normal(size=(0 if label < 0 else rng.integers(2, 9), len(DESCRIPTORS)))
    rows[:, LOG_VOLUME] += 4
    rows[:, LOWER] -= 4 * (label == 1)
    rows[:, DEEP] += 4 * (label == 2)
    rows = rows.astype(np.float32)
    seen = rng.random(len(rows)) < expit(2 * (rows[:, LOG_VOLUME] - 4))
    false = rng.normal(size=(rng.integers(3), len(DESCRIPTORS))).astype(np.float32)
    found = np.concatenate([rows[seen], false])
    is_false = np.arange(len(found)) >= seen.sum()
    return Person(
        true=rows, found=found, seen=seen, false=is_false, label=label, typicality=1.0,
        matched=bool(number // 2 % 2), head=f"head {number % 5}", weights=seen_by,
    )  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Small weights that segment, and have a branch."""
    network = JointNetwork(CONFIG.scaled(0.125))
    file = tmp_path_factory.mktemp("weights") / "small.safetensors"
    save_weights(file, network, WeightsMetadata("small", "0", CLASSES, cube_shape=(32,) * 3))
    return file


def test_a_person_is_made_once(ball_head, weights, tmp_path):
    assets = SimulationAssets([ball_head])
    ((number, made),) = people(tmp_path, [0], lambda: assets, weights)
    assert number == 0
    assert made.label == 0
    assert len(made.true) == len(made.seen) > 0
    assert len(made.found) == len(made.false)
    ((_, again),) = people(tmp_path, [0], pytest.fail, weights)
    np.testing.assert_equal(vars(again), vars(made))
    assert made.weights == name_of(weights)
    assert make_person(8, assets, weights).label == -1
    assert make_person(SMALL_VESSELS, assets, weights).label == CLASSES.index("SVD")


def test_what_networks_of_the_whole_head_see_is_kept_beside_a_person(ball_head, weights, tmp_path):
    assets, folder = SimulationAssets([ball_head]), tmp_path / "cubes"
    ((_, made),) = people(tmp_path, [1], lambda: assets, weights, folder)
    plain = make_person(1, assets, weights)
    np.testing.assert_equal(vars(made), vars(plain))
    with np.load(folder / "00001.npz") as kept:
        image, probability = kept["image"], kept["probability"]
    assert image.shape == probability.shape == (16,) * 3
    assert (image.dtype, probability.dtype) == (np.float16, np.uint8)


def test_cubes_are_halved_by_means(tmp_path):
    image = np.arange(4**3, dtype=np.float32).reshape(4, 4, 4)
    write_cubes(tmp_path / "c.npz", image, image / image.max())
    with np.load(tmp_path / "c.npz") as kept:
        assert kept["image"][0, 0, 0] == image[:2, :2, :2].mean()
        assert kept["image"][1, 0, 1] == image[2:, :2, 2:].mean()
        assert kept["probability"][1, 1, 1] == pytest.approx(212.5, abs=1)


def test_people_are_kept_in_one_table(tmp_path):
    everyone = {number: person(number) for number in (3, 8, 0, SMALL_VESSELS)}
    write_table(tmp_path / "t.npz", everyone)
    found = read_table(tmp_path / "t.npz")
    assert list(found) == list(everyone)
    for number, one in everyone.items():
        for name, value in vars(one).items():
            own = getattr(found[number], name)
            if isinstance(value, np.ndarray):
                assert own.dtype == value.dtype
                np.testing.assert_allclose(own, value, rtol=1e-3, atol=1e-3)
            else:
                assert own == value


def test_weights_that_find_the_same_have_the_same_name(weights, tmp_path):
    network, metadata = load_weights(weights)
    with torch.no_grad():
        for parameter in network.lesion_branch.parameters():
            parameter += 1
    branch, other = tmp_path / "branch.safetensors", tmp_path / "other.safetensors"
    save_weights(branch, network, metadata)
    assert name_of(branch) == name_of(weights)
    save_weights(other, network, replace(metadata, threshold=0.3))
    assert name_of(other) != name_of(weights)


def test_what_weights_find_is_told_by_site_and_size():
    rows = np.zeros((4, len(DESCRIPTORS)), np.float32)
    names = list(DESCRIPTORS)
    rows[:, names.index("log_volume")] = np.log([10, 50, 50, 5000])
    for name in ("lower_least", "lateral_least", "cortex_least"):
        rows[:, names.index(name)] = 20
    rows[1, names.index("brainstem")] = 0.9
    rows[1:3, names.index("lower_least")] = 1
    one = replace(person(0), true=rows, seen=np.array([True, True, False, True]))
    table = sensitivity_by_site([one, replace(one, seen=np.zeros(4, bool))])
    assert table["brainstem"] == {"14 to 100": (2, 0.5)}
    assert table["lower ventricles"] == {"14 to 100": (2, 0.0)}
    assert table["deep"] == {"0 to 14": (2, 0.5), "1000 and above": (2, 0.5)}


def test_calibration_finds_the_slopes():
    rng = np.random.default_rng(3)
    margins = rng.normal(scale=3, size=6000)
    logits = np.stack([np.zeros(6000), margins], axis=1)
    true = Calibration(matrix=((0.9, 0.0), (0.0, 0.4)), offset=(0.0, 0.3))
    wanted = true.probabilities(logits)
    labels = (rng.random(6000) < wanted[:, 1]).astype(int)
    found = fit_calibration(logits, labels, "these").probabilities(logits)
    assert np.abs(found - wanted).max() < 0.05


def test_limits_keep_wrong_names_rare_and_are_not_found_for_few_people():
    rng = np.random.default_rng(0)
    second = rng.random(16000)
    labels = (rng.random(16000) < second).astype(int)
    labels[:400] = 2
    alike = np.where(labels == 2, rng.beta(2, 2, 16000), rng.beta(1, 9, 16000))
    probabilities = np.stack([(1 - second) * (1 - alike), second * (1 - alike), alike], axis=1)
    own = rng.random(16000) < 0.8
    limits = find_limits(probabilities, labels, own)
    assert 0.88 < limits["MS"] < 0.98  # where .94 of the named are right on average
    assert 0.88 < limits["NMOSD"] < 0.98
    assert 0.1 < limits["SVD"] < 0.5
    names = named(probabilities, limits)
    assert set(names) == {-1, 0, 1}
    assert (names[labels == 2] >= 0).mean() < LARGEST_RISK
    for number in (0, 1):
        sick = (names == number) & (labels < 2)
        assert (labels[sick] != number).mean() < LARGEST_RISK
    others = np.where(own | (labels == 2), labels, 1 - labels)
    without = find_limits(probabilities, others, own)
    assert without["MS"] == limits["MS"]  # whose load is nobody's: no limit of a disease by them
    none = {"MS": None, "NMOSD": None, "SVD": None}
    assert find_limits(probabilities[400:440], labels[400:440], own[400:440]) == none
    assert (named(probabilities, none) == -1).all()


def test_people_are_told_apart_by_fits_that_have_not_seen_them():
    everyone = [person(number) for number in range(300)]
    logits = judge(everyone, fits=1, epochs=16)
    counts = np.array([len(p.found) for p in everyone])
    labels = np.array([p.label for p in everyone])
    matched = np.array([p.matched for p in everyone])
    assert 0 < matched.sum() < len(everyone)
    calibration, limits, probabilities, names = calibrate(logits, counts, labels, matched)
    others = np.where(matched, 0, labels)  # whose load is nobody's: nothing is fitted to them
    assert calibrate(logits, counts, others, matched)[0] == calibration
    assert len(calibration.offset) == len(CLASSES)
    assert list(limits) == list(CLASSES)
    assert not (names == 2).any()
    assert (names[counts == 0] == -1).all()
    summary = summarise(everyone, counts, probabilities, names)
    assert summary["auc"]["found"] > 0.75
    assert summary["people"] == np.isin(labels, (0, 1)).sum()
    assert set(summary["auc"]) == {
        "found", "loads of the diseases", "matched loads", "typicality 1"
    }  # fmt: skip
    small_vessels = labels == 2
    own = probabilities[small_vessels, 2].mean()
    assert own > probabilities[np.isin(labels, (0, 1)), 2].mean() + 0.2


def test_what_looks_like_the_diseases_does_not_move_them():
    everyone = [person(number) for number in range(80)]
    others = [replace(one, found=-one.found) if one.label == 2 else one for one in everyone]
    shown = [one.true for one in everyone if one.label >= 0]
    one, other = (
        logits_of(fit_branch(people, fits=1, epochs=3, seed=1), shown)
        for people in (everyone, others)
    )
    np.testing.assert_allclose(one[:, :2], other[:, :2], atol=1e-6)
    assert np.abs(one[:, 2] - other[:, 2]).max() > 0.01


def test_a_branch_is_the_mean_of_its_fits():
    everyone = [person(number) for number in range(40)]
    branch = fit_branch(everyone, fits=2, epochs=2, seed=1)
    lesions = [everyone[0].true, everyone[1].true[:0]]
    single = LesionBranch(CONFIG)
    each = []
    for fit in branch.fits:
        single.load_state_dict(
            {"mean": branch.mean, "deviation": branch.deviation}
            | {f"fits.0.{name}": value for name, value in fit.state_dict().items()}
        )
        each.append(logits_of(single, lesions))
    assert len(each) == 4  # two for each question
    assert not np.allclose(each[0], each[1])
    np.testing.assert_allclose(
        logits_of(branch, lesions), np.mean(each, axis=0), rtol=1e-4, atol=1e-5
    )


def test_the_program_fits_to_the_people_it_finds(weights, tmp_path, monkeypatch, capsys):
    own = name_of(weights)
    folder, table = tmp_path / f"people-{own}", tmp_path / "kept.npz"
    folder.mkdir()
    for number in (*range(40), *range(SMALL_VESSELS, SMALL_VESSELS + 14)):
        np.savez(folder / f"{number:05d}.npz", **vars(person(number, own)))
    write_table(table, {number: person(number, own) for number in range(38, 45)})
    monkeypatch.setattr(fit_diagnosis, "assets_of", pytest.fail)
    words = [tmp_path, "--anatomy", "x", "--lesion-shapes", "y", "--people", 45, "--fits", 2,
             "--epochs", 2, "--weights", weights, "--table", table]  # fmt: skip
    monkeypatch.setattr("sys.argv", ["fit_diagnosis", *map(str, words)])
    fit_diagnosis.main()
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "diagnosis.json").read_text())
    assert summary["everyone"] == 59
    kept = read_table(tmp_path / "people.npz")
    assert {one.weights for one in kept.values()} == {own}
    assert len(kept) == 59
    assert summary["limits"]["SVD"] is None
    assert summary["descriptors"] == list(DESCRIPTORS)
    branch = LesionBranch(replace(CONFIG, lesion_fits=4))
    branch.load_state_dict(load_file(tmp_path / "lesion_branch.safetensors"))


def test_whom_other_weights_have_looked_at_is_looked_at_again(weights, tmp_path, monkeypatch):
    """Here nobody can be made, for want of heads."""
    write_table(tmp_path / "kept.npz", {number: person(number, "others") for number in range(9)})
    monkeypatch.setattr(fit_diagnosis, "assets_of", sys.exit)
    options = SimpleNamespace(out=tmp_path, table=tmp_path / "kept.npz",
                              weights=weights, people=2, threads=1, cubes=None)  # fmt: skip
    with pytest.raises(RuntimeError, match="1 of 1 processes"):
        fit_diagnosis.collect(options)


def test_what_fails_side_by_side_is_not_passed_over(tmp_path):
    side_by_side([partial((tmp_path / name).touch) for name in ("one", "two")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]
    with pytest.raises(RuntimeError, match="1 of 2"):
        side_by_side([partial(sys.exit, 0), partial(sys.exit, 3)])
