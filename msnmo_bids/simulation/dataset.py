"""Simulated people as a BIDS data set, with the truth as derivatives."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch

from msnmo_bids.bids.dataset import write_json, write_text, write_tsv
from msnmo_bids.bids.names import bids_uri, sidecar, truth_name
from msnmo_bids.bids.raw_metadata import SIMULATED
from msnmo_bids.preprocessing.geometry import with_equal_forms
from msnmo_bids.simulation.anatomy import Head
from msnmo_bids.simulation.assets import ShapeLibrary
from msnmo_bids.simulation.imaging import PRESETS, Protocol
from msnmo_bids.simulation.lesion_placement import draw_load
from msnmo_bids.simulation.sample import SimulatedScan, simulate_visits
from msnmo_bids.simulation.truth import (
    LESION_COLUMNS,
    draw_panels,
    lesion_table,
    save_contact_sheet,
    tissue_table,
)
from msnmo_bids.version import get_version

logger = logging.getLogger(__name__)

DIAGNOSES = {
    "MS": "multiple sclerosis",
    "NMOSD": "neuromyelitis optica spectrum disorder",
    "SVD": "age-related small-vessel disease",
    "HC": "healthy control",
}
#: Scanner units of white matter.
_WHITE_MATTER_UNITS = 400.0
_AXIS_ORDERS = ("LPS", "LAS", "RAS", "PSR", "ASL")
_STANDARD = ("index", "name")  # columns that BIDS describes itself
_README = """\
Simulated T2-FLAIR of people with known lesions, for tests, demonstrations and training.

No real person was scanned: nothing here tells of a patient. The truth lies in derivatives/truth:
lesion masks, one label a lesion with its kind, region and change between visits, tissues and brain
masks. derivatives/truth/figures/contact_sheet.png shows the scans.
"""


@dataclass(frozen=True)
class Geometry:
    """How a scan lies in the scanner and in its file.

    `axcodes` is the orientation of the file's axes (``"LPS"``), `tilt` the rotation of the slices
    about R, A and S (degrees).
    """

    axcodes: str = "LPS"
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def matrix(self) -> np.ndarray:
        """The tilt, (4, 4)."""
        matrix = np.eye(4)
        matrix[:3, :3] = nib.eulerangles.euler2mat(*np.deg2rad(self.tilt)[::-1])
        return matrix


@dataclass(frozen=True)
class Cohort:
    """Who is simulated, and how they are scanned.

    Parameters
    ----------
    diagnoses : tuple of str
        Names of `DIAGNOSES`, one per person; a person depends on seed and own number alone.
    sessions : tuple of int
        Visits of each person, taken in turn; without ``ses-`` folders where nobody has several.
    protocols : tuple of Protocol
        One of them is drawn for each visit; empty: any protocol.
    typicality : float
        Share of the lesion load that follows the disease's own pattern, 0 to 1.
    loads : tuple of float
        Lesion volume at the first visit of each person (ml), taken in turn; empty: drawn.
    """

    diagnoses: tuple[str, ...]
    sessions: tuple[int, ...] = (1,)
    seed: int = 0
    protocols: tuple[Protocol, ...] = tuple(PRESETS.values())
    skull_strip: bool = False
    typicality: float = 1.0
    loads: tuple[float, ...] = ()

    @property
    def longitudinal(self) -> bool:
        """Whether anybody has several visits."""
        return max(self.sessions) > 1

    def visits_of(self, number: int) -> int:
        """Return the number of visits of a person."""
        return self.sessions[number % len(self.sessions)]

    def load_of(self, number: int, rng: np.random.Generator) -> float:
        """Return the lesion volume of a person (ml)."""
        if self.loads:
            return self.loads[number % len(self.loads)]
        return draw_load(rng, self.diagnoses[number])


@dataclass(frozen=True)
class Visit:
    """A scan, its prefix (``"sub-01_ses-1"``) and folder; person and visit are counted from 0."""

    number: int
    session: int
    prefix: str
    folder: str
    scan: SimulatedScan
    geometry: Geometry

    @property
    def image(self) -> str:
        """Path of the image, relative to the root of the data set."""
        return f"{self.folder}/{self.prefix}_FLAIR.nii.gz"


def as_image(array: np.ndarray, affine: np.ndarray, geometry: Geometry) -> nib.Nifti1Image:
    """Put an RAS array, (X, Y, Z), into the axis order and tilt of a scanner.

    `affine`, (4, 4), brings its index to RAS mm; q- and s-form are equal, code 1.
    """
    wanted = nib.orientations.axcodes2ornt(geometry.axcodes)
    change = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), wanted)
    moved = nib.orientations.apply_orientation(array, change)
    back = nib.orientations.inv_ornt_aff(change, array.shape)
    return with_equal_forms(np.ascontiguousarray(moved), geometry.matrix @ affine @ back)


def scanner_units(scan: SimulatedScan) -> np.ndarray:
    """Return the image as the 16-bit integers of a scanner, (X, Y, Z), int16."""
    return np.clip(np.round(scan.image * _WHITE_MATTER_UNITS), 0, 32000).astype(np.int16)


def simulate_person(
    cohort: Cohort, number: int, head: Head, shapes: ShapeLibrary | None = None
) -> Iterator[Visit]:
    """Simulate all visits of a person, counted from 0, in an undeformed head, in order."""
    # Streams of their own, so that a person with another diagnosis differs in the lesions alone.
    rng, loads, positions = (np.random.default_rng((cohort.seed, number, k)) for k in range(3))
    sessions = cohort.visits_of(number)
    known = cohort.protocols
    protocols = [known[rng.integers(len(known))] for _ in range(sessions) if known]
    scans = simulate_visits(
        head,
        rng,
        sessions=sessions,
        diagnosis=cohort.diagnoses[number],
        load=cohort.load_of(number, loads),
        protocols=protocols or None,
        shapes=shapes,
        typicality=cohort.typicality,
    )
    subject = _subject(cohort, number)
    for session, scan in enumerate(scans):
        first, second, third = positions.normal(0, 4, 3).tolist()
        geometry = Geometry(str(positions.choice(_AXIS_ORDERS)), (first, second, third))
        parts = [subject, f"ses-{session + 1}"] if cohort.longitudinal else [subject]
        folder = "/".join([*parts, "anat"])
        yield Visit(number, session, "_".join(parts), folder, scan, geometry)


def write_dataset(
    out: Path,
    heads: Sequence[Head],
    cohort: Cohort,
    *,
    shapes: ShapeLibrary | None = None,
    processes: int = 1,
) -> Path:
    """Write a BIDS data set of simulated people; the truth lies in its ``derivatives/truth``.

    `out`, which is returned, is a new or empty folder; whole-head anatomies are taken in turn. The
    files do not depend on how many people are simulated side by side.
    """
    out.mkdir(parents=True, exist_ok=True)
    jobs = [
        (out, cohort, number, heads[number % len(heads)], shapes)
        for number in range(len(cohort.diagnoses))
    ]
    if processes == 1:
        previews = [_write_person(*job) for job in jobs]
    else:
        spawn = get_context("spawn")
        with ProcessPoolExecutor(processes, mp_context=spawn, initializer=_one_thread) as pool:
            previews = list(pool.map(_write_person, *zip(*jobs, strict=True)))
    _write_shared_files(out, cohort)
    sheet = out / "derivatives" / "truth" / "figures" / "contact_sheet.png"
    save_contact_sheet([preview for person in previews for preview in person], sheet)
    return out


def _one_thread() -> None:
    torch.set_num_threads(1)


def _subject(cohort: Cohort, number: int) -> str:
    width = max(2, len(str(len(cohort.diagnoses))))
    return f"sub-{number + 1:0{width}d}"


def _write_person(
    out: Path, cohort: Cohort, number: int, head: Head, shapes: ShapeLibrary | None
) -> list[tuple[str, np.ndarray]]:
    """Write all files of one person; return the panels of the contact sheet, with titles."""
    previews = []
    for visit in simulate_person(cohort, number, head, shapes):
        _write_image(out, visit, cohort)
        _write_truth(out / "derivatives" / "truth", visit, cohort)
        scan = visit.scan
        title = f"{visit.prefix}: {scan.diagnosis}, {scan.protocol.name}"
        previews.append((title, draw_panels(scan)))
        logger.info("%s, %.1f ml", title, scan.lesion_mask.sum() * scan.zooms.prod() / 1000)
    if cohort.longitudinal:
        subject = _subject(cohort, number)
        rows = [
            {"session_id": f"ses-{k + 1}", "acq_time": f"{1925 + k}-01-01T12:00:00"}
            for k in range(cohort.visits_of(number))
        ]
        write_tsv(out / subject / f"{subject}_sessions.tsv", tuple(rows[0]), rows)
    return previews


def _write_image(out: Path, visit: Visit, cohort: Cohort) -> None:
    scan, path = visit.scan, out / visit.image
    path.parent.mkdir(parents=True, exist_ok=True)
    values = scanner_units(scan)
    if cohort.skull_strip:
        values = values * scan.brain_mask.astype(values.dtype)
    as_image(values, scan.affine, visit.geometry).to_filename(path)
    content = {
        "Manufacturer": SIMULATED,
        "ProtocolName": scan.protocol.name,
        "SliceThickness": scan.protocol.thickness,
        "SkullStripped": cohort.skull_strip,
    }
    write_json(out / sidecar(visit.image), content)


def _write_truth(truth: Path, visit: Visit, cohort: Cohort) -> None:
    """Write the truth of a scan: masks, labels, tables, and what it was made with."""
    scan, geometry = visit.scan, visit.geometry
    folder = truth / visit.folder
    folder.mkdir(parents=True, exist_ok=True)
    common = {"SpatialReference": "orig", "Sources": [bids_uri(visit.image, "raw")]}
    recipe = {
        "Seed": [cohort.seed, visit.number],
        "Session": visit.session,
        "Sessions": cohort.visits_of(visit.number),
        "Diagnosis": scan.diagnosis,
        "Load": scan.load,
        "Typicality": cohort.typicality,
        "Anatomy": scan.head.name,
        "Protocol": asdict(scan.protocol),
        "Geometry": asdict(geometry),
    }
    lesion = {"Type": "Lesion", "Description": "True lesion mask", "Simulation": recipe}
    brain = {"Type": "Brain", "Description": "True brain mask"}
    images: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
        "lesion_mask": (scan.lesion_mask, lesion),
        "lesion_labels": (scan.lesion_labels, {"Description": "True lesions, one label each"}),
        "brain_mask": (scan.brain_mask.astype(np.uint8), brain),
        "tissue": (scan.tissue, {"Description": "Tissues at the centres of the voxels"}),
    }
    for kind, (array, content) in images.items():
        name = truth_name(visit.prefix, kind)
        as_image(array, scan.affine, geometry).to_filename(folder / name)
        write_json(folder / sidecar(name), content | common)
    rows = lesion_table(scan, geometry.matrix @ scan.affine)
    write_tsv(folder / truth_name(visit.prefix, "lesion_table"), tuple(LESION_COLUMNS), rows)
    write_tsv(folder / truth_name(visit.prefix, "tissue_table"), ("index", "name"), tissue_table())


def _write_shared_files(out: Path, cohort: Cohort) -> None:
    truth = out / "derivatives" / "truth"
    write_json(out / "dataset_description.json", _description("raw"))
    write_json(truth / "dataset_description.json", _description("derivative"))
    write_text(truth / ".bidsignore", "figures\n")
    described = {name: about for name, about in LESION_COLUMNS.items() if name not in _STANDARD}
    write_json(truth / "seg-lesions_dseg.json", described)
    write_text(truth / "README", _README)
    write_text(out / "README", _README)
    rows = []
    for number, diagnosis in enumerate(cohort.diagnoses):
        rng = np.random.default_rng((cohort.seed, number, 1))  # independent of the diagnosis
        age = int(np.clip(rng.normal(40, 11), 18, 75))
        sex = str(rng.choice(("F", "M"), p=(0.7, 0.3)))
        subject = _subject(cohort, number)
        rows.append({"participant_id": subject, "diagnosis": diagnosis, "age": age, "sex": sex})
    write_tsv(out / "participants.tsv", tuple(rows[0]), rows)
    invented = "Invented {}, independent of the diagnosis"
    about = {
        "diagnosis": {"Description": "Whose lesions were simulated", "Levels": DIAGNOSES},
        "age": {"Description": invented.format("age"), "Units": "year"},
        "sex": {"Description": invented.format("sex"), "Levels": {"F": "female", "M": "male"}},
    }
    write_json(out / "participants.json", about)


def _description(kind: str) -> dict[str, Any]:
    raw = kind == "raw"
    content: dict[str, Any] = {
        "Name": "Simulated T2-FLAIR" if raw else "Truth of simulated T2-FLAIR",
        "BIDSVersion": "1.10.0",
        "DatasetType": kind,
        "License": "CC0",
        "Authors": ["The msnmo developers"],
        "GeneratedBy": [{"Name": "msnmo-simulate", "Version": get_version()}],
    }
    return content if raw else content | {"DatasetLinks": {"raw": "../.."}}
