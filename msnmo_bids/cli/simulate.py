"""``msnmo-simulate``: write a BIDS data set of simulated FLAIR scans."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from itertools import cycle, islice
from pathlib import Path

from msnmo_bids.errors import ExitCode, MsnmoError, UsageError
from msnmo_bids.version import get_version

DIAGNOSES = ("MS", "NMOSD", "HC")
PRESETS = ("1.5T-2D", "1.5T-2D-8mm", "3T-2D", "3T-3D")
ANY_PROTOCOL = "any"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="msnmo-simulate",
        description="Write a BIDS data set of simulated T2-FLAIR scans with known lesions: the "
        "images, and the truth (lesion masks and labels, tissues, brain masks) as derivatives.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="new or empty folder")
    people = parser.add_argument_group("people")
    people.add_argument(
        "--participants", type=int, metavar="N", help="number of people (default: 2)"
    )
    people.add_argument(
        "--diagnosis",
        default="MS,NMOSD",
        metavar="LIST",
        help="whose lesions: names, taken in turn, or names with numbers, as in "
        "MS:10,NMOSD:10,HC:5 (HC: healthy control; default: MS,NMOSD)",
    )
    people.add_argument(
        "--sessions", type=int, default=1, metavar="K", help="visits a person (default: 1)"
    )
    people.add_argument(
        "--typicality",
        type=float,
        default=1.0,
        metavar="SHARE",
        help="share of the lesion load that follows the disease's own pattern, 0 to 1; the rest "
        "follows the other's (default: 1)",
    )
    people.add_argument(
        "--anatomy",
        type=Path,
        metavar="DIR",
        help="folder of whole-head label maps with FreeSurfer labels (default: one head, built "
        "from the MNI tissue maps)",
    )
    people.add_argument(
        "--lesion-shapes",
        type=Path,
        metavar="FILE",
        help="library of real lesion shapes, .npz (default: procedural shapes)",
    )
    scans = parser.add_argument_group("scans")
    scans.add_argument(
        "--scanner-preset",
        action="append",
        choices=(*PRESETS, ANY_PROTOCOL),
        metavar="NAME",
        help=f"protocol: {', '.join(PRESETS)}, or {ANY_PROTOCOL} (drawn freely); may be repeated, "
        "then one is drawn for each visit (default: all presets)",
    )
    scans.add_argument("--skull-strip", action="store_true", help="write images without skull")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    parser.add_argument(
        "--n-cpus", type=int, default=1, metavar="N", help="people side by side (default: 1)"
    )
    parser.add_argument("--version", action="version", version=f"msnmo {get_version()}")
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
    options = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        diagnoses = parse_diagnoses(options.diagnosis, options.participants)
        _check(options)
        _simulate(options, diagnoses)
    except MsnmoError as error:
        logging.error("%s", error)
        return int(error.exit_code)
    except OSError as error:
        logging.error("%s", error)
        return int(ExitCode.CANNOT_CREATE_OUTPUT)
    return int(ExitCode.OK)


def parse_diagnoses(text: str, participants: int | None) -> tuple[str, ...]:
    """Turn ``--diagnosis`` and ``--participants`` into one diagnosis a person.

    Parameters
    ----------
    text : str
        ``"MS,NMOSD"``, taken in turn, or ``"MS:2,HC:1"``, with numbers.
    participants : int or None
        Number of people; with numbers in `text` it may only repeat their sum.

    Returns
    -------
    tuple of str

    Raises
    ------
    UsageError
        If a name is unknown, a number is none, or the two contradict each other.

    Examples
    --------
    >>> parse_diagnoses("MS:2,HC:1", None)
    ('MS', 'MS', 'HC')
    >>> parse_diagnoses("MS,NMOSD", 3)
    ('MS', 'NMOSD', 'MS')
    """
    if participants is not None and participants < 1:
        raise UsageError("--participants must be at least 1")
    names, counts = [], []
    for part in text.split(","):
        name, colon, count = part.strip().partition(":")
        if name not in DIAGNOSES:
            raise UsageError(
                f"unknown diagnosis {name!r} in --diagnosis",
                remedy=f"There are {', '.join(DIAGNOSES)}",
            )
        if colon and not (count.isdecimal() and int(count) > 0):
            raise UsageError(f"{part.strip()!r} in --diagnosis has no number above 0")
        names.append(name)
        counts.append(int(count) if colon else None)
    numbers = [count for count in counts if count is not None]
    if not numbers:
        return tuple(islice(cycle(names), participants or 2))
    if len(numbers) < len(names):
        raise UsageError("--diagnosis has numbers for some names only")
    if participants not in (None, sum(numbers)):
        raise UsageError(
            f"--diagnosis has {sum(numbers)} people, --participants {participants}",
            remedy="Leave --participants out",
        )
    return tuple(name for name, n in zip(names, numbers, strict=True) for _ in range(n))


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot be simulated, before any work."""
    for name in ("sessions", "n_cpus"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name.replace('_', '-')} must be at least 1")
    if not 0 <= options.typicality <= 1:
        raise UsageError("--typicality must be from 0 to 1")
    if options.seed < 0:
        raise UsageError("--seed must be 0 or above")
    if options.out.exists() and any(options.out.iterdir()):
        raise UsageError("the folder is not empty", file=options.out, remedy="Name a new one")


def _simulate(options: argparse.Namespace, diagnoses: tuple[str, ...]) -> None:
    from msnmo_bids.simulation import acquisition
    from msnmo_bids.simulation.anatomy import whole_heads
    from msnmo_bids.simulation.dataset import Cohort, write_dataset
    from msnmo_bids.simulation.material import material_with
    from msnmo_bids.simulation.mni_head import mni_head

    if options.anatomy is None:
        heads = [mni_head()]
    else:
        heads = whole_heads(options.anatomy, len(diagnoses))
    material = material_with(heads, options.lesion_shapes)
    names = options.scanner_preset or PRESETS
    cohort = Cohort(
        diagnoses,
        sessions=options.sessions,
        seed=options.seed,
        protocols=() if ANY_PROTOCOL in names else tuple(acquisition.PRESETS[n] for n in names),
        skull_strip=options.skull_strip,
        typicality=options.typicality,
    )
    write_dataset(
        options.out, material.heads, cohort, shapes=material.shapes, processes=options.n_cpus
    )


if __name__ == "__main__":
    sys.exit(main())
