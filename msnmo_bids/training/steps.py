"""A training step: its gradient, computed in parts that fit in memory, and its learning rate."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from msnmo_bids.errors import MsnmoError
from msnmo_bids.model.losses import JointLoss, LabelCounts
from msnmo_bids.training.batches import Batch
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.processes import Ranks

logger = logging.getLogger(__name__)

TERMS = ("total", "segmentation", "classification", "cross")

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_CPU_MESSAGES = ("not enough memory", "can't allocate memory", "cannot allocate memory")


class StepGradients:
    """Computes the loss of a step and its gradient for the parameters, over parts and processes.

    The loss is that of all samples of the step, in all parts and processes, as one batch: each term
    is the mean over the samples that have its label, wherever they are. So accumulation, more
    processes and smaller parts change nothing (but for batch normalisation, which sees the part).
    """

    def __init__(
        self,
        network: nn.Module,
        loss: JointLoss,
        parameters: list[nn.Parameter],
        config: TrainingConfig,
        ranks: Ranks,
    ) -> None:
        self.network, self.loss, self.parameters = network, loss, parameters
        self.tasks = config.tasks or None
        self.ranks, self.device = ranks, ranks.device
        self.precision = config.precision
        kind = torch.device(ranks.device).type
        self.scaler = torch.amp.GradScaler(kind, enabled=config.precision == "fp16")
        self.part = config.batch_size

    def compute(self, batch: Batch, seed: int) -> dict[str, float]:
        """Set the gradients of the trained parameters (scaled, with fp16); return the losses.

        When memory runs out, the step is computed again in parts of half the size, and all steps
        after it too. `batch` has this process's samples; `seed` is of the network's own randomness,
        such as dropout. The losses are those of the whole step, by the names of `TERMS`, without
        those that no sample has the labels for.

        Raises
        ------
        MsnmoError
            If one sample does not fit in the memory.
        """
        whole = LabelCounts(*self.ranks.sum(self.loss.count(**batch.labels)))
        terms = None
        while terms is None:
            try:
                terms = self._add_up(batch, whole, seed)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if min(self.part, len(batch)) == 1:
                    raise no_memory(self.device, "one training sample") from error
            # Outside of the handler: inside, the error still holds what was computed.
            if terms is None:
                self._halve(min(self.part, len(batch)))
        self.ranks.sum_gradients(self.parameters)
        return known_terms(self.ranks.sum(terms), whole)

    def _add_up(self, batch: Batch, whole: LabelCounts, seed: int) -> list[float]:
        torch.manual_seed(seed)
        for parameter in self.parameters:
            parameter.grad = None
        sums = [0.0] * len(TERMS)
        for start in range(0, len(batch), self.part):
            part = batch.part(start, start + self.part)
            shares = self.loss.count(**part.labels).share_of(whole)
            part = part.to(self.device)
            output = forward(self.network, part.image, self.tasks, self.precision)
            terms = self.loss(output, **part.labels, shares=shares)
            if terms.total.requires_grad:
                self.scaler.scale(terms.total).backward()
            found = terms.to_floats()
            sums = [total + found[name] for total, name in zip(sums, TERMS, strict=True)]
        return sums

    def _halve(self, tried: int) -> None:
        self.part = math.ceil(tried / 2)
        logger.warning(
            "The memory of %s does not suffice for %d samples at once: computing %d at once from "
            "now on, and adding up the gradients, which changes the time and not the result",
            self.device,
            tried,
            self.part,
        )
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def known_terms(values: Sequence[float], whole: LabelCounts) -> dict[str, float]:
    """Return losses by the names of `TERMS`, without those of labels that nobody has."""
    counts = (1.0, whole.dice + whole.voxels, whole.classes, whole.cross)
    return {name: value for name, value, n in zip(TERMS, values, counts, strict=True) if n}


def forward(network: Any, image: torch.Tensor, tasks: Any, precision: str) -> Any:
    """Compute a network's output, with autocast where the precision asks for it.

    `image` is ``(B, 1, D, H, W)``, `tasks` as the networks of :mod:`msnmo_bids.model` take it.
    """
    dtype = _DTYPES.get(precision)
    with torch.autocast(image.device.type, dtype, enabled=dtype is not None):
        return network(image, tasks=tasks)


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error).lower() for words in _CPU_MESSAGES
    )


def no_memory(device: str, what: str) -> MsnmoError:
    """Return the error of a device whose memory does not suffice even for one sample."""
    return MsnmoError(
        f"the memory of {device} does not suffice for {what}",
        remedy="Train on smaller crops (--side) or prepare a smaller cube, compute with "
        "--precision bf16, or use a machine with more memory",
    )


class Schedule:
    """The learning rate: warm-up, then constant, a cosine, or halved on a plateau.

    The plateau is that of :class:`torch.optim.lr_scheduler.ReduceLROnPlateau` (without threshold,
    its patience one less than `plateau_epochs`) on the mean loss of the epochs, with the rate as a
    function of step and state, so that warm-up goes with it. That mean is the sum of the means of
    its terms, each over the steps that had the labels for it: else an epoch with fewer labels would
    seem better.
    """

    def __init__(self, config: TrainingConfig, steps: int, steps_per_epoch: int) -> None:
        self.config, self.steps, self.steps_per_epoch = config, steps, steps_per_epoch
        self.factor = 1.0
        self.best = math.inf
        self.bad_epochs = 0
        self.epoch: dict[str, list[float]] = {}

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        config = self.config
        peak = config.learning_rate
        if step < config.warm_up:
            return peak * (step + 1) / config.warm_up
        if config.schedule == "cosine":
            done = (step - config.warm_up) / max(1, self.steps - config.warm_up)
            cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
            return peak * (config.final_rate + (1 - config.final_rate) * cosine)
        return peak * self.factor

    def step_done(self, steps_done: int, terms: Mapping[str, float]) -> None:
        """Take note of the losses of a step, and lower the rate after an epoch on a plateau.

        `steps_done` counts this step too; `terms` are the weighted ones of its loss, without those
        that it had no labels for.
        """
        for name, value in terms.items():
            total, number = self.epoch.get(name, (0.0, 0))
            self.epoch[name] = [total + value, number + 1]
        if steps_done % self.steps_per_epoch:
            return
        mean = sum(total / number for total, number in self.epoch.values())
        self.epoch = {}
        if self.config.schedule != "plateau":
            return
        if mean < self.best:
            self.best, self.bad_epochs = mean, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs >= self.config.plateau_epochs:
            self.factor *= self.config.plateau_factor
            self.bad_epochs = 0

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training must know."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state of `state_dict`."""
        for name in _STATE:
            setattr(self, name, state[name])


_STATE = ("factor", "best", "bad_epochs", "epoch")
