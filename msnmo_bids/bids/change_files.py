"""Files about the change between two visits: written atomically, and which are complete or stale.

A comparison is complete when its record is there, was made by the same version and rule from the
same diagnosis files, and all outputs that it lists are there. The record is written last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib

from msnmo_bids.bids.comparisons import Comparison
from msnmo_bids.bids.dataset import copy_file, read_record, write_json, write_tsv, writing
from msnmo_bids.bids.names import bids_uri, change_paths, derivative_name, io_spec, sidecar
from msnmo_bids.bids.resume import (
    RAW_IMAGE,
    TEMPORARY_NAME,
    VOXELS,
    diagnosis_path,
    missing_output,
    read_diagnosis,
    why_other_image,
)
from msnmo_bids.bids.sidecars import (
    CHANGE_COLUMNS,
    CHANGE_DESCRIPTIONS,
    LESION_COLUMNS,
    RAW_DATASET,
    change_sidecar,
)
from msnmo_bids.bids.sink import LESION_MAPPING, sizes_of, write_nifti
from msnmo_bids.settings import MACHINE_SETTINGS, hash_file, hash_of
from msnmo_bids.vocabulary import CHANGES, DISCLAIMER


def paths_of(comparison: Comparison) -> dict[str, str]:
    """Return the paths of a comparison's files, without sidecars, relative to the output folder."""
    earlier, later = comparison.earlier, comparison.later
    return change_paths(
        (earlier.folder, earlier.prefix),
        (later.folder, later.prefix),
        subject=comparison.subject,
        space=comparison.space,
    )


def fingerprint(comparison: Comparison, output_dir: Path, method: Mapping[str, Any]) -> str:
    """Return a SHA-256 (hexadecimal) of what the files of a comparison depend on."""
    content = {
        "method": method,
        "order": [comparison.order_by, comparison.interval_days, *map(str, comparison.notes)],
        "scans": [
            hash_file(diagnosis_path(scan, output_dir))
            for scan in (comparison.earlier, comparison.later)
        ],
    }
    return hash_of(content)


def why_not_comparable(comparison: Comparison, output_dir: Path) -> str | None:
    """Say why two scans cannot be compared; None when they can.

    Both need derivatives of the raw image that is there now, made alike: another threshold alone
    would make lesions grow.
    """
    records = []
    for scan in (comparison.earlier, comparison.later):
        record = read_diagnosis(scan, output_dir)
        if record is None:
            return f"{scan.prefix} has no derivatives"
        if reason := why_other_image(scan, record.get(RAW_IMAGE)):
            return f"{scan.prefix}: {reason}"
        records.append(record)
    earlier, later = (record[RAW_IMAGE].get(VOXELS) for record in records)
    if earlier and earlier == later:
        return "the images of both visits are the same"
    if origin_of(records[0]) != origin_of(records[1]):
        return "the two scans were made with different versions, weights or settings"
    return None


def origin_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what made a scan's derivatives, by its diagnosis file: version, weights, settings.

    What depends on the machine is left out.
    """
    settings = record.get("Settings") or {}
    return (
        (record.get("GeneratedBy") or {}).get("Version"),
        (record.get("Model") or {}).get("Fingerprint"),
        {name: value for name, value in settings.items() if name not in MACHINE_SETTINGS},
    )


def read_changes(comparison: Comparison, output_dir: Path) -> dict[str, Any] | None:
    """Return the record of a comparison, None when it is missing or broken."""
    content = read_record(output_dir / paths_of(comparison)["record"])
    return content if content and isinstance(content.get("Outputs"), dict) else None


def is_compared(comparison: Comparison, output_dir: Path, method: Mapping[str, Any]) -> bool:
    """Say whether a comparison is complete and up to date."""
    record = read_changes(comparison, output_dir)
    if record is None or record.get("Fingerprint") != fingerprint(comparison, output_dir, method):
        return False
    return missing_output(record["Outputs"], output_dir) is None


def change_files(subject: str, output_dir: Path) -> Iterator[Path]:
    """Find all files about changes of a participant, half-written ones too; records first."""
    name = re.compile(rf"sub-{re.escape(subject)}_ses-[^/]+_space-ses[0-9A-Za-z]+_[^/]+")
    figures = output_dir / io_spec()["figures"]["folder"].format(subject=subject)
    folders = [*sorted((output_dir / f"sub-{subject}").glob("ses-*/anat")), figures]
    files = [
        file
        for folder in folders
        if folder.is_dir()
        for file in sorted(folder.iterdir())
        if name.fullmatch(TEMPORARY_NAME.sub("", file.name))
    ]
    suffix = io_spec()["changes"]["both"]["record"]["suffix"]
    yield from sorted(files, key=lambda file: not file.name.endswith(suffix))


def remove_stale(subject: str, kept: Iterable[Comparison], output_dir: Path) -> None:
    """Remove all files about changes of a participant but those of some complete comparisons."""
    wanted = set()
    for comparison in kept:
        record = read_changes(comparison, output_dir) or {"Outputs": {}}
        wanted |= {output_dir / path for path in record["Outputs"]}
        wanted.add(output_dir / paths_of(comparison)["record"])
    for file in [file for file in change_files(subject, output_dir) if file not in wanted]:
        file.unlink(missing_ok=True)
        with suppress(OSError):
            file.parent.rmdir()


@dataclass(frozen=True)
class ChangeResults:
    """What was found between two visits."""

    #: NIfTI as it is written, by kind as :func:`~msnmo_bids.bids.names.change_paths` has it.
    images: Mapping[str, Path]
    table: list[dict[str, Any]]  #: One mapping a lesion, with the columns `CHANGE_COLUMNS`.
    figure: Path  #: SVG file.
    summary: Mapping[str, Any]  #: Counts, volumes, rates, motion and limits, for the record.


def write_changes(
    comparison: Comparison, results: ChangeResults, *, output_dir: Path, method: Mapping[str, Any]
) -> list[str]:
    """Write everything about the change between two visits; return all paths, the record last.

    Raises
    ------
    MsnmoError
        If a file cannot be written.
    """
    paths = paths_of(comparison)
    made_by = fingerprint(comparison, output_dir, method)
    with writing("the change between visits", output_dir / comparison.later.folder):
        for kind, image in results.images.items():
            write_nifti(nib.Nifti1Image.from_filename(image), output_dir / paths[kind])
        _write_tables(results, paths, output_dir)
        copy_file(results.figure, output_dir / paths["figure"])
        written = {path for kind, path in paths.items() if kind != "record"}
        written |= _write_sidecars(comparison, paths, output_dir, results.summary)
        record = _record(
            comparison, results.summary, made_by, sizes_of(sorted(written), output_dir)
        )
        write_json(output_dir / paths["record"], record)
    return [*sorted(written), paths["record"]]


def _kind(path_kind: str) -> str:
    return path_kind.removeprefix("earlier_").removeprefix("later_")


def _write_tables(results: ChangeResults, paths: Mapping[str, str], output_dir: Path) -> None:
    classes = [
        {"index": value, "name": name, "abbreviation": name[:3], "mapping": LESION_MAPPING}
        for value, name in enumerate(CHANGES, start=1)
    ]
    write_tsv(output_dir / paths["class_table"], list(LESION_COLUMNS), classes)
    write_tsv(output_dir / paths["table"], list(CHANGE_COLUMNS), results.table)


def _write_sidecars(
    comparison: Comparison, paths: Mapping[str, str], output_dir: Path, summary: Mapping[str, Any]
) -> set[str]:
    carried = {key: summary[key] for key in ("Registration", "Rule") if key in summary}
    own = {"flair": "preproc", "mask": "lesion_mask", "probability": "lesion_probability"}
    written = set()
    for kind, path in paths.items():
        if kind in ("class_table", "figure", "record"):
            continue
        if kind in ("classes", "table"):
            sources = [
                bids_uri(paths[f"{which}_{part}"])
                for which in ("earlier", "later")
                for part in ("flair", "mask")
            ]
        else:
            scan = comparison.earlier if kind.startswith("earlier") else comparison.later
            name = derivative_name(scan.prefix, own[_kind(kind)])
            sources = [bids_uri(f"{scan.folder}/{name}")]
        content = change_sidecar(
            _kind(kind), sources=sources, classes=paths["classes"], record=carried
        )
        write_json(output_dir / sidecar(path), content)
        written.add(sidecar(path))
    return written


def _record(
    comparison: Comparison, summary: Mapping[str, Any], made_by: str, outputs: dict[str, int]
) -> dict[str, Any]:
    scans = (comparison.earlier, comparison.later)
    return {
        "Description": CHANGE_DESCRIPTIONS["record"],
        "Sources": [bids_uri(scan.relative, RAW_DATASET) for scan in scans],
        "Earlier": comparison.earlier.prefix,
        "Later": comparison.later.prefix,
        "OrderOfVisits": comparison.order_by,
        "IntervalDays": comparison.interval_days,
        "Notes": [str(note) for note in comparison.notes],
        **summary,
        "Fingerprint": made_by,
        "Outputs": outputs,
        "Disclaimer": DISCLAIMER,
    }
