"""Learning rates: warm-up, cosine, and the plateau against torch's own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.schedule import Schedule


def test_cosine_with_warm_up():
    config = TrainingConfig(schedule="cosine", learning_rate=2e-3, warm_up=10, final_rate=0.02)
    schedule = Schedule(config, steps=110, steps_per_epoch=10)
    rates = [schedule.rate(step) for step in range(110)]
    np.testing.assert_allclose(rates[:10], 2e-3 * np.arange(1, 11) / 10)
    assert max(rates) == rates[9] == rates[10] == pytest.approx(2e-3)
    assert (np.diff(rates[10:]) < 0).all()
    assert schedule.rate(60) == pytest.approx(2e-3 * (0.02 + 0.98 * 0.5))
    assert schedule.rate(110) == schedule.rate(500) == pytest.approx(0.02 * 2e-3)


@pytest.mark.parametrize("kind", ["cosine", "plateau", "constant"])
def test_without_warm_up_the_first_rate_is_the_learning_rate(kind):
    schedule = Schedule(TrainingConfig(schedule=kind, learning_rate=1e-3), 5, 5)
    assert schedule.rate(0) == pytest.approx(1e-3)


@settings(max_examples=50, deadline=None)
@given(
    losses=st.lists(st.integers(0, 5), min_size=4, max_size=60),
    patience=st.integers(1, 4),
    cut=st.integers(0, 60),
)
def test_plateau_is_that_of_torch_and_survives_a_resume(losses, patience, cut):
    """The epochs have two steps; after `cut` of them another object goes on from the state."""
    config = TrainingConfig(learning_rate=1.0, plateau_epochs=patience, plateau_factor=0.5)
    ours = Schedule(config, 1000, 2)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.5, patience=patience - 1, threshold=0.0, eps=0.0
    )
    for epoch, loss in enumerate(losses):
        ours.step_done(2 * epoch + 1, {"segmentation": loss - 0.5})
        if epoch == cut:
            resumed = Schedule(config, 1000, 2)
            resumed.load_state_dict(ours.state_dict())
            ours = resumed
        ours.step_done(2 * epoch + 2, {"segmentation": loss + 0.5})
        theirs.step(float(loss))
        assert ours.rate(2 * epoch + 2) == optimizer.param_groups[0]["lr"]


def test_an_epoch_with_fewer_labels_is_no_better():
    schedule = Schedule(TrainingConfig(learning_rate=1.0, plateau_epochs=1), 100, 2)
    schedule.step_done(1, {"segmentation": 1.0, "classification": 0.5})
    schedule.step_done(2, {"segmentation": 1.0, "classification": 0.5})
    assert schedule.best == 1.5
    schedule.step_done(3, {"segmentation": 1.0})
    schedule.step_done(4, {"classification": 0.5})
    assert schedule.factor == 0.5


def test_constant_never_falls():
    schedule = Schedule(TrainingConfig(schedule="constant", plateau_epochs=1), 100, 1)
    for step in range(1, 20):
        schedule.step_done(step, {"segmentation": 1.0})
    assert schedule.rate(20) == TrainingConfig().learning_rate
