"""Options that several programs of the command line share.

Only the standard library is imported here: ``--help`` must come at once.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from msnmo_bids.errors import ExitCode
from msnmo_bids.settings import BIAS_CORRECTION_CHOICES, SKULL_STRIP_CHOICES
from msnmo_bids.version import get_version


class Parser(argparse.ArgumentParser):
    """A parser with our help, without abbreviations; wrong usage ends with its exit code (64)."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, allow_abbrev=False, **settings)

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


def add_performance(parser: Parser) -> None:
    """Add cores, memory, Nipype plugin and device."""
    group = parser.add_argument_group("performance")
    add_option(
        group, "--nprocs", "--nthreads", "--n-cpus", metavar="N", type=at_least(1),
        help="CPU cores to use in all (default: all that this process may use)",
    )  # fmt: skip
    add_option(
        group, "--omp-nthreads", metavar="N", type=at_least(1),
        help="threads of one step (default: as many as cores, at most 4)",
    )  # fmt: skip
    add_option(
        group, "--mem-mb", "--mem", metavar="MB", type=at_least(1),
        help="memory to use in all, in MB (default: 90 %% of what is available)",
    )  # fmt: skip
    add_option(
        group, "--use-plugin", "--nipype-plugin-file", metavar="FILE", type=Path,
        help="Nipype plugin file, YAML or JSON (for example for SLURM); replaces --nprocs and "
        "--mem-mb",
    )  # fmt: skip
    add_option(
        group, "--device", metavar="{auto,cpu,cuda,cuda:N}", default="auto", type=device,
        help="where the network computes; auto: CUDA if it works, else the CPU",
    )  # fmt: skip


def add_preprocessing(parser: Parser) -> None:
    """Add the tools for skull and bias field."""
    group = parser.add_argument_group("preprocessing")
    add_option(
        group, "--skull-strip", choices=SKULL_STRIP_CHOICES, default="auto",
        help="tool; auto: FSL's bet if it is on the PATH, else deepbet. Images whose sidecar says "
        "SkullStripped are never stripped again; with auto, nor are images that come without a "
        "skull and of which the sidecar says nothing",
    )  # fmt: skip
    add_option(
        group, "--bet-frac", metavar="F", default=0.5, type=between(0, 1),
        help="fractional intensity threshold of bet, 0 to 1; smaller keeps more",
    )  # fmt: skip
    add_option(
        group, "--bias-correction", choices=BIAS_CORRECTION_CHOICES, default="auto",
        help="tool for N4; auto: ANTs' N4BiasFieldCorrection if it is on the PATH, else antspyx",
    )  # fmt: skip


def add_verbosity(parser: Parser) -> argparse._ArgumentGroup:
    """Add how much is said, and the version; return their group."""
    group = parser.add_argument_group("other")
    add_option(
        group, "-v", "--verbose", action="count", default=0,
        help="say more; -v adds Nipype's messages, -vv everything",
    )  # fmt: skip
    add_option(group, "--version", action="version", version=f"msnmo {get_version()}")
    return group


def add_option(group: argparse._ArgumentGroup, *names: str, **keywords: Any) -> None:
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


def label_of(prefix: str) -> Callable[[str], str]:
    """Return the type of a label that may have its prefix."""

    def label(text: str) -> str:
        value = text.removeprefix(prefix)
        if not re.fullmatch(r"[0-9A-Za-z+]+", value):
            raise argparse.ArgumentTypeError(f"'{text}' is no label (letters and digits only)")
        return value

    return label


def at_least(smallest: int) -> Callable[[str], int]:
    """Return the type of a whole number that is not smaller."""

    def whole_number(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = smallest - 1
        if value < smallest:
            raise argparse.ArgumentTypeError(f"'{text}' is no whole number of {smallest} or more")
        return value

    return whole_number


def between(low: float, high: float) -> Callable[[str], float]:
    """Return the type of a number in a range."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"'{text}' is no number from {low:g} to {high:g}")
        return value

    return number


def device(text: str) -> str:
    """Return the name of a device as it was given, or refuse it."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"'{text}' is none of auto, cpu, cuda, cuda:N")
    return text
