"""Train a network on a site's own data, to weights that the app uses."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from msnmo_bids.errors import UsageError
from msnmo_bids.model import registry
from msnmo_bids.model.config import JointConfig
from msnmo_bids.run.options import option
from msnmo_bids.run.training import SiteData, TrainingOptions, gather
from msnmo_bids.training.config import TrainingConfig, read_network_settings

if TYPE_CHECKING:
    from torch import nn

    from msnmo_bids.training.processes import Ranks

logger = logging.getLogger(__name__)

SHIPPED = "shipped"
#: The joint model and its ablations, which the app can use.
OWN = [name for name in registry.names() if isinstance(registry.entry(name).config, JointConfig)]


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingOptions):
    """The options of ``msnmo-train``."""

    TITLE: ClassVar[str] = "what to train"

    model: str = option(f"network: {', '.join(OWN)}", default="joint", choices=OWN, metavar="NAME")
    initial_weights: Path | None = option(
        f"weights of the app to start from, .safetensors, or '{SHIPPED}' for those of this "
        "version; network and classes are theirs (default: random)",
        metavar="FILE",
        type=Path,
    )


def train(options: TrainOptions) -> None:
    """Train the network, test it on the validation scans and write its weights.

    Raises
    ------
    MsnmoError
        If the options or the data are wrong.
    """
    config = options.config
    entry = _entry(options, read_network_settings(options.network_config))
    from msnmo_bids.model.device import select_device
    from msnmo_bids.training.processes import process_group

    with process_group(select_device(options.device)) as ranks:
        # The first process prepares the scans, the others find them prepared.
        data = gather(options) if ranks.first else None
        ranks.any(False)
        data = data or gather(options)
        logger.info("Weights: %s", _fit(options, config, entry, data, ranks))


def _entry(options: TrainOptions, settings: dict[str, dict[str, Any]]) -> registry.Entry:
    try:
        return registry.entry(options.model).adapted(settings["network"], settings["loss"])
    except ValueError as error:
        raise UsageError(str(error), file=options.network_config) from error


def _fit(
    options: TrainOptions,
    config: TrainingConfig,
    entry: registry.Entry,
    data: SiteData,
    ranks: Ranks,
) -> Path:
    """Train, test on the validation scans and write the weights; return their file."""
    import torch

    from msnmo_bids.lesions.pipeline import LesionCriteria
    from msnmo_bids.training.crossval import divide, usable
    from msnmo_bids.training.fitting import fit, write_site_weights
    from msnmo_bids.training.scoring import evaluate_scan, write_rows

    torch.manual_seed(config.seed)
    network = _network(options, entry)
    scans = usable(data.scans, entry.tasks)
    training, validation = divide(scans, options.validation_share, seed=config.seed)
    if not training:
        raise UsageError("no scan has a label that this network needs", file=options.bids_dir)
    logger.info("%d scans to train on, %d to choose the weights by", len(training), len(validation))
    out, classes = options.output_dir, options.classes
    fit(
        network, entry.loss, config, training, validation, out / "training",
        classes=classes, simulation=options.simulation(options.cache_dir), ranks=ranks,
    )  # fmt: skip
    file = out / f"msnmo-{options.model}.safetensors"
    if ranks.first:
        criteria = LesionCriteria(options.threshold, options.min_lesion_volume)
        rows = [
            evaluate_scan(
                network, scan, classes, criteria,
                device=ranks.device, precision=config.precision,
            ).row
            for scan in validation
        ]  # fmt: skip
        write_rows(rows, out / "validation", 0, classes)
        write_site_weights(
            file, network, name=f"msnmo-{options.model}", training=training, validation=validation,
            criteria=criteria, config=config, device=ranks.device,
        )  # fmt: skip
    return file


def _network(options: TrainOptions, entry: registry.Entry) -> nn.Module:
    if options.initial_weights is None:
        return entry.build(options.classes, options.width)
    from msnmo_bids.model.weights import default_weights_path, load_weights

    shipped = str(options.initial_weights) == SHIPPED
    file = default_weights_path() if shipped else options.initial_weights
    network, metadata = load_weights(file)
    if options.classes != metadata.class_names:
        raise UsageError(
            f"these weights name {', '.join(metadata.class_names)}, not "
            f"{', '.join(options.classes)}",
            file=file,
            remedy="Give the same --classes",
        )
    if options.network_config or options.width != 1 or options.model != "joint":
        raise UsageError(
            "--initial-weights brings its network: --model, --width and --network-config do not go "
            "with it"
        )
    return network.train()
