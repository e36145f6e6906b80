"""The training loop: steps, validation, checkpoints, exact resume.

It is our own, and neither Lightning's nor MONAI's: those resume at the end of an epoch from the
states of generators (here each step has its own random numbers), average the losses of batches that
may lack labels batch by batch (here over all samples of the step), and MONAI's needs Ignite.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence, Sized
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from msnmo_bids.errors import MsnmoError, UsageError
from msnmo_bids.labelled.sample_file import Sample
from msnmo_bids.model.config import SEGMENTATION
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.text import duration
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.outputs import (
    CHECKPOINT,
    Curves,
    identity_of,
    load_checkpoint,
    save_checkpoint,
)
from msnmo_bids.training.processes import Ranks, StopSignals, TrainingInterrupted
from msnmo_bids.training.samples import (
    Batch,
    PreparedSamples,
    SampleSource,
    Stream,
    augment,
    collate,
    generator,
    random_crop,
)
from msnmo_bids.training.steps import Best, Schedule, StepGradients, Validation

logger = logging.getLogger(__name__)

_HEADS = ("guidance.", "classification.")
_SECONDS_BETWEEN_FIGURES = 60.0


class Trainer:
    """Trains a network; can be stopped, killed and resumed at any step.

    A resumed training gives the weights of an undisturbed one, bit by bit on the CPU. The samples
    are made in between the steps: on few cores a loader beside the trainer slows both down, and the
    curves tell how long the steps have waited for them.

    Parameters
    ----------
    network : Module
        ``forward(image, tasks=None) -> JointOutput``, with ``tasks``; trained in place.
    source : SampleSource
        Where the samples come from; with a length, an epoch shows as many.
    out : Path
        Folder of ``checkpoint.pt``, ``curves.csv`` and ``curves.png``; made when missing.
    validation : PreparedSamples or sequence of Sample, optional
        Scans of other people than those of `source`, to choose the best weights by.
    about : mapping, optional
        What else must be equal where a training goes on, by names that a reader understands.

    Raises
    ------
    UsageError
        If the settings ask for what the network, the source or the device does not have.
    """

    def __init__(
        self,
        network: nn.Module,
        loss: JointLoss,
        config: TrainingConfig,
        source: SampleSource,
        out: Path,
        *,
        validation: PreparedSamples | Sequence[Sample] = (),
        ranks: Ranks | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> None:
        self.config, self.source, self.out = config, source, out
        self.ranks = ranks = ranks or Ranks()
        _check(network, config, ranks, len(validation))
        self.network = network.to(ranks.device)
        network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        ranks.copy_from_first(network)
        self.parameters = trained_parameters(network, config.tasks)
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.gradients = StepGradients(network, loss, self.parameters, config, ranks)
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}
        epoch = _epoch_length(source, config, ranks.count)
        self.steps = config.steps or config.epochs * epoch
        self.schedule = Schedule(config, self.steps, epoch)
        self.validation = Validation(validation, loss, config, ranks)
        self.best = Best(config.monitor, config.patience)
        #: What keeps a ``state_dict`` in the checkpoint.
        self._resumed: dict[str, Any] = {
            "network": network, "optimizer": self.optimizer, "schedule": self.schedule,
            "best": self.best, "scaler": self.gradients.scaler,
        }  # fmt: skip
        self.curves = Curves(out)
        self.checkpoint = out / CHECKPOINT
        self._name = "/".join(out.parts[-2:])
        self.step = 0
        self._identity = identity_of(
            network,
            training=config.identity(),
            loss=asdict(loss.config),
            steps=self.steps,
            steps_per_epoch=epoch,
            validation_scans=len(self.validation),
            processes=ranks.count,
            **(about or {}),
        )
        self._drawn = time.monotonic()

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or the patience is at its end."""
        return self.step >= self.steps or self.best.exhausted

    def run(self) -> dict[str, Tensor]:
        """Train to the end, from the checkpoint if there is one; return the weights to use.

        They are the best ones of the validations, else the averaged ones.

        Raises
        ------
        TrainingInterrupted
            When a signal asked to stop, after saving.
        MsnmoError
            When the loss is not finite, memory does not suffice, or the checkpoint is of another
            training.
        """
        if self.ranks.first:
            self.out.mkdir(parents=True, exist_ok=True)
        self._resume()
        if not self.finished:
            self.source.rebuild(self.step)
            with StopSignals() as signals:
                self._loop(signals)
        return self.average if self.best.weights is None else self.best.weights

    def _loop(self, signals: StopSignals) -> None:
        began, first = time.monotonic(), self.step
        saved, waited = began, 0.0
        while not self.finished:
            row = self._step()
            waited += row["data_seconds"]
            now = time.monotonic()
            if self.step % self.config.log_every == 0 or self.finished:
                self._log(row["total"], (now - began) / (self.step - first), waited / (now - began))
            stop = self.ranks.any(bool(signals.received) or self.ranks.orphaned)
            if stop or self.finished or now - saved >= self.config.checkpoint_seconds:
                self._save(draw=stop or self.finished)
                saved = now
            if stop and not self.finished:
                raise TrainingInterrupted(
                    f"the training was stopped ({signals.received or 'in another process'}) after "
                    f"step {self.step} of {self.steps}, and is saved",
                    file=self.checkpoint,
                    remedy="Run the same command again to go on from there",
                )

    def _step(self) -> dict[str, float]:
        """Do one step, with the validation when it is due, and return its row of the curves."""
        started = time.monotonic()
        batch = self._draw()
        drawn = time.monotonic()
        rate = self.schedule.rate(self.step)
        terms = self._update(batch, rate)
        self.step += 1
        weights = self.gradients.loss.config.term_weights
        weighted = {name: weights[name] * terms[name] for name in weights if name in terms}
        self.schedule.step_done(self.step, weighted)
        row = {"step": self.step, "rate": rate, "data_seconds": drawn - started, **terms}
        every = self.config.validate_every or self.schedule.steps_per_epoch
        if len(self.validation) and (self.step % every == 0 or self.step == self.steps):
            measures = self.validation.measure(self.network, self.average)
            self.best.update(self.step, measures, self.average)
            row |= {f"validation_{name}": value for name, value in measures.items()}
        row["seconds"] = time.monotonic() - started
        if self.ranks.first:
            self.curves.append(row)
        return row

    def _draw(self) -> Batch:
        """Return this process's samples of the step."""
        config, rank = self.config, self.ranks.rank
        self.source.advance(self.step, generator(config.seed, Stream.ADVANCE, self.step, rank))
        samples = []
        for number in range(config.samples_per_step):
            rng = generator(config.seed, Stream.SAMPLE, self.step, rank, number)
            sample = augment(self.source.draw(rng), config, rng)
            if config.side:
                sample = random_crop(sample, config.side, rng)
            samples.append(sample)
        return collate(samples)

    def _update(self, batch: Batch, rate: float) -> dict[str, float]:
        """Change the weights by one step of AdamW (without weight decay, the paper's Adam)."""
        config, scaler = self.config, self.gradients.scaler
        self.network.train()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        rng = generator(config.seed, Stream.NETWORK, self.step, self.ranks.rank)
        terms = self.gradients.compute(batch, seed=int(rng.integers(2**63)))
        if not math.isfinite(terms["total"]):
            remedy = "Start again in another folder, with a lower learning rate or in fp32"
            problem = f"the loss is not finite at step {self.step}"
            raise MsnmoError(problem, file=self.checkpoint, remedy=remedy)
        if any(parameter.grad is not None for parameter in self.parameters):
            scaler.unscale_(self.optimizer)
            if config.clip_norm:
                nn.utils.clip_grad_norm_(self.parameters, config.clip_norm)
            scaler.step(self.optimizer)
            scaler.update()
        self.ranks.mean_buffers(self.network)
        self._update_average()
        return terms

    def _update_average(self) -> None:
        # The average forgets its start faster than its decay says, as the weights change most then.
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for key, value in self.network.state_dict().items():
            if decay and value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)

    def _log(self, loss: float, seconds: float, share: float) -> None:
        if self.ranks.first:
            logger.info(
                "%s: step %d of %d, loss %.3f, %.0f %% of the time for samples, about %s left",
                self._name, self.step, self.steps, loss, 100 * share,
                duration((self.steps - self.step) * seconds),
            )  # fmt: skip

    def _save(self, draw: bool) -> None:
        if not self.ranks.first:
            return
        state = {name: one.state_dict() for name, one in self._resumed.items()}
        state |= {"step": self.step, "average": self.average, "part": self.gradients.part}
        save_checkpoint(self.checkpoint, state, self._identity)
        if draw or time.monotonic() - self._drawn > _SECONDS_BETWEEN_FIGURES:
            self.curves.draw()
            self._drawn = time.monotonic()

    def _resume(self) -> None:
        """Load the checkpoint, if there is one, in all processes."""
        first = self.ranks.first
        read = load_checkpoint(self.checkpoint, self._identity) if first else None
        state: dict[str, Any] | None = self.ranks.from_first(read)
        if state is not None:
            for name, one in self._resumed.items():
                one.load_state_dict(state[name])
            for key, value in state["average"].items():
                self.average[key].copy_(value)
            self.gradients.part = state["part"]
            self.step = state["step"]
            logger.info("%s: going on after step %d of %d", self._name, self.step, self.steps)
        if first:
            self.curves.resume(self.step)


def trained_parameters(network: nn.Module, tasks: Sequence[str] = ()) -> list[nn.Parameter]:
    """Return what is trained, all that the tasks need (default: all), and set ``requires_grad``.

    A segmentation alone leaves the classifier as it is.
    """
    stays = _HEADS if tuple(tasks) == (SEGMENTATION,) else ()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(not name.startswith(stays))
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def _check(network: Any, config: TrainingConfig, ranks: Ranks, validation_scans: int) -> None:
    lacking = sorted(set(config.tasks) - set(network.tasks))
    if lacking:
        raise UsageError(f"this network has no {' and no '.join(lacking)} to train")
    if config.precision == "fp16" and not ranks.device.startswith("cuda"):
        raise UsageError("--precision fp16 needs a GPU", remedy="Choose bf16 or fp32")
    if config.patience and not validation_scans:
        raise UsageError("--patience needs validation scans to stop early by")


def _epoch_length(source: SampleSource, config: TrainingConfig, processes: int) -> int:
    """Return the steps of an epoch."""
    if config.steps_per_epoch:
        return config.steps_per_epoch
    scans = len(source) if isinstance(source, Sized) else 0
    if scans:
        return math.ceil(scans / (config.samples_per_step * processes))
    if config.steps and config.schedule != "plateau":
        return config.steps
    problem = "the samples have no end that would make an epoch"
    raise UsageError(problem, remedy="Set --steps-per-epoch")
