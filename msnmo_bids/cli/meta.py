"""``msnmo-meta``: pool the results of studies, of sites or of several output folders."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from msnmo_bids.cli.guard import guard
from msnmo_bids.cli.parser import Parser
from msnmo_bids.errors import ExitCode, MsnmoError, UsageError
from msnmo_bids.run.checks import check_places
from msnmo_bids.run.options import OUTPUT, Options, argument, option

if TYPE_CHECKING:
    from msnmo_bids.meta.studies import Studies

logger = logging.getLogger(__name__)

PROGRAM = "msnmo-meta"
EXAMPLE = "example"
EPILOG = """\
examples:
  msnmo-meta studies.tsv /data/meta
  msnmo-meta example /data/meta                                     # the table of the paper
  msnmo-meta /data/crossval /data/meta --site-column site           # sites of one cross-validation
  msnmo-meta /data/out-a /data/out-b /data/out-c /data/meta         # output folders

a table has one line per study, separated by tabs, with the columns
  study    its name
  measure  what was measured, for example DSC (%)
  effect   with se, with ci_low and ci_high (95 %), or with sd and subjects;
           or events and total instead, which are pooled as logits
and any others as subgroups.

exit codes:
  0 done   1 failed   64 wrong usage   65 a table is not as it should be   66 input missing
  73 output cannot be created   74 input/output error
Research use only; not a medical device."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """What is pooled of a table of studies."""

    TITLE: ClassVar[str] = "tables"

    subgroups: tuple[str, ...] | None = option(
        "columns of subgroups (default: all others in which studies share values)",
        nargs="+",
        metavar="COLUMN",
    )


@dataclass(frozen=True, kw_only=True)
class OutputFolders:
    """What is pooled of output folders."""

    TITLE: ClassVar[str] = "output folders"

    site_column: str | None = option(
        "pool over the sites in this column (default: over the folders; over 'site' with one "
        "folder)",
        metavar="NAME",
    )
    model: str = option("model of a cross-validation", default="joint", metavar="NAME")
    positive: str | None = option(
        "positive diagnosis of sensitivity (default: NMOSD, else the last class)", metavar="NAME"
    )


@dataclass(frozen=True, kw_only=True)
class MetaOptions(Options, OutputFolders, Table):
    """The options of ``msnmo-meta``."""

    TITLE: ClassVar[str] = ""

    inputs: tuple[Path, ...] = argument(
        f"a table of studies (.tsv), '{EXAMPLE}' for the one that ships, or output folders of "
        "msnmo-crossval or of msnmo's group level",
        nargs="+",
        metavar="INPUT",
        type=Path,
    )
    output_dir: Path = argument("folder for the results; made if missing", type=Path)

    @property
    def reads(self) -> tuple[Path, ...]:
        """The output folders that are pooled."""
        return tuple(path for path in self.inputs if path.is_dir())

    @property
    def writes(self) -> dict[str, Path | None]:
        """Where the results go."""
        return {OUTPUT: self.output_dir}


def build_parser() -> Parser[MetaOptions]:
    """Return the parser of the command line."""
    return Parser(
        PROGRAM,
        MetaOptions,
        "Pool results: fixed and random effects, heterogeneity, subgroups, leave-one-out, Egger's "
        "test, forest and funnel plots, on one page.",
        EPILOG,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code, as :func:`msnmo_bids.cli.main.main`."""
    with guard(PROGRAM, argv, remedy="Run the same command again") as session:
        options = build_parser().options(session.command)
        session.show(options.verbose)
        _check(options)
        session.open_log(options.output_dir)
        _meta(options)
    return int(session.exit_code)


def _check(options: MetaOptions) -> None:
    from msnmo_bids.meta.site_studies import has_results

    check_places(options)
    if has_results(options.output_dir):
        raise UsageError(
            "the last folder is for the results, and this one holds some to pool",
            file=options.output_dir,
            remedy="Name a new folder last",
        )


def _meta(options: MetaOptions) -> None:
    from msnmo_bids.meta.report import write_meta

    inputs = options.inputs
    if any(path.is_dir() for path in inputs):
        poolings, notes = _of_folders(options)
        sources = [str(path) for path in inputs]
    else:
        poolings, sources = _of_table(options)
        notes = []
    if not any(data.studies for data in poolings):
        reasons = [f"{name}: {why}" for data in poolings for name, why in data.left_out]
        raise MsnmoError(
            f"there is nothing to pool ({'; '.join(reasons[:5]) or 'no scan has a result'})",
            file=inputs[0],
            remedy="Diagnoses in participants.tsv or manual masks are needed, or effects and their "
            "errors in a table",
            exit_code=ExitCode.BAD_DATA,
        )
    page = write_meta(options.output_dir, poolings, sources=sources, notes=notes)
    logger.info("Tables, figures and page: %s", page)


def _of_table(options: MetaOptions) -> tuple[list[Studies], list[str]]:
    from msnmo_bids.meta.studies import PUBLISHED, read_studies, sidecar

    if len(options.inputs) > 1:
        raise UsageError(
            "several tables cannot be pooled at once", remedy="Put their lines into one table"
        )
    path = options.inputs[0]
    if str(path) != EXAMPLE:
        return read_studies(path, options.subgroups), [str(path)]
    return read_studies(PUBLISHED, options.subgroups), [sidecar(PUBLISHED)["Source"]]


def _of_folders(options: MetaOptions) -> tuple[list[Studies], list[str]]:
    from msnmo_bids.meta.site_studies import NMOSD, SITE, all_classes, pooled_folders, read_results
    from msnmo_bids.reports.report_text import NO_REAL_NMOSD

    if options.subgroups:
        raise UsageError("--subgroups is for tables; folders are told apart by --site-column")
    column = options.site_column or (SITE if len(options.inputs) == 1 else None)
    results = [
        read_results(folder, model=options.model, site_column=column) for folder in options.inputs
    ]
    classes = all_classes(results)
    positive = options.positive or (NMOSD if NMOSD in classes else classes[-1])
    if positive not in classes:
        raise UsageError(f"--positive {positive} is none of {', '.join(classes)}")
    notes = [
        f"Positive diagnosis of sensitivity and specificity: {positive}.",
        f"The weights that ship with msnmo: {NO_REAL_NMOSD[0].lower()}{NO_REAL_NMOSD[1:]}",
        *(
            f"Whether the scans of {found.folder} are real or simulated says {found.page} there."
            for found in results
        ),
    ]
    return pooled_folders(results, positive=positive, by_site=column is not None), notes


if __name__ == "__main__":
    sys.exit(main())
