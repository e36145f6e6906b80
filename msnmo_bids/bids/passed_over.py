"""What of a data set is not used though it seems meant: names, tables, links, closed folders."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from msnmo_bids.bids.dataset import read_description, subject_folders
from msnmo_bids.text import Note

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_NEARLY_NOTE = "not used: the name is close to a FLAIR's, but not valid (…_FLAIR.nii.gz)"
_BLANK_NOTE = "not used: the name ends in a blank (…_FLAIR.nii.gz has none)"
_FORMAT_NOTE = "not used: FLAIR in a format that is not read (convert it to …_FLAIR.nii.gz)"
_NEARLY_SUBJECT_NOTE = "not used: seems to be a participant's folder, but is not named sub-…"
_DEEPER_NOTE = "not used: participants within another folder (move them to the root)"
_ELSEWHERE_NOTE = "not used: FLAIR in folders where BIDS has none (sub-…/[ses-…/]anat/)"
_TABLE_NOTE = (
    "not used: tables in the wrong folder or of another name; BIDS has participants.tsv at the "
    "root, sub-…/sub-…_sessions.tsv and sub-…/[ses-…/]sub-…[_ses-…]_scans.tsv"
)
_NOT_TSV_NOTE = "not used: it must be named participants.tsv and have tabs between the columns"
_LINK_NOTE = "not used: links to what is not there (is the disk mounted?)"
_FILE_NOTE = "not used: files where folders must be (was something lost in copying?)"
UNREADABLE_NOTE = "not used: folders that cannot be read (check their permissions)"
#: Images that are not read.
_FORMATS = (
    r"(nii(\.gz)?\.)?(nii|gz|bz2|zst|xz|zip|7z|rar|tar)|nii\.gz|tar\.gz|img|hdr\.gz|mgh|mgz|nrrd"
    r"|nhdr|mha|mhd|minc|mnc|mif(\.gz)?|dcm|dicom|ima|par|rec|HEAD|BRIK(\.gz)?"
)
_NEARLY = re.compile(
    r"flair.*\.(nii(\.gz)?|img|mgz)\s*$"
    rf"|^(?![.~]).*_flair\.({_FORMATS})\s*$",
    re.IGNORECASE | re.DOTALL,
)
_TABLE = re.compile(
    r"(?![.~])(?:.*_)?(sessions|scans|participants)\.(tsv|csv|txt|xlsx?|ods)(\.txt)?", re.IGNORECASE
)
_NEARLY_SUBJECT = re.compile(r"(?-i:(?!sub-))(sub[-_ ]?[0-9a-z]+|[0-9][0-9a-z]*)", re.IGNORECASE)
_SUBJECT = re.compile(r"sub-[^._/]+")
#: Folders of a participant that hold no FLAIR, by BIDS.
_OTHER_DATA = frozenset(("func", "dwi", "fmap", "perf", "meg", "eeg", "ieeg", "pet", "micr", "nirs",
                         "motion", "mrs", "beh"))  # fmt: skip

#: Folders at the root that hold no raw images, by BIDS.
_NOT_RAW = frozenset(("derivatives", "sourcedata", "code", "stimuli", "phenotype"))
_LOOKED_INTO = 20  # of the people in such a folder: it may hold thousands


def passed_over(
    bids_dir: Path,
    subjects: Sequence[str],
    with_flair: Collection[str],
    closed: Sequence[str],
    ignored: GitIgnoreSpec,
    *,
    all_of_them: bool,
) -> list[Note]:
    """Name files and folders that seem to be meant, and visits that have images but no FLAIR.

    `with_flair` are the folders of images (``sub-01/anat``) that have one, `closed` those that may
    not be read.
    """
    notes: list[Note] = []
    for subject in subjects:
        person = bids_dir / f"sub-{subject}"
        sessions = sorted(person.glob("ses-*"))
        anat = [folder / "anat" for folder in (person, *sessions)]
        notes += _elsewhere(bids_dir, person, anat, ignored)
        notes += _no_folders(bids_dir, (*sessions, *anat), ignored)
        places = [folder.relative_to(bids_dir).as_posix() for folder in anat]
        one_used = any(place in with_flair for place in places)
        for place in places:
            if {place, place.removesuffix("/anat")} & {*closed} or not (bids_dir / place).is_dir():
                continue
            names = sorted(file.name for file in (bids_dir / place).glob("*"))
            notes += _like_a_flair(place, names)
            images = any(name.endswith((".nii.gz", ".nii")) for name in names)
            if images and one_used and place not in with_flair:
                notes.append(Note("visits with images but without a FLAIR that is used", place))
    if all_of_them:
        notes += _at_the_root(bids_dir, ignored)
    return notes


def _like_a_flair(place: str, names: Iterable[str]) -> Iterator[Note]:
    """Name the files of a folder of images that seem to be a FLAIR, but are not named or made so.

    `place` is the folder from the root.
    """
    for name in filter(_NEARLY.search, names):
        if (shown := _shown(name)) != name:
            yield Note("names with letters that are not UTF-8, not used", shown)
        elif name != name.rstrip():
            yield Note(_BLANK_NOTE, f"'{place}/{name}'")
        elif not name.casefold().endswith((".nii.gz", ".nii")):
            yield Note(_FORMAT_NOTE, f"{place}/{name}")
        elif not name.endswith(("_FLAIR.nii.gz", "_FLAIR.nii")):
            yield Note(_NEARLY_NOTE, f"{place}/{name}")


def _at_the_root(bids_dir: Path, ignored: GitIgnoreSpec) -> Iterator[Note]:
    """Name tables and participants' folders that seem to be meant, by what lies at the root."""
    entries = sorted(bids_dir.iterdir())
    with_table = "participants.tsv" in [entry.name for entry in entries]
    for entry in entries:
        table = _TABLE.fullmatch(entry.name)
        if table and entry.name != "participants.tsv" and not ignored.match_file(entry.name):
            of_people = table[1].casefold() == "participants"
            if not (of_people and with_table):
                yield Note(_NOT_TSV_NOTE if of_people else _TABLE_NOTE, _shown(entry.name))
        if _SUBJECT.fullmatch(entry.name):
            yield from _no_folders(bids_dir, [entry], ignored)
        elif _like_a_subject(entry):
            yield Note(_NEARLY_SUBJECT_NOTE, entry.name)
        elif not entry.name.startswith(("sub-", ".")) and entry.name not in _NOT_RAW:
            yield from _people_within(entry, ignored)


def _people_within(folder: Path, ignored: GitIgnoreSpec) -> Iterator[Note]:
    """Name the participants in a folder at the root (of a site, of a visit), if they have FLAIR."""
    if _closed(folder) or not folder.is_dir() or ignored.match_file(f"{folder.name}/"):
        return
    if folder.resolve() in (folder.parent.resolve(), *folder.parent.resolve().parents):
        return  # a link to the data set
    if read_description(folder).get("DatasetType") == "derivative":
        return
    people = [f"sub-{label}" for label in subject_folders(folder)]
    names = (image.name for one in people[:_LOOKED_INTO] for image in _images_of(folder / one))
    if any(name.endswith(("_FLAIR.nii.gz", "_FLAIR.nii")) for name in names):
        yield from (Note(_DEEPER_NOTE, _shown(f"{folder.name}/{name}")) for name in people)


def _no_folders(bids_dir: Path, folders: Iterable[Path], ignored: GitIgnoreSpec) -> Iterator[Note]:
    """Name the links to nothing and the files in the place of folders."""
    for folder in folders:
        note = ""
        with suppress(OSError):  # of a link into a closed folder
            if folder.is_dir():
                continue
            note = _FILE_NOTE if folder.is_file() and not folder.suffix else ""
        note = _LINK_NOTE if _leads_nowhere(folder) else note
        place = folder.relative_to(bids_dir).as_posix()
        if note and not ignored.match_file(place):
            yield Note(note, _shown(place))


def _elsewhere(
    bids_dir: Path, person: Path, anat: Sequence[Path], ignored: GitIgnoreSpec
) -> Iterator[Note]:
    """Name a participant's FLAIR outside of `anat` and tables in wrong folders."""
    for place, folders, names in os.walk(person):
        here = Path(place)
        below = here.relative_to(bids_dir).as_posix()
        folders[:] = [
            name
            for name in sorted(folders)
            if not name.startswith(".")
            and name not in _OTHER_DATA
            and not ignored.match_file(f"{below}/{name}/")
        ]
        read = [f"{below.replace('/', '_')}_scans.tsv"] if len(below.split("/")) < 3 else []
        read += [f"{below}_sessions.tsv"] if here == person else []
        for name in sorted(names):
            image = here not in anat and _NEARLY.search(name)
            table = name not in read and _TABLE.fullmatch(name)
            file = f"{below}/{name}"
            if (image or table) and not ignored.match_file(file):
                note = _ELSEWHERE_NOTE if image else _TABLE_NOTE
                yield Note(note, _shown(file))


def _shown(name: str) -> str:
    """Return a name as it can be written, with a mark for bytes that are not UTF-8."""
    return name.encode(errors="replace").decode()


def _leads_nowhere(path: Path) -> bool:
    """Whether a path is a link to what is not there, or to itself."""
    try:
        return path.is_symlink() and not path.exists()
    except PermissionError:
        return False
    except OSError:
        return True


def _like_a_subject(folder: Path) -> bool:
    """Whether a folder seems to be a participant's, by its name and what it holds."""
    if not _NEARLY_SUBJECT.fullmatch(folder.name) or _closed(folder) or not folder.is_dir():
        return False
    if folder.name.casefold().startswith("sub-"):
        return True
    return any(_NEARLY.search(image.name) for image in _images_of(folder))


def _images_of(person: Path) -> list[Path]:
    """Return what lies in a folder where a participant's images do."""
    return [*person.glob("anat/*"), *person.glob("*/anat/*")]


def unreadable(bids_dir: Path, subjects: Iterable[str]) -> list[str]:
    """Return the folders of participants that may not be read, from the root."""
    found: list[Path] = []
    for subject in subjects:
        person = bids_dir / f"sub-{subject}"
        if _closed(person):
            found.append(person)
            continue
        sessions = sorted(one for one in person.iterdir() if one.name.startswith("ses-"))
        closed = [session for session in sessions if _closed(session)]
        opened = [folder / "anat" for folder in (person, *sessions) if folder not in closed]
        found += [*closed, *filter(_closed, opened)]
    return [folder.relative_to(bids_dir).as_posix() for folder in found]


def _closed(folder: Path) -> bool:
    """Whether a folder is there and may not be read."""
    try:
        return folder.is_dir() and not os.access(folder, os.R_OK | os.X_OK)
    except PermissionError:
        return True
