"""Temperature scaling and calibration curves."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from msnmo_bids.training import calibration
from msnmo_bids.training.calibration import cross_entropy, fit_curve, fit_temperature


@pytest.mark.parametrize("true", [0.5, 1.0, 4.0])
def test_the_temperature_that_scaled_the_logits_is_found(true):
    rng = np.random.default_rng(0)
    honest = rng.normal(0, 2, (20_000, 2))
    chance = 1 / (1 + np.exp(honest[:, 0] - honest[:, 1]))
    labels = (rng.random(len(honest)) < chance).astype(int)
    assert fit_temperature(honest * true, labels) == pytest.approx(true, rel=0.06)


def test_logits_that_tell_nothing_get_a_high_temperature():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 5, (200, 2))
    labels = (logits[:, 0] > logits[:, 1]).astype(int)  # worse than nothing: always wrong
    assert fit_temperature(logits, labels) > 50


def lopsided(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits whose evidence for the first class is sound, and for the second worth little."""
    rng = np.random.default_rng(2)
    margin = rng.normal(0, 2, count)
    chance = 0.8 / (1 + np.exp(-2 * margin))
    return np.stack([-margin / 2, margin / 2], axis=1), (rng.random(count) < chance).astype(int)


def test_evidence_that_is_worth_less_for_one_class_is_calibrated():
    logits, labels = lopsided(40_000)
    fitted = fit_curve(logits, labels, "drawn")
    found = fitted.probabilities(logits)[:, 1]
    for low in np.arange(0.1, 0.8, 0.1):
        among = (found >= low) & (found < low + 0.1)
        assert found[among].mean() == pytest.approx(labels[among].mean(), abs=0.03)
    assert 0.75 < found.max() < 0.81
    temperature = fit_temperature(logits, labels)
    assert cross_entropy(np.log(fitted.probabilities(logits)), labels) < (
        cross_entropy(logits / temperature, labels) - 0.01
    )


def test_the_order_of_scans_is_kept():
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 1, (300, 2))
    labels = (logits[:, 0] + rng.normal(0, 1, 300) > logits[:, 1]).astype(int)  # often wrong
    fitted = fit_curve(logits, labels, "drawn")
    order = np.argsort(logits[:, 1] - logits[:, 0])
    assert (np.diff(fitted.probabilities(logits)[order, 1]) >= -1e-12).all()


def test_measured_scans_are_calibrated_from_the_command_line(tmp_path, monkeypatch, capsys):
    logits, labels = lopsided(500)
    rows = [
        {"diagnosis": ("MS", "NMOSD")[label], "logit_MS": one, "logit_NMOSD": other}
        for (one, other), label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    rows.append({"diagnosis": "HC", "logit_MS": 9.0, "logit_NMOSD": -9.0})
    file = tmp_path / "simulated.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["calibration", str(file)])
    calibration.main()
    expected = fit_curve(logits, labels, "")
    printed = capsys.readouterr().out
    assert "--margins " + " ".join(f"{value:.3f}" for value in expected.margins) in printed
    assert "--chances " + " ".join(f"{value:.3f}" for value in expected.chances) in printed
    assert "500 simulated scans" in printed
