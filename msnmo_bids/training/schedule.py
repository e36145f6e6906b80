"""The learning rate of a step."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from msnmo_bids.training.config import TrainingConfig


class Schedule:
    """The learning rate: warm-up, then constant, a cosine, or halved on a plateau.

    The plateau is that of :class:`torch.optim.lr_scheduler.ReduceLROnPlateau` (without threshold,
    its patience one less than `plateau_epochs`) on the mean loss of the epochs, with the rate as a
    function of step and state, so that warm-up goes with it.

    Parameters
    ----------
    config : TrainingConfig
        Kind of the schedule and its numbers.
    steps : int
        Steps of the whole training.
    steps_per_epoch : int
        Steps of an epoch.

    Notes
    -----
    The mean loss of an epoch is the sum of the means of its terms, each over the steps that had the
    labels for it: else an epoch with fewer labels would seem better.
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

        Parameters
        ----------
        steps_done : int
            Number of steps done, this one included.
        terms : mapping of str to float
            The weighted terms of its loss; without those that it had no labels for.
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
