"""``msnmo-meta``: pool the results of studies, of sites or of several output folders."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from msnmo_bids.cli.parser import Parser
from msnmo_bids.errors import BadInputError, UsageError
from msnmo_bids.run.options import OUTPUT, Options, argument, option
from msnmo_bids.run.preflight import check_places
from msnmo_bids.run.session import guard

if TYPE_CHECKING:
    from msnmo_bids.meta.studies import Studies

logger = logging.getLogger(__name__)

PROGRAM = "msnmo-meta"
EXAMPLE = "example"
WHAT = (
    "Pool results: fixed and random effects, heterogeneity, subgroups, leave-one-out, Egger's "
    "test, forest and funnel plots, on one page."
)
EPILOG = """\
examples:
  msnmo-meta studies.tsv /data/meta
  msnmo-meta example /data/meta                                     # the table of the paper
  msnmo-meta /data/crossval /data/meta --site-column site           # sites of one cross-validation
  msnmo-meta /data/out-a /data/out-b /data/out-c /data/meta         # output folders

a table has one line per study, separated by tabs: study, measure (such as DSC (%)), and effect with
se, with ci_low and ci_high (95 %) or with sd and subjects; or events and total instead, which are
pooled as logits. A text in left_out leaves a study out, and is the reason given. Any other columns
are subgroups."""


@dataclass(frozen=True, kw_only=True)
class MetaOptions(Options):
    """The options of ``msnmo-meta``."""

    TITLE: ClassVar[str] = "studies and tables"

    inputs: tuple[Path, ...] = argument(
        f"a table of studies (.tsv), '{EXAMPLE}' for the one that ships, or output folders of "
        "msnmo-crossval or of msnmo's group level",
        nargs="+", metavar="INPUT", type=Path,
    )  # fmt: skip
    output_dir: Path = argument("folder for the results; made if missing", type=Path)
    subgroups: tuple[str, ...] | None = option(
        "of a table: columns of subgroups (default: all others in which studies share values)",
        nargs="+", metavar="COLUMN",
    )  # fmt: skip
    site_column: str | None = option(
        "of folders: pool over the sites in this column (default: over the folders; over 'site' "
        "with one folder)", metavar="NAME",
    )  # fmt: skip
    model: str = option("model of a cross-validation", default="joint", metavar="NAME")
    positive: str | None = option(
        "of folders: positive diagnosis of sensitivity (default: NMOSD, else the last class)",
        metavar="NAME",
    )

    @property
    def reads(self) -> tuple[Path, ...]:
        """The output folders that are pooled."""
        return tuple(path for path in self.inputs if path.is_dir())

    @property
    def writes(self) -> dict[str, Path | None]:
        """Where the results go."""
        return {OUTPUT: self.output_dir}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code, as :func:`msnmo_bids.cli.main.main`."""
    with guard(PROGRAM, argv, remedy="Run the same command again") as session:
        options = Parser(PROGRAM, MetaOptions, WHAT, EPILOG).options(session.command)
        session.show(options.verbose)
        check_places(options)
        from msnmo_bids.meta.site_studies import has_results  # after --help

        if has_results(options.output_dir):
            problem = "the last folder is for the results, and this one holds some to pool"
            raise UsageError(problem, file=options.output_dir, remedy="Name a new folder last")
        session.open_log(options.output_dir)
        _meta(options)
    return int(session.exit_code)


def _meta(options: MetaOptions) -> None:
    from msnmo_bids.meta.report import write_meta

    poolings, sources, notes = _of_folders(options) if options.reads else _of_table(options)
    if not any(data.studies for data in poolings):
        reasons = [f"{name}: {why}" for data in poolings for name, why in data.left_out]
        raise BadInputError(
            f"there is nothing to pool ({'; '.join(reasons[:5]) or 'no scan has a result'})",
            file=options.inputs[0],
            remedy="Diagnoses in participants.tsv or manual masks are needed, or effects and their "
            "errors in a table",
        )
    page = write_meta(options.output_dir, poolings, sources=sources, notes=notes)
    logger.info("Tables, figures and page: %s", page)


def _of_table(options: MetaOptions) -> tuple[list[Studies], list[str], list[str]]:
    from msnmo_bids.meta.studies import PUBLISHED, read_studies, sidecar

    if len(options.inputs) > 1:
        remedy = "Put their lines into one table"
        raise UsageError("several tables cannot be pooled at once", remedy=remedy)
    file = options.inputs[0]
    if str(file) == EXAMPLE:
        return read_studies(PUBLISHED, options.subgroups), [sidecar(PUBLISHED)["Source"]], []
    return read_studies(file, options.subgroups), [str(file)], []


def _of_folders(options: MetaOptions) -> tuple[list[Studies], list[str], list[str]]:
    from msnmo_bids.evaluation.crossval_results import positive_class
    from msnmo_bids.meta.site_studies import (
        SITE,
        all_classes,
        pooled_folders,
        read_results,
        scans_in_two,
    )
    from msnmo_bids.vocabulary import NO_REAL_NMOSD

    if options.subgroups:
        raise UsageError("--subgroups is for tables; folders are told apart by --site-column")
    _check_each_once(options.inputs)
    column = options.site_column or (SITE if len(options.inputs) == 1 else None)
    results = [read_results(folder, model=options.model, site_column=column)
               for folder in options.inputs]  # fmt: skip
    positive = positive_class(options.positive, all_classes(results))
    shared = scans_in_two(results)
    for said in shared:
        logger.warning("%s", said)
    notes = [
        *shared,
        f"Positive diagnosis of sensitivity and specificity: {positive}.",
        NO_REAL_NMOSD,
        *(f"Whether the scans of {found.folder} are real or simulated says {found.page} there."
          for found in results),
    ]  # fmt: skip
    studies = pooled_folders(results, positive=positive, by_site=column is not None)
    return studies, [str(folder) for folder in options.inputs], notes


def _check_each_once(folders: Sequence[Path]) -> None:
    """Refuse a folder that is given twice (64), by another path or link too."""
    seen: dict[Path, Path] = {}
    for folder in folders:
        if (first := seen.setdefault(folder.resolve(), folder)) is not folder:
            problem = f"is the same folder as {first}: its people would count twice"
            raise UsageError(problem, file=folder, remedy="Give each folder once")


if __name__ == "__main__":
    sys.exit(main())
