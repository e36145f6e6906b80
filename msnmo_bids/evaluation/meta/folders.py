"""Read results by site from output folders: of cross-validations and of the app's group level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from msnmo_bids.bids.dataset import read_table
from msnmo_bids.bids.names import io_spec
from msnmo_bids.errors import BadInputError, ExitCode, MsnmoError
from msnmo_bids.evaluation.crossval import MISSING, SCANS, read_crossval
from msnmo_bids.evaluation.meta.sites import SiteScan, site_studies
from msnmo_bids.evaluation.meta.studies import Studies

SITE = "site"
FOLDS = "folds.tsv"
NMOSD = "NMOSD"
_SEGMENTATION = "group_segmentation.tsv"
_KNOWN = "participants_diagnosis"


@dataclass(frozen=True)
class Results:
    """The scans of one output folder.

    Parameters
    ----------
    folder : Path
        The folder.
    page : str
        Its own page, which says what the scans are.
    classes : tuple of str
        Diagnoses that the model knows.
    scans : list of SiteScan
        Scans with a result.
    """

    folder: Path
    page: str
    classes: tuple[str, ...]
    scans: list[SiteScan]


def read_results(folder: Path, *, model: str, site_column: str | None) -> Results:
    """Read the scans of an output folder.

    Parameters
    ----------
    folder : Path
        Of ``msnmo-crossval`` or of the app's group level.
    model : str
        Which model of a cross-validation.
    site_column : str or None
        Column that says a scan's site; None: all of one site.

    Returns
    -------
    Results

    Raises
    ------
    MsnmoError
        If there are no such results, or the model or the column is missing.
    """
    if (folder / FOLDS).is_file():
        return _crossval(folder, model, site_column)
    table = folder / io_spec()["reports"]["group_table"]
    if not table.is_file():
        raise MsnmoError(
            f"neither results of msnmo-crossval ({FOLDS}) nor of the group level ({table.name})",
            file=folder,
            remedy="Give the output folder of either, after it has run",
            exit_code=ExitCode.INPUT_MISSING,
        )
    return _group(folder, table, site_column)


def pooled_folders(results: Sequence[Results], *, positive: str, by_site: bool) -> list[Studies]:
    """Make a study of each folder, or of each site of each folder.

    Parameters
    ----------
    results : sequence of Results
        Of each folder.
    positive : str
        Positive diagnosis of sensitivity and specificity.
    by_site : bool
        Whether the sites of a folder are told apart.

    Returns
    -------
    list of Studies
        One a measure that any scan has.
    """
    names = _names([found.folder for found in results])
    scans: list[SiteScan] = []
    groups: dict[str, dict[str, str]] = {}
    for name, found in zip(names, results, strict=True):
        for scan in found.scans:
            site = name if not by_site else scan.site
            if by_site and len(results) > 1:
                site = f"{name}: {scan.site}"
                groups[site] = {"folder": name}
            scans.append(replace(scan, site=site))
    return site_studies(
        scans, classes=all_classes(results), positive=positive, groups=groups,
        noun=SITE if by_site else "folder",
    )  # fmt: skip


def all_classes(results: Sequence[Results]) -> list[str]:
    """Return the diagnoses of all folders, each once."""
    return list(dict.fromkeys(name for found in results for name in found.classes))


def _names(folders: Sequence[Path]) -> list[str]:
    """Return the folders' names; whole paths where two have the same."""
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def _crossval(folder: Path, model: str, site_column: str | None) -> Results:
    if site_column not in (None, SITE):
        raise BadInputError(
            f"a cross-validation has no column '{site_column}'", file=folder,
            remedy=f"Its sites are in the column {SITE}: --site-column {SITE}",
        )  # fmt: skip
    first = next(iter(sorted((folder / "models").glob(f"{model}/fold-*/{SCANS}"))), None)
    if first is None:
        there = sorted({file.parents[1].name for file in folder.glob(f"models/*/fold-*/{SCANS}")})
        raise MsnmoError(
            f"no fold of the model '{model}' was tested", file=folder,
            remedy=f"Choose --model of {', '.join(there) or 'those that were run'}",
            exit_code=ExitCode.INPUT_MISSING,
        )  # fmt: skip
    header = first.read_text(encoding="utf-8").split("\n", 1)[0].split("\t")
    classes = tuple(name.removeprefix("prob_") for name in header if name.startswith("prob_"))
    found = read_crossval(folder, classes=classes, positive=classes[-1])
    table = found.models[model].scans
    columns = [f"prob_{name}" for name in classes]
    scans = []
    for row in table.to_dict("records"):
        chances = np.array([row[column] for column in columns], dtype=float)
        called = None if np.isnan(chances).any() else classes[int(chances.argmax())]
        dsc = None if np.isnan(row["dsc"]) else float(row["dsc"])
        scans.append(SiteScan(row["site"], row["subject"], dsc, row["diagnosis"], called))
    return Results(folder, "crossval.html", classes, scans)


def _group(folder: Path, table: Path, site_column: str | None) -> Results:
    rows = read_table(table)
    header = list(rows[0]) if rows else []
    needed = {"participant_id", "scan", "status", "diagnosis", *filter(None, [site_column])}
    if lacking := sorted(needed - set(header)):
        raise BadInputError(
            f"there is no column '{lacking[0]}'", file=table,
            remedy="Run the group level again, with the site in participants.tsv; or give another "
            "--site-column",
        )  # fmt: skip
    dsc = {row["scan"]: row.get("dsc", MISSING) for row in read_table(folder / _SEGMENTATION)}
    classes = tuple(c.removeprefix("probability_") for c in header if c.startswith("probability_"))
    scans = []
    for row in rows:
        if row["status"] != "ok":
            continue
        measured = dsc.get(row["scan"], MISSING)
        known = row.get(_KNOWN, MISSING)
        scans.append(
            SiteScan(
                row[site_column] if site_column else SITE,
                row["participant_id"],
                None if measured == MISSING else float(measured),
                None if known == MISSING else known,
                row["diagnosis"],
            )
        )
    return Results(folder, io_spec()["reports"]["group_page"], classes, scans)
