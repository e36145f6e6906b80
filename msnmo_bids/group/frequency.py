"""How often a place is lesion: maps of a cohort in MNI space, one per diagnosis."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import ndimage

from msnmo_bids.bids.dataset import write_json
from msnmo_bids.bids.names import bids_uri, derivative_name, sidecar
from msnmo_bids.bids.records import ScanRecord
from msnmo_bids.bids.sink import write_nifti
from msnmo_bids.errors import MsnmoError
from msnmo_bids.lesions.regions import MNI_SPACE, load_atlas
from msnmo_bids.preprocessing.geometry import with_equal_forms
from msnmo_bids.preprocessing.nifti_file import load_array, read_nifti
from msnmo_bids.reports.figures import CONVENTION
from msnmo_bids.reports.panels import ColourBar, Row, draw, save_png
from msnmo_bids.reports.slices import Volume, bounding_box, evenly, flair_panel, section, window
from msnmo_bids.vocabulary import class_label

logger = logging.getLogger(__name__)

SECTIONS = 7
_COLOURS = "inferno"


def group_by_class(
    records: Sequence[ScanRecord], classes_of: Mapping[str, str]
) -> dict[str, list[ScanRecord]]:
    """Return the first scan of each person that can be brought to MNI space, by class.

    The scans are in order; those without a class are left out. The classes are in the order of
    their names.
    """
    groups: dict[str, list[ScanRecord]] = {}
    seen: set[str] = set()
    for record in records:
        name = classes_of.get(record.relative)
        if name and record.subject not in seen and _registration(record) is not None:
            seen.add(record.subject)
            groups.setdefault(name, []).append(record)
    return dict(sorted(groups.items()))


def lesions_in_mni(output_dir: Path, record: ScanRecord) -> np.ndarray:
    """Bring a scan's lesion mask (bool) to the atlas's 2 mm grid, by nearest neighbour.

    Raises
    ------
    MsnmoError
        If the mask cannot be read.
    """
    _, flair, affine = load_atlas()
    path = output_dir / record.folder / derivative_name(record.prefix, "lesion_mask")
    image = read_nifti(path)
    to_mni = _registration(record)
    assert to_mni is not None, "the scans of a group have one"
    matrix = np.linalg.inv(image.affine) @ np.linalg.inv(to_mni) @ affine
    mask = (np.asanyarray(image.dataobj) > 0).view(np.uint8)
    return ndimage.affine_transform(mask, matrix, output_shape=flair.shape, order=0).astype(bool)


def write_frequency_maps(
    output_dir: Path, groups: Mapping[str, Sequence[ScanRecord]], *, meaning: str
) -> dict[str, tuple[Path, int]]:
    """Write, for each class, the share of the people who have a lesion at each place.

    The groups have one scan per person; `meaning` says in the sidecar what the classes are. Returns
    NIfTI file and number of people by class. Maps of an earlier run are removed.
    """
    _, flair, affine = load_atlas()
    for old in output_dir.glob("group_space-*_map.*"):
        old.unlink()
    written: dict[str, tuple[Path, int]] = {}
    for name, records in groups.items():
        total, used = np.zeros(flair.shape, np.float32), []
        for record in records:
            try:
                total += lesions_in_mni(output_dir, record)
                used.append(record)
            except MsnmoError as error:
                logger.warning("%s: left out of the lesion frequency map: %s", record.prefix, error)
        if not used:
            continue
        label = class_label(name) or "other"
        path = output_dir / f"group_space-{MNI_SPACE}_res-2_label-L_desc-{label}_map.nii.gz"
        write_nifti(with_equal_forms(total / np.float32(len(used)), affine, code=4), path)
        write_json(path.with_name(sidecar(path.name)), _about(name, used, meaning))
        written[name] = (path, len(used))
    return written


def frequency_figure(maps: Mapping[str, tuple[Path, int]], out: Path) -> Path | None:
    """Draw the frequency maps over the atlas, a row per class, all with one scale (PNG).

    None without a map, or without any lesion.
    """
    values = {name: load_array(path) for name, (path, _) in maps.items()}
    reach = max((float(data.max()) for data in values.values()), default=0.0)
    if reach <= 0:
        return None
    _, flair, affine = load_atlas()
    atlas, brain = Volume(flair, affine), flair > 0
    box = bounding_box(brain, atlas.zooms, 2.0)
    bar = ColourBar(0.0, 100 * reach, "people with a lesion there (%)", _COLOURS)
    rows = []
    for name, data in values.items():
        panels = []
        for index in evenly(brain, "axial", SECTIONS, trim=0.2):
            panel = flair_panel(atlas, "axial", index, box, window(flair[brain]))
            share = section(data, "axial", index, box)
            heat = bar.rgba(100 * share)
            heat[..., 3] = np.where(share > 0, 0.9, 0.0)
            panels.append(replace(panel, heat=heat))
        number = maps[name][1]
        rows.append(Row(f"{name}: {number} {'people' if number != 1 else 'person'}", panels))
    return save_png(draw(rows, CONVENTION, bar), out)


def _registration(record: ScanRecord) -> np.ndarray | None:
    """Return the affine map from a scan's RAS mm to MNI mm, None where it was not kept."""
    kept = record.diagnosis.get("AtlasRegistration") or {}
    matrix = np.asarray(kept.get("Matrix", []), dtype=float)
    usable = matrix.shape == (4, 4) and abs(np.linalg.det(matrix)) > 0
    return matrix if usable else None


def _about(name: str, records: Sequence[ScanRecord], meaning: str) -> dict:
    sources = [
        bids_uri(f"{record.folder}/{derivative_name(record.prefix, 'lesion_mask')}")
        for record in records
    ]
    return {
        "Description": f"Share of {len(records)} people ({name}) with a lesion at each place, by "
        f"the model; affine registration, first scan of each person. {meaning}",
        "SpatialReference": MNI_SPACE,
        "Resolution": "2 mm isotropic",
        "Sources": sources,
    }
