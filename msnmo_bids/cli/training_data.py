"""What the programs that train have in common: data, network and simulation of the command line."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msnmo_bids.bids.dataset import read_description
from msnmo_bids.cli.checks import check_folders, work_folder
from msnmo_bids.cli.logs import nipype_level, route_nipype
from msnmo_bids.cli.options import (
    Parser,
    add_option,
    add_performance,
    add_preprocessing,
    add_verbosity,
    at_least,
    between,
)
from msnmo_bids.cli.plan import choose_tools
from msnmo_bids.cli.resources import choose_resources, set_environment
from msnmo_bids.errors import ExitCode, MsnmoError, UsageError
from msnmo_bids.lesions.pipeline import LesionCriteria
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.training.config import add_training_arguments, read_settings

if TYPE_CHECKING:
    from msnmo_bids.labelled.scans import Found
    from msnmo_bids.training.fitting import Simulation
    from msnmo_bids.training.prepared import PreparedScan

LOGGER = logging.getLogger(__name__)

SIMULATOR = "msnmo-simulate"
SECTIONS = ("network", "loss")


def add_common_arguments(parser: Parser) -> None:
    """Add all options that `gather`, `read_network_file` and the training read."""
    parser.add_argument("bids_dir", type=Path, help="root folder of a BIDS data set")
    parser.add_argument("output_dir", type=Path, help="folder for the results; made if missing")
    data = parser.add_argument_group("data")
    add_option(
        data, "--data", nargs="+", default=[], metavar="FOLDER", type=Path,
        help="more BIDS data sets",
    )  # fmt: skip
    add_option(
        data, "--labels", metavar="FOLDER", type=Path,
        help="folder of the lesion masks, from each data set's root "
        "(default: derivatives/manual, else derivatives/truth)",
    )  # fmt: skip
    add_option(
        data, "--classes", nargs="+", default=["MS", "NMOSD"], metavar="NAME",
        help="diagnoses, as in the column 'diagnosis' of participants.tsv (default: MS NMOSD)",
    )  # fmt: skip
    add_option(
        data, "--cube-side", metavar="N", default=160, type=at_least(32),
        help="side of the network's input, voxels, a multiple of 16",
    )  # fmt: skip
    add_option(
        data, "--cache-dir", metavar="FOLDER", type=Path,
        help="keeps the prepared scans, for any number of trainings (default: prepared in OUT)",
    )  # fmt: skip
    add_option(
        data, "-w", "--work-dir", metavar="FOLDER", type=Path,
        help="intermediate results (default: 'work' in the current folder)",
    )  # fmt: skip
    add_option(
        data, "--validation-share", metavar="SHARE", default=0.2, type=between(0, 0.5),
        help="share of the people that are not trained on, but choose the best weights; 0: none",
    )  # fmt: skip
    add_option(
        data, "--sloppy", action="store_true",
        help="fast and poor preprocessing: for tests only, never for results",
    )  # fmt: skip
    simulated = parser.add_argument_group("simulated brains beside the real ones")
    add_option(
        simulated, "--simulated-share", metavar="SHARE", default=0.0, type=between(0, 0.95),
        help="share of the samples that are simulated while training",
    )  # fmt: skip
    add_option(
        simulated, "--anatomy", metavar="FOLDER", type=Path,
        help="whole-head label maps with FreeSurfer labels (default: one head of the MNI maps)",
    )  # fmt: skip
    add_option(
        simulated, "--lesion-shapes", metavar="FILE", type=Path,
        help="library of real lesion shapes, .npz (default: procedural shapes)",
    )  # fmt: skip
    network = parser.add_argument_group("network")
    add_option(
        network, "--width", metavar="FACTOR", default=1.0, type=between(0.05, 4),
        help="factor of the networks' channels; 1: as published",
    )  # fmt: skip
    add_option(
        network, "--network-config", metavar="FILE", type=Path,
        help="YAML or JSON with settings of the joint model and of its losses: "
        "{network: {pooling: lesion}, loss: {bce_weight: 1}}",
    )  # fmt: skip
    add_option(
        network, "--threshold", metavar="P", default=LesionCriteria.threshold,
        type=between(0.01, 0.99),
        help="lesion probability above which a voxel is lesion",
    )  # fmt: skip
    add_option(
        network, "--min-lesion-volume", metavar="MM3", default=LesionCriteria.min_volume,
        type=between(0, 1e6),
        help="smaller connected lesions are dropped, in mm³",
    )  # fmt: skip
    add_training_arguments(parser)
    add_preprocessing(parser)
    add_performance(parser)
    add_verbosity(parser)


@dataclass(frozen=True)
class SiteData:
    """The prepared scans of one or several data sets.

    Parameters
    ----------
    scans : list of PreparedScan
        What can be used.
    found : Found
        The same with what was left out.
    notes : tuple of str
        What a reader of the results must know of the data.
    """

    scans: list[PreparedScan]
    found: Found
    notes: tuple[str, ...]


def gather(options: argparse.Namespace) -> SiteData:
    """Find the scans, say what was found, prepare them, and write ``data.tsv`` and ``data.txt``.

    Parameters
    ----------
    options : argparse.Namespace
        Of a parser with `add_common_arguments`.

    Returns
    -------
    SiteData
        At least one scan.

    Raises
    ------
    MsnmoError
        If a folder is wrong, or no scan can be used.
    """
    if options.cube_side % 16:
        raise UsageError(f"--cube-side must be a multiple of 16, not {options.cube_side}")
    check_folders(options)
    work_dir = work_folder(options)
    set_environment(work_dir)
    route_nipype(options.verbose)
    resources = choose_resources(options)
    skull_strip, bias_correction = choose_tools(options)
    from msnmo_bids.labelled.found_table import describe, write_found
    from msnmo_bids.labelled.scans import find_labelled_scans
    from msnmo_bids.training.prepared import prepare_scans

    roots = [options.bids_dir, *options.data]
    found = find_labelled_scans(roots, classes=options.classes, labels=options.labels)
    for line in describe(found).splitlines():
        LOGGER.info("%s", line)
    plugin_args = dict(resources.plugin_args)
    if resources.plugin == "MultiProc":
        plugin_args["worker_log"] = str(work_dir / "workers.log")
        plugin_args["log_level"] = nipype_level(options.verbose)
    prepared, found = prepare_scans(
        found,
        cache_dir=options.cache_dir or options.output_dir / "prepared",
        work_dir=work_dir,
        settings=ProcessingSettings(
            skull_strip=skull_strip,
            bias_correction=bias_correction,
            bet_frac=options.bet_frac,
            detect_stripped=options.skull_strip == "auto",
            sloppy=options.sloppy,
        ),
        cube_shape=(options.cube_side,) * 3,
        plugin=resources.plugin,
        plugin_args=plugin_args,
        omp_nthreads=resources.omp_nthreads,
    )
    table, _ = write_found(found, options.output_dir)
    if not prepared:
        raise MsnmoError(
            "no scan could be prepared",
            file=table,
            remedy="It says why, scan by scan",
            exit_code=ExitCode.BAD_DATA,
        )
    return SiteData(prepared, found, notes_on(roots, found))


def notes_on(roots: Sequence[Path], found: Found) -> tuple[str, ...]:
    """Say which data are simulated, and whether any real scan has the rarer diagnosis.

    Parameters
    ----------
    roots : sequence of Path
        The data sets.
    found : Found
        What is used of them.

    Returns
    -------
    tuple of str
        One sentence each.
    """
    simulated = {root.absolute() for root in roots if is_simulated(root)}
    notes = []
    scans = found.scans
    from_simulator = [scan for scan in scans if scan.scan.bids_dir.absolute() in simulated]
    if from_simulator:
        notes.append(
            f"{len(from_simulator)} of {len(scans)} scans are simulated: what is measured on them "
            "says nothing about patients."
        )
    real = [scan for scan in scans if scan.scan.bids_dir.absolute() not in simulated]
    diagnoses = {scan.diagnosis for scan in scans if scan.diagnosis}
    unseen = sorted(diagnoses - {scan.diagnosis for scan in real})
    notes += [f"There is no real scan of {diagnosis} among them." for diagnosis in unseen]
    return tuple(notes)


def is_simulated(root: Path) -> bool:
    """Say whether the simulator made a data set."""
    makers = read_description(root).get("GeneratedBy")
    return isinstance(makers, list) and any(
        isinstance(maker, Mapping) and maker.get("Name") == SIMULATOR for maker in makers
    )


def read_network_file(file: Path | None) -> dict[str, dict[str, Any]]:
    """Read the settings of the joint model and of the losses.

    Parameters
    ----------
    file : Path or None
        ``--network-config``.

    Returns
    -------
    dict
        By `SECTIONS`; empty where the file has none.

    Raises
    ------
    UsageError
        If the file cannot be read, or holds something else.
    """
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    if file is None:
        return sections
    content = read_settings(file)
    for name, settings in content.items():
        if name not in SECTIONS or not isinstance(settings, dict):
            raise UsageError(
                f"has '{name}', where only {' and '.join(SECTIONS)} with settings can stand",
                file=file,
            )
        sections[name] = settings
    return sections


def simulation(options: argparse.Namespace) -> Simulation | None:
    """Return the simulated brains that the command line asks for."""
    from msnmo_bids.training.fitting import load_simulation

    return load_simulation(
        options.simulated_share, options.anatomy, options.lesion_shapes, options.cache_dir
    )
