"""What a step of a training computes: gradients, validation, learning rate, the best weights."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from msnmo_bids.errors import MsnmoError, UsageError
from msnmo_bids.labelled.sample_file import Sample
from msnmo_bids.model.losses import JointLoss, LabelCounts
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.processes import Ranks
from msnmo_bids.training.samples import Batch, PreparedSamples, collate

logger = logging.getLogger(__name__)

TERMS = ("total", "segmentation", "classification", "cross")
_MEASURES = (*TERMS[1:], "dsc", "accuracy")

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_CPU_MESSAGES = ("not enough memory", "can't allocate memory", "cannot allocate memory")
_PLATEAU_FACTOR = 0.5


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
                _check_memory(error)
                if min(self.part, len(batch)) == 1:
                    raise _no_memory(self.device, "one training sample") from error
            # Outside of the handler: inside, the error still holds what was computed.
            if terms is None:
                self._halve(min(self.part, len(batch)))
        self.ranks.sum_gradients(self.parameters)
        numbers = (1, *whole)  # of samples: what nobody has a label for is left out
        return {k: v for k, v, n in zip(TERMS, self.ranks.sum(terms), numbers, strict=True) if n}

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


def forward(network: Any, image: Tensor, tasks: Any, precision: str) -> Any:
    """Compute a network's output, with autocast where the precision asks for it.

    `image` is ``(B, 1, D, H, W)``, `tasks` as the networks of :mod:`msnmo_bids.model` take it.
    """
    dtype = _DTYPES.get(precision)
    with torch.autocast(image.device.type, dtype, enabled=dtype is not None):
        return network(image, tasks=tasks)


def _check_memory(error: RuntimeError | MemoryError) -> None:
    """Raise an error again unless memory ran out, of a GPU or of the machine."""
    full = isinstance(error, torch.OutOfMemoryError | MemoryError)
    if not full and not any(words in str(error).lower() for words in _CPU_MESSAGES):
        raise error


def _no_memory(device: str, what: str) -> MsnmoError:
    return MsnmoError(
        f"the memory of {device} does not suffice for {what}",
        remedy="Train on smaller crops (--side) or prepare a smaller cube, compute with "
        "--precision bf16, or use a machine with more memory",
    )


class _Resumed:
    """Something whose attributes of these names a resumed training goes on from."""

    STATE: ClassVar[tuple[str, ...]]

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training must know."""
        return {name: getattr(self, name) for name in self.STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of `state_dict`."""
        for name in self.STATE:
            setattr(self, name, state[name])


class Schedule(_Resumed):
    """The learning rate: warm-up, then constant, a cosine, or halved on a plateau.

    The plateau is that of :class:`torch.optim.lr_scheduler.ReduceLROnPlateau` (without threshold,
    its patience one less than `plateau_epochs`) on the mean loss of the epochs, with the rate as a
    function of step and state, so that warm-up goes with it. That mean is the sum of the means of
    its terms, each over the steps that had the labels for it: else an epoch with fewer labels would
    seem better.
    """

    STATE = ("factor", "best", "bad_epochs", "epoch")

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
        self.bad_epochs = 0 if mean < self.best else self.bad_epochs + 1
        self.best = min(mean, self.best)
        if self.bad_epochs >= self.config.plateau_epochs:
            self.factor *= _PLATEAU_FACTOR
            self.bad_epochs = 0


class Validation:
    """Loss, mean DSC and accuracy over scans that are not trained on, as whole cubes.

    The scans are shared out among the processes; each measure is a mean over those that have the
    labels for it. DSC is at a threshold of 0.5, on the cube; of two empty masks it is 1.
    """

    def __init__(
        self,
        samples: PreparedSamples | Sequence[Sample],
        loss: JointLoss,
        config: TrainingConfig,
        ranks: Ranks,
    ) -> None:
        self.samples, self.loss, self.config, self.ranks = samples, loss, config, ranks

    def __len__(self) -> int:
        """Return the number of scans."""
        return len(self.samples)

    def measure(self, network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """Validate a network with the weights of another ``state_dict``; its own stay as they are.

        What is returned are the losses by the names of `TERMS`, ``dsc`` and ``accuracy``, as far as
        there are labels.

        Raises
        ------
        MsnmoError
            If one scan does not fit in the memory.
        """
        training = network.training
        network.eval()
        sums = dict.fromkeys(_MEASURES, 0.0)
        numbers = dict.fromkeys(_MEASURES, 0.0)
        for index in range(self.ranks.rank, len(self.samples), self.ranks.count):
            try:
                found = self._measure_one(network, weights, collate([self.samples[index]]))
            except (RuntimeError, MemoryError) as error:
                _check_memory(error)
                raise _no_memory(self.ranks.device, "one validation scan") from error
            for name, value in found.items():
                sums[name] += value
                numbers[name] += 1
        network.train(training)
        shared = self.ranks.sum([*sums.values(), *numbers.values()])
        pairs = zip(_MEASURES, shared[: len(sums)], shared[len(sums) :], strict=True)
        result = {name: total / number for name, total, number in pairs if number}
        betas = self.loss.config.term_weights
        result["total"] = sum(betas[name] * result[name] for name in betas if name in result)
        return result

    @torch.no_grad()
    def _measure_one(
        self, network: nn.Module, weights: Mapping[str, Tensor], batch: Batch
    ) -> dict[str, float]:
        """Return the losses, DSC and accuracy of one scan, as far as it has the labels."""
        from monai.metrics import compute_dice

        counts = self.loss.count(**batch.labels)
        batch = batch.to(self.ranks.device)

        def with_weights(image: Tensor, tasks: Sequence[str] | None) -> Any:
            return functional_call(network, dict(weights), (image,), {"tasks": tasks})

        tasks = self.config.tasks or None
        output = forward(with_weights, batch.image, tasks, self.config.precision)
        terms = self.loss(output, **batch.labels).to_floats()
        found = {name: terms[name] for name, n in zip(TERMS[1:], counts, strict=True) if n}
        if output.lesion_logits is not None and counts.masks:
            lesions = (output.lesion_logits > 0).float()
            found["dsc"] = float(compute_dice(lesions, batch.mask.float(), ignore_empty=False))
        if output.class_logits is not None and counts.classes:
            found["accuracy"] = float((output.class_logits.argmax(1) == batch.diagnosis).sum())
        return found


class Best(_Resumed):
    """The best weights of all validations by `monitor`, and whether the patience is at its end.

    That is after `patience` validations without improvement; 0: never.
    """

    STATE = ("score", "step", "without_improvement", "weights")

    def __init__(self, monitor: str, patience: int) -> None:
        self.monitor, self.patience = monitor, patience
        self.score = -math.inf
        self.step = 0
        self.without_improvement = 0
        self.weights: dict[str, Tensor] | None = None

    @property
    def exhausted(self) -> bool:
        """Whether to stop."""
        return 0 < self.patience <= self.without_improvement

    def update(self, step: int, measures: Mapping[str, float], weights: dict[str, Tensor]) -> None:
        """Compare a validation, of `Validation.measure`, with the best one before.

        The weights are copied to the CPU if they are the best.

        Raises
        ------
        UsageError
            If the validation scans do not give what is compared.
        """
        if self.monitor == "loss":
            score = -measures["total"]
        elif self.monitor in measures:
            score = measures[self.monitor]
        else:
            raise UsageError(
                f"no validation scan has the labels for --monitor {self.monitor}, or the network "
                "lacks that task",
                remedy="Choose --monitor loss",
            )
        if score > self.score:
            self.score, self.step, self.without_improvement = score, step, 0
            self.weights = {k: v.detach().cpu().clone() for k, v in weights.items()}
        else:
            self.without_improvement += 1
