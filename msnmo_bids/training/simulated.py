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
from pathlib import Path

import torch

from msnmo_bids.model.config import CLASSIFICATION, SEGMENTATION, JointConfig, LossConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.preprocessing.cube import CUBE_SHAPE
from msnmo_bids.simulation.anatomy import load_heads
from msnmo_bids.simulation.lesion_shapes import load_shapes
from msnmo_bids.training.engine import Stage, Trainer
from msnmo_bids.training.pool import BrainPool

SEGMENTATION_STAGES = (
    Stage("crops", (SEGMENTATION,), steps=360, side=80, final_rate=0.3),
    Stage(
        "whole-112", (SEGMENTATION,), steps=80, side=112, whole=True, learning_rate=8e-4,
        final_rate=0.4, warm_up=5, refresh_every=2, ema=0.97,
    ),
    Stage(
        "whole-96", (SEGMENTATION,), steps=990, side=96, whole=True, learning_rate=1e-3,
        warm_up=5, refresh_every=2, ema=0.985,
    ),
)  # fmt: skip
CLASSIFICATION_STAGE = Stage(
    "classifier", (CLASSIFICATION,), steps=120, side=96, whole=True, learning_rate=5e-4,
    warm_up=10, refresh_every=1, ema=0.97, accumulate=4,
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
    out.mkdir(parents=True, exist_ok=True)
    heads, library = load_heads(anatomy, cache), load_shapes(shapes)
    torch.manual_seed(seed)
    network = JointNetwork(NETWORK)
    network.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    loss = JointLoss(LOSS)
    for number, stage in enumerate((*SEGMENTATION_STAGES, CLASSIFICATION_STAGE)):
        done = out / f"{stage.name}.averaged.pt"
        if done.exists():
            network.load_state_dict(torch.load(done, weights_only=True))
            continue
        if only not in (None, stage.name):
            continue
        classifies = CLASSIFICATION in stage.tasks
        pool = BrainPool(
            heads,
            library,
            (stage.side,) * 3 if stage.whole else CUBE_SHAPE,
            size=60,
            classes=NETWORK.classes,
            nmosd_share=0.5 if classifies else 0.1,
        )
        trainer = Trainer(network, loss, stage, pool, out, seed + number)
        network.load_state_dict(trainer.run())
        torch.save(network.state_dict(), done)
    return network


def main() -> None:
    """Train from the command line."""
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
    train(
        options.anatomy,
        options.lesion_shapes,
        options.out,
        seed=options.seed,
        cache=options.cache,
        only=options.only,
    )


if __name__ == "__main__":
    main()
