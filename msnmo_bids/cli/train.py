"""``msnmo-train``: train the joint model on a site's own data, to weights that the app uses."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msnmo_bids.cli.command import run_command
from msnmo_bids.cli.options import Parser, add_option
from msnmo_bids.cli.training_data import (
    SiteData,
    add_common_arguments,
    gather,
    read_network_file,
    simulation,
)
from msnmo_bids.errors import ExitCode, UsageError
from msnmo_bids.model import registry
from msnmo_bids.model.config import JointConfig

if TYPE_CHECKING:
    from torch import nn

    from msnmo_bids.training.config import TrainingConfig
    from msnmo_bids.training.distributed import Ranks

LOGGER = logging.getLogger(__name__)

SHIPPED = "shipped"
EPILOG = """\
examples:
  msnmo-train /data/bids /data/training
  msnmo-train /data/bids /data/training --data /data/other --simulated-share 0.5
  torchrun --nproc-per-node 4 -m msnmo_bids.cli.train /data/bids /data/training
  msnmo /data/bids /data/out participant --weights /data/training/msnmo-joint.safetensors

Stopped by Ctrl-C or SIGTERM it saves; the same command goes on where it stopped.
Research use only, no medical device."""


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="msnmo-train",
        description="Train the joint model on a site's own BIDS data: FLAIR, lesion masks, and "
        "diagnoses in participants.tsv. Scans that have only one of them train what they can.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("what to train")
    own = [name for name in registry.names() if is_own(name)]
    add_option(
        group, "--model", default="joint", choices=own, metavar="NAME",
        help=f"network: {', '.join(own)}",
    )  # fmt: skip
    add_option(
        group, "--initial-weights", metavar="FILE",
        help=f"weights of the app to start from, .safetensors, or '{SHIPPED}' for those of this "
        "version; network and classes are theirs (default: random)",
    )  # fmt: skip
    add_common_arguments(parser)
    return parser


def is_own(model: str) -> bool:
    """Say whether a network is the joint model or an ablation of it, which the app can use."""
    return isinstance(registry.entry(model).config, JointConfig)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments; those of the process by default.

    Returns
    -------
    int
        Exit code.
    """
    return run_command(_train, build_parser(), argv)


def _train(options: argparse.Namespace) -> ExitCode:
    from msnmo_bids.training.config import TrainingConfig

    config = TrainingConfig.from_options(options)
    settings = read_network_file(options.network_config)
    entry = _entry(options, settings)
    from msnmo_bids.model.device import select_device
    from msnmo_bids.training.distributed import process_group

    with process_group(select_device(options.device)) as ranks:
        # The first process prepares the scans, the others find them prepared.
        data = gather(options) if ranks.first else None
        ranks.any(False)
        data = data or gather(options)
        network = _fit(options, config, entry, data, ranks)
        LOGGER.info("Weights: %s", network)
    return ExitCode.OK


def _entry(options: argparse.Namespace, settings: dict[str, dict[str, Any]]) -> registry.Entry:
    try:
        return registry.entry(options.model).adapted(settings["network"], settings["loss"])
    except ValueError as error:
        raise UsageError(str(error), file=options.network_config) from error


def _fit(
    options: argparse.Namespace,
    config: TrainingConfig,
    entry: registry.Entry,
    data: SiteData,
    ranks: Ranks,
) -> Path:
    """Train, test on the validation scans and write the weights; return their file."""
    import torch

    from msnmo_bids.lesions.pipeline import LesionCriteria
    from msnmo_bids.training.crossval import divide, usable
    from msnmo_bids.training.fitting import fit
    from msnmo_bids.training.scoring import evaluate_scan, write_rows
    from msnmo_bids.training.site_weights import write_site_weights

    torch.manual_seed(config.seed)
    network = _network(options, entry)
    scans = usable(data.scans, entry.tasks)
    training, validation = divide(scans, options.validation_share, seed=config.seed)
    if not training:
        raise UsageError("no scan has a label that this network needs", file=options.bids_dir)
    LOGGER.info("%d scans to train on, %d to choose the weights by", len(training), len(validation))
    out, classes = options.output_dir, tuple(options.classes)
    fit(
        network, entry.loss, config, training, validation, out / "training",
        classes=classes, simulation=simulation(options), ranks=ranks,
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


def _network(options: argparse.Namespace, entry: registry.Entry) -> nn.Module:
    if options.initial_weights is None:
        return entry.build(options.classes, options.width)
    from msnmo_bids.model.weights import default_weights_path, load_weights

    shipped = options.initial_weights == SHIPPED
    file = default_weights_path() if shipped else Path(options.initial_weights)
    network, metadata = load_weights(file)
    if tuple(options.classes) != metadata.class_names:
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


if __name__ == "__main__":
    sys.exit(main())
