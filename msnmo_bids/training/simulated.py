"""The recipe of the first weights: a short training on simulated brains alone.

``python -m msnmo_bids.training.simulated --anatomy DIR --lesion-shapes FILE --out DIR``

The segmentation is trained first, on crops of the inference cube and then on whole heads, the last
ones at the size of the inference cube (the normalisation layers see the share of background, so
crops alone over-segment whole heads); then the classifier on the frozen trunk, with lesion loads
matched between the classes. Killed at any time, the same command resumes from the last checkpoint.
"""

from __future__ import annotations

import argparse
import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from msnmo_bids.bids.dataset import atomic_path
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.model.config import CLASSIFICATION, SEGMENTATION, JointConfig, LossConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.preprocessing.cube import CUBE_SHAPE
from msnmo_bids.simulation.anatomy import Head, load_heads
from msnmo_bids.simulation.lesion_shapes import ShapeLibrary, load_shapes
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.engine import Trainer
from msnmo_bids.training.memory import keep_freed_memory
from msnmo_bids.training.pool import BrainPool
from msnmo_bids.training.sources import SimulatedSource


@dataclass(frozen=True)
class Stage:
    """One of the trainings that the recipe runs one after the other.

    Parameters
    ----------
    name : str
        Its folder.
    side : int
        Side of the simulated cubes (voxels).
    config : TrainingConfig
        How to train.
    refresh_every : int
        Steps between two new brains.
    """

    name: str
    side: int
    config: TrainingConfig
    refresh_every: int = 2


#: What the stages have in common; brains are mirrored left to right, and turned by the simulator.
_COMMON = TrainingConfig(
    tasks=(SEGMENTATION,), steps=1, batch_size=1, schedule="cosine", learning_rate=1e-3, warm_up=5,
    flip_axes=(0,), rotation=0.0, classify_without_lesions=False,
)  # fmt: skip
STAGES = (
    Stage(
        "crops", CUBE_SHAPE[0],
        replace(_COMMON, steps=360, side=80, final_rate=0.3, warm_up=30, ema=0.99),
        refresh_every=3,
    ),
    Stage(
        "whole-112", 112,
        replace(_COMMON, steps=80, learning_rate=8e-4, final_rate=0.4, ema=0.97),
    ),
    Stage("whole-96", 96, replace(_COMMON, steps=990, ema=0.985)),
    Stage(
        "classifier", 96,
        replace(
            _COMMON, tasks=(CLASSIFICATION,), frozen_trunk=True, steps=120, accumulate=4,
            learning_rate=5e-4, warm_up=10, ema=0.97,
        ),
        refresh_every=1,
    ),
)  # fmt: skip
NETWORK = JointConfig(
    lesion_prior=0.02, pooling="lesion", guidance_start="lesion", guidance_gate="one_plus_alpha"
)
LOSS = LossConfig(bce_weight=1.0, skip_empty_dice=True)


def train(
    anatomy: Path, shapes: Path, out: Path, *, seed: int, cache: Path | None, only: str | None
) -> JointNetwork:
    """Run the stages one after the other, resuming where they stopped.

    Parameters
    ----------
    anatomy : Path
        Folder of whole-head label maps.
    shapes : Path
        Library of lesion shapes.
    out : Path
        Folder of checkpoints, logs and the averaged weights.
    seed : int
        Seed.
    cache : Path or None
        Folder that keeps the prepared heads.
    only : str or None
        Name of the only stage to run.

    Returns
    -------
    JointNetwork
        With the averaged weights of the last stage.
    """
    keep_freed_memory()
    out.mkdir(parents=True, exist_ok=True)
    heads, library = load_heads(anatomy, cache), load_shapes(shapes)
    torch.manual_seed(seed)
    network = JointNetwork(NETWORK)
    for number, stage in enumerate(STAGES):
        done = out / f"{stage.name}.averaged.pt"
        if done.exists():
            network.load_state_dict(torch.load(done, weights_only=True))
            continue
        if only not in (None, stage.name):
            continue
        config = replace(stage.config, seed=seed + number)
        source = brain_source(stage, config, heads, library)
        trainer = Trainer(network, JointLoss(LOSS), config, source, out / stage.name)
        network.load_state_dict(trainer.run())
        with atomic_path(done) as temporary:
            torch.save(network.state_dict(), temporary)
    return network


def brain_source(
    stage: Stage, config: TrainingConfig, heads: list[Head], shapes: ShapeLibrary | None
) -> SimulatedSource:
    """Return the simulated brains of a stage.

    Parameters
    ----------
    stage : Stage
        Size of the cubes, and how often there is a new brain.
    config : TrainingConfig
        The stage's, with its seed.
    heads : list of Head
        Anatomies to deform.
    shapes : ShapeLibrary or None
        Real lesion shapes.

    Returns
    -------
    SimulatedSource
        Where the classifier is trained, the classes are as frequent and take turns.
    """
    classifies = CLASSIFICATION in config.tasks
    pool = BrainPool(
        heads, shapes, (stage.side,) * 3, size=60, classes=NETWORK.classes,
        nmosd_share=0.5 if classifies else 0.1,
    )  # fmt: skip
    return SimulatedSource(
        pool,
        seed=config.seed,
        refresh_every=stage.refresh_every,
        samples_per_step=config.samples_per_step,
        turns=classifies,
    )


def main() -> int:
    """Train from the command line, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--anatomy", type=Path, required=True, help="folder of label maps")
    parser.add_argument("--lesion-shapes", type=Path, required=True, help="library (.npz)")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints and logs")
    parser.add_argument("--cache", type=Path, help="folder for prepared heads")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--only", help="run only this stage")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    try:
        train(
            options.anatomy,
            options.lesion_shapes,
            options.out,
            seed=options.seed,
            cache=options.cache,
            only=options.only,
        )
    except MsnmoError as error:
        logging.error("%s", error)
        return int(error.exit_code)
    return int(ExitCode.OK)


if __name__ == "__main__":
    sys.exit(main())
