"""The training loop: schedule, averaging of the weights, checkpoints, exact resume."""

from __future__ import annotations

import csv
import json
import logging
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from msnmo_bids.errors import MsnmoError
from msnmo_bids.model.config import CLASSIFICATION, SEGMENTATION
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.training.pool import BrainPool, random_crop

LOGGER = logging.getLogger("msnmo.training")

#: Seconds between two checkpoints.
SAVE_EVERY = 240.0


@dataclass(frozen=True)
class Stage:
    """One stage of a training.

    Parameters
    ----------
    name : str
        Name in logs and checkpoints.
    tasks : tuple of str
        ``"segmentation"``, ``"classification"`` or both.
    steps : int
        Number of steps.
    side : int
        Side of the network's input (voxels).
    whole : bool
        Whole heads, resized to ``side``, in place of crops of the inference cube.
    learning_rate : float
        Peak of the cosine schedule.
    final_rate : float
        The schedule's last learning rate, as a share of the peak.
    warm_up : int
        Steps of linear warm-up.
    refresh_every : int
        Steps between two new brains.
    ema : float
        Decay of the averaged weights.
    accumulate : int
        Samples of one step, whose gradients are added up. A stage of classification alone takes
        the classes in turn, so that a constant answer gains nothing.
    """

    name: str
    tasks: tuple[str, ...]
    steps: int
    side: int
    whole: bool = False
    learning_rate: float = 1e-3
    final_rate: float = 0.02
    warm_up: int = 30
    refresh_every: int = 3
    ema: float = 0.99
    accumulate: int = 1

    def rate(self, step: int) -> float:
        """Return the learning rate of a step."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        cosine = 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
        return self.learning_rate * (self.final_rate + (1 - self.final_rate) * cosine)


def trained_parameters(network: JointNetwork, tasks: tuple[str, ...]) -> list[nn.Parameter]:
    """Return what a stage trains: all that its tasks need, or the classifier alone.

    A stage of classification alone leaves the shared features and the segmentation as they are.

    Parameters
    ----------
    network : JointNetwork
        The network; ``requires_grad`` of its parameters is set.
    tasks : tuple of str
        Tasks of the stage.

    Returns
    -------
    list of Parameter
    """
    heads = ("guidance.", "classification.")
    for name, parameter in network.named_parameters():
        in_head = name.startswith(heads)
        parameter.requires_grad_(in_head if tasks == (CLASSIFICATION,) else True)
        if tasks == (SEGMENTATION,) and in_head:
            parameter.requires_grad_(False)
    return [p for p in network.parameters() if p.requires_grad]


class Trainer:
    """Runs one stage and can be stopped and resumed at any step.

    Parameters
    ----------
    network : JointNetwork
        Trained in place.
    loss : JointLoss
        The losses.
    stage : Stage
        What to do.
    pool : BrainPool
        Where the samples come from.
    out : Path
        Folder of checkpoints and logs.
    seed : int
        Seed of the stage; the randomness of a step depends on the seed and the step alone.
    """

    def __init__(
        self,
        network: JointNetwork,
        loss: JointLoss,
        stage: Stage,
        pool: BrainPool,
        out: Path,
        seed: int,
    ) -> None:
        self.network, self.loss, self.stage, self.pool = network, loss, stage, pool
        self.seed, self.out, self.step = seed, out, 0
        self.checkpoint = out / f"{stage.name}.pt"
        parameters = trained_parameters(network, stage.tasks)
        self.optimizer = torch.optim.Adam(parameters, lr=stage.learning_rate)
        self.average = {k: v.detach().clone() for k, v in network.state_dict().items()}

    def run(self, fill: int = 12) -> dict[str, torch.Tensor]:
        """Train to the end of the stage.

        Parameters
        ----------
        fill : int, optional
            Number of brains to start with.

        Returns
        -------
        dict
            The averaged weights.

        Raises
        ------
        MsnmoError
            When the loss is not finite.
        """
        self._resume()
        if self.step < self.stage.steps:
            self._rebuild_pool(fill)
        saved = time.monotonic()
        while self.step < self.stage.steps:
            started = time.monotonic()
            terms = self._train_step(np.random.default_rng((self.seed, 0, self.step)))
            self.step += 1
            self._log(terms, time.monotonic() - started)
            if time.monotonic() - saved > SAVE_EVERY or self.step == self.stage.steps:
                self._save()
                saved = time.monotonic()
        return self.average

    def _rebuild_pool(self, fill: int) -> None:
        """Simulate the brains that an undisturbed run holds before the next step.

        A step draws its new brain first, so the step's seed alone brings that brain back.
        """
        seeds: list[tuple[int, ...]] = [(self.seed, 1, 0, index) for index in range(fill)]
        seeds += [(self.seed, 0, step) for step in range(0, self.step, self.stage.refresh_every)]
        self.pool.brains.clear()
        for entropy in seeds[-self.pool.size :]:
            self.pool.refresh(np.random.default_rng(entropy))

    def _train_step(self, rng: np.random.Generator) -> dict[str, float]:
        stage = self.stage
        if self.step % stage.refresh_every == 0:
            self.pool.refresh(rng)
        for group in self.optimizer.param_groups:
            group["lr"] = stage.rate(self.step)
        self.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        samples = [self._backward(rng, number) for number in range(stage.accumulate)]
        nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 5.0)
        self.optimizer.step()
        decay = min(stage.ema, (1 + self.step) / (10 + self.step))
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1 - decay)
            else:
                self.average[key].copy_(value)
        return {key: float(np.mean([sample[key] for sample in samples])) for key in samples[0]}

    def _backward(self, rng: np.random.Generator, number: int) -> dict[str, float]:
        """Add the gradient of one sample; `number` counts the samples of the step."""
        stage = self.stage
        turn = None
        if stage.tasks == (CLASSIFICATION,):
            turn = (self.step * stage.accumulate + number) % len(self.pool.classes)
        brain = self.pool.draw(rng, turn)
        image, lesions = random_crop(brain, stage.side, rng)
        output = self.network(torch.from_numpy(image.copy())[None, None], tasks=_needed(stage))
        diagnosis = torch.tensor([brain.diagnosis])
        with_lesion = torch.tensor([bool(lesions.any())])
        terms = self.loss(
            output,
            mask=torch.from_numpy(lesions.copy())[None, None],
            diagnosis=diagnosis if CLASSIFICATION in stage.tasks else None,
            has_diagnosis=with_lesion,
        )
        if not torch.isfinite(terms.total):
            raise MsnmoError(
                f"the loss is not finite at step {self.step}",
                remedy=f"Lower the learning rate and resume from {self.checkpoint}",
            )
        if terms.total.requires_grad:
            (terms.total / stage.accumulate).backward()
        return {**terms.to_floats(), "lesion_voxels": float(lesions.sum())}

    def _log(self, terms: dict[str, float], seconds: float) -> None:
        row = {"step": self.step, "rate": self.stage.rate(self.step - 1), "seconds": seconds}
        row |= terms
        path = self.out / f"{self.stage.name}.csv"
        new = not path.exists()
        with path.open("a", newline="") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(row))
            if new:
                writer.writeheader()
            writer.writerow({k: f"{v:.5g}" for k, v in row.items()})
        if self.step % 25 == 0:
            left = (self.stage.steps - self.step) * seconds / 60
            LOGGER.info(
                "%s step %d of %d, loss %.3f, about %.0f min left",
                self.stage.name, self.step, self.stage.steps, terms["total"], left,
            )  # fmt: skip

    def _save(self) -> None:
        partial = self.checkpoint.with_suffix(".partial")
        state = {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "stage": json.dumps(asdict(self.stage)),
        }
        torch.save(state, partial)
        partial.replace(self.checkpoint)

    def _resume(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        LOGGER.info("%s resumes at step %d", self.stage.name, self.step)


def _needed(stage: Stage) -> tuple[str, ...]:
    """Tasks to compute: the classifier needs the lesion map."""
    return stage.tasks if SEGMENTATION in stage.tasks else (SEGMENTATION, CLASSIFICATION)
