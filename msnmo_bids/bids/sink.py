"""Write all derivatives of one scan: on the native grid, atomically, the diagnosis last."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from msnmo_bids.bids.dataset import atomic_path, copy_file, write_json, write_tsv, writing
from msnmo_bids.bids.names import (
    CAM_PREFIX,
    JSON_KINDS,
    bids_uri,
    derivative_paths,
    figure_path,
    sidecar,
)
from msnmo_bids.bids.scans import Scan
from msnmo_bids.bids.sidecars import LESION_COLUMNS, MORPHOMETRY_COLUMNS, RAW_DATASET, sidecar_for
from msnmo_bids.decision import Decision
from msnmo_bids.preprocessing.nifti_file import load_array, open_nifti
from msnmo_bids.vocabulary import DISCLAIMER

#: Index of "lesion" in BIDS' list of common tissue labels.
LESION_MAPPING = 7
#: Class activation maps are kept in steps of 1 / 1024 logit: exact in float32, smaller files.
CAM_STEPS = 1024
_COMPRESSION = 2
_WRITERS = 2


@dataclass(frozen=True)
class ScanResults:
    """What the workflow found; all images in RAS order on the grid of the conformed FLAIR."""

    #: NIfTI by kind (:func:`msnmo_bids.bids.names.derivative_kinds`).
    images: Mapping[str, Path]
    table: list[dict[str, Any]]  #: One mapping a lesion, with the columns of the morphometry table.
    #: Counts and volumes of the lesions, in all and by region, as in the diagnosis file.
    summary: Mapping[str, Any]
    decision: Decision  #: The diagnosis, or why none is named.
    quality: Mapping[str, Any]  #: From :func:`msnmo_bids.quality.scan_quality`.
    #: From the training scans (:mod:`msnmo_bids.model.sharing`); None when it is not known.
    distance: float | None = None
    #: SVG file by kind (:func:`msnmo_bids.bids.names.figure_path`).
    figures: Mapping[str, Path] = field(default_factory=dict)
    #: Axis codes of the raw FLAIR, for the derivatives of one whose header has none.
    orientation: str | None = None
    flags: tuple[str, ...] = ()  #: What a reader should know of this scan.


def write_scan_derivatives(
    scan: Scan, results: ScanResults, *, output_dir: Path, provenance: Mapping[str, Any]
) -> list[str]:
    """Write every derivative of one scan with its sidecar; return all paths, the diagnosis last.

    Images have the shape and the affine of the raw FLAIR and qform equal to sform. The lesion mask
    is the written probability above the threshold, voxel by voxel. The diagnosis file is written
    last: where it is, all the others are. Two runs write the same bytes. `provenance` holds what
    the diagnosis files of a run share (:func:`msnmo_bids.workflows.scan.run_record`), and what is
    known of the raw image and of the tools.

    Raises
    ------
    MsnmoError
        If a file cannot be written.
    """
    classes = list(results.decision.probabilities)
    paths = derivative_paths(scan.folder, scan.prefix, classes)
    with writing("the derivatives", output_dir / scan.folder):
        written = _write_images(scan, results, paths, output_dir)
        written += _write_tables(results.table, paths, output_dir)
        written += _write_sidecars(scan, paths, output_dir, provenance)
        write_json(output_dir / paths["quality"], _quality(scan, results.quality))
        written.append(paths["quality"])
        for kind, figure in results.figures.items():
            written.append(figure_path(scan.subject, scan.prefix, kind))
            copy_file(figure, output_dir / written[-1])
        diagnosis = _diagnosis(scan, results, provenance, sorted(set(written)), output_dir)
        write_json(output_dir / paths["diagnosis"], diagnosis)
    return [*sorted(set(written)), paths["diagnosis"]]


def sizes_of(outputs: Iterable[str], output_dir: Path) -> dict[str, int]:
    """Return the sizes (bytes) of files, whose paths are from the output folder."""
    return {path: (output_dir / path).stat().st_size for path in outputs}


def write_nifti(image: nib.Nifti1Image, target: Path) -> None:
    """Write a ``.nii.gz`` file atomically; the same image always gives the same bytes."""
    content = gzip.compress(image.to_bytes(), compresslevel=_COMPRESSION, mtime=0)
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)


def _write_images(
    scan: Scan, results: ScanResults, paths: Mapping[str, str], output_dir: Path
) -> list[str]:
    from msnmo_bids.preprocessing.geometry import to_native

    labels = np.int16 if len(results.table) <= np.iinfo(np.int16).max else np.int32
    integers = {"brain_mask": np.uint8, "lesion_mask": np.uint8, "lesion_labels": labels}

    def write(kind: str, path: Path) -> None:
        array = load_array(path)
        if kind.startswith(CAM_PREFIX):
            array = np.rint(array * CAM_STEPS) / CAM_STEPS + 0.0  # no negative zeros
        array = array.astype(integers.get(kind, np.float32))
        image = to_native(array, scan.path, results.orientation)
        write_nifti(image, output_dir / paths[kind])

    with ThreadPoolExecutor(_WRITERS) as pool:  # zlib lets other threads run
        list(pool.map(write, *zip(*results.images.items(), strict=True)))
    return [paths[kind] for kind in results.images]


def _write_tables(
    table: list[dict[str, Any]], paths: Mapping[str, str], output_dir: Path
) -> list[str]:
    lesions = [
        {"index": n, "name": f"Lesion {n}", "abbreviation": f"L{n}", "mapping": LESION_MAPPING}
        for n in (row["index"] for row in table)
    ]
    write_tsv(output_dir / paths["lesion_table"], list(LESION_COLUMNS), lesions)
    rows = [{key: _cell(value) for key, value in row.items()} for row in table]
    write_tsv(output_dir / paths["morphometry"], list(MORPHOMETRY_COLUMNS), rows)
    return [paths["lesion_table"], paths["morphometry"]]


def _cell(value: Any) -> Any:
    """Round other than whole numbers to four decimals; mappings become their keys."""
    if isinstance(value, Mapping):
        return ",".join(value) or None
    return f"{value:.4f}" if isinstance(value, float) else value


def _write_sidecars(
    scan: Scan, paths: Mapping[str, str], output_dir: Path, record: Mapping[str, Any]
) -> list[str]:
    written = []
    for kind, path in paths.items():
        if kind in JSON_KINDS:
            continue
        content = sidecar_for(
            kind, source=scan.relative, folder=scan.folder, prefix=scan.prefix, record=record
        )
        write_json(output_dir / sidecar(path), content)
        written.append(sidecar(path))
    return written


def _quality(scan: Scan, quality: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Description": "Quality of the image: figures with their limits; red withholds a diagnosis",
        "Sources": [bids_uri(scan.relative, RAW_DATASET)],
        **quality,
    }


def _diagnosis(
    scan: Scan,
    results: ScanResults,
    record: Mapping[str, Any],
    outputs: Iterable[str],
    output_dir: Path,
) -> dict[str, Any]:
    """Return the content of the diagnosis file."""
    native = open_nifti(scan.path)
    zooms = nib.affines.voxel_sizes(native.affine)
    voxel_volume = float(abs(np.linalg.det(native.affine[:3, :3])))
    voxels = int(np.count_nonzero(load_array(results.images["brain_mask"])))
    decision, distance = results.decision, results.distance
    flags = {*record.get("Flags", ()), *results.flags, *decision.flags}
    return {
        "Description": "Probability of each diagnosis by the joint network, and what it rests on",
        "Sources": [bids_uri(scan.relative, RAW_DATASET)],
        "Diagnosis": decision.diagnosis,
        "Reason": decision.reason,
        "Quality": {key: results.quality[key] for key in ("Level", "Reasons", "Contrast")},
        "Probabilities": dict(decision.probabilities),
        "OutOfDistributionScore": None if distance is None else round(distance, 4),
        **results.summary,
        "BrainVolume": round(voxels * voxel_volume / 1000, 3),
        "VoxelSize": [round(float(size), 4) for size in zooms],
        "Shape": [int(size) for size in native.shape[:3]],
        **{key: value for key, value in record.items() if key != "Flags"},
        "Flags": sorted(flags),
        "Outputs": sizes_of(outputs, output_dir),
        "Disclaimer": DISCLAIMER,
    }
