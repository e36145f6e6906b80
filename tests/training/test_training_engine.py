"""The training loop: what is trained, how fast, and that a resumed run is an undisturbed one."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from msnmo_bids.errors import MsnmoError
from msnmo_bids.model.config import CLASSIFICATION, SEGMENTATION, TASKS, LossConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.training import engine
from msnmo_bids.training.engine import Stage, Trainer, trained_parameters
from msnmo_bids.training.pool import Brain, BrainPool

STAGE = Stage("tiny", (SEGMENTATION,), steps=4, side=16, warm_up=2, refresh_every=2, ema=0.9)


class QuickPool(BrainPool):
    """Brains of noise with a bright box: the seed decides all, as with the simulator."""

    def __init__(self, size: int = 3, side: int = 32) -> None:
        super().__init__([], None, (side,) * 3, size=size, classes=("MS", "NMOSD"), nmosd_share=0.5)
        self.made = 0

    def refresh(self, rng: np.random.Generator) -> None:
        self.made += 1
        image = rng.normal(0, 1, self.shape)
        lesions = np.zeros(self.shape, np.uint8)
        x, y, z = rng.integers(4, self.shape[0] - 8, 3)
        lesions[x : x + 4, y : y + 4, z : z + 4] = 1
        image += 2.0 * lesions
        self.brains.append(Brain(image.astype(np.float16), lesions, int(rng.integers(2))))


@pytest.fixture
def make_trainer(tiny_config, tmp_path):
    def make(folder: str = "out", stage: Stage = STAGE, seed: int = 5, **pool) -> Trainer:
        torch.manual_seed(0)
        out = tmp_path / folder
        out.mkdir(exist_ok=True)
        loss = JointLoss(LossConfig(bce_weight=1.0, skip_empty_dice=True))
        return Trainer(JointNetwork(tiny_config), loss, stage, QuickPool(**pool), out, seed)

    return make


def interrupt(trainer: Trainer, at: int) -> None:
    """Run until a step, as a killed process: only checkpoints are left."""
    step = trainer._train_step

    def stopped(rng):
        if trainer.step == at:
            raise KeyboardInterrupt
        return step(rng)

    trainer._train_step = stopped
    with pytest.raises(KeyboardInterrupt):
        trainer.run(fill=2)


def same(one: dict, other: dict) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("tasks", "at"),
    [((SEGMENTATION,), 1), ((SEGMENTATION,), 2), ((CLASSIFICATION,), 3), (TASKS, 2)],
)
def test_resumed_run_is_an_undisturbed_one(make_trainer, monkeypatch, tasks, at):
    """With a pool that has dropped its first brains, and one that refreshes on every other step."""
    monkeypatch.setattr(engine, "SAVE_EVERY", -1.0)  # a checkpoint after each step
    stage = replace(STAGE, tasks=tasks)
    whole = make_trainer("whole", stage)
    expected = whole.run(fill=2)

    interrupt(make_trainer("cut", stage), at)
    resumed = make_trainer("cut", stage)
    found = resumed.run(fill=2)
    assert resumed.step == whole.step == 4
    assert same(found, expected)
    assert same(resumed.network.state_dict(), whole.network.state_dict())
    for one, other in zip(resumed.pool.brains, whole.pool.brains, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


def test_stop_between_checkpoints_repeats_the_steps(make_trainer, monkeypatch):
    expected = make_trainer("whole").run(fill=2)
    monkeypatch.setattr(engine, "SAVE_EVERY", -1.0)
    interrupt(make_trainer("cut"), 1)
    monkeypatch.setattr(engine, "SAVE_EVERY", 1e9)
    interrupt(make_trainer("cut"), 3)  # steps 1 and 2 are not in the checkpoint
    assert same(make_trainer("cut").run(fill=2), expected)


def test_finished_stage_returns_at_once(make_trainer):
    expected = make_trainer("whole").run(fill=2)
    again = make_trainer("whole")
    assert same(again.run(fill=2), expected)
    assert again.pool.made == 0


def test_seed_decides(make_trainer):
    one, other, third = (
        make_trainer(f"seed{n}", seed=seed).run(fill=2) for n, seed in enumerate((5, 5, 6))
    )
    assert same(one, other)
    assert not same(one, third)


def test_checkpoint_keys(make_trainer):
    trainer = make_trainer()
    trainer.run(fill=2)
    state = torch.load(trainer.checkpoint, weights_only=True)
    assert set(state) == {"step", "network", "average", "optimizer", "stage"}
    assert state["step"] == 4
    assert state["network"].keys() == trainer.network.state_dict().keys()
    assert not list(trainer.out.glob("*.partial"))


def test_log_has_a_row_a_step(make_trainer):
    trainer = make_trainer()
    trainer.run(fill=2)
    with (trainer.out / "tiny.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == [1, 2, 3, 4]
    for row in rows:
        assert float(row["rate"]) == pytest.approx(STAGE.rate(int(row["step"]) - 1), rel=1e-4)
        assert np.isfinite(float(row["total"]))


def test_average_follows_the_weights(make_trainer):
    trainer = make_trainer(stage=replace(STAGE, steps=1))
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    average = trainer.run(fill=2)
    after = trainer.network.state_dict()
    decay = min(0.9, 1 / 10)
    for key, value in average.items():
        torch.testing.assert_close(value, decay * before[key] + (1 - decay) * after[key])
    assert not same(after, before)


def test_loss_that_is_not_finite_stops_the_run(make_trainer, monkeypatch):
    trainer = make_trainer()
    broken = torch.full((16, 16, 16), float("nan")).numpy()
    monkeypatch.setattr(engine, "random_crop", lambda *_: (broken, np.ones_like(broken)))
    with pytest.raises(MsnmoError, match="not finite at step 0"):
        trainer.run(fill=1)
    assert not trainer.checkpoint.exists()


@pytest.mark.parametrize(
    ("tasks", "trained", "still"),
    [
        ((SEGMENTATION,), ("sharing.", "segmentation."), ("guidance.", "classification.")),
        ((CLASSIFICATION,), ("guidance.", "classification."), ("sharing.", "segmentation.")),
        (TASKS, ("sharing.", "segmentation.", "guidance.", "classification."), ()),
    ],
)
def test_trained_parameters(tiny_config, make_trainer, tasks, trained, still):
    network = JointNetwork(tiny_config)
    trained_parameters(network, TASKS[::-1])  # an earlier stage leaves no trace
    chosen = trained_parameters(network, tasks)
    ids = {id(p) for p in chosen}
    for name, parameter in network.named_parameters():
        assert (id(parameter) in ids) == parameter.requires_grad == name.startswith(trained), name
    assert len(ids) == len(chosen) > 0

    trainer = make_trainer(stage=replace(STAGE, tasks=tasks, steps=2))
    before = {k: v.clone() for k, v in trainer.network.named_parameters()}
    trainer.run(fill=2)
    changed = {
        name.split(".")[0] + "."
        for name, value in trainer.network.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert changed == set(trained)
    assert not changed & set(still)


def test_accumulated_gradients_are_the_mean_of_the_samples(make_trainer, monkeypatch):
    """The same sample four times steps as the sample once."""
    monkeypatch.setattr(QuickPool, "draw", lambda self, rng, diagnosis=None: self.brains[0])
    monkeypatch.setattr(
        engine, "random_crop", lambda brain, side, rng: (
            brain.image[:side, :side, :side].astype(np.float32),
            brain.lesions[:side, :side, :side].astype(np.float32),
        ),
    )  # fmt: skip
    once, often = (
        make_trainer(f"accumulate{n}", replace(STAGE, steps=1, accumulate=n)).run(fill=1)
        for n in (1, 4)
    )
    for key, value in once.items():
        torch.testing.assert_close(often[key], value, rtol=1e-4, atol=1e-5)


def test_classes_take_turns_when_only_the_classifier_is_trained(make_trainer):
    trainer = make_trainer(stage=replace(STAGE, tasks=(CLASSIFICATION,), accumulate=3), size=12)
    asked = []
    draw = trainer.pool.draw
    trainer.pool.draw = lambda rng, diagnosis=None: asked.append(diagnosis) or draw(rng, diagnosis)
    trainer.run(fill=12)
    assert asked == [0, 1] * 6


def test_rate_schedule():
    stage = Stage("s", (SEGMENTATION,), steps=110, side=16, learning_rate=2e-3, warm_up=10)
    rates = [stage.rate(step) for step in range(stage.steps)]
    np.testing.assert_allclose(rates[:10], 2e-3 * np.arange(1, 11) / 10)
    assert max(rates) == rates[9] == rates[10] == pytest.approx(2e-3)
    assert (np.diff(rates[10:]) < 0).all()
    middle = 2e-3 * (0.02 + 0.98 * 0.5)
    assert stage.rate(60) == pytest.approx(middle)
    assert stage.rate(110) == stage.rate(500) == pytest.approx(0.02 * 2e-3)


def test_rate_without_warm_up():
    stage = Stage("s", (SEGMENTATION,), steps=1, side=16, learning_rate=1e-3, warm_up=0)
    assert stage.rate(0) == pytest.approx(1e-3)


def test_exported_weights_are_the_average(make_trainer, tmp_path: Path, monkeypatch, tiny_config):
    """The export reads a checkpoint of the trainer as well as a plain state dict."""
    from msnmo_bids.model.weights import load_weights
    from msnmo_bids.training import export

    trainer = make_trainer()
    average = trainer.run(fill=2)
    monkeypatch.setattr(export, "NETWORK", tiny_config)
    out = tmp_path / "weights" / "tiny.safetensors"
    arguments = ["export", "--checkpoint", str(trainer.checkpoint), "--version", "0.1"]
    monkeypatch.setattr("sys.argv", [*arguments, "--out", str(out)])
    export.main()
    network, metadata = load_weights(out)
    state = network.state_dict()
    for key, value in average.items():
        torch.testing.assert_close(state[key].float(), value, rtol=2e-3, atol=1e-4)
    assert metadata.version == "0.1"
    assert any("no real scan" in line for line in metadata.trained_on)
