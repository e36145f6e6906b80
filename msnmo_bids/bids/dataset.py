"""The files at the top of the output folder, and the atomic writing of every file.

Several participant runs share one output folder at the same time. Each of them writes these files
whole, with the same content, so that it does not matter which one comes last.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from msnmo_bids.bids.names import derivative_kinds, derivative_name, io_spec
from msnmo_bids.bids.sidecars import CHANGE_DESCRIPTIONS, DESCRIPTIONS, LESION_COLUMNS, RAW_DATASET
from msnmo_bids.bids.text_files import read_json
from msnmo_bids.errors import BadInputError, ExitCode, MsnmoError
from msnmo_bids.text import Note
from msnmo_bids.version import CODE_URL, get_version
from msnmo_bids.vocabulary import DISCLAIMER, class_label

logger = logging.getLogger(__name__)

DATA = files("msnmo_bids.bids") / "data"
NAME = "msnmo"
BIDS_VERSION = "1.10.0"
TEMPORARY_PREFIX = ".tmp-msnmo-"
_LONGEST_NAME = 255  # bytes
BIDSIGNORE = ("*.html", "figures", "group_*", "*_diagnosis.json", "*_changes.json",
              "*_morph.tsv", "*_morph.json", "*_map.*", "*_quality.json")  # fmt: skip
CONTAINER_TAG_VARIABLE = "MSNMO_CONTAINER_TAG"
PARTICIPANT_FILES = ("participants.tsv", "participants.json")
PARTICIPANTS = {
    "Description": "The participants with derivatives",
    "participant_id": {"Description": "Label of the participant"},
}
DESCRIPTIONS_SIDECAR = {
    "Description": "What the values of the entity desc stand for",
    "desc_id": {"Description": "Value of the entity desc"},
    "description": {"Description": "What the files with that value hold"},
}


def _temporary_name(name: str) -> str:
    return f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{name}"


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Give a temporary path whose file replaces ``target`` at the end, or vanishes on an error.

    The temporary name is hidden, in the same folder (made when it is missing), and ends as
    ``target`` does, because nibabel and others choose the format by it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(_temporary_name(target.name))
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        try:
            temporary.replace(target)
        except OSError as error:  # of a file that nobody knows
            raise OSError(error.errno, error.strerror, str(target)) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_name(image: Path) -> None:
    """Refuse a raw image whose derivatives would have longer names than file systems take.

    Raises
    ------
    BadInputError
        The longest name, as long as its file is written, has more than 255 bytes.
    """
    prefix = image.name.rpartition("_")[0]
    names = [derivative_name(prefix, kind) for kind in derivative_kinds(("NMOSD",))]
    longest = max(len(os.fsencode(name)) for name in names) + len(_temporary_name(""))
    if longest > _LONGEST_NAME:
        raise BadInputError(
            f"name too long: its derivatives need {longest} bytes, and {_LONGEST_NAME} are allowed",
            file=image,
            remedy=f"Shorten its labels by {longest - _LONGEST_NAME}",
        )


def remove_unfinished(target: Path) -> None:
    """Remove what `atomic_path` left beside ``target`` in a process that was killed."""
    for remains in target.parent.glob(f"{TEMPORARY_PREFIX}*-{target.name}"):
        remains.unlink(missing_ok=True)


def write_text(target: Path, text: str) -> None:
    """Write a text file atomically (UTF-8), unless it has that content already."""
    with suppress(OSError, UnicodeDecodeError):
        if target.read_text(encoding="utf-8") == text:
            return
    with atomic_path(target) as temporary:
        temporary.write_text(text, encoding="utf-8")


def copy_file(source: Path, target: Path) -> None:
    """Copy a file atomically."""
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def write_json(target: Path, content: Any) -> None:
    """Write a JSON file atomically: two spaces, UTF-8, keys in the order given.

    Not-a-number is an error, because JSON has none.
    """
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_tsv(target: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table atomically, as BIDS wants tables: tab-separated, in the order of `columns`.

    A missing key, None or an empty text of a row becomes ``n/a``.
    """
    lines = ["\t".join(columns)]
    lines += ["\t".join(_cell(row.get(column)) for column in columns) for row in rows]
    write_text(target, "\n".join(lines) + "\n")


def _cell(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text or "n/a"


@contextmanager
def writing(what: str, folder: Path) -> Iterator[None]:
    """Say in a user's words that something cannot be written into a folder.

    Raises
    ------
    MsnmoError
        In the place of an OSError (74).
    """
    try:
        yield
    except OSError as error:
        raise MsnmoError(
            f"{what} cannot be written ({error.strerror or error})",
            file=error.filename or folder,
            remedy="Make room or get write permission there, then run again",
            exit_code=ExitCode.IO_ERROR,
        ) from error


def read_record(path: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file of ours, None when it is missing or broken."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def check_is_ours(output_dir: Path) -> None:
    """Refuse an output folder that holds another program's data set; it may not exist yet.

    Raises
    ------
    MsnmoError
        If its ``dataset_description.json`` says that something else made the data set.
    """
    description = read_description(output_dir)
    if not description:
        return
    if description.get("DatasetType") == "derivative" and NAME in makers(description):
        return
    title = description.get("Name", "without a name")
    raise MsnmoError(
        f"the output folder holds another data set ({title})",
        file=output_dir,
        remedy="Choose an empty or new folder",
        exit_code=ExitCode.CANNOT_CREATE_OUTPUT,
    )


def read_description(folder: Path) -> dict[str, Any]:
    """Return the content of ``dataset_description.json``; empty when it is missing or broken."""
    try:
        content, _ = read_json(folder / "dataset_description.json")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def makers(description: Mapping[str, Any]) -> list[Any]:
    """Return the names of the programs that made a data set, by its description."""
    known = description.get("GeneratedBy")
    listed = known if isinstance(known, list) else []
    return [maker.get("Name") for maker in listed if isinstance(maker, dict)]


def check_description(bids_dir: Path) -> None:
    """Name what is wrong with ``dataset_description.json``; a list in it stops pybids.

    Raises
    ------
    MsnmoError
        If it holds a list or a single value (16).
    """
    file = bids_dir / "dataset_description.json"
    try:
        content, notes = read_json(file)
    except (OSError, ValueError) as error:
        if isinstance(error, FileNotFoundError) and not file.is_symlink():
            return
        notes = [Note(f"cannot be read ({error}), ignored")]
    else:
        if not isinstance(content, dict):
            raise MsnmoError(
                "does not hold fields in braces",
                file=file,
                remedy='Write {"Name": "...", "BIDSVersion": "1.10.0"}',
                exit_code=ExitCode.INVALID_BIDS,
            )
    for note in notes:
        logger.warning("%s: %s", file.name, note)


def dataset_description(output_dir: Path, bids_dir: Path) -> dict[str, Any]:
    """Return the content of ``dataset_description.json``.

    ``DatasetLinks.raw`` is a relative URI reference from the output folder to the input: both may
    be moved together, and ``bids:raw:`` URIs stay valid.
    """
    raw = read_description(bids_dir)
    link = quote(Path(os.path.relpath(bids_dir.resolve(), output_dir.resolve())).as_posix())
    source: dict[str, str] = {"URL": link}
    if isinstance(doi := raw.get("DatasetDOI"), str) and doi.strip():
        bare = doi.strip().removeprefix("https://doi.org/").removeprefix("doi:")
        source = {"URL": f"https://doi.org/{bare}", "DOI": f"doi:{bare}"}
    maker: dict[str, Any] = {"Name": NAME, "Version": get_version(), "CodeURL": CODE_URL}
    if container := _container():
        maker["Container"] = container
    return {
        "Name": f"msnmo: lesions and MS/NMOSD pattern scores ({raw.get('Name', 'no name')})",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [maker],
        "SourceDatasets": [source],
        "DatasetLinks": {RAW_DATASET: link},
        "HowToAcknowledge": "Please cite the papers listed in logs/CITATION.md.",
    }


def _container() -> dict[str, str] | None:
    """Return what is known of the container, from the variables that the image sets."""
    tag = os.environ.get(CONTAINER_TAG_VARIABLE)
    if not tag:
        return None
    apptainer = os.environ.get("APPTAINER_CONTAINER") or os.environ.get("SINGULARITY_CONTAINER")
    return {"Type": "apptainer" if apptainer else "docker", "Tag": tag, "URI": f"docker://{tag}"}


def write_shared_files(output_dir: Path, bids_dir: Path, class_names: Sequence[str]) -> None:
    """Write everything at the top of the output folder except reports and group tables."""
    description = dataset_description(output_dir, bids_dir)
    write_json(output_dir / "dataset_description.json", description)
    write_bidsignore(output_dir)
    write_text(output_dir / "README.md", DATA.joinpath("README.md").read_text(encoding="utf-8"))
    lesion = {"index": 1, "name": "Lesion", "abbreviation": "L", "mapping": 7}
    write_tsv(output_dir / "dseg.tsv", list(lesion), [lesion])
    # Equal to what the lesion lists of the scans say: a sidecar should not override another.
    inherited = {"Description": DESCRIPTIONS["lesion_labels"], "SpatialReference": "orig"}
    write_json(output_dir / "dseg.json", {**inherited, **LESION_COLUMNS})
    _write_descriptions(output_dir, class_names)
    write_participants(output_dir)


def write_bidsignore(output_dir: Path) -> None:
    """Write which files the validator shall pass over."""
    write_text(output_dir / ".bidsignore", "\n".join(BIDSIGNORE) + "\n")


def _write_descriptions(output_dir: Path, class_names: Sequence[str]) -> None:
    """Write ``descriptions.tsv`` and its sidecar: one row for each value of ``desc``."""
    texts = {
        "preproc": DESCRIPTIONS["preproc"],
        "brain": DESCRIPTIONS["brain_mask"],
        "msnmo": "Lesions and diagnosis found by the joint network",
        "lesions": DESCRIPTIONS["morphometry"],
        "changes": CHANGE_DESCRIPTIONS["table"],
    }
    for name in class_names:
        texts[f"cam{class_label(name)}"] = f"Class activation map for {name}"
    rows = [{"desc_id": f"desc-{value}", "description": text} for value, text in texts.items()]
    write_tsv(output_dir / "descriptions.tsv", ["desc_id", "description"], rows)
    write_json(output_dir / "descriptions.json", DESCRIPTIONS_SIDECAR)


def write_participants(output_dir: Path) -> None:
    """Write ``participants.tsv`` from the ``sub-*`` folders that are there.

    Another run may add a folder at the same time: they are listed again after writing. Without any
    folder there is no table: one without rows is an error to the validator.
    """
    for _ in range(5):
        labels = subject_folders(output_dir)
        if not labels:
            for name in PARTICIPANT_FILES:
                (output_dir / name).unlink(missing_ok=True)
            return
        rows = [{"participant_id": f"sub-{label}"} for label in labels]
        write_tsv(output_dir / "participants.tsv", ["participant_id"], rows)
        if subject_folders(output_dir) == labels:
            break
    write_json(output_dir / "participants.json", PARTICIPANTS)


def subject_folders(folder: Path) -> list[str]:
    """Return the labels (without ``sub-``) of the ``sub-*`` folders of a data set, sorted.

    Those that may not be read are among them.
    """

    def is_folder(entry: os.DirEntry[str]) -> bool:
        try:
            return entry.is_dir()
        except PermissionError:  # a link into a folder that may not be read
            return True
        except OSError:  # a link to itself
            return False

    with os.scandir(folder) as entries:
        return sorted(
            entry.name.removeprefix("sub-")
            for entry in entries
            if entry.name.startswith("sub-") and is_folder(entry)
        )


def shared_files_complete(output_dir: Path) -> bool:
    """Say whether all files of :func:`write_shared_files` are there."""
    expected = set(io_spec()["shared"])
    if not subject_folders(output_dir):
        expected -= set(PARTICIPANT_FILES)
    return all((output_dir / name).is_file() for name in expected)


INTRODUCTION = """\
# Methods

This text describes how the derivatives were made. Copy it, and cite the papers it names; their
references are in `CITATION.bib`."""


def write_citations(output_dir: Path, methods: Iterable[str]) -> None:
    """Write ``logs/CITATION.md`` and ``logs/CITATION.bib``.

    `methods` are those of the records of scans and comparisons; equal ones are written once.
    """
    parts = [INTRODUCTION, *dict.fromkeys(methods), DISCLAIMER]
    write_text(output_dir / "logs" / "CITATION.md", "\n\n".join(parts) + "\n")
    references = DATA.joinpath("CITATION.bib").read_text(encoding="utf-8")
    write_text(output_dir / "logs" / "CITATION.bib", references)
