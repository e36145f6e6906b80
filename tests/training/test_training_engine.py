"""The training loop: exact resume, the best weights, what is trained, how long."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny_training import NETWORK, make_samples, make_trainer

from msnmo_bids.errors import BadInputError, MsnmoError, UsageError
from msnmo_bids.evaluation.crossval_results import read_curves
from msnmo_bids.model.config import CLASSIFICATION, SEGMENTATION, TASKS
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.training import engine
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.engine import Trainer, trained_parameters
from msnmo_bids.training.outputs import Curves
from msnmo_bids.training.processes import Ranks
from msnmo_bids.training.samples import EpochSource, collate


@pytest.fixture(autouse=True)
def no_figures(monkeypatch):
    """A figure takes longer than such a training."""
    monkeypatch.setattr(Curves, "draw", lambda self: self.figure.touch())


def interrupt(trainer: Trainer, at: int) -> None:
    """Run until a step, as a killed process: only the files are left."""
    update = trainer._update

    def stopped(batch, rate):
        if trainer.step == at:
            raise KeyboardInterrupt
        return update(batch, rate)

    trainer._update = stopped
    with pytest.raises(KeyboardInterrupt):
        trainer.run()


def same(one: dict, other: dict) -> bool:
    assert one.keys() == other.keys()
    return all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("settings", "at"),
    [
        ({}, 1),
        ({}, 5),
        ({"schedule": "cosine", "warm_up": 2, "accumulate": 2}, 3),
        ({"tasks": [CLASSIFICATION]}, 2),
        ({"tasks": [SEGMENTATION], "side": 16, "monitor": "dsc"}, 4),
        ({"precision": "bf16", "steps": 3}, 2),
        ({"precision": "fp16", "steps": 3}, 2),
    ],
)
@pytest.mark.usefixtures("without_onednn")
def test_resumed_run_is_an_undisturbed_one(tmp_path, monkeypatch, settings, at):
    monkeypatch.setattr(engine, "_check", lambda *_: None)  # fp16 is only slow on a CPU
    whole = make_trainer(tmp_path / "whole", **settings)
    expected = whole.run()
    interrupt(make_trainer(tmp_path / "cut", **settings), at)
    resumed = make_trainer(tmp_path / "cut", **settings)
    assert same(resumed.run(), expected)
    assert same(resumed.network.state_dict(), whole.network.state_dict())
    assert resumed.schedule.state_dict() == whole.schedule.state_dict()
    assert resumed.gradients.scaler.state_dict() == whole.gradients.scaler.state_dict()
    rows = [read_curves(trainer.curves.table) for trainer in (resumed, whole)]
    for row in (*rows[0], *rows[1]):
        assert row.pop("seconds") >= row.pop("data_seconds") > 0
    assert rows[0] == rows[1]


def test_a_training_goes_on_in_the_other_arithmetic(tmp_path):
    interrupt(make_trainer(tmp_path, precision="bf16", steps=3), 2)
    resumed = make_trainer(tmp_path, precision="fp32", steps=3)
    resumed.run()
    assert [row["step"] for row in read_curves(resumed.curves.table)] == [1, 2, 3]


def test_a_stop_between_checkpoints_repeats_the_steps(tmp_path):
    expected = make_trainer(tmp_path / "whole").run()
    interrupt(make_trainer(tmp_path / "cut"), 1)
    interrupt(make_trainer(tmp_path / "cut", checkpoint_seconds=1e9), 4)
    assert same(make_trainer(tmp_path / "cut").run(), expected)
    steps = [row["step"] for row in read_curves(tmp_path / "cut" / "curves.csv")]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path, monkeypatch):
    expected = make_trainer(tmp_path / "whole").run()
    trainer = make_trainer(tmp_path / "cut")
    write = torch.save

    def half(state, path):
        write(state, path)
        if state["step"] == 3:
            Path(path).write_bytes(Path(path).read_bytes()[:1000])
            # A killed process clears nothing away.
            monkeypatch.setattr(Path, "unlink", lambda *_, **__: None)
            raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    monkeypatch.undo()
    assert len(list(trainer.out.glob(".tmp-*"))) == 1
    assert torch.load(trainer.checkpoint, weights_only=True)["step"] == 2
    assert same(make_trainer(tmp_path / "cut").run(), expected)
    assert not list(trainer.out.glob(".tmp-*"))


def test_a_finished_training_returns_at_once(tmp_path):
    expected = make_trainer(tmp_path).run()
    again = make_trainer(tmp_path)
    again._step = pytest.fail
    assert same(again.run(), expected)


def test_the_seed_decides(tmp_path):
    one, other, third = (
        make_trainer(tmp_path / f"{n}", seed=seed, steps=2).run()
        for n, seed in enumerate((5, 5, 6))
    )
    assert same(one, other)
    assert not same(one, third)


def test_a_checkpoint_of_another_training_is_refused(tmp_path):
    make_trainer(tmp_path, steps=1).run()
    with pytest.raises(UsageError, match=r"training.batch_size was 2 and is 1.*another folder"):
        make_trainer(tmp_path, steps=1, batch_size=1).run()
    with pytest.raises(UsageError, match="steps was 1 and is 2"):
        make_trainer(tmp_path, steps=2).run()
    alone = make_trainer(tmp_path, steps=1)
    alone._identity["processes"] = 2
    with pytest.raises(UsageError, match="processes was 1 and is 2"):
        alone.run()
    other = JointNetwork(replace(NETWORK, shared_channels=16))
    with pytest.raises(UsageError, match="by another training: network"):
        make_trainer(tmp_path, steps=1, network=other).run()
    make_trainer(tmp_path, steps=1, checkpoint_seconds=9.0, log_every=3).run()


def test_a_broken_checkpoint_is_named(tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.checkpoint.write_bytes(b"PK nothing")
    with pytest.raises(BadInputError, match=r"checkpoint\.pt: is not a checkpoint.*Delete it"):
        trainer.run()


def test_without_ema_the_average_is_the_weights(tmp_path):
    trainer = make_trainer(tmp_path, ema=0.0, steps=2)
    trainer.run()
    assert same(trainer.average, trainer.network.state_dict())


def test_weight_decay_is_decoupled_from_the_gradient(tmp_path):
    """AdamW: a step with decay is the step without, less rate times decay times the weight."""
    plain, decayed = (
        make_trainer(tmp_path / str(decay), steps=1, weight_decay=decay, clip_norm=0)
        for decay in (0.0, 0.5)
    )
    decayed.network.load_state_dict(plain.network.state_dict())
    before = [parameter.detach().clone() for parameter in plain.parameters]
    plain.run()
    decayed.run()
    for start, without, with_ in zip(before, plain.parameters, decayed.parameters, strict=True):
        torch.testing.assert_close(with_, without - 1e-3 * 0.5 * start, atol=2e-6, rtol=0)


def test_the_average_follows_the_weights(tmp_path):
    trainer = make_trainer(tmp_path, steps=1)
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    trainer.run()
    after = trainer.network.state_dict()
    assert not same(before, after)
    decay = 1 / 10  # (1 + step) / (10 + step), which is below the configured 0.9
    for key, value in trainer.average.items():
        torch.testing.assert_close(value, decay * before[key] + (1 - decay) * after[key])


def scripted(trainer: Trainer, losses: list[float]) -> None:
    """Let the validations find the given losses."""
    found = iter(losses)
    trainer.validation.measure = lambda network, weights: {"total": next(found), "dsc": 0.5}


def test_early_stopping_keeps_the_best_weights(tmp_path):
    settings = {"steps": 20, "validate_every": 1, "patience": 2}
    trainer = make_trainer(tmp_path / "stopped", **settings)
    scripted(trainer, [3.0, 1.0, 2.0, 1.0])
    weights = trainer.run()
    assert (trainer.step, trainer.best.step) == (4, 2)
    two = make_trainer(tmp_path / "two", steps=2, validate_every=1)
    two.run()
    assert same(weights, two.average)

    again = make_trainer(tmp_path / "stopped", **settings)
    again._step = pytest.fail
    assert same(again.run(), weights)


def test_patience_survives_a_resume(tmp_path):
    settings = {"steps": 20, "validate_every": 1, "patience": 3}
    trainer = make_trainer(tmp_path, **settings)
    scripted(trainer, [1.0, 2.0, 2.0, 2.0])
    interrupt(trainer, 3)
    resumed = make_trainer(tmp_path, **settings)
    scripted(resumed, [2.0])
    resumed.run()
    assert (resumed.step, resumed.best.step) == (4, 1)


def test_validation_measures_what_the_network_finds(tmp_path):
    """Each scan by hand; the losses as those of one batch of the labelled scans."""
    trainer = make_trainer(tmp_path, steps=1)
    samples = make_samples(5, seed=1)
    trainer.validation.samples = samples
    weights = {k: v + 0.01 for k, v in trainer.network.state_dict().items()}
    before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
    found = trainer.validation.measure(trainer.network, weights)
    assert same(before, trainer.network.state_dict())
    assert trainer.network.training

    network = JointNetwork(NETWORK).eval()
    network.load_state_dict(weights)
    batch = collate(samples)
    with torch.no_grad():
        output = network(batch.image)
        terms = trainer.gradients.loss(output, **batch.labels).to_floats()
    for name, value in terms.items():
        assert found[name] == pytest.approx(value, rel=1e-4)
    dsc = []
    for number, sample in enumerate(samples):
        if sample.lesions is not None:
            lesions = (output.lesion_logits[number, 0] > 0).numpy()
            both = lesions.sum() + sample.lesions.sum()
            dsc.append(2 * (lesions & (sample.lesions > 0)).sum() / both if both else 1.0)
    assert found["dsc"] == pytest.approx(np.mean(dsc))
    right = [
        int(output.class_logits[n].argmax()) == s.diagnosis
        for n, s in enumerate(samples)
        if s.diagnosis is not None
    ]
    assert found["accuracy"] == pytest.approx(np.mean(right))


def test_monitoring_what_no_validation_scan_has_is_an_error(tmp_path):
    trainer = make_trainer(tmp_path, monitor="dsc", steps=1)
    trainer.validation.samples = make_samples(3, seed=1)[2:]
    with pytest.raises(UsageError, match="no validation scan has the labels for --monitor dsc"):
        trainer.run()


def test_patience_needs_validation_scans(tmp_path):
    source = EpochSource(make_samples(2), 2, seed=0)
    config = TrainingConfig(patience=3)
    with pytest.raises(UsageError, match="--patience needs validation scans"):
        Trainer(JointNetwork(NETWORK), JointLoss(), config, source, tmp_path)


def test_validation_is_after_each_epoch_by_default(tmp_path):
    trainer = make_trainer(tmp_path, steps=7, validate_every=0, samples=6)  # epochs of three
    trainer.run()
    rows = read_curves(trainer.curves.table)
    assert [row["step"] for row in rows if "validation_total" in row] == [3, 6, 7]
    assert all(np.isfinite(row["total"]) for row in rows)
    assert trainer.curves.figure.exists()


def test_epochs_decide_on_the_steps(tmp_path):
    assert make_trainer(tmp_path, steps=0, epochs=3, samples=7).steps == 3 * 4
    assert make_trainer(tmp_path, steps=0, epochs=3, accumulate=2, samples=7).steps == 3 * 2
    assert make_trainer(tmp_path, steps=0, epochs=3, steps_per_epoch=9).steps == 27
    two = Ranks(count=2)
    trainer = make_trainer(tmp_path, steps=0, epochs=3, samples=7)
    assert engine._epoch_length(trainer.source, trainer.config, two.count) == 2


def test_a_source_without_length_needs_the_steps_of_an_epoch(tmp_path):
    source = EpochSource(make_samples(2), 2, seed=0)
    endless = SimpleNamespace(rebuild=source.rebuild, advance=source.advance, draw=source.draw)

    def make(**settings):
        config = TrainingConfig(steps=6, **settings)
        return Trainer(JointNetwork(NETWORK), JointLoss(), config, endless, tmp_path)

    with pytest.raises(UsageError, match="--steps-per-epoch"):
        make()
    assert make(steps_per_epoch=3).schedule.steps_per_epoch == 3
    assert make(schedule="cosine").schedule.steps_per_epoch == 6


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    trainer = make_trainer(tmp_path)
    with torch.no_grad():
        next(iter(trainer.network.parameters())).fill_(torch.nan)
    with pytest.raises(MsnmoError, match=r"not finite at step 0.*lower learning rate"):
        trainer.run()
    assert not trainer.checkpoint.exists()


@pytest.mark.parametrize(
    ("tasks", "trained"),
    [
        ((SEGMENTATION,), ("sharing.", "segmentation.")),
        (TASKS, ("sharing.", "segmentation.", "guidance.", "classification.")),
        ((), ("sharing.", "segmentation.", "guidance.", "classification.")),
    ],
)
def test_trained_parameters(tmp_path, tasks, trained):
    network = JointNetwork(NETWORK)
    trained_parameters(network, (SEGMENTATION,))  # an earlier stage leaves no trace
    chosen = trained_parameters(network, tasks)
    ids = {id(p) for p in chosen}
    for name, parameter in network.named_parameters():
        assert (id(parameter) in ids) == parameter.requires_grad == name.startswith(trained), name

    trainer = make_trainer(tmp_path, tasks=tasks, steps=2)
    before = {k: v.clone() for k, v in trainer.network.named_parameters()}
    trainer.run()
    changed = {
        name.split(".")[0] + "."
        for name, value in trainer.network.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert changed == set(trained)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tasks": [CLASSIFICATION]}, "no classification to train"),
        ({"precision": "fp16"}, "fp16 needs a GPU"),
    ],
)
def test_what_the_network_or_the_device_lacks_is_refused(tmp_path, settings, words):
    network = JointNetwork(replace(NETWORK, tasks=(SEGMENTATION,)))
    with pytest.raises(UsageError, match=words):
        make_trainer(tmp_path, network=network, **settings)


def test_the_log_tells_the_time_left_and_the_wait(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "msnmo_bids.training"):
        make_trainer(tmp_path / "fold-1", log_every=4).run()
    lines = [r.getMessage() for r in caplog.records]
    assert lines[0].startswith(f"{tmp_path.name}/fold-1: step 4 of 6, loss ")
    assert "% of the time for samples, about " in lines[0]
    assert lines[1].startswith(f"{tmp_path.name}/fold-1: step 6 of 6")
    assert len(lines) == 2


def test_weights_to_use_are_the_average(tmp_path):
    trainer = make_trainer(tmp_path / "training", steps=1)
    trainer.validation.samples = ()
    assert trainer.run() is trainer.average
