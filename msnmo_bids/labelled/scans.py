"""The scans of a site's own BIDS data sets, and what is known of them, also as a table.

Diagnosis: column ``diagnosis`` of ``scans.tsv``, else of ``sessions.tsv``, else of
``participants.tsv``, compared with the classes whatever the case. Site: column ``site``, likewise,
else the data set's name. Lesions: :mod:`msnmo_bids.labelled.lesion_masks`.
A scan with either of mask and diagnosis trains what it can; one with neither is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from msnmo_bids.bids.dataset import makers, read_description, write_text, write_tsv
from msnmo_bids.bids.raw_metadata import Tables
from msnmo_bids.bids.scans import Scan, find_scans
from msnmo_bids.errors import BadInputError, ExitCode, MissingInputError, MsnmoError, UsageError
from msnmo_bids.labelled.lesion_masks import LABEL_FOLDERS, LesionMasks
from msnmo_bids.preprocessing.nifti_file import open_nifti, read_nifti
from msnmo_bids.text import aligned, listed, merged

_DIAGNOSIS, _SITE = "diagnosis", "site"
COLUMNS = ("dataset", "participant_id", "session_id", "scan", "site", "diagnosis", "mask", "used",
           "reason")  # fmt: skip

Person = tuple[str, str]


@dataclass(frozen=True)
class LabelledScan:
    """One FLAIR of a site and what is known of it.

    Parameters
    ----------
    dataset, site : str
        Name of the data set's folder, with folders above it where two have the same name; where it
        was scanned.
    subject, session : str, str or None
        Labels without ``sub-`` and ``ses-``.
    diagnosis : str or None
        Name of a class; None: unknown, or another diagnosis.
    mask : Path or None
        Manual lesion mask; None: there is none that can be used.
    notes : tuple of str
        Why there is no diagnosis or no mask.
    """

    dataset: str
    subject: str
    session: str | None
    site: str
    diagnosis: str | None
    scan: Scan
    mask: Path | None
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the scan among all data sets: ``"dataset/sub-01_ses-1"``."""
        return f"{self.dataset}/{self.scan.prefix}"

    @property
    def person(self) -> Person:
        """Data set and label: the same label in two data sets is two people."""
        return self.dataset, self.subject


@dataclass(frozen=True)
class LeftOut:
    """A scan, or a participant or data set (no name; no subject), that is not used, and why."""

    dataset: str
    subject: str
    session: str | None
    name: str
    reason: str


@dataclass(frozen=True)
class Found:
    """What was found in data sets: scans with a mask, a diagnosis or both, by data set and path.

    `left_out` is everything else; `notes` say what of tables and masks could not be used or was
    guessed, and which class no scan has; `others` counts the diagnoses that are no class.
    """

    scans: tuple[LabelledScan, ...]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()
    others: Mapping[str, int] = field(default_factory=Counter)


def find_labelled_scans(
    data: Sequence[Path],
    *,
    classes: Sequence[str],
    labels: Path | None = None,
    simulated: Sequence[str] = (),
) -> Found:
    """Find all FLAIR scans of several data sets, their diagnoses, sites and lesion masks.

    Only headers are read; the content of the images is checked when they are prepared. `data` are
    root folders of BIDS data sets; `labels` is the folder of the lesion masks, absolute or from
    each root, by default the first of `LABEL_FOLDERS` that is there. `simulated` are the classes
    that simulated brains bring.

    Raises
    ------
    MsnmoError
        A folder does not exist or is given twice, no data set has ``labels``, or nothing can be
        used in any of them.
    """
    roots = [Path(folder).absolute() for folder in data]
    names = dataset_names(roots)
    _check_folders(roots, labels)
    scans: list[LabelledScan] = []
    left_out: list[LeftOut] = []
    notes: list[str] = []
    others: Counter[str] = Counter()
    for root, name in zip(roots, names, strict=True):
        found = _find_in_dataset(root, name, classes, labels)
        scans += found.scans
        left_out += found.left_out
        notes += found.notes
        others.update(found.others)
    if not scans:
        reasons = Counter(out.reason for out in left_out)
        common = reasons.most_common(1)[0][0] if reasons else "there are no scans"
        raise MissingInputError(
            f"no FLAIR with a diagnosis or a lesion mask was found ({common})",
            file=roots[0] if len(roots) == 1 else None,
            remedy="Give participants.tsv a column 'diagnosis' with "
            f"{' or '.join(classes)}, or put masks into {LABEL_FOLDERS[0]}",
        )
    notes += _without_scans(scans, others, [one for one in classes if one not in simulated])
    return Found(tuple(scans), tuple(left_out), tuple(notes), others)


def _without_scans(
    scans: Sequence[LabelledScan], others: Mapping[str, int], classes: Sequence[str]
) -> list[str]:
    """Name the classes that no scan has, and what diagnoses there are instead."""
    missing = [name for name in classes if all(scan.diagnosis != name for scan in scans)]
    if not missing or (len(missing) == len(classes) and not others):
        return []
    names = f" The tables have {listed(f'{n} ({k})' for n, k in others.items())}." if others else ""
    return [f"no scan is {' or '.join(missing)}: nothing is learned of it.{names} See --classes"]


def dataset_names(roots: Sequence[Path]) -> list[str]:
    """Name data sets by their folders, with as many folders above as tell them apart.

    Examples
    --------
    >>> dataset_names([Path("/a/raw"), Path("/b/raw"), Path("/b/other")])
    ['a-raw', 'b-raw', 'b-other']
    """
    if len(set(roots)) < len(roots):
        twice = next(root for root in roots if roots.count(root) > 1)
        raise UsageError("this data set is given twice", file=twice)
    for depth in range(1, max((len(root.parts) for root in roots), default=1) + 1):
        names = [" ".join("-".join(root.parts[-depth:]).split()) for root in roots]
        if len(set(names)) == len(names):
            break
    return names


def _check_folders(roots: Sequence[Path], labels: Path | None) -> None:
    for root in roots:
        if not root.is_dir():
            remedy = "Give the root folder of a BIDS data set"
            raise MissingInputError("there is no such folder", file=root, remedy=remedy)
    if labels is not None and labels.is_absolute() and len(roots) > 1:
        raise UsageError(
            "an absolute folder of lesion masks with several data sets",
            file=labels,
            remedy=f"Give it from each data set's root, for example {LABEL_FOLDERS[0]}",
        )
    if labels is not None and not any((root / labels).is_dir() for root in roots):
        raise MissingInputError(
            "no data set has this folder of lesion masks",
            file=labels,
            remedy=f"Give it from the data set's root, for example {LABEL_FOLDERS[0]}",
        )


def _find_in_dataset(root: Path, name: str, classes: Sequence[str], labels: Path | None) -> Found:
    """Find the scans of one data set; one without any is left out as a whole."""
    try:
        selection = find_scans(root)
    except MsnmoError as error:
        if error.exit_code != ExitCode.INPUT_MISSING:
            raise
        return Found((), (LeftOut(name, "", None, "", error.problem),))
    tables = Tables(root)
    folders = [labels] if labels else [f for f in LABEL_FOLDERS if (root / f).is_dir()]
    masks = LesionMasks(root / (*folders, LABEL_FOLDERS[0])[0], selection.scans)
    title = read_description(root).get("Name")
    default_site = " ".join((title if isinstance(title, str) else "").split() or root.name.split())
    missing = [(subject, "no FLAIR") for subject in selection.without_flair]
    no_folder = "in participants.tsv, but there is no folder"
    missing += [(subject, no_folder) for subject in tables.participants.unmatched]
    scans: list[LabelledScan] = []
    left_out = [LeftOut(name, subject, None, "", reason) for subject, reason in missing]
    others: Counter[str] = Counter()
    for scan in selection.scans:
        problem = _header_problem(scan.path)
        diagnosis, no_diagnosis = _diagnosis(tables, scan, classes)
        mask, no_mask = (None, "") if problem else masks.of(scan)
        if not (problem or diagnosis) and (other := tables.value(scan.relative, _DIAGNOSIS)):
            others[other] += 1
        why = tuple(note for note in (no_diagnosis, no_mask) if note)
        if problem or (diagnosis is None and mask is None):
            reason = problem or "; ".join(why)
            left_out.append(LeftOut(name, scan.subject, scan.session, scan.prefix, reason))
            continue
        site = tables.value(scan.relative, _SITE) or default_site
        scans.append(
            LabelledScan(name, scan.subject, scan.session, site, diagnosis, scan, mask, why)
        )
    left_out.sort(key=lambda out: (out.subject, out.name))
    names = [scan.relative for scan in selection.scans]
    in_tables = [*tables.differing(names, _DIAGNOSIS), *tables.notes(names, (_DIAGNOSIS, _SITE))]
    notes = merged([*in_tables, *masks.unused()])
    notes = [f"{name}: {line}" for line in notes]
    return Found(tuple(scans), tuple(left_out), tuple(notes), others)


def _diagnosis(tables: Tables, scan: Scan, classes: Sequence[str]) -> tuple[str | None, str]:
    """Return the class of a scan, or None and why."""
    if value := tables.value(scan.relative, _DIAGNOSIS):
        by_name = {name.casefold(): name for name in classes}
        if value.casefold() in by_name:
            return by_name[value.casefold()], ""
        return None, f"diagnosis '{value}' is not a class ({', '.join(classes)})"
    table = tables.participants
    if table.problem or not table.exists:
        problem = f" ({table.problem})" if table.problem else ""
        return None, f"no participants.tsv that can be read{problem}"
    if _DIAGNOSIS not in table.columns:
        return None, "no column 'diagnosis' in participants.tsv"
    if scan.subject not in table:
        return None, "not in participants.tsv"
    if (scan.subject, _DIAGNOSIS) in table.contradictions:
        return None, "rows of participants.tsv that contradict each other"
    return None, "no diagnosis in participants.tsv"


def _header_problem(image: Path) -> str | None:
    """Say what is wrong with an image whose header cannot be read."""
    try:
        open_nifti(image)
    # A broken file raises errors of all kinds here; reading it whole says it in plain words.
    except Exception as broken:
        try:
            read_nifti(image)
        except BadInputError as error:
            return error.problem
        return f"cannot be read ({type(broken).__name__})"
    return None


def write_found(found: Found, folder: Path) -> Path:
    """Write one row per scan or participant (``data.tsv``) and the counts in words (``data.txt``).

    Return the table.

    What is used comes first. ``used`` and ``mask`` are ``yes`` or ``no``, ``reason`` says why a
    scan is left out, or what is missing of one that is used.
    """
    rows: list[dict[str, Any]] = [
        {
            **who(scan, scan.scan.prefix),
            "site": scan.site,
            "diagnosis": scan.diagnosis,
            "mask": "yes" if scan.mask else "no",
            "used": "yes",
            "reason": "; ".join(scan.notes),
        }
        for scan in found.scans
    ]
    rows += [{**who(out, out.name), "used": "no", "reason": out.reason} for out in found.left_out]
    table, text = folder / "data.tsv", folder / "data.txt"
    write_tsv(table, COLUMNS, rows)
    lines = counts(found)
    if found.notes:
        lines += ["", "Not used, or guessed:", *(f"  {note}" for note in found.notes)]
    write_text(text, "\n".join(lines) + "\n")
    return table


def counts(found: Found) -> list[str]:
    """Say in a few lines what was found for each diagnosis, site and session."""
    scans = pd.DataFrame(
        [
            (scan.diagnosis, scan.site, scan.session or "n/a", scan.person, scan.mask is not None)
            for scan in found.scans
        ],
        columns=("diagnosis", "site", "session", "person", "mask"),
    )
    named, people = scans["diagnosis"].notna(), scans["person"].nunique()
    groups = scans.fillna({"diagnosis": "unknown"}).groupby(["diagnosis", "site", "session"])
    table = groups.agg(people=("person", "nunique"), scans=("mask", "size"), masks=("mask", "sum"))
    table = table.reset_index().astype(str)
    lines = [
        f"{_count(len(scans), 'scan')} of {_count(people, 'person', 'people')}: "
        f"{named.sum()} with a diagnosis, {scans['mask'].sum()} with a lesion mask, "
        f"{(named & scans['mask']).sum()} with both",
        "",
        *aligned([tuple(table.columns), *table.itertuples(index=False, name=None)]),
    ]
    if found.left_out:
        reasons = Counter(out.reason for out in found.left_out)
        lines += ["", f"Left out: {len(found.left_out)}"]
        lines += [f"  {number} x {reason}" for reason, number in reasons.most_common()]
    return lines


def who(entry: LabelledScan | LeftOut, name: str) -> dict[str, Any]:
    """Return the columns of a table that say which scan or person something is about."""
    return {
        "dataset": entry.dataset,
        "participant_id": f"sub-{entry.subject}" if entry.subject else None,
        "session_id": f"ses-{entry.session}" if entry.session else None,
        "scan": name,
    }


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def notes_on(found: Found) -> tuple[str, ...]:
    """Say which scans are simulated, and which diagnosis no real one has, in sentences."""
    scans = found.scans
    roots = {scan.scan.bids_dir for scan in scans}
    simulated = {root for root in roots if "msnmo-simulate" in makers(read_description(root))}
    real = [scan for scan in scans if scan.scan.bids_dir not in simulated]
    notes = []
    if count := len(scans) - len(real):
        notes.append(
            f"{count} of {len(scans)} scans are simulated: what is measured on them says nothing "
            "about patients."
        )
    diagnoses = {scan.diagnosis for scan in scans if scan.diagnosis}
    unseen = sorted(diagnoses - {scan.diagnosis for scan in real})
    notes += [f"There is no real scan of {diagnosis} among them." for diagnosis in unseen]
    return tuple(notes)
