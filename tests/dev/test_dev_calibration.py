"""Calibration curves."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from dev import calibration
from dev.calibration import fit_curve
from msnmo_bids.model.calibration import Calibration
from msnmo_bids.training.fitting import cross_entropy, fit_temperature


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


def test_measured_scans_are_calibrated_from_the_command_line(tmp_path, monkeypatch):
    logits, labels = lopsided(500)
    rows = [
        {"diagnosis": ("MS", "NMOSD")[label], "logit_MS": one, "logit_NMOSD": other}
        for (one, other), label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    rows.append({"diagnosis": "HC", "logit_MS": 9.0, "logit_NMOSD": -9.0})
    file, out = tmp_path / "simulated.jsonl", tmp_path / "calibration.json"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["calibration", str(file), "--out", str(out)])
    calibration.main()
    written = Calibration(**json.loads(out.read_text()))
    assert written == fit_curve(logits, labels, "500 simulated scans")
