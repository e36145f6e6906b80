"""A tiny training, here or as a program: ``python tiny_training.py OUT [SETTING=VALUE ...]``.

As a program it ends with the exit code of a MsnmoError, and takes ``slow=SECONDS`` a step.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

import numpy as np
import torch

from msnmo_bids.errors import MsnmoError
from msnmo_bids.labelled.sample_file import Sample
from msnmo_bids.model.config import JointConfig, LossConfig
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.engine import Trainer
from msnmo_bids.training.processes import Ranks, process_group
from msnmo_bids.training.samples import EpochSource

NETWORK = JointConfig(
    shared_channels=8, embedding_channels=8, segmentation_channels=(8, 8, 8),
    decoder_channels=(8, 8, 8), classification_channels=(8, 8, 8),
)  # fmt: skip
LOSS = LossConfig(bce_weight=1.0)
SETTINGS = {
    "steps": 6, "batch_size": 2, "ema": 0.9, "learning_rate": 1e-3, "validate_every": 2,
    "plateau_epochs": 1, "checkpoint_seconds": 0.0,
}  # fmt: skip


def make_samples(number: int, side: int = 16, seed: int = 0) -> list[Sample]:
    """Noise with a bright box; every third lacks the mask, every fourth the diagnosis."""
    samples = []
    for index in range(number):
        rng = np.random.default_rng((seed, index))
        image = rng.normal(0, 1, (side,) * 3)
        lesions = np.zeros((side,) * 3, np.uint8)
        x, y, z = rng.integers(2, side - 6, 3)
        if index % 5:
            lesions[x : x + 4, y : y + 4, z : z + 4] = 1
        image = (image + 2.0 * lesions).astype(np.float16)
        mask = None if index % 3 == 2 else lesions
        diagnosis = None if index % 4 == 3 else int(rng.integers(2))
        samples.append(Sample(image, mask, diagnosis, f"tiny/sub-{index:02d}"))
    return samples


def make_trainer(
    out: Path, *, ranks: Ranks | None = None, network=None, samples: int = 7, **settings
) -> Trainer:
    """Return a trainer on tiny samples, with three for validation."""
    ranks = ranks or Ranks()
    given = {name: type(getattr(TrainingConfig, name))(value) for name, value in settings.items()}
    config = TrainingConfig(**{**SETTINGS, **given})
    torch.manual_seed(0)
    source = EpochSource(
        make_samples(samples),
        config.samples_per_step,
        seed=config.seed,
        rank=ranks.rank,
        processes=ranks.count,
    )
    return Trainer(
        network or JointNetwork(NETWORK), JointLoss(LOSS), config, source, out,
        validation=make_samples(3, seed=1), ranks=ranks,
    )  # fmt: skip


def check_resume(trainer: Trainer, again: Trainer) -> None:
    """Raise unless all processes hold the same weights, and read them back."""
    again._resume()
    ranks = trainer.ranks
    for key, value in trainer.network.state_dict().items():
        assert torch.equal(again.network.state_dict()[key], value), key
        total = float(value.double().sum())
        assert ranks.sum([total])[0] == ranks.count * total, key


def main(out: str, *words: str) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    settings = dict(word.split("=") for word in words)
    slow = float(settings.pop("slow", 0))
    try:
        with process_group() as ranks:
            trainer = make_trainer(Path(out), ranks=ranks, **settings)
            draw = trainer._draw

            def slow_draw():
                logging.info("drawing the samples of step %d", trainer.step)
                time.sleep(slow)
                return draw()

            trainer._draw = slow_draw
            weights = trainer.run()
            if ranks.first:
                torch.save(weights, Path(out) / "weights.pt")
                torch.save([p.grad for p in trainer.parameters], Path(out) / "gradients.pt")
            if ranks.count > 1:
                check_resume(trainer, make_trainer(Path(out), ranks=ranks, **settings))
    except MsnmoError as error:
        logging.error("%s", error)
        return int(error.exit_code)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
