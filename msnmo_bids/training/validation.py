"""Validation while training, the best weights, and when to stop early."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from msnmo_bids.errors import UsageError
from msnmo_bids.labelled.samples import Sample
from msnmo_bids.model.losses import JointLoss, LabelCounts
from msnmo_bids.training.batches import Batch, collate
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.processes import Ranks
from msnmo_bids.training.steps import TERMS, forward, is_out_of_memory, known_terms, no_memory


class Validation:
    """Loss, mean DSC and accuracy over scans that are not trained on, as whole cubes.

    The scans are shared out among the processes; the losses are those of all of them as one batch.
    DSC is at a threshold of 0.5, on the cube; of two empty masks it is 1.
    """

    def __init__(
        self, samples: Sequence[Sample], loss: JointLoss, config: TrainingConfig, ranks: Ranks
    ) -> None:
        self.samples, self.loss, self.config, self.ranks = samples, loss, config, ranks
        self._whole: LabelCounts | None = None

    def __len__(self) -> int:
        """Return the number of scans."""
        return len(self.samples)

    def measure(self, network: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, float]:
        """Validate a network with the weights of another ``state_dict``; its own stay as they are.

        Returns
        -------
        dict
            The losses by the names of `TERMS`, ``dsc`` and ``accuracy`` where there are labels.

        Raises
        ------
        MsnmoError
            If one scan does not fit in the memory.
        """
        training = network.training
        network.eval()
        sums = [0.0] * (len(TERMS) + 4)
        whole = self._counts()
        for batch in self._batches():
            try:
                found = self._measure_one(network, weights, batch, whole)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise no_memory(self.ranks.device, "one validation scan") from error
            sums = [total + value for total, value in zip(sums, found, strict=True)]
        network.train(training)
        sums = self.ranks.sum(sums)
        dsc, masks, right, diagnoses = sums[len(TERMS) :]
        result = known_terms(sums[: len(TERMS)], whole)
        if masks:
            result["dsc"] = dsc / masks
        if diagnoses:
            result["accuracy"] = right / diagnoses
        return result

    @torch.no_grad()
    def _measure_one(
        self, network: nn.Module, weights: Mapping[str, Tensor], batch: Batch, whole: LabelCounts
    ) -> list[float]:
        """Return the losses' shares, DSC, whether there is one, right answers, and of how many."""
        from monai.metrics import compute_dice

        shares = self.loss.count(**batch.labels).share_of(whole)
        batch = batch.to(self.ranks.device)

        def with_weights(image: Tensor, tasks: Sequence[str] | None) -> Any:
            return functional_call(network, dict(weights), (image,), {"tasks": tasks})

        tasks = self.config.tasks or None
        output = forward(with_weights, batch.image, tasks, self.config.precision)
        terms = self.loss(output, **batch.labels, shares=shares).to_floats()
        dsc = masks = right = diagnoses = 0.0
        if output.lesion_logits is not None and batch.has_mask.all():
            lesions = (output.lesion_logits > 0).float()
            dsc = float(compute_dice(lesions, batch.mask.float(), ignore_empty=False))
            masks = 1.0
        if output.class_logits is not None and batch.has_diagnosis.all():
            right = float((output.class_logits.argmax(1) == batch.diagnosis).sum())
            diagnoses = 1.0
        return [*(terms[name] for name in TERMS), dsc, masks, right, diagnoses]

    def _batches(self) -> Iterator[Batch]:
        for index in range(self.ranks.rank, len(self.samples), self.ranks.count):
            yield collate(
                [self.samples[index]],
                classify_without_lesions=self.config.classify_without_lesions,
            )

    def _counts(self) -> LabelCounts:
        """Count the labels of all scans, once."""
        if self._whole is None:
            counts = [self.loss.count(**batch.labels) for batch in self._batches()]
            columns = zip(LabelCounts(0, 0, 0, 0), *counts, strict=True)
            self._whole = LabelCounts(*self.ranks.sum([sum(column) for column in columns]))
        return self._whole


class Best:
    """The best weights of all validations by `monitor`, and whether the patience is at its end.

    That is after `patience` validations without improvement; 0: never.
    """

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

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training must know."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from the state of `state_dict`."""
        for name in _STATE:
            setattr(self, name, state[name])


_STATE = ("score", "step", "without_improvement", "weights")
