"""Train the segmentation path on crops: ``python -m dev.train_lesions OUT --simulated STORE ...``.

``--without SOURCE`` makes a fold of leave-one-source-out; without it all real sources are used.
Without ``--prepared`` the training sees simulated brains alone: such weights may be the start of
every fold. ``torchrun --nproc-per-node N -m dev.train_lesions`` uses N processes. Stopped or
killed, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import logging
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from dev.brains import Brain, make_brain, read_brain
from dev.crops import CropSettings, CropSource
from dev.sources import SOURCES, person_of, source_of
from msnmo_bids.labelled.sample_file import read_cubes
from msnmo_bids.model.config import SEGMENTATION, JointConfig, LossConfig
from msnmo_bids.model.device import select_precision
from msnmo_bids.model.joint import JointNetwork
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.preprocessing.cube import ROBUST, normalize_brain
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.engine import Trainer
from msnmo_bids.training.processes import TrainingInterrupted, process_group

logger = logging.getLogger(__name__)

CONFIG = JointConfig(
    tasks=(SEGMENTATION,),
    sharing="local",
    local_normalization="batch",
    segmentation_normalization="batch",
)


def real_brains(prepared: Path, without: str | None) -> tuple[list[list[Brain]], list[float]]:
    """Read the real scans that a fold is trained on.

    Parameters
    ----------
    prepared : Path
        Folder of prepared scans, one folder per data set (`msnmo_bids.training.prepared`).
    without : str or None
        Source that is left out.

    Returns
    -------
    people : list of list of Brain
        The scans of each person.
    weights : list of float
        How often a person is drawn: the sources by the square root of their numbers of people.
    """
    people: dict[tuple[str, str], list[Brain]] = {}
    sources: dict[tuple[str, str], str] = {}
    datasets = {name for source in SOURCES.values() for name in source}
    for file in sorted(prepared.glob("*/*.npz")):
        dataset, subject = file.parent.name, file.name.split("_")[0].removeprefix("sub-")
        if dataset not in datasets:
            continue
        source = source_of(dataset, subject)
        image, lesions = read_cubes(file)
        if source == without or lesions is None:
            continue
        person = person_of(dataset, subject)
        brain = make_brain(normalize_brain(image, ROBUST), lesions)
        people.setdefault(person, []).append(brain)
        sources[person] = source
    counts = {s: list(sources.values()).count(s) for s in sources.values()}
    return list(people.values()), [counts[sources[person]] ** -0.5 for person in people]


def _packed(value: torch.Tensor) -> torch.Tensor:
    return (value.half() if value.is_floating_point() else value).contiguous()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder of checkpoint, curves and weights")
    parser.add_argument("--simulated", type=Path, required=True, help="store of simulated brains")
    parser.add_argument("--simulated-count", type=int, help="brains of the store to use: the first")
    parser.add_argument("--prepared", type=Path, help="folder of prepared real scans")
    parser.add_argument("--without", choices=list(SOURCES), help="source to leave out")
    parser.add_argument("--start", type=Path, help="weights to start from (.safetensors)")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, default=4, help="crops of a process per step")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--width", type=float, default=0.5, help="factor of the channels")
    parser.add_argument("--simulated-share", type=float, default=CropSettings.simulated)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--compile", action="store_true")
    return parser


def main() -> None:
    """Train."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    people: list[list[Brain]] = []
    weights: list[float] = []
    if options.prepared is not None:
        people, weights = real_brains(options.prepared, options.without)
    files = sorted(options.simulated.glob("*.npz"))[: options.simulated_count]
    settings = CropSettings(side=options.side, simulated=options.simulated_share)
    source = CropSource(people, [read_brain(file) for file in files], settings, weights)
    logger.info("%d real people, %d simulated brains", len(people), len(files))
    network = JointNetwork(CONFIG.scaled(options.width))
    if options.start is not None:
        network.load_state_dict(load_file(options.start))  # fp16 in the file
    if options.compile:
        network.compile()
    config = TrainingConfig(
        steps=options.steps,
        batch_size=options.batch,
        learning_rate=options.rate,
        weight_decay=0.02,
        schedule="cosine",
        warm_up=200,
        final_rate=0.005,
        ema=0.998,
        precision=select_precision(),
        flip=0.0,
        rotation=0.0,
        seed=options.seed,
        checkpoint_seconds=120,
        log_every=50,
    )
    loss = JointLoss(
        LossConfig(bce_weight=1.0, batch_dice=True, dice_smoothing=10.0, cross_weight=0.0)
    )
    with process_group() as ranks:
        trainer = Trainer(network, loss, config, source, options.out, ranks=ranks)
        try:
            state = trainer.run()
        except TrainingInterrupted as stopped:
            logger.info("%s", stopped)
            return
        if ranks.first:
            save_file(
                {k: _packed(v) for k, v in state.items()},
                options.out / "weights.safetensors",
            )
            record = {
                "steps": trainer.step,
                "crops": trainer.step * options.batch * ranks.count,
                "without": options.without,
                "real_people": len(people),
                "simulated_brains": len(files),
                "network": network.config.to_dict(),
                "training": asdict(config),
            }
            (options.out / "training.json").write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
