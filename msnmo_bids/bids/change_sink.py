"""Write what changed between two visits: atomically, the record last."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from msnmo_bids.bids.change_sidecars import (
    CHANGE_COLUMNS,
    CHANGE_DESCRIPTIONS,
    change_sidecar,
)
from msnmo_bids.bids.changes import fingerprint, paths_of
from msnmo_bids.bids.comparisons import Comparison
from msnmo_bids.bids.dataset import atomic_path, write_json, write_tsv
from msnmo_bids.bids.names import bids_uri, derivative_name, sidecar
from msnmo_bids.bids.scans import Scan
from msnmo_bids.bids.sidecars import LESION_COLUMNS, RAW_DATASET
from msnmo_bids.bids.sink import DISCLAIMER, LESION_MAPPING, write_nifti
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.preprocessing.geometry import with_equal_forms
from msnmo_bids.vocabulary import CHANGES

_DTYPES = {"flair": np.float32, "mask": np.uint8, "probability": np.float32, "classes": np.uint8}


@dataclass(frozen=True)
class ChangeResults:
    """What was found between two visits.

    Parameters
    ----------
    images : dict of str to Path
        NIfTI by kind as :func:`~msnmo_bids.bids.names.change_paths` names them.
    table : list of dict
        One mapping a lesion, with the columns `CHANGE_COLUMNS`.
    figure : Path
        SVG file.
    summary : dict
        Counts, volumes, rates, motion and limits, for the record.
    """

    images: Mapping[str, Path]
    table: list[dict[str, Any]]
    figure: Path
    summary: Mapping[str, Any]


def write_changes(
    comparison: Comparison,
    results: ChangeResults,
    *,
    output_dir: Path,
    method: Mapping[str, Any],
) -> list[str]:
    """Write everything about the change between two visits, the record last.

    Parameters
    ----------
    comparison : Comparison
        The two scans.
    results : ChangeResults
        What was found.
    output_dir : Path
        Root of the derivatives.
    method : mapping
        Version of the program and limits.

    Returns
    -------
    list of str
        Paths of all files, relative to ``output_dir``, the record last.

    Raises
    ------
    MsnmoError
        If a file cannot be written.
    """
    paths = paths_of(comparison)
    made_by = fingerprint(comparison, output_dir, method)
    try:
        for kind, image in results.images.items():
            loaded = nib.Nifti1Image.from_filename(image)
            array = np.asanyarray(loaded.dataobj).astype(_DTYPES[_kind(kind)])
            write_nifti(with_equal_forms(array, loaded.affine), output_dir / paths[kind])
        _write_tables(results, paths, output_dir)
        with atomic_path(output_dir / paths["figure"]) as temporary:
            shutil.copyfile(results.figure, temporary)
        written = {path for kind, path in paths.items() if kind != "record"}
        written |= _write_sidecars(comparison, paths, output_dir, results.summary)
        record = _record(comparison, results.summary, made_by, sorted(written))
        write_json(output_dir / paths["record"], record)
    except OSError as error:
        raise MsnmoError(
            f"the change between visits cannot be written ({error.strerror or error})",
            file=error.filename or output_dir / comparison.later.folder,
            remedy="Make room or get write permission there, then run again",
            exit_code=ExitCode.IO_ERROR,
        ) from error
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
            sources = [_uri(scan, own[_kind(kind)])]
        content = change_sidecar(
            _kind(kind), sources=sources, classes=paths["classes"], record=carried
        )
        write_json(output_dir / sidecar(path), content)
        written.add(sidecar(path))
    return written


def _uri(scan: Scan, kind: str) -> str:
    return bids_uri(f"{scan.folder}/{derivative_name(scan.prefix, kind)}")


def _record(
    comparison: Comparison, summary: Mapping[str, Any], made_by: str, outputs: list[str]
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
