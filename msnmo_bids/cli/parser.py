"""The command line of the BIDS App, in groups, with units and defaults.

Only the standard library is imported here: ``--help`` must come at once.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from msnmo_bids.errors import ExitCode
from msnmo_bids.settings import BIAS_CORRECTION_CHOICES, PRECISION_CHOICES, SKULL_STRIP_CHOICES
from msnmo_bids.version import get_version

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


class Parser(argparse.ArgumentParser):
    """An argument parser that ends with the exit code of wrong usage (64)."""

    def error(self, message: str) -> NoReturn:
        """Show the usage and the problem, then end."""
        self.print_usage(sys.stderr)
        self.exit(ExitCode.USAGE, f"{self.prog}: error: {message}\n")


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help that names defaults, and shows one spelling of options that have several."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = [option for option in action.option_strings if "_" not in option]
        if not shown:
            return super()._format_action_invocation(action)
        if action.nargs == 0:
            return ", ".join(shown)
        return f"{', '.join(shown)} {self._format_args(action, action.dest.upper())}"

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        unsaid = action.default is None or action.default is False or action.nargs == 0
        if unsaid or action.default is argparse.SUPPRESS or "default" in text:
            return text
        return f"{text} (default: %(default)s)"


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
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("bids_dir", type=Path, help="root folder of a BIDS data set")
    parser.add_argument("output_dir", type=Path, help="folder for the derivatives; made if missing")
    parser.add_argument(
        "analysis_level",
        metavar="{participant,group}",
        help="participant: process scans; group: tables and page over all participants",
    )
    _add_selection(parser)
    _add_performance(parser)
    _add_preprocessing(parser)
    _add_network(parser)
    _add_run(parser)
    _add_other(parser)
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
    _add(
        group, "--participant-label", nargs="+", metavar="LABEL", type=_label("sub-"),
        help="participants, with or without 'sub-' (default: all)",
    )  # fmt: skip
    _add(
        group, "--session-label", nargs="+", metavar="LABEL", type=_label("ses-"),
        help="sessions, with or without 'ses-' (default: all)",
    )  # fmt: skip
    _add(
        group, "--bids-filter-file", metavar="FILE", type=Path,
        help='JSON file with pybids filters, as {"flair": {"acquisition": "3d", "run": null}}',
    )  # fmt: skip
    _add(
        group, "--skip-bids-validation", "--skip-bids-validator", action="store_true",
        help="do not run the BIDS validator on the input",
    )  # fmt: skip
    _add(
        group, "--bids-database-dir", metavar="FOLDER", type=Path,
        help="pybids database: used if it exists, else made; remove it when the input changes",
    )  # fmt: skip


def _add_performance(parser: Parser) -> None:
    group = parser.add_argument_group("performance")
    _add(
        group, "--nprocs", "--nthreads", "--n-cpus", metavar="N", type=_at_least(1),
        help="CPU cores to use in all (default: all that this process may use)",
    )  # fmt: skip
    _add(
        group, "--omp-nthreads", metavar="N", type=_at_least(1),
        help="threads of one step (default: as many as cores, at most 4)",
    )  # fmt: skip
    _add(
        group, "--mem-mb", "--mem", metavar="MB", type=_at_least(1),
        help="memory to use in all, in MB (default: 90 %% of what is available)",
    )  # fmt: skip
    _add(
        group, "--use-plugin", "--nipype-plugin-file", metavar="FILE", type=Path,
        help="Nipype plugin file, YAML or JSON (for example for SLURM); replaces --nprocs and "
        "--mem-mb",
    )  # fmt: skip
    _add(
        group, "--device", metavar="{auto,cpu,cuda,cuda:N}", default="auto", type=_device,
        help="where the network computes; auto: CUDA if it works, else the CPU",
    )  # fmt: skip
    _add(
        group, "--precision", choices=PRECISION_CHOICES, default="auto",
        help="arithmetic of the network; auto: bf16 where the hardware has it",
    )  # fmt: skip


def _add_preprocessing(parser: Parser) -> None:
    group = parser.add_argument_group("preprocessing")
    _add(
        group, "--skull-strip", choices=SKULL_STRIP_CHOICES, default="auto",
        help="tool; auto: FSL's bet if it is on the PATH, else deepbet. Images whose sidecar says "
        "SkullStripped are never stripped again",
    )  # fmt: skip
    _add(
        group, "--bet-frac", metavar="F", default=0.5, type=_between(0, 1),
        help="fractional intensity threshold of bet, 0 to 1; smaller keeps more",
    )  # fmt: skip
    _add(
        group, "--bias-correction", choices=BIAS_CORRECTION_CHOICES, default="auto",
        help="tool for N4; auto: ANTs' N4BiasFieldCorrection if it is on the PATH, else antspyx",
    )  # fmt: skip


def _add_network(parser: Parser) -> None:
    group = parser.add_argument_group("lesions and diagnosis")
    _add(
        group, "--weights", metavar="FILE", type=Path,
        help="weights of the network, .safetensors (default: those of this version)",
    )  # fmt: skip
    _add(
        group, "--threshold", metavar="P", type=_between(0, 1),
        help="lesion probability above which a voxel is lesion, 0 to 1 "
        "(default: the one that comes with the weights)",
    )  # fmt: skip
    _add(
        group, "--min-lesion-volume", metavar="MM3", type=_between(0, 1e6),
        help="remove connected lesions smaller than this, in mm³ "
        "(default: the one that comes with the weights)",
    )  # fmt: skip
    _add(
        group, "--random-seed", metavar="N", default=0, type=_at_least(0),
        help="seed of everything that draws random numbers",
    )  # fmt: skip
    _add(
        group, "--deterministic", action="store_true",
        help="deterministic algorithms only: slower, bit for bit the same on the same machine",
    )  # fmt: skip


def _add_run(parser: Parser) -> None:
    group = parser.add_argument_group("what to run")
    _add(
        group, "--overwrite", action="store_true",
        help="run every scan; by default scans are kept that are complete and were made by the "
        "same version, weights and settings",
    )  # fmt: skip
    _add(group, "--dry-run", action="store_true", help="show what would run, as a table")
    _add(
        group, "--reports-only", action="store_true",
        help="only write the participants' reports again, from what is there",
    )  # fmt: skip
    _add(
        group, "--stop-on-first-crash", action="store_true",
        help="start nothing more after the first failure",
    )  # fmt: skip
    _add(
        group, "-w", "--work-dir", metavar="FOLDER", type=Path,
        help="intermediate results; a scan's are removed when it succeeds, and kept when it fails "
        "or with -vv (default: 'work' in the current folder)",
    )  # fmt: skip
    _add(
        group, "--clean-workdir", action="store_true",
        help="before running, remove what earlier runs left in the work folder",
    )  # fmt: skip
    _add(
        group, "--sloppy", action="store_true",
        help="fast and poor: for tests only, never for results",
    )  # fmt: skip


def _add_other(parser: Parser) -> None:
    group = parser.add_argument_group("other")
    _add(
        group, "-v", "--verbose", action="count", default=0,
        help="say more; -v adds Nipype's messages, -vv everything",
    )  # fmt: skip
    _add(group, "--version", action="version", version=f"msnmo {get_version()}")


def _add(group: argparse._ArgumentGroup, *names: str, **keywords: Any) -> None:
    """Add an option under its names and under the same with underscores."""
    spellings = list(names)
    for name in names:
        other = "--" + name[2:].replace("-", "_")
        if name.startswith("--") and other not in spellings:
            spellings.append(other)
    first_long = next(name for name in names if name.startswith("--"))
    if keywords.get("action") != "version":
        keywords["dest"] = first_long[2:].replace("-", "_")
    group.add_argument(*spellings, **keywords)


def _label(prefix: str) -> Callable[[str], str]:
    def label(text: str) -> str:
        value = text.removeprefix(prefix)
        if not re.fullmatch(r"[0-9A-Za-z+]+", value):
            raise argparse.ArgumentTypeError(f"'{text}' is no label (letters and digits only)")
        return value

    return label


def _at_least(smallest: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = smallest - 1
        if value < smallest:
            raise argparse.ArgumentTypeError(f"'{text}' is no whole number of {smallest} or more")
        return value

    return whole_number


def _between(low: float, high: float) -> Callable[[str], float]:
    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"'{text}' is no number from {low:g} to {high:g}")
        return value

    return number


def _device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"'{text}' is none of auto, cpu, cuda, cuda:N")
    return text
