"""One gradient for a batch however it is computed: at once, in parts, in processes; its rate."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny_training
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_training import LOSS, NETWORK, make_samples, make_trainer

from msnmo_bids.errors import MsnmoError
from msnmo_bids.evaluation.crossval_results import read_curves
from msnmo_bids.model.config import LossConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.outputs import Curves
from msnmo_bids.training.processes import Ranks
from msnmo_bids.training.samples import collate
from msnmo_bids.training.steps import Schedule, StepGradients

CPU_MESSAGE = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: "
    "you tried to allocate 68719476736 bytes. Error code 12 (Cannot allocate memory)"
)
CUDA_ERROR = torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


class Limited(JointNetwork):
    """Raises above a batch size, and only once a first part of the step went through."""

    limit, error = 99, CUDA_ERROR

    def forward(self, image, tasks=None):
        if len(image) > self.limit:
            raise self.error
        return super().forward(image, tasks)


def gradient(batch, *, part: int, network=None, loss: LossConfig = LOSS):
    """Return the losses, the gradients and the object that computed them."""
    torch.manual_seed(0)
    network = network or JointNetwork(NETWORK)
    parameters = list(network.parameters())
    config = TrainingConfig(batch_size=part)
    computer = StepGradients(network, JointLoss(loss), parameters, config, Ranks())
    terms = computer.compute(batch, seed=1)
    return terms, [p.grad for p in parameters], computer


def assert_equal(one, other):
    """Sums of other parts differ by rounding, and how much depends on the processor."""
    assert one[0] == pytest.approx(other[0], rel=1e-4)
    for first, second in zip(one[1], other[1], strict=True):
        size = 0.0 if second is None else second.abs().max().item()
        torch.testing.assert_close(first, second, rtol=1e-3, atol=max(1e-6, 3e-4 * size))


@settings(max_examples=8, deadline=None)
@given(
    first=st.integers(0, 9),
    number=st.integers(1, 6),
    part=st.integers(1, 4),
)
def test_parts_add_up_to_the_batch(first, number, part):
    """Masks and diagnoses lack here and there."""
    batch = collate(make_samples(16)[first : first + number])
    loss = LossConfig(bce_weight=0.5)
    whole = gradient(batch, part=number, loss=loss)
    assert_equal(gradient(batch, part=part, loss=loss), whole)
    plain = JointLoss(loss)(whole[2].network(batch.image), **batch.labels)
    assert whole[0]["total"] == pytest.approx(plain.total.item(), rel=1e-4)


@pytest.mark.parametrize("error", [CUDA_ERROR, RuntimeError(CPU_MESSAGE), MemoryError()])
def test_without_memory_the_batch_is_halved_and_the_gradient_stays(error, caplog):
    batch = collate(make_samples(5)[1:])
    expected = gradient(batch, part=4)
    network = Limited(NETWORK)
    network.load_state_dict(expected[2].network.state_dict())
    network.limit, network.error = 1, error
    found = gradient(batch, part=4, network=network)
    assert_equal(found, expected)
    assert found[2].part == 1
    messages = [record.getMessage() for record in caplog.records]
    assert [m.split(":")[0] for m in messages] == [
        "The memory of cpu does not suffice for 4 samples at once",
        "The memory of cpu does not suffice for 2 samples at once",
    ]


def test_memory_that_runs_out_in_a_later_part_counts_no_sample_twice(monkeypatch):
    batch = collate(make_samples(5)[1:])
    expected = gradient(batch, part=4)
    network = Limited(NETWORK)
    network.load_state_dict(expected[2].network.state_dict())
    calls = []

    def second_fails(image, tasks=None):
        calls.append(len(image))
        if len(calls) == 2:
            raise CUDA_ERROR
        return JointNetwork.forward(network, image, tasks)

    monkeypatch.setattr(network, "forward", second_fails)
    assert_equal(gradient(batch, part=2, network=network), expected)
    assert calls == [2, 2, 1, 1, 1, 1]


def test_one_sample_that_does_not_fit_is_an_error_with_a_remedy():
    network = Limited(NETWORK)
    network.limit = 0
    with pytest.raises(MsnmoError, match=r"does not suffice for one training sample.*--side"):
        gradient(collate(make_samples(2)), part=2, network=network)


def test_other_errors_are_not_taken_for_it():
    network = Limited(NETWORK)
    network.limit, network.error = 0, RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        gradient(collate(make_samples(2)), part=2, network=network)


def test_a_training_that_ran_out_of_memory_resumes_with_the_smaller_part(tmp_path, monkeypatch):
    monkeypatch.setattr(Curves, "draw", lambda self: None)
    network = Limited(NETWORK)
    network.limit = 1
    trainer = make_trainer(tmp_path, network=network, steps=2)
    trainer.run()
    again = make_trainer(tmp_path, network=Limited(NETWORK), steps=2)
    again.run()
    assert trainer.gradients.part == again.gradients.part == 1


def test_validation_without_memory_is_an_error_with_a_remedy(tmp_path):
    network = Limited(NETWORK)
    trainer = make_trainer(tmp_path, network=network, steps=1)
    network.limit = 0
    with pytest.raises(MsnmoError, match="does not suffice for one validation scan"):
        trainer.validation.measure(network, network.state_dict())


def test_two_processes_give_the_gradient_of_one(tmp_path, monkeypatch):
    """The same seven scans, two a process and step, or four."""
    words = [
        "steps=1", "flip=0", "rotation=0", "validate_every=1", "accumulate=2", "batch_size=1",
    ]  # fmt: skip
    out = tmp_path / "two"
    program = Path(tiny_training.__file__)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    subprocess.run(
        [*launcher, "--nproc-per-node", "2", program, out, *words],
        check=True,
        capture_output=True,
        timeout=300,
    )
    monkeypatch.setattr(Curves, "draw", lambda self: None)
    settings = dict(word.split("=") for word in words) | {"batch_size": 2}
    alone = make_trainer(tmp_path / "one", **settings)
    weights = alone.run()

    together = torch.load(out / "gradients.pt", weights_only=True)
    assert sum(gradient is not None for gradient in together) > 20
    for parameter, gradient in zip(alone.parameters, together, strict=True):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-6)
    assert torch.load(out / "weights.pt", weights_only=True).keys() == weights.keys()
    (one,), (two,) = read_curves(alone.curves.table), read_curves(out / "curves.csv")
    for name in one:
        if "seconds" not in name:
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-5), name
    assert {path.name for path in out.iterdir()} == {
        "checkpoint.pt", "curves.csv", "curves.png", "gradients.pt", "weights.pt",
    }  # fmt: skip


def test_a_process_notices_that_its_parent_has_died(monkeypatch):
    together, alone = Ranks(count=2), Ranks()
    assert not together.orphaned
    monkeypatch.setattr("os.getppid", lambda: 1)
    assert together.orphaned
    assert not alone.orphaned  # one that was started with nohup outlives its shell


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
    config = TrainingConfig(learning_rate=1.0, plateau_epochs=patience)
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
