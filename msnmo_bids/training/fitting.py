"""Train one network on prepared scans, alone or mixed with simulated brains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from msnmo_bids.errors import UsageError
from msnmo_bids.model.config import LossConfig
from msnmo_bids.model.losses import JointLoss
from msnmo_bids.simulation.assets import SimulationAssets, load_assets
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.training.distributed import Ranks
from msnmo_bids.training.engine import Trainer
from msnmo_bids.training.memory import keep_freed_memory
from msnmo_bids.training.mixed import MixedSource, PreparedSamples
from msnmo_bids.training.pool import BrainPool
from msnmo_bids.training.prepared import PreparedScan
from msnmo_bids.training.sources import EpochSource, SampleSource, SimulatedSource

_POOL_SIZE = 40


@dataclass(frozen=True)
class Simulation:
    """Simulated brains beside the real ones.

    Parameters
    ----------
    assets : SimulationAssets
        Heads and lesion shapes.
    share : float
        Share of the samples that are simulated, 0 to 1 (1 excluded).
    """

    assets: SimulationAssets
    share: float


def load_simulation(
    share: float, anatomy: Path | None, shapes: Path | None, cache: Path | None = None
) -> Simulation | None:
    """Read what simulated brains are made of; None when there shall be none.

    Parameters
    ----------
    share : float
        Share of the samples that are simulated.
    anatomy : Path or None
        Folder of whole-head label maps; None: the one head built from the MNI maps.
    shapes : Path or None
        Library of lesion shapes.
    cache : Path or None
        Folder for prepared heads.

    Returns
    -------
    Simulation or None
    """
    if not share:
        return None
    return Simulation(load_assets(anatomy, shapes, cache), share)


def fit(
    network: nn.Module,
    loss: LossConfig,
    config: TrainingConfig,
    training: Sequence[PreparedScan],
    validation: Sequence[PreparedScan],
    out: Path,
    *,
    classes: Sequence[str],
    simulation: Simulation | None = None,
    ranks: Ranks | None = None,
) -> nn.Module:
    """Train a network, from its checkpoint if there is one.

    Parameters
    ----------
    network : Module
        Of `msnmo_bids.model.registry`.
    loss : LossConfig
        Losses.
    config : TrainingConfig
        How to train.
    training, validation : sequence of PreparedScan
        Of different people.
    out : Path
        Folder of checkpoint and curves.
    classes : sequence of str
        Names of the classes, in the network's order.
    simulation : Simulation, optional
        Simulated brains beside the real ones.
    ranks : Ranks, optional
        The processes that train together.

    Returns
    -------
    Module
        The network with the weights to use, in evaluation mode.

    Raises
    ------
    MsnmoError
        As `msnmo_bids.training.engine.Trainer`.
    """
    ranks = ranks or Ranks()
    if ranks.device == "cpu":
        keep_freed_memory()
    source = _source(config, training, classes, simulation, ranks)
    trainer = Trainer(
        network, JointLoss(loss), config, source, out,
        validation=PreparedSamples(validation, classes), ranks=ranks,
    )  # fmt: skip
    network.load_state_dict(trainer.run())
    return network.eval()


def _source(
    config: TrainingConfig,
    training: Sequence[PreparedScan],
    classes: Sequence[str],
    simulation: Simulation | None,
    ranks: Ranks,
) -> SampleSource:
    samples = PreparedSamples(training, classes)
    real = EpochSource(
        samples, config.samples_per_step, seed=config.seed, rank=ranks.rank, processes=ranks.count
    )
    if simulation is None:
        return real
    if not {"MS", "NMOSD"} <= set(classes):
        raise UsageError(
            f"simulated brains have MS or NMOSD, and the classes are {', '.join(classes)}",
            remedy="Leave --simulated-share out",
        )
    side = samples[0].image.shape[0]
    pool = BrainPool(
        simulation.assets,
        (side,) * 3,
        size=_POOL_SIZE,
        classes=tuple(classes),
        nmosd_share=0.5,
    )
    simulated = SimulatedSource(
        pool, seed=config.seed, samples_per_step=config.samples_per_step, rank=ranks.rank
    )
    return MixedSource(real, simulated, simulation.share)
