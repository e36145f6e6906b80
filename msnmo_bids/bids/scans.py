"""Which FLAIR images a BIDS data set has: pybids, limited to what is needed.

pybids walks the subject, session and ``anat`` folders alone and indexes only FLAIR files, so that
thousands of scans take seconds; what seems to be meant elsewhere is named (`bids/passed_over.py`).
Sidecars are read here and not by pybids, whose index fails as a whole when one sidecar is broken.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msnmo_bids.bids.dataset import check_description, subject_folders
from msnmo_bids.bids.names import io_spec
from msnmo_bids.bids.passed_over import UNREADABLE_NOTE, passed_over, unreadable
from msnmo_bids.bids.raw_metadata import Sidecars, spelling
from msnmo_bids.bids.text_files import read_json
from msnmo_bids.errors import ExitCode, MissingInputError, MsnmoError, UsageError
from msnmo_bids.text import Note, listed, merged, one_line

if TYPE_CHECKING:
    from bids.layout import BIDSLayout
    from pathspec import GitIgnoreSpec

logger = logging.getLogger(__name__)

Filters = Mapping[str, Any]
FILTER_KEY = "flair"
FIXED_ENTITIES = ("datatype", "suffix")
SCAN_NAME = re.compile(
    r"(?P<prefix>sub-(?P<subject>[^_/]+)(?:_ses-(?P<session>[^_/]+))?(?:_[^/]+)?)_FLAIR\.nii(\.gz)?"
)
#: Entities of a raw FLAIR, and what BIDS takes for a label.
_ENTITIES = ("sub", "ses", "acq", "ce", "rec", "run", "echo", "part", "chunk", "task", "mod")
_LABEL = "[0-9A-Za-z+]+"
#: Entities that raw images do not have.
OF_DERIVATIVES = ("space", "desc")
NOT_MAGNITUDE = ("phase", "real", "imag")
_ALIKE_NOTE = (
    "labels that differ in zeros or capitals alone; each counts apart (if they are one, use "
    "--exclude)"
)


@dataclass(frozen=True)
class Scan:
    """One raw FLAIR image."""

    path: Path  #: The image; it may be a link without content (git-annex).
    bids_dir: Path  #: Root of its data set.
    relative: str  #: POSIX path from the root.
    subject: str  #: Label without ``sub-``.
    session: str | None  #: Label without ``ses-``.
    prefix: str  #: Name of the file without ``_FLAIR.nii[.gz]``.
    folder: str  #: Folder of its derivatives, POSIX path from the root of the output.
    skull_stripped: bool | None = None  #: What the sidecar says; None when it does not say.
    #: All that the sidecars say, after inheritance.
    metadata: dict[str, Any] = field(default_factory=dict, compare=False)
    #: What was left out or guessed in the sidecars.
    notes: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Selection:
    """What the filters select from a data set."""

    scans: tuple[Scan, ...]  #: Sorted by path.
    subjects: tuple[str, ...]  #: All selected participants.
    without_flair: tuple[str, ...]  #: Those of them that have no FLAIR at all.
    #: Every scan of these participants, whatever the session and the filters: a report is about the
    #: whole participant.
    available: tuple[Scan, ...]
    #: The same, with those that the user left out by name: a lesion mask may fit one of them, too.
    known: tuple[Scan, ...] = ()


def select_subjects(bids_dir: Path, labels: Sequence[str] | None = None) -> list[str]:
    """Return the participants of a data set, or the ones asked for, sorted, without ``sub-``.

    Raises
    ------
    MsnmoError
        If the data set has no participants (66), or not the ones asked for (18).
    """
    existing = subject_folders(bids_dir)
    if not existing:
        raise MissingInputError(
            "there is no sub-* folder in it",
            file=bids_dir,
            remedy="Give the root folder of a BIDS data set",
        )
    if not labels:
        return existing
    wanted = {label.removeprefix("sub-") for label in labels}
    if missing := sorted(wanted - set(existing)):
        raise unknown_label("participant", missing, existing)
    return sorted(wanted)


def find_scans(
    bids_dir: Path,
    *,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    filters: Filters | None = None,
) -> Selection:
    """Find every FLAIR of the selected participants and sessions, all when not given.

    Labels may have ``sub-`` and ``ses-``; `filters` are pybids entities (:func:`read_filters`).

    Raises
    ------
    MsnmoError
        If a label does not exist or the filters select nothing (18), or if there is no FLAIR or
        no participant in the data set (66).
    """
    bids_dir = bids_dir.absolute()
    subjects = select_subjects(bids_dir, participants)
    check_description(bids_dir)
    closed = unreadable(bids_dir, subjects)
    layout = _index(bids_dir, subjects if participants else None, closed)
    ignored = _ignored(bids_dir)
    scans = available = _scans(_query(layout, {}), bids_dir, ignored)
    there = [subject for subject in subjects if f"sub-{subject}" not in closed]
    folders = {scan.folder for scan in available}
    notes = passed_over(bids_dir, there, folders, closed, ignored, all_of_them=not participants)
    for line in merged([*(Note(UNREADABLE_NOTE, place) for place in closed), *notes]):
        logger.warning("%s", line)
    if filters:
        fitting = set(_query(layout, filters))
        scans = [scan for scan in scans if str(scan.path) in fitting]
    if sessions:
        scans = _of_sessions(scans, sessions, bids_dir, subjects)
    if not scans:
        raise _nothing(bids_dir, filtered=bool(participants or sessions or filters))
    if participants and (empty := {s.subject for s in available} - {s.subject for s in scans}):
        logger.warning(
            "No FLAIR fits the sessions and filters asked for: %s",
            listed(f"sub-{label}" for label in sorted(empty)),
        )
    with_flair = {scan.subject for scan in available}
    without = tuple(subject for subject in there if subject not in with_flair)
    every = tuple(available)
    return Selection(tuple(scans), tuple(subjects), without, every, known=every)


def read_filters(path: Path) -> dict[str, Any]:
    """Read a BIDS filter file and return its part for FLAIR: entities and values as in the file.

    The file has the form that fMRIPrep uses: one object per query, here ``flair``; ``null`` means
    that the entity is absent, ``"*"`` that it has any value. Other queries are ignored.

    Raises
    ------
    UsageError
        If the file is missing, is not JSON, or has another form.
    """
    try:
        content, notes = read_json(path)
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", file=path) from error
    except ValueError as error:
        raise UsageError(f"is not JSON ({error})", file=path) from error
    for note in notes:
        logger.warning("%s: %s", path, note)
    if not isinstance(content, dict) or not isinstance(content.get(FILTER_KEY, {}), dict):
        raise UsageError(
            "is no BIDS filter file", file=path, remedy='Its form: {"flair": {"acquisition": "3d"}}'
        )
    if FILTER_KEY not in content:
        logger.warning("%s: has no query '%s': it filters nothing", path, FILTER_KEY)
    filters = content.get(FILTER_KEY, {})
    for entity in FIXED_ENTITIES:
        if entity in filters and filters[entity] != io_spec()["queries"]["flair"][entity]:
            raise UsageError(f"cannot change the {entity} of the query 'flair'", file=path)
    return filters


def _index(bids_dir: Path, subjects: list[str] | None, closed: Sequence[str]) -> BIDSLayout:
    """Index the FLAIR images of some participants, or of all, without some folders."""
    from bids.layout import BIDSLayout, BIDSLayoutIndexer

    without = [re.compile(f"^/{re.escape(folder)}(/|$)") for folder in closed]
    indexer = BIDSLayoutIndexer(
        validate=False, index_metadata=False, ignore=[_everything_but_flair(subjects), *without]
    )
    try:
        with _patient_is_dir():
            return BIDSLayout(bids_dir, validate=False, indexer=indexer)
    except Exception as error:
        raise MsnmoError(
            f"pybids cannot index the data set ({error})",
            file=bids_dir,
            remedy="Run the BIDS validator on it",
        ) from error


@contextmanager
def _patient_is_dir() -> Iterator[None]:
    """Let `Path.is_dir` say no, as from Python 3.14 on, where a link leads to a closed folder."""
    before = Path.is_dir
    Path.is_dir = os.path.isdir  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        Path.is_dir = before  # type: ignore[method-assign]


def _query(layout: BIDSLayout, filters: Filters) -> list[str]:
    """Return the paths of all files that pybids finds."""
    from bids.layout import Query

    def special(value: Any) -> Any:
        if isinstance(value, list):
            return [special(item) for item in value]
        return {None: Query.NONE, "*": Query.ANY}.get(value, value)

    query = {**io_spec()["queries"][FILTER_KEY]}
    try:
        query |= {entity: special(value) for entity, value in filters.items()}
        # pybids takes it from the absolute path (/data/dwi/bids/…); only anat is indexed anyway.
        query.pop("datatype", None)
        found = layout.get(**query)
    except Exception as error:
        raise UsageError(
            f"the query 'flair' of the BIDS filter file cannot be used ({error})"
        ) from error
    return [str(file.path) for file in found]


def _everything_but_flair(subjects: list[str] | None) -> re.Pattern[str]:
    """Return a pattern of all paths (from the root, with a slash) that pybids need not index."""
    labels = "[^/]+" if subjects is None else "|".join(map(re.escape, subjects))
    image = r"[^/\ud800-\udfff]*_FLAIR\.nii(\.gz)?"  # surrogates: bytes that are no letters
    wanted = rf"sub-({labels})(/ses-[^/]+)?(/anat(/{image})?)?"
    return re.compile(rf"^/(?!({wanted})\Z)")


def _scans(paths: Iterable[str], bids_dir: Path, ignored: GitIgnoreSpec) -> list[Scan]:
    """Make scans of paths; leave out what is not a magnitude image of its folder's participant."""
    sidecars = Sidecars(bids_dir)
    found: dict[tuple[str, str], Scan] = {}
    notes: list[Note] = []
    for path in sorted(map(Path, paths), key=lambda path: path.as_posix()):
        relative = path.relative_to(bids_dir).as_posix()
        shown = one_line(relative)
        if ignored.match_file(relative):
            logger.info("%s: left out (.bidsignore)", shown)
            continue
        match = SCAN_NAME.fullmatch(path.name)
        folder = relative.rpartition("/")[0]
        if match is None or folder != folder_of(match["subject"], match["session"]):
            logger.warning("%s: its name is not BIDS: left out", shown)
            continue
        pairs = [part.partition("-")[::2] for part in match["prefix"].split("_")]
        entities = dict(pairs)
        if not all(entities.values()) or len(entities) < len(pairs):
            logger.warning("%s: its name is not BIDS: left out", shown)
            continue
        if entities.get("part") in NOT_MAGNITUDE:
            logger.info("%s: no magnitude image: left out", shown)
            continue
        if (folder, match["prefix"]) in found:
            logger.warning("%s: the same scan is there as .nii and .nii.gz: left out", shown)
            continue
        metadata = sidecars.of(relative)
        own = sidecars.notes(relative)
        if derived := [f"{entity}-" for entity in OF_DERIVATIVES if entity in entities]:
            own = [*own, Note(f"a raw image has no {' and '.join(derived)} in its name; if this is "
                              "not the raw one, use --exclude", relative)]  # fmt: skip
        own = [*own, *_unusual(entities, relative)]
        notes += own
        found[folder, match["prefix"]] = Scan(
            path=path,
            bids_dir=bids_dir,
            relative=relative,
            subject=match["subject"],
            session=match["session"],
            prefix=match["prefix"],
            folder=folder,
            skull_stripped=metadata.get("SkullStripped"),
            metadata=metadata,
            notes=tuple(map(str, own)),
        )
    for note, alike in _alike(found):
        notes.append(note)
        for one in alike:
            found[one] = replace(found[one], notes=(*found[one].notes, str(note)))
    for line in merged(notes):
        logger.warning("%s", line)
    return list(found.values())


def _alike(scans: Iterable[tuple[str, str]]) -> Iterator[tuple[Note, list[tuple[str, str]]]]:
    """Name people, visits and scans that may be the same, and the scans that this is about.

    `scans` are folders and prefixes of names. What is below such people or visits is not compared.
    """
    groups: dict[tuple[str, str], dict[str, list[tuple[str, str]]]] = {}
    for folder, prefix in scans:
        above = ""
        for part in (*folder.split("/"), prefix):
            place = f"{above}/{part}".lstrip("/")
            same = groups.setdefault((above, spelling(part)), {})
            same.setdefault(place, []).append((folder, prefix))
            above = place
    for same in groups.values():
        if len(same) > 1:
            about = [one for own in same.values() for one in own]
            yield Note(_ALIKE_NOTE, " and ".join(same)), about


def _unusual(entities: Mapping[str, str], relative: str) -> list[Note]:
    """Name entities that BIDS does not know, and labels that are not letters and digits."""
    unknown = [f"{entity}-" for entity in entities if entity not in (*_ENTITIES, *OF_DERIVATIVES)]
    strange = [f"'{label}'" for label in entities.values() if not re.fullmatch(_LABEL, label)]
    notes = [Note(f"no entity of a raw FLAIR: {', '.join(unknown)}", relative)] if unknown else []
    if strange:
        notes.append(Note(f"labels are letters and digits: {', '.join(strange)}", relative))
    return notes


def _ignored(bids_dir: Path) -> GitIgnoreSpec:
    """Return what ``.bidsignore`` at the data set's root says, in the syntax of ``.gitignore``."""
    from pathspec import GitIgnoreSpec

    file = bids_dir / ".bidsignore"
    try:
        return GitIgnoreSpec.from_lines(file.read_text(encoding="utf-8-sig").splitlines())
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and not file.is_symlink():
            return GitIgnoreSpec(())
        raise MsnmoError(
            f"cannot be read ({error})", file=file, exit_code=ExitCode.INVALID_BIDS
        ) from error


def folder_of(subject: str, session: str | None) -> str:
    """Return the folder of a participant's images, from the root of a data set."""
    return f"sub-{subject}/ses-{session}/anat" if session else f"sub-{subject}/anat"


def _of_sessions(
    scans: list[Scan], labels: Sequence[str], bids_dir: Path, subjects: list[str]
) -> list[Scan]:
    wanted = {label.removeprefix("ses-") for label in labels}
    existing = {
        folder.name.removeprefix("ses-")
        for subject in subjects
        for folder in (bids_dir / f"sub-{subject}").glob("ses-*")
    }
    if missing := sorted(wanted - existing):
        raise unknown_label("session", missing, sorted(existing))
    return [scan for scan in scans if scan.session in wanted]


def unknown_label(what: str, missing: list[str], existing: list[str]) -> MsnmoError:
    """Return the error for labels that do not exist (18)."""
    return MsnmoError(
        f"no such {what}: {', '.join(missing)}",
        remedy=f"There are: {listed(existing, shown=20) or 'none'}",
        exit_code=ExitCode.NOTHING_SELECTED,
    )


def _nothing(bids_dir: Path, *, filtered: bool) -> MsnmoError:
    if filtered:
        return MsnmoError(
            "no FLAIR fits the participants, sessions and filters asked for",
            file=bids_dir,
            remedy="Run with --dry-run and fewer filters to see what there is",
            exit_code=ExitCode.NOTHING_SELECTED,
        )
    return MissingInputError(
        "there is no FLAIR in the data set",
        file=bids_dir,
        remedy="Expected files like sub-01/anat/sub-01_FLAIR.nii.gz",
    )
