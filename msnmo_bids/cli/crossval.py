"""``msnmo-crossval``: cross-validate the joint model, its ablations and its rivals."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msnmo_bids.cli.command import run_command
from msnmo_bids.cli.options import Parser, add_option, at_least
from msnmo_bids.cli.training_data import (
    SiteData,
    add_common_arguments,
    gather,
    read_network_file,
    simulation,
)
from msnmo_bids.errors import ExitCode, UsageError
from msnmo_bids.model import registry

if TYPE_CHECKING:
    from msnmo_bids.training.config import TrainingConfig
    from msnmo_bids.training.folds import Folds

LOGGER = logging.getLogger(__name__)

EPILOG = """\
examples:
  msnmo-crossval /data/bids /data/crossval
  msnmo-crossval /data/bids /data/crossval --models joint unet --epochs 50
  msnmo-crossval /data/bids /data/crossval --fold 3        # one job of five, side by side
  msnmo-crossval /data/bids /data/crossval --collect       # tables, figures and page

Run again after an interruption, the same command goes on where it stopped.
Research use only, no medical device."""


def build_parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="msnmo-crossval",
        description="Cross-validate the joint model, its ablations and published networks on a "
        "site's own data, and write the tables and figures of the paper for them.",
        epilog=EPILOG,
    )
    group = parser.add_argument_group("cross-validation")
    add_option(
        group, "--models", nargs="+", default=["all"], metavar="NAME",
        help=f"networks: all, or some of {', '.join(registry.names())} (default: all)",
    )  # fmt: skip
    add_option(group, "--folds", metavar="N", default=5, type=at_least(2), help="number of folds")
    add_option(
        group, "--fold", nargs="+", metavar="K", type=at_least(1),
        help="run only these folds, and collect nothing (default: all folds, then collect)",
    )  # fmt: skip
    add_option(
        group, "--collect", action="store_true",
        help="train nothing: write tables, figures and page of the folds that are there",
    )  # fmt: skip
    add_option(
        group, "--positive", metavar="NAME",
        help="positive diagnosis of sensitivity and AUC (default: the last class)",
    )  # fmt: skip
    add_common_arguments(parser)
    return parser


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
    return run_command(_crossval, build_parser(), argv)


def _crossval(options: argparse.Namespace) -> ExitCode:
    from msnmo_bids.training.config import TrainingConfig

    models = chosen_models(options.models)
    positive = options.positive or options.classes[-1]
    if positive not in options.classes:
        raise UsageError(f"--positive {positive} is none of {', '.join(options.classes)}")
    if options.fold and max(options.fold) > options.folds:
        raise UsageError(f"there is no fold {max(options.fold)} of {options.folds}")
    config = TrainingConfig.from_options(options)
    settings = read_network_file(options.network_config)
    for model in models:
        _check(model, settings)
    data = gather(options)
    from msnmo_bids.training.folds import get_folds

    scans = [scan.labelled for scan in data.scans]
    folds = get_folds(options.output_dir / "folds.tsv", scans, options.folds, config.seed)
    failures: list[str] = []
    if not options.collect:
        failures = _train(options, config, settings, data, folds, models)
    if not options.fold:
        from msnmo_bids.evaluation.report import write_evaluation

        page = write_evaluation(
            options.output_dir, classes=options.classes, positive=positive, notes=data.notes
        )
        LOGGER.info("Tables, figures and page: %s", page)
    for failure in failures:
        LOGGER.error("Failed: %s", failure)
    return ExitCode.FAILURE if failures else ExitCode.OK


def _train(
    options: argparse.Namespace,
    config: TrainingConfig,
    settings: Mapping[str, Mapping[str, Any]],
    data: SiteData,
    folds: Folds,
    models: Sequence[str],
) -> list[str]:
    """Run the folds that the command line asks for; return what failed."""
    from msnmo_bids.lesions.pipeline import LesionCriteria
    from msnmo_bids.model.device import select_device
    from msnmo_bids.training.crossval import Experiment, run_folds

    experiment = Experiment(
        data.scans,
        folds,
        tuple(options.classes),
        config,
        options.output_dir,
        width=options.width,
        validation_share=options.validation_share,
        simulation=simulation(options),
        device=select_device(options.device),
        criteria=LesionCriteria(options.threshold, options.min_lesion_volume),
        network=settings["network"],
        loss=settings["loss"],
    )
    return run_folds(experiment, models, options.fold or range(1, options.folds + 1))


def chosen_models(names: Sequence[str]) -> list[str]:
    """Return the networks of the command line, each once.

    Parameters
    ----------
    names : sequence of str
        ``all``, or names of the registry.

    Returns
    -------
    list of str

    Raises
    ------
    UsageError
        If there is no network of a name.
    """
    known = registry.names()
    chosen = known if "all" in names else names
    for name in chosen:
        if name not in known:
            raise UsageError(
                f"there is no network '{name}'", remedy=f"Choose of {', '.join(known)}"
            )
    return list(dict.fromkeys(chosen))


def _check(model: str, settings: Mapping[str, Mapping[str, Any]]) -> None:
    """Refuse settings of network and losses before any scan is prepared."""
    try:
        registry.entry(model).adapted(settings["network"], settings["loss"])
    except ValueError as error:
        raise UsageError(f"--network-config: {error}") from error


if __name__ == "__main__":
    sys.exit(main())
