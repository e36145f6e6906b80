"""Train the shipped joint network by its recipe: stages, one after the other.

``python -m dev.joint_recipe --anatomy DIR --lesion-shapes F --out DIR``

The recipe is a file beside the program (`RECIPE`). All stages train on simulated brains. The
classifier is trained on frozen features; its last layer is fitted afterwards (`dev.head_fit`).
Killed at any time, the same command goes on from the last checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from dev.asset_options import add_asset_options, assets_of
from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.errors import BadInputError, ExitCode, MsnmoError
from msnmo_bids.model.config import CLASSIFICATION, JointConfig, LossConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.simulation.assets import SimulationAssets
from msnmo_bids.training.config import TrainingConfig, read_settings
from msnmo_bids.training.engine import Trainer
from msnmo_bids.training.processes import keep_freed_memory
from msnmo_bids.training.sources import LESION_FREE_SHARE, BrainPool, SimulatedSource

#: The recipe of the weights that ship.
RECIPE = Path(__file__).with_suffix(".yml")
_POOL_SIZE = 60
_SEEDS_APART = 1000  # the stages' seeds follow each other


@dataclass(frozen=True)
class Stage:
    """One of the trainings that a recipe runs one after the other.

    Parameters
    ----------
    name : str
        Its folder.
    side : int
        Side of the cubes (voxels).
    config : TrainingConfig
        How to train.
    refresh_every : int
        Steps between two new brains.
    nmosd_share : float
        Share of NMOSD-like ones among them.
    lesion_free_share : float
        Share of brains without lesions among them.
    old_share : float
        Share of the weights from before the stage in its result (Wortsman et al. 2022, "Robust
        fine-tuning of zero-shot models"): what was learnt for new conditions costs less of what
        was good before.
    runs : int
        Trainings from the same start, with other seeds, of which the mean of the weights is taken
        (Wortsman et al. 2022, "Model soups"): it generalises better than each of them.
    """

    name: str
    side: int
    config: TrainingConfig
    refresh_every: int = 2
    nmosd_share: float = 0.1
    lesion_free_share: float = LESION_FREE_SHARE
    old_share: float = 0.0
    runs: int = 1

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise ValueError(f"runs must be 1 or more, not {self.runs}")
        if not 0 <= self.old_share < 1:
            raise ValueError(f"old_share must be from 0 to below 1, not {self.old_share}")


@dataclass(frozen=True)
class Recipe:
    """How weights are made.

    Parameters
    ----------
    network : JointConfig
        The network.
    loss : LossConfig
        Its losses.
    stages : tuple of Stage
        In their order.
    """

    network: JointConfig
    loss: LossConfig
    stages: tuple[Stage, ...]


def read_recipe(path: Path = RECIPE) -> Recipe:
    """Read a recipe.

    Parameters
    ----------
    path : Path, optional
        YAML file; `RECIPE` explains its keys.

    Returns
    -------
    Recipe

    Raises
    ------
    BadInputError
        If a key is missing or unknown, or a value is wrong.
    UsageError
        If the file cannot be read.
    """
    content = read_settings(path)
    try:
        seed = content.pop("seed", 0)
        common = content.pop("training", {})
        network = JointConfig(**content.pop("network", {}))
        loss = LossConfig(**content.pop("loss", {}))
        stages = tuple(
            _stage(dict(stage), common, seed + number)
            for number, stage in enumerate(content.pop("stages"))
        )
        if content:
            raise ValueError(f"unknown: {', '.join(content)}")
    except (KeyError, TypeError, ValueError) as error:
        remedy = f"{RECIPE.name}, beside the program, shows the form"
        raise BadInputError(f"is not a recipe ({error})", file=path, remedy=remedy) from error
    return Recipe(network, loss, stages)


def _stage(content: dict[str, Any], common: dict[str, Any], seed: int) -> Stage:
    training = {**common, **content.pop("training", {}), "seed": seed}
    return Stage(config=TrainingConfig.from_dict(training), **content)


def train(recipe: Recipe, assets: SimulationAssets, out: Path) -> JointNetwork:
    """Run the stages one after the other, resuming where they stopped.

    Parameters
    ----------
    recipe : Recipe
        The stages.
    assets : SimulationAssets
        What simulated scans are made of.
    out : Path
        Folder of checkpoints, logs and the averaged weights.

    Returns
    -------
    JointNetwork
        With the averaged weights of the last stage.

    Raises
    ------
    MsnmoError
        If a training cannot go on.
    """
    keep_freed_memory()
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(recipe.stages[0].config.seed)
    network, loss = JointNetwork(recipe.network), JointLoss(recipe.loss)
    for stage in recipe.stages:
        done = out / f"{stage.name}.averaged.pt"
        if done.exists():
            network.load_state_dict(torch.load(done, weights_only=True))
            continue
        before = {name: value.clone() for name, value in network.state_dict().items()}
        result = before
        for number in range(stage.runs):
            run = _run_of(stage, number)
            network.load_state_dict(before)
            source = samples_of(run, recipe.network.classes, assets)
            trainer = Trainer(network, loss, run.config, source, out / run.name)
            result = _mixed(trainer.run(), result, number / (number + 1))
        network.load_state_dict(_mixed(result, before, stage.old_share))
        with atomic_path(done) as temporary:
            torch.save(network.state_dict(), temporary)
    return network


def _run_of(stage: Stage, number: int) -> Stage:
    """Return one of the trainings of a stage; the first one has the stage's name and seed."""
    if number == 0:
        return stage
    config = replace(stage.config, seed=stage.config.seed + _SEEDS_APART * number)
    return replace(stage, name=f"{stage.name}-{number + 1}", config=config)


def _mixed(
    new: dict[str, torch.Tensor], old: dict[str, torch.Tensor], old_share: float
) -> dict[str, torch.Tensor]:
    """Return the mean of two sets of weights; counters are the new ones."""
    return {
        name: torch.lerp(value, old[name], old_share) if value.is_floating_point() else value
        for name, value in new.items()
    }


def samples_of(stage: Stage, classes: Sequence[str], assets: SimulationAssets) -> SimulatedSource:
    """Return the samples of a stage.

    Parameters
    ----------
    stage : Stage
        Size of the cubes, how often there is a new brain.
    classes : sequence of str
        Names of the classes.
    assets : SimulationAssets
        What simulated scans are made of.

    Returns
    -------
    SimulatedSource
        Where the classifier is trained, the classes are as frequent and take turns.
    """
    pool = BrainPool(
        assets,
        (stage.side,) * 3,
        size=_POOL_SIZE,
        classes=tuple(classes),
        nmosd_share=stage.nmosd_share,
        lesion_free_share=stage.lesion_free_share,
    )
    return SimulatedSource(
        pool,
        seed=stage.config.seed,
        refresh_every=stage.refresh_every,
        samples_per_step=stage.config.samples_per_step,
        turns=CLASSIFICATION in stage.config.tasks,
    )


def main() -> int:
    """Train from the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipe", type=Path, default=RECIPE, help="default: %(default)s")
    add_asset_options(parser, needs_shapes=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    try:
        train(read_recipe(options.recipe), assets_of(options), options.out)
    except MsnmoError as error:
        logging.error("%s", error)
        return int(error.exit_code)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
