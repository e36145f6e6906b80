"""``msnmo-train``: train the joint model on a site's own data, to weights that the app uses.

What all programs that train share stands here too: their options, and the data of a site.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from msnmo_bids.cli.parser import Parser
from msnmo_bids.errors import BadInputError, UsageError
from msnmo_bids.lesions.threshold import LesionCriteria
from msnmo_bids.model import registry
from msnmo_bids.run.job import WAIT_S, Claims
from msnmo_bids.run.options import (
    Assets,
    Folders,
    Options,
    Performance,
    Preprocessing,
    at_least,
    between,
    file_option,
    flag,
    folder_option,
    option,
)
from msnmo_bids.run.plan import choose_tools
from msnmo_bids.run.preflight import check_folders, work_folder
from msnmo_bids.run.resources import check_plugin, choose_resources, set_environment
from msnmo_bids.run.session import guard, route_nipype
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.training.config import TrainingConfig
from msnmo_bids.vocabulary import check_class_names

if TYPE_CHECKING:
    from torch import nn

    from msnmo_bids.model.weights import WeightsMetadata
    from msnmo_bids.training.fitting import Simulation
    from msnmo_bids.training.prepared import PreparedScan
    from msnmo_bids.training.processes import Ranks

logger = logging.getLogger(__name__)

PROGRAM = "msnmo-train"
WHAT = (
    "Train the joint model on a site's own BIDS data: FLAIR, lesion masks, and diagnoses in "
    "participants.tsv. Scans that have only one of the two train the task it is for."
)
EPILOG = """\
examples:
  msnmo-train /data/bids /data/training
  msnmo-train /data/bids /data/training --data /data/other --simulated-share 0.5
  torchrun --nproc-per-node 4 -m msnmo_bids.cli.train /data/bids /data/training
  msnmo /data/bids /data/out participant --weights /data/training/msnmo-joint.safetensors

Stopped by Ctrl-C or SIGTERM it saves; the same command goes on where it stopped."""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The labelled scans of a site."""

    TITLE: ClassVar[str] = "data"

    data: tuple[Path, ...] = option(
        "more BIDS data sets", default=(), nargs="+", metavar="FOLDER", type=Path
    )
    labels: Path | None = folder_option(
        "folder of the lesion masks, from each data set's root "
        "(default: derivatives/manual, else derivatives/truth)"
    )
    classes: tuple[str, ...] = option(
        "diagnoses, as in the column 'diagnosis' of participants.tsv (default: MS NMOSD)",
        default=("MS", "NMOSD"),
        nargs="+",
        metavar="NAME",
    )
    cube_side: int = option(
        "side of the network's input, voxels, a multiple of 16",
        default=160,
        metavar="N",
        type=at_least(32),
    )
    cache_dir: Path | None = folder_option(
        "keeps the prepared scans, for any number of trainings (default: prepared in OUT)"
    )
    work_dir: Path | None = folder_option(
        "intermediate results (default: 'work' in the current folder)", "-w"
    )
    validation_share: float = option(
        "share of the people that are not trained on, but choose the best weights; 0: none",
        default=0.2,
        metavar="SHARE",
        type=between(0, 0.5),
    )
    sloppy: bool = flag("fast and poor preprocessing: for tests only, never for results")


@dataclass(frozen=True, kw_only=True)
class Simulated(Assets):
    """Simulated brains beside the real ones."""

    TITLE: ClassVar[str] = "simulated brains beside the real ones"

    simulated_share: float = option(
        "share of the samples that are simulated while training",
        default=0.0,
        metavar="SHARE",
        type=between(0, 0.95),
    )


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network, and the mask that is made of its output."""

    TITLE: ClassVar[str] = "network"

    width: float = option(
        "factor of the networks' channels; 1: as published",
        default=1.0,
        metavar="FACTOR",
        type=between(0.05, 4),
    )
    threshold: float = option(
        "lesion probability above which a voxel is lesion",
        default=LesionCriteria.threshold,
        metavar="P",
        type=between(0.01, 0.99),
    )
    min_lesion_volume: float = option(
        "smaller connected lesions are dropped, in mm³",
        default=LesionCriteria.min_volume,
        metavar="MM3",
        type=between(0, 1e6),
    )


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(
    Options, Performance, Preprocessing, TrainingConfig, Network, Simulated, Data, Folders
):
    """The options of the programs that train."""

    @property
    def reads(self) -> tuple[Path, ...]:
        """All data sets, and the label maps."""
        return (*super().reads, *self.data, *([self.anatomy] if self.anatomy else ()))

    @property
    def writes(self) -> dict[str, Path | None]:
        """As of `Folders`, and where prepared scans are kept."""
        return {**super().writes, "cache folder": self.cache_dir}

    def simulation(self) -> Simulation | None:
        """Read what simulated brains are made of; None when none are asked for.

        Raises
        ------
        MsnmoError
            If it cannot be read, or MS or NMOSD, which simulated brains have, is not a class.
        """
        if not self.simulated_share:
            return None
        if not {"MS", "NMOSD"} <= set(self.classes):
            raise UsageError(
                f"simulated brains have MS or NMOSD, and the classes are {', '.join(self.classes)}",
                remedy="Leave --simulated-share out",
            )
        from msnmo_bids.simulation.assets import load_assets
        from msnmo_bids.training.fitting import Simulation

        assets = load_assets(self.anatomy, self.lesion_shapes, self.cache_dir)
        return Simulation(assets, self.simulated_share)


@dataclass(frozen=True)
class SiteData:
    """The prepared scans of one or several data sets, and what a reader must know of them."""

    scans: list[PreparedScan]
    notes: tuple[str, ...]


@contextmanager
def no_other_run(*folders: Path) -> Iterator[None]:
    """Wait until no other run prepares scans in any of some folders, and keep it so."""
    claims, said = Claims(*folders), False
    try:
        while not all(claims.alone(folder) for folder in folders):
            if not said:
                logger.info(
                    "Another run prepares scans (%s): this one waits for it",
                    " or ".join(map(str, folders)),
                )
            said = True
            time.sleep(WAIT_S)
        yield
    finally:
        claims.close()


def check_options(options: TrainingOptions) -> None:
    """Check what can be told without the data.

    Raises
    ------
    UsageError
        If a side of the cube or names of classes cannot be used.
    """
    if options.cube_side % 16:
        raise UsageError(f"--cube-side must be a multiple of 16, not {options.cube_side}")
    try:
        check_class_names(options.classes)
    except ValueError as error:
        raise UsageError(f"--{error}") from error


def gather(options: TrainingOptions) -> SiteData:
    """Find the scans, say what was found, prepare them, and write ``data.tsv`` and ``data.txt``.

    Raises
    ------
    MsnmoError
        If no scan can be used.
    """
    work_dir = work_folder(options)
    set_environment(work_dir)
    route_nipype(options.verbose)
    resources = choose_resources(options)
    check_plugin(resources, work_dir)
    tools = choose_tools(options)
    from msnmo_bids.labelled.scans import counts, find_labelled_scans, notes_on, write_found
    from msnmo_bids.training.prepared import prepare_scans
    from msnmo_bids.training.samples import HEALTHY

    roots = [options.bids_dir, *options.data]
    found = find_labelled_scans(
        roots,
        classes=options.classes,
        labels=options.labels,
        simulated=("MS", "NMOSD", HEALTHY) if options.simulated_share else (),
    )
    for line in counts(found):
        logger.info("%s", line)
    for note in found.notes:
        logger.warning("Not used, or guessed: %s", note)
    cache_dir = options.cache_dir or options.output_dir / "prepared"
    with no_other_run(cache_dir, work_dir):
        prepared, found = prepare_scans(
            found,
            cache_dir=cache_dir,
            work_dir=work_dir,
            settings=ProcessingSettings(**tools, sloppy=options.sloppy),
            cube_shape=(options.cube_side,) * 3,
            plugin=resources.plugin,
            plugin_args=resources.with_log(work_dir, options.verbose),
            omp_nthreads=resources.omp_nthreads,
        )
    table = write_found(found, options.output_dir)
    if not prepared:
        remedy = "It says why, scan by scan"
        raise BadInputError("no scan could be prepared", file=table, remedy=remedy)
    return SiteData(prepared, notes_on(found))


SHIPPED = "shipped"
#: The joint model and its ablations, which the app can use.
OWN = [name for name in registry.names() if registry.entry(name).config is not None]


@dataclass(frozen=True, kw_only=True)
class TrainOptions(TrainingOptions):
    """The options of ``msnmo-train``."""

    TITLE: ClassVar[str] = "what to train"

    model: str = option(f"network: {', '.join(OWN)}", default="joint", choices=OWN, metavar="NAME")
    initial_weights: Path | None = file_option(
        f"weights of the app to start from, .safetensors, or '{SHIPPED}' for those of "
        "this version; network and classes are theirs (default: random)"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code, as :func:`msnmo_bids.cli.main.main`."""
    with guard(PROGRAM, argv) as session:
        options = Parser(PROGRAM, TrainOptions, WHAT, EPILOG).options(session.command)
        session.show(options.verbose)
        check_folders(options)
        session.open_log(options.output_dir)
        train(options)
    return int(session.exit_code)


def train(options: TrainOptions) -> None:
    """Train the network, test it on the validation scans and write its weights."""
    from msnmo_bids.model.device import select_device
    from msnmo_bids.training.processes import process_group

    check_options(options)
    with process_group(select_device(options.device)) as ranks:
        # What the options name is read before scans are prepared, which takes long.
        model, simulation = _network(options), options.simulation()
        # The first process prepares the scans, the others find them prepared.
        data = gather(options) if ranks.first else None
        ranks.any(False)
        data = data or gather(options)
        logger.info("Weights: %s", _fit(options, data, ranks, model, simulation))


def _fit(
    options: TrainOptions,
    data: SiteData,
    ranks: Ranks,
    model: tuple[nn.Module, WeightsMetadata | None],
    simulation: Simulation | None,
) -> Path:
    """Train, test on the validation scans and write the weights; return their file."""
    from msnmo_bids.training.crossval import evaluate_scan, usable, write_rows
    from msnmo_bids.training.fitting import fit, write_site_weights
    from msnmo_bids.training.folds import split_validation

    config = options.config
    network, initial = model
    tasks: tuple[str, ...] = network.tasks  # type: ignore[assignment]
    scans = usable(data.scans, tasks)
    training, validation = split_validation(scans, options.validation_share, config.seed)
    if not training:
        raise UsageError("no scan has a label that this network needs", file=options.bids_dir)
    logger.info("%d scans to train on, %d to choose the weights by", len(training), len(validation))
    out, classes = options.output_dir, options.classes
    fit(
        network, registry.entry(options.model).loss, config, training, validation, out / "training",
        classes=classes, simulation=simulation, initial=initial, ranks=ranks,
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
            criteria=criteria, config=config, device=ranks.device, initial=initial,
        )  # fmt: skip
    return file


def _network(options: TrainOptions) -> tuple[nn.Module, WeightsMetadata | None]:
    """Return the network to train, with the description of the weights that it starts from."""
    if options.initial_weights is None:
        import torch

        torch.manual_seed(options.seed)
        return registry.entry(options.model).build(options.classes, options.width), None
    from msnmo_bids.model.weights import SHIPPED_WEIGHTS, load_weights

    shipped = str(options.initial_weights) == SHIPPED
    file = SHIPPED_WEIGHTS if shipped else options.initial_weights
    network, metadata = load_weights(file)
    if options.classes != metadata.class_names and not metadata.classifies_lesions:
        raise UsageError(
            f"these weights name {', '.join(metadata.class_names)}, not "
            f"{', '.join(options.classes)}",
            file=file,
            remedy="Give the same --classes",
        )
    if options.width != 1 or options.model != "joint":
        raise UsageError(
            "--initial-weights brings its network: --model and --width do not go with it"
        )
    return network.train(), metadata


if __name__ == "__main__":
    sys.exit(main())
