"""The command line of the BIDS App, in groups, with units and defaults.

Only the standard library is imported here: ``--help`` must come at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from msnmo_bids.cli.options import (
    Parser,
    add_option,
    add_performance,
    add_preprocessing,
    add_verbosity,
    at_least,
    between,
    label_of,
)
from msnmo_bids.errors import ExitCode
from msnmo_bids.settings import ORIENTATION_CHOICES, PRECISION_CHOICES

LEVELS = ("participant", "group")
EPILOG = """\
examples:
  run.py /data/bids /data/bids/derivatives/msnmo participant
  run.py /data/bids /data/bids/derivatives/msnmo participant --participant-label 01 02
  run.py /data/bids /data/bids/derivatives/msnmo group

exit codes:
  0 done   1 failed   16 input is no valid BIDS   17 unknown analysis level   18 nothing selected
  64 wrong usage   65 some scans failed because of their data   66 input missing
  73 output cannot be created   74 input/output error   75 interrupted: run again, it resumes

Research use only, no medical device."""


def build_parser() -> Parser:
    """Build the parser of the command line.

    Returns
    -------
    Parser
        Every option with a dash in its name also takes underscores.
    """
    parser = Parser(
        prog="msnmo",
        description="Lesion segmentation and MS/NMOSD pattern scores from T2-FLAIR (a BIDS App).",
        epilog=EPILOG,
    )
    parser.add_argument("bids_dir", type=Path, help="root folder of a BIDS data set")
    parser.add_argument("output_dir", type=Path, help="folder for the derivatives; made if missing")
    parser.add_argument(
        "analysis_level",
        metavar="{participant,group}",
        help="participant: process scans; group: tables and page over all participants",
    )
    _add_selection(parser)
    add_performance(parser)
    add_preprocessing(parser)
    _add_network(parser)
    _add_run(parser)
    _add_group_level(parser)
    add_verbosity(parser)
    return parser


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of the process when not given.

    Returns
    -------
    argparse.Namespace
        One attribute an option.

    Raises
    ------
    SystemExit
        With 64 for wrong usage and 17 for an unknown analysis level; 0 after ``--help`` and
        ``--version``.
    """
    parser = build_parser()
    options = parser.parse_args(argv)
    if options.analysis_level not in LEVELS:
        parser.print_usage(sys.stderr)
        parser.exit(
            ExitCode.UNKNOWN_LEVEL,
            f"{parser.prog}: error: unknown analysis level '{options.analysis_level}'"
            f" (choose from {', '.join(LEVELS)})\n",
        )
    return options


def _add_selection(parser: Parser) -> None:
    group = parser.add_argument_group("which scans")
    add_option(
        group, "--participant-label", nargs="+", metavar="LABEL", type=label_of("sub-"),
        help="participants, with or without 'sub-' (default: all)",
    )  # fmt: skip
    add_option(
        group, "--session-label", nargs="+", metavar="LABEL", type=label_of("ses-"),
        help="sessions, with or without 'ses-' (default: all)",
    )  # fmt: skip
    add_option(
        group, "--bids-filter-file", metavar="FILE", type=Path,
        help='JSON file with pybids filters, as {"flair": {"acquisition": "3d", "run": null}}',
    )  # fmt: skip
    add_option(
        group, "--skip-bids-validation", "--skip-bids-validator", action="store_true",
        help="do not run the BIDS validator on the input",
    )  # fmt: skip
    add_option(
        group, "--bids-database-dir", metavar="FOLDER", type=Path,
        help="pybids database: used if it exists, else made; remove it when the input changes",
    )  # fmt: skip
    add_option(
        group, "--assume-orientation", metavar="CODES", type=str.upper, choices=ORIENTATION_CHOICES,
        help="of images whose header has no valid qform or sform: where their axes run to, such as "
        "LAS (left, anterior, superior), with the voxel sizes alone; left and right may then be "
        "wrong (default: such images are refused)",
    )  # fmt: skip


def _add_network(parser: Parser) -> None:
    group = parser.add_argument_group("lesions and diagnosis")
    add_option(
        group, "--precision", choices=PRECISION_CHOICES, default="auto",
        help="arithmetic of the network; auto: bf16 where the hardware has it",
    )  # fmt: skip
    add_option(
        group, "--weights", metavar="FILE", type=Path,
        help="weights of the network, .safetensors (default: those of this version)",
    )  # fmt: skip
    add_option(
        group, "--ensemble", metavar="FILE", nargs="+", type=Path, default=[],
        help="further weights, such as those of the folds of msnmo-crossval: the mean of all is "
        "taken, and no diagnosis is named where they disagree",
    )  # fmt: skip
    add_option(
        group, "--tta", action="store_true",
        help="test-time augmentation: the mean of the image and its mirror image, left to right; "
        "twice the network's time",
    )  # fmt: skip
    add_option(
        group, "--threshold", metavar="P", type=between(0, 1),
        help="lesion probability above which a voxel is lesion, 0 to 1 "
        "(default: the one that comes with the weights)",
    )  # fmt: skip
    add_option(
        group, "--min-lesion-volume", metavar="MM3", type=between(0, 1e6),
        help="remove connected lesions smaller than this, in mm³ "
        "(default: the one that comes with the weights)",
    )  # fmt: skip
    add_option(
        group, "--random-seed", metavar="N", default=0, type=at_least(0),
        help="seed of everything that draws random numbers",
    )  # fmt: skip
    add_option(
        group, "--deterministic", action="store_true",
        help="deterministic algorithms only: slower, bit for bit the same on the same machine",
    )  # fmt: skip


def _add_run(parser: Parser) -> None:
    group = parser.add_argument_group("what to run")
    add_option(
        group, "--overwrite", action="store_true",
        help="run every scan; by default scans are kept that are complete and were made by the "
        "same version, weights and settings",
    )  # fmt: skip
    add_option(group, "--dry-run", action="store_true", help="show what would run, as a table")
    add_option(
        group, "--reports-only", action="store_true",
        help="only write the participants' reports again, from what is there",
    )  # fmt: skip
    add_option(
        group, "--stop-on-first-crash", action="store_true",
        help="start nothing more after the first failure",
    )  # fmt: skip
    add_option(
        group, "-w", "--work-dir", metavar="FOLDER", type=Path,
        help="intermediate results; a scan's are removed when it succeeds, and kept when it fails "
        "or with -vv (default: 'work' in the current folder)",
    )  # fmt: skip
    add_option(
        group, "--clean-workdir", action="store_true",
        help="before running, remove what earlier runs left in the work folder",
    )  # fmt: skip
    add_option(
        group, "--sloppy", action="store_true",
        help="fast and poor: for tests only, never for results",
    )  # fmt: skip


def _add_group_level(parser: Parser) -> None:
    group = parser.add_argument_group(
        "group level",
        "columns of participants.tsv, sessions.tsv or scans.tsv of the input; the nearest wins",
    )
    add_option(
        group, "--diagnosis-column", metavar="NAME", default="diagnosis",
        help="known diagnosis, with which the model's is compared",
    )  # fmt: skip
    add_option(
        group, "--site-column", metavar="NAME", default="site",
        help="site; results are pooled over the sites",
    )  # fmt: skip
    add_option(group, "--age-column", metavar="NAME", default="age", help="age in years")
    add_option(
        group, "--scanner-column", metavar="NAME",
        help="scanner (default: manufacturer, model and field strength from the sidecars)",
    )  # fmt: skip
    add_option(
        group, "--positive", metavar="NAME",
        help="positive diagnosis of sensitivity and ROC (default: NMOSD, else the last class)",
    )  # fmt: skip
    add_option(
        group, "--labels", metavar="FOLDER", type=Path,
        help="manual lesion masks to compare with, from the root of the input, for example "
        "derivatives/manual",
    )  # fmt: skip
