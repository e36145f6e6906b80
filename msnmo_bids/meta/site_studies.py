"""Results by site: from scans, and from output folders of cross-validations and the group level."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from msnmo_bids.bids.names import io_spec
from msnmo_bids.bids.records import Status, read_scan, scans_with_results, source_of
from msnmo_bids.bids.resume import RAW_IMAGE, VOXELS
from msnmo_bids.bids.text_files import read_tsv
from msnmo_bids.errors import BadInputError, MissingInputError
from msnmo_bids.evaluation.crossval_results import IDENTITY, MISSING, SCANS, read_crossval
from msnmo_bids.evaluation.measures import classified, too_few
from msnmo_bids.meta.studies import Studies, log_odds
from msnmo_bids.text import listed

logger = logging.getLogger(__name__)

DSC, ACC, SN, SP = "DSC (%)", "ACC (%)", "SN (%)", "SP (%)"
#: Columns of a table of scans, as `site_studies` takes it.
OF_A_SCAN = ("site", "subject", "dsc", "truth", "called")
SITE = "site"
FOLDS = "folds.tsv"
_SEGMENTATION = "group_segmentation.tsv"
_KNOWN = "participants_diagnosis"


def site_studies(
    scans: pd.DataFrame, *, classes: Sequence[str], positive: str, noun: str = SITE
) -> list[Studies]:
    """Make a study of each site, for every measure that any scan has.

    Parameters
    ----------
    scans : DataFrame
        One row per scan. ``site`` (or folder, as `noun` says): what is compared; ``subject``:
        person, unique within the site; ``dsc`` against a manual mask, 0 to 1, missing without one;
        ``truth``: known diagnosis; ``called``: class that the model has named. Other columns are
        subgroups of sites. Scans of people with another diagnosis than `classes`, or where the
        model names none of these, count for DSC only.
    classes, positive : sequence of str, str
        Diagnoses that the model knows; sensitivity is the share of `positive` that is found,
        specificity that of all others.

    Returns
    -------
    list of Studies
        DSC: mean of the people (%) and its standard error, without sites of equal values or of too
        few people to weigh them (`too_few`). Accuracy, sensitivity and specificity: shares on the
        logit scale. A person counts with the mean of the scans.
    """
    known = scans["truth"].isin(classes)
    judged = scans[known & scans["called"].isin(classes)]
    unnamed = int(known.sum()) - len(judged)
    right = (judged["called"] == positive) == (judged["truth"] == positive)
    values: dict[str, pd.Series] = {
        DSC: 100 * scans["dsc"].astype(float),
        ACC: judged["called"] == judged["truth"],
        SN: right[judged["truth"] == positive],
        SP: right[judged["truth"] != positive],
    }
    sites = scans.drop_duplicates(SITE).set_index(SITE).drop(columns=list(OF_A_SCAN[1:]))
    note = f"In {unnamed} scans of a known diagnosis the model names none: they do not count."
    made = []
    for measure, value in values.items():
        by_scan = scans.assign(value=value.astype(float)).dropna(subset="value")
        people = by_scan.groupby([SITE, "subject"])["value"].mean().groupby(SITE)
        if not len(people):
            continue
        found = people.agg(["mean", "sem", "sum", "size"]).reindex(sites.index, fill_value=0)
        table = _pooled(found, shares=measure != DSC).join(sites)
        notes = (note,) if unnamed and measure != DSC else ()
        made.append(Studies(measure, table, measure != DSC, noun, notes))
    return made


def _pooled(found: pd.DataFrame, *, shares: bool) -> pd.DataFrame:
    """Return what `Studies.table` has besides subgroups, of the people's values by site."""
    count, effect, se = found["size"], found["mean"], found["sem"]
    left_out = count.map(too_few)
    equal = (left_out == "") & (se <= 1e-9)
    left_out[equal] = "all subjects have the same value: no standard error"
    if shares:
        effect, se = log_odds(found["sum"], count)
        left_out = pd.Series("no subjects", count.index).where(count < 1, "")
    return pd.DataFrame({"effect": effect, "se": se, "subjects": count, "left_out": left_out})


class Results(NamedTuple):
    """The ``scans`` of an output folder, and the ``classes``, as `site_studies` takes them.

    ``page`` says what they are. ``rows`` has by scan a text that is the same in a copy of the
    folder (or another cross-validation of the same people), and hardly elsewhere.
    """

    folder: Path
    page: str
    classes: tuple[str, ...]
    scans: pd.DataFrame
    rows: pd.Series


def read_results(folder: Path, *, model: str, site_column: str | None) -> Results:
    """Read the scans of an output folder of ``msnmo-crossval`` or of the app's group level.

    `model` is one of a cross-validation, `site_column` says a scan's site (None: all of one site).

    Raises
    ------
    MsnmoError
        If there are no such results, or the model or the column is missing.
    """
    if (folder / FOLDS).is_file():
        return _crossval(folder, model, site_column)
    if has_results(folder):
        return _group(folder, site_column)
    group = io_spec()["reports"]["group_table"]
    problem = f"neither results of msnmo-crossval ({FOLDS}) nor of the group level ({group})"
    remedy = "Give the output folder of either, after it has run"
    raise MissingInputError(problem, file=folder, remedy=remedy)


def has_results(folder: Path) -> bool:
    """Say whether a folder holds results that can be pooled."""
    return any((folder / name).is_file() for name in (FOLDS, io_spec()["reports"]["group_table"]))


def pooled_folders(results: Sequence[Results], *, positive: str, by_site: bool) -> list[Studies]:
    """Make a study of each folder, or (`by_site`) of each site of each, with subgroups by folder.

    As `site_studies`; folders of equal names go by their whole paths.
    """
    names = [found.folder.resolve().name for found in results]
    if len(set(names)) < len(names):
        names = [str(found.folder) for found in results]
    scans = pd.concat([found.scans for found in results], keys=names, names=["folder", None])
    scans = scans.reset_index("folder").reset_index(drop=True)
    folder, noun = scans.pop("folder"), SITE if by_site else "folder"
    if not by_site:
        scans[SITE] = folder
    elif len(results) > 1:
        scans = scans.assign(site=folder + ": " + scans[SITE], folder=folder)
    return site_studies(scans, classes=all_classes(results), positive=positive, noun=noun)


def scans_in_two(results: Sequence[Results]) -> list[str]:
    """Say which scans two folders share: by the raw images' checksums and by their rows."""
    if len(results) < 2:
        return []
    said = []
    marked = [(found.folder, _marks(found)) for found in results]
    for (one, scans), (other, others) in combinations(marked, 2):
        known = set().union(*others.values())
        if both := [name for name, marks in scans.items() if marks & known]:
            said.append(
                f"{len(both)} scans are in {one} and in {other} too: {listed(both, 5)}. Their "
                "people count in both: give folders of different people."
            )
    return said


def _marks(found: Results) -> dict[str, set[str]]:
    """Return by scan its row and, where its diagnosis file is there, the raw image's checksum."""
    marks = {str(scan): {str(row)} for scan, row in found.rows.items()}
    for scan in scans_with_results(found.folder):
        record = read_scan(found.folder, scan)
        checksum = (record.diagnosis.get(RAW_IMAGE) or {}).get(VOXELS)
        if checksum and (name := source_of(record)) in marks:
            marks[name].add(checksum)
    return marks


def all_classes(results: Sequence[Results]) -> list[str]:
    """Return the diagnoses of all folders, each once."""
    return list(dict.fromkeys(name for found in results for name in found.classes))


def _crossval(folder: Path, model: str, site_column: str | None) -> Results:
    if site_column not in (None, SITE):
        problem = f"a cross-validation has no column '{site_column}'"
        remedy = f"Its sites are in the column {SITE}: --site-column {SITE}"
        raise BadInputError(problem, file=folder, remedy=remedy)
    tables = {file.parents[1].name: file for file in sorted(folder.glob(f"models/*/*/{SCANS}"))}
    if model not in tables:
        problem = f"no fold of the model '{model}' was tested"
        remedy = f"Choose --model of {', '.join(tables) or 'those that were run'}"
        raise MissingInputError(problem, file=folder, remedy=remedy)
    classes = _classes(read_tsv(tables[model]).columns, "prob_")
    found = read_crossval(folder, classes=classes, positive=classes[-1])
    table = found.models[model].scans
    called = classified(found, table)["called"].map(dict(enumerate(classes)))
    scans = table.assign(truth=table["diagnosis"], called=called)
    # What another cross-validation of the same people has too; without a mask, what a copy has.
    same = _joined(table[[*IDENTITY, "diagnosis", "true_volume_ml"]])
    same = same.where(table["true_volume_ml"].notna(), _joined(table))
    return Results(folder, "crossval.html", classes, scans[list(OF_A_SCAN)], same)


def _group(folder: Path, site_column: str | None) -> Results:
    names = io_spec()["reports"]
    table = folder / names["group_table"]
    rows = pd.DataFrame(list(read_tsv(table).rows))
    needed = {"participant_id", "scan", "status", "diagnosis", *filter(None, [site_column])}
    if lacking := sorted(needed - set(rows)):
        remedy = "Run the group level with the site in participants.tsv, or give another column"
        raise BadInputError(f"there is no column '{lacking[0]}'", file=table, remedy=remedy)
    dsc = {row["scan"]: row.get("dsc", MISSING) for row in read_tsv(folder / _SEGMENTATION).rows}
    rows = rows[rows["status"] == Status.COMPLETE]
    if site_column and (unknown := rows[site_column] == MISSING).any():
        logger.warning("%s: %d scans without a site are not pooled", table, unknown.sum())
        rows = rows[~unknown]
    scans = pd.DataFrame({
        "site": rows[site_column] if site_column else SITE,
        "subject": rows["participant_id"],
        "dsc": pd.to_numeric(rows["scan"].map(dsc).replace(MISSING, None)),
        "truth": rows.get(_KNOWN, MISSING),
        "called": rows["diagnosis"],
    })  # fmt: skip
    same = _joined(rows.set_index("scan", drop=False))
    classes = _classes(map(str, rows), "probability_")
    return Results(folder, names["group_page"], classes, scans, same)


def _joined(rows: pd.DataFrame) -> pd.Series:
    """Return each row as one text."""
    return pd.Series(["\t".join(map(str, row)) for row in rows.to_numpy()], rows.index, dtype=str)


def _classes(columns: Iterable[str], prefix: str) -> tuple[str, ...]:
    return tuple(name.removeprefix(prefix) for name in columns if name.startswith(prefix))
