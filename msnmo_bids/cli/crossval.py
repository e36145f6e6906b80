"""``msnmo-crossval``: cross-validate the joint model, its ablations and its baselines."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from msnmo_bids.cli.parser import Parser
from msnmo_bids.cli.train import SiteData, TrainingOptions, check_options, gather
from msnmo_bids.errors import MsnmoError, UsageError
from msnmo_bids.lesions.threshold import LesionCriteria
from msnmo_bids.model import registry
from msnmo_bids.run.options import at_least, flag, option
from msnmo_bids.run.preflight import check_folders
from msnmo_bids.run.session import guard

if TYPE_CHECKING:
    from msnmo_bids.training.fitting import Simulation
    from msnmo_bids.training.folds import Folds

logger = logging.getLogger(__name__)

PROGRAM = "msnmo-crossval"
WHAT = (
    "Cross-validate the joint model, its ablations and published networks on a site's own "
    "data, and write the tables and figures of the paper for them."
)
EPILOG = """\
examples:
  msnmo-crossval /data/bids /data/crossval
  msnmo-crossval /data/bids /data/crossval --models joint unet --epochs 50
  msnmo-crossval /data/bids /data/crossval --fold 3        # one job of five, side by side
  msnmo-crossval /data/bids /data/crossval --collect       # tables, figures and page

Run again after an interruption, the same command goes on where it stopped."""


@dataclass(frozen=True, kw_only=True)
class CrossvalOptions(TrainingOptions):
    """The options of ``msnmo-crossval``."""

    TITLE: ClassVar[str] = "cross-validation"

    models: tuple[str, ...] = option(
        f"networks: all, or some of {', '.join(registry.names())} (default: all)",
        default=("all",),
        choices=("all", *registry.names()),
        nargs="+",
        metavar="NAME",
    )
    folds: int = option("number of folds", default=5, metavar="N", type=at_least(2))
    fold: tuple[int, ...] | None = option(
        "run only these folds, and collect nothing (default: all folds, then collect)",
        nargs="+",
        metavar="K",
        type=at_least(1),
    )
    collect: bool = flag(
        "train nothing: write tables, figures and page of the folds that are there"
    )
    positive: str | None = option(
        "positive diagnosis of sensitivity and AUC (default: NMOSD, else the last class)",
        metavar="NAME",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code, as :func:`msnmo_bids.cli.main.main`."""
    with guard(PROGRAM, argv) as session:
        options = Parser(PROGRAM, CrossvalOptions, WHAT, EPILOG).options(session.command)
        session.show(options.verbose)
        check_folders(options)
        session.open_log(options.output_dir)
        cross_validate(options)
    return int(session.exit_code)


def cross_validate(options: CrossvalOptions) -> None:
    """Train the networks on the folds, and write tables, figures and page.

    Raises
    ------
    MsnmoError
        If the options or the data are wrong, or a network could not be trained.
    """
    from msnmo_bids.evaluation.crossval_results import positive_class

    check_options(options)
    names = registry.names() if "all" in options.models else options.models
    models = list(dict.fromkeys(names))
    positive = positive_class(options.positive, options.classes)
    if options.fold and options.collect:
        raise UsageError(
            "--fold trains and collects nothing, --collect trains nothing: they exclude each other",
            remedy="Run the folds first, then --collect alone",
        )
    if options.fold and max(options.fold) > options.folds:
        raise UsageError(f"there is no fold {max(options.fold)} of {options.folds}")
    if not options.collect:  # what the options name, before scans are prepared, which takes long
        from msnmo_bids.model.device import select_device

        device, simulation = select_device(options.device), options.simulation()
    data = gather(options)
    from msnmo_bids.training.folds import get_folds

    folds = get_folds(options.output_dir / "folds.tsv", data.scans, options.folds, options.seed)
    failures: list[str] = []
    if not options.collect:
        failures = _train(options, data, folds, models, device, simulation)
    if not options.fold:
        from msnmo_bids.evaluation.report import write_evaluation
        from msnmo_bids.training.crossval import unlike_folds

        unlike = unlike_folds(options.output_dir)
        for line in unlike:
            logger.warning("%s", line)
        page = write_evaluation(
            options.output_dir,
            classes=options.classes,
            positive=positive,
            notes=[*data.notes, *unlike],
        )
        logger.info("Tables, figures and page: %s", page)
    if failures:
        raise MsnmoError(f"Failed: {'; '.join(failures)}")


def _train(
    options: CrossvalOptions,
    data: SiteData,
    folds: Folds,
    models: Sequence[str],
    device: str,
    simulation: Simulation | None,
) -> list[str]:
    """Run the folds that the command line asks for; return what failed."""
    from msnmo_bids.training.crossval import Experiment, run_folds

    experiment = Experiment(
        data.scans,
        folds,
        options.classes,
        options.config,
        options.output_dir,
        width=options.width,
        validation_share=options.validation_share,
        criteria=LesionCriteria(options.threshold, options.min_lesion_volume),
        device=device,
        simulation=simulation,
    )
    return run_folds(experiment, models, options.fold or range(1, options.folds + 1))


if __name__ == "__main__":
    sys.exit(main())
