"""Weights on simulated test scans: the plan, the rows, their summary."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dev import simulated_summary
from dev.simulated_summary import (
    accuracy_figure,
    ceiling,
    decide,
    diagnosis_summary,
    segmentation_summary,
)
from dev.simulated_test import (
    evaluate_case,
    load_of,
    plan_cases,
    simulate_case,
    truth_features,
)
from msnmo_bids.evaluation.figures import figure_file
from msnmo_bids.lesions.threshold import LesionCriteria, find_lesions
from msnmo_bids.model.inference import predict
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.weights import WeightsMetadata, load_weights, save_weights
from msnmo_bids.preprocessing.cube import from_cube
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.simulation.sample import prepared_scan

CLASSES = ("MS", "NMOSD")
LIMITS = {"MS": 0.7, "NMOSD": 0.7}


@pytest.fixture
def weights(tiny_config, tmp_path):
    metadata = WeightsMetadata("tiny", "1", cube_shape=(32, 32, 32), min_lesion_volume=0.0)
    save_weights(tmp_path / "tiny", JointNetwork(tiny_config), metadata)
    return tmp_path / "tiny.safetensors"


@pytest.fixture
def drawn_axes(monkeypatch):
    """Return what gives the axes of the figure that was drawn last."""
    figures = []

    @contextmanager
    def keep(*args):
        with figure_file(*args) as figure:
            figures.append(figure)
            yield figure

    monkeypatch.setattr(simulated_summary, "figure_file", keep)
    return lambda: figures[-1].axes


def cases(scores, truth, **columns):
    """Make rows in which the network gives NMOSD these probabilities."""
    scores = np.asarray(scores)
    table = {"diagnosis": truth, "prob_MS": 1 - scores, "prob_NMOSD": scores}
    volumes = {"found_count": 3, "predicted_volume_ml": 1.0, "true_volume_ml": 1.0}
    return pd.DataFrame(table | volumes | columns)


def test_every_diagnosis_meets_every_protocol_and_typicality():
    planned = pd.DataFrame([vars(case) for case in plan_cases(30)])
    assert planned["number"].tolist() == list(range(90))
    counts = planned.groupby(["diagnosis", "protocol", "typicality"]).size()
    assert len(counts) == 3 * 5 * 3
    assert set(counts) == {2}


def test_a_case_is_simulated_and_measured(ball_head, weights):
    sick, _, healthy = list(plan_cases(1))
    rows = []
    for case in (sick, sick, healthy):
        rng = np.random.default_rng((5, case.number))
        scan = simulate_case(case, SimulationAssets([ball_head]), rng)
        row = evaluate_case(case, scan, weights, rng)
        rows.append(row)
        assert bool(truth_features(scan)) == (case.diagnosis != "HC")
    first, again, without = rows
    assert first == again
    assert first["true_volume_ml"] > 0
    assert first["prob_MS"] + first["prob_NMOSD"] == pytest.approx(1)
    assert without["true_volume_ml"] == 0


def test_lesions_are_those_of_the_criteria_that_come_with_the_weights(ball_head, weights):
    case = next(plan_cases(1))
    rng = np.random.default_rng(5)
    scan = simulate_case(case, SimulationAssets([ball_head]), rng)
    state = rng.bit_generator.state
    cube, brain, transform = prepared_scan(scan, rng, (32, 32, 32))
    native = from_cube(predict(cube, weights).probability, transform) * brain
    criteria = LesionCriteria(float(np.quantile(native[brain > 0], 0.8)), 20.0)
    expected = find_lesions(native, float(np.prod(scan.zooms)), criteria)
    network, metadata = load_weights(weights)
    other = weights.with_name("other.safetensors")
    asked = {"threshold": criteria.threshold, "min_lesion_volume": criteria.min_volume}
    save_weights(other, network, replace(metadata, **asked))
    rng.bit_generator.state = state
    row = evaluate_case(case, scan, other, rng)
    assert row["found_count"] == expected.labels.max() > 0
    found_ml = expected.mask.sum() * np.prod(scan.zooms) / 1000
    assert row["predicted_volume_ml"] == pytest.approx(found_ml)


def test_loads_are_matched_when_asked_for():
    loads = {
        (diagnosis, matched): [
            load_of(diagnosis, np.random.default_rng(k), matched=matched) for k in range(30)
        ]
        for diagnosis in ("MS", "NMOSD", "HC")
        for matched in (False, True)
    }
    assert loads["MS", True] == loads["NMOSD", True]
    assert not any(loads["HC", True])
    assert min(loads["NMOSD", False]) > 0
    medians = [np.median(loads[key]) for key in (("NMOSD", False), ("MS", True), ("MS", False))]
    assert medians == sorted(medians)


def test_a_diagnosis_is_withheld():
    table = cases([0.1, 0.6, 0.9, 0.9], "MS", found_count=[1, 1, 1, 0])
    assert decide(table, CLASSES, LIMITS).tolist() == ["MS", None, "NMOSD", None]
    never = decide(table, CLASSES, {"MS": 0.7, "NMOSD": None})
    assert never.tolist() == ["MS", None, None, None]


def test_summary_of_the_diagnoses():
    truth = ["MS", "MS", "NMOSD", "NMOSD", "HC"]
    table = cases([0.1, 0.8, 0.9, 0.6, 0.5], truth, predicted_volume_ml=[4, 3, 2, 1, 0])
    table["rule"] = ["MS", "MS", "MS", "NMOSD", "NMOSD"]
    found = diagnosis_summary(table, CLASSES, LIMITS)
    assert found["scans"] == 4
    assert found["auc"] == pytest.approx(0.75)
    assert found["accuracy"] == pytest.approx(0.75)
    assert found["auc_found"] == pytest.approx(0.75)
    assert found["named"] == pytest.approx(0.75)
    assert found["named_by_class"] == {"MS": 1.0, "NMOSD": 0.5}
    assert found["wrong_by_name"] == {"MS": 0.0, "NMOSD": 0.5}
    assert found["named_healthy"] == 0.0
    assert found["wrong_of_named"] == pytest.approx(1 / 3)
    assert found["auc_of_volume"] == 1.0
    assert found["accuracy_of_rule"] == pytest.approx(0.75)
    assert diagnosis_summary(table[table["diagnosis"] == "HC"], CLASSES, LIMITS) == {"scans": 0}


def test_summary_of_the_segmentation():
    table = cases([0.5] * 3, ["MS", "MS", "HC"], dsc=[0.4, 0.6, 1.0])
    table["true_volume_ml"], table["predicted_volume_ml"] = [1.0, 2.0, 0.0], [1.0, 2.0, 0.3]
    found = segmentation_summary(table)
    assert found["scans"] == 2
    assert found["dsc"] == pytest.approx(0.5)
    assert found["healthy_mean_ml"] == found["healthy_largest_ml"] == 0.3


def test_ceiling_is_what_the_true_lesions_tell():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 30)
    noise = pd.DataFrame({"ml_deep": rng.random(60)})
    telling = noise.assign(count_ependymal=[np.nan] * 30 + [1.0] * 30)
    assert ceiling(telling, labels) > 0.98
    assert ceiling(noise, labels) < 0.8
    assert ceiling(noise[:35], labels[:35]) is None


def test_figure_shows_risk_and_volumes(tmp_path, drawn_axes):
    table = cases([0.95, 0.9, 0.2, 0.4], ["NMOSD", "MS", "MS", "MS"], dsc=0.5)
    healthy = cases([0.5], ["HC"], true_volume_ml=0.0, predicted_volume_ml=0.3)
    both = pd.concat([table, healthy])
    assert accuracy_figure(both, CLASSES, tmp_path / "a.png").stat().st_size > 10_000
    reliability, risk, volume, overlap = drawn_axes()
    assert "ECE 0.3" in reliability.get_title()
    assert risk.lines[0].get_xydata()[-1].tolist() == [1.0, 0.25]
    assert [line.get_label() for line in volume.lines[1:]] == ["HC", "MS", "NMOSD"]
    assert volume.lines[1].get_ydata().tolist() == [0.3]
    assert "0.50" in overlap.get_title()


def test_figure_of_healthy_people_alone(tmp_path, drawn_axes):
    healthy = cases([0.5], ["HC"], true_volume_ml=0.0, predicted_volume_ml=0.3, dsc=1.0)
    accuracy_figure(healthy, CLASSES, tmp_path / "a.png")
    reliability, risk, volume, _ = drawn_axes()
    assert not reliability.lines
    assert not risk.lines
    assert len(volume.lines) == 2
