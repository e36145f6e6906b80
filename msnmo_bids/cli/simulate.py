"""``msnmo-simulate``: write a BIDS data set of simulated FLAIR scans."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from msnmo_bids.cli.parser import Parser
from msnmo_bids.errors import UsageError
from msnmo_bids.run.options import (
    OUTPUT,
    Assets,
    Options,
    argument,
    at_least,
    between,
    flag,
    list_of,
    option,
)
from msnmo_bids.run.preflight import check_places
from msnmo_bids.run.session import guard

PROGRAM = "msnmo-simulate"
DIAGNOSES = ("MS", "NMOSD", "SVD", "HC")
PRESETS = ("1.5T-2D", "1.5T-2D-8mm", "3T-2D", "3T-3D")
ANY_PROTOCOL = "any"
WHAT = (
    "Write a BIDS data set of simulated T2-FLAIR scans with known lesions: the images, and the "
    "truth (lesion masks and labels, tissues, brain masks) as derivatives."
)
EPILOG = """\
examples:
  msnmo-simulate OUT --diagnosis MS:10,NMOSD:10,HC:5 --sessions 2 --seed 1
  msnmo-simulate OUT --diagnosis MS:1,NMOSD:1 --sessions 2,1 --load 20,5"""


def one_each(text: str) -> tuple[str, ...]:
    """Return one diagnosis per person of a list of names, with numbers or for one person each.

    >>> one_each("MS:2,HC")
    ('MS', 'MS', 'HC')
    """
    people: list[str] = []
    for part in text.split(","):
        name, colon, count = part.strip().partition(":")
        if name not in DIAGNOSES:
            raise ValueError(f"unknown diagnosis {name!r} (there are {', '.join(DIAGNOSES)})")
        if colon and not (count.isdecimal() and int(count) > 0):
            raise ValueError(f"{part.strip()!r} has no number above 0")
        people += [name] * int(count or 1)
    return tuple(people)


@dataclass(frozen=True, kw_only=True)
class People:
    """Who is simulated."""

    TITLE: ClassVar[str] = "people"

    diagnosis: tuple[str, ...] = option(
        "whose lesions, and how many people's: as in MS:10,NMOSD:10,HC:5 (HC: healthy control; "
        "SVD: age-related small-vessel disease, which looks like both; default: MS,NMOSD)",
        default=("MS", "NMOSD"),
        metavar="LIST",
        type=one_each,
    )
    sessions: tuple[int, ...] = option(
        "visits of each person, or of each in turn, as in 2,1 (default: 1)",
        default=(1,),
        metavar="K[,K...]",
        type=list_of(at_least(1)),
    )
    load: tuple[float, ...] = option(
        "lesion volume at the first visit in ml, of each person in turn, as in 20,5 "
        "(default: drawn as in published cohorts)",
        default=(),
        metavar="ML[,ML...]",
        type=list_of(between(0, 70)),
    )
    typicality: float = option(
        "share of the lesion load of MS and NMOSD that follows the disease's own pattern, 0 to 1; "
        "the rest follows the other's",
        default=1.0,
        metavar="SHARE",
        type=between(0, 1),
    )
    seed: int = option("random seed", default=0, metavar="N", type=at_least(0))
    n_cpus: int = option("people side by side", default=1, metavar="N", type=at_least(1))


@dataclass(frozen=True, kw_only=True)
class Scans:
    """How they are scanned."""

    TITLE: ClassVar[str] = "scans"

    scanner_preset: tuple[str, ...] | None = option(
        f"protocol: {', '.join(PRESETS)}, or {ANY_PROTOCOL} (drawn freely); may be repeated, then "
        "one is drawn for each visit (default: all presets)",
        action="append",
        choices=(*PRESETS, ANY_PROTOCOL),
        metavar="NAME",
    )
    skull_strip: bool = flag("write images without skull")


@dataclass(frozen=True, kw_only=True)
class SimulateOptions(Options, Scans, Assets, People):
    """The options of ``msnmo-simulate``."""

    out: Path = argument("new or empty folder", metavar="OUT", type=Path)

    @property
    def reads(self) -> tuple[Path, ...]:
        """The folder of label maps."""
        return () if self.anatomy is None else (self.anatomy,)

    @property
    def writes(self) -> dict[str, Path | None]:
        """The data set."""
        return {OUTPUT: self.out}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code, as :func:`msnmo_bids.cli.main.main`."""
    remedy = "Remove what was written and run the same command again"
    with guard(PROGRAM, argv, remedy=remedy) as session:
        options = Parser(PROGRAM, SimulateOptions, WHAT, EPILOG).options(session.command)
        session.show(options.verbose)
        _simulate(options)
    return int(session.exit_code)


def _simulate(options: SimulateOptions) -> None:
    check_places(options)
    if options.out.exists() and any(options.out.iterdir()):
        raise UsageError("the folder is not empty", file=options.out, remedy="Name a new one")
    from msnmo_bids.simulation import imaging
    from msnmo_bids.simulation.anatomy import whole_heads
    from msnmo_bids.simulation.assets import PERSON_SIZE, assets_with, mni_head
    from msnmo_bids.simulation.dataset import Cohort, write_dataset

    if options.anatomy is None:
        heads = [mni_head(PERSON_SIZE)]
    else:
        heads = whole_heads(options.anatomy, len(options.diagnosis))
    assets = assets_with(heads, options.lesion_shapes)
    names = options.scanner_preset or PRESETS
    cohort = Cohort(
        options.diagnosis,
        sessions=options.sessions,
        seed=options.seed,
        protocols=() if ANY_PROTOCOL in names else tuple(imaging.PRESETS[n] for n in names),
        skull_strip=options.skull_strip,
        typicality=options.typicality,
        loads=options.load,
    )
    write_dataset(options.out, assets.heads, cohort, shapes=assets.shapes, processes=options.n_cpus)


if __name__ == "__main__":
    sys.exit(main())
