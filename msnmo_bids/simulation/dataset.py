"""Simulated scans as a BIDS data set, with the true lesion masks as derivatives."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from msnmo_bids.simulation.acquisition import PRESETS, Protocol
from msnmo_bids.simulation.anatomy import Head
from msnmo_bids.simulation.lesion_shapes import ShapeLibrary
from msnmo_bids.simulation.sample import SimulatedScan, simulate_scan
from msnmo_bids.version import get_version

LOGGER = logging.getLogger("msnmo.simulation")

#: Scanner units of white matter.
_WHITE_MATTER_UNITS = 400.0


@dataclass(frozen=True)
class Geometry:
    """How a scan lies in the scanner and in its file.

    Parameters
    ----------
    axcodes : str
        Orientation of the file's axes, for example ``"LPS"``.
    tilt : tuple of float, (3,)
        Rotation of the slices about R, A and S (degrees).
    """

    axcodes: str = "LPS"
    tilt: tuple[float, float, float] = (0.0, 0.0, 0.0)


def as_image(array: np.ndarray, affine: np.ndarray, geometry: Geometry) -> nib.Nifti1Image:
    """Put an RAS array into the axis order and tilt of a scanner.

    Parameters
    ----------
    array : ndarray, (X, Y, Z)
        RAS order.
    affine : ndarray, (4, 4)
        Index to RAS mm.
    geometry : Geometry
        Axis order and tilt.

    Returns
    -------
    nibabel.Nifti1Image
        q- and s-form equal, code 1.
    """
    tilted = np.eye(4)
    angles = np.deg2rad(geometry.tilt)
    tilted[:3, :3] = nib.eulerangles.euler2mat(*angles[::-1])
    wanted = nib.orientations.axcodes2ornt(geometry.axcodes)
    change = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), wanted)
    moved = nib.orientations.apply_orientation(array, change)
    back = nib.orientations.inv_ornt_aff(change, array.shape)
    image = nib.Nifti1Image(np.ascontiguousarray(moved), tilted @ affine @ back)
    image.set_sform(image.affine, code=1)
    image.set_qform(image.affine, code=1)
    image.header.set_xyzt_units("mm", "sec")
    return image


def scanner_units(scan: SimulatedScan) -> np.ndarray:
    """Return the image as the 16-bit integers of a scanner, (X, Y, Z), int16."""
    return np.clip(np.round(scan.image * _WHITE_MATTER_UNITS), 0, 32000).astype(np.int16)


def write_dataset(
    out: Path,
    heads: list[Head],
    participants: int,
    *,
    seed: int = 0,
    diagnoses: tuple[str, ...] = ("MS", "NMOSD"),
    protocols: tuple[Protocol, ...] = tuple(PRESETS.values()),
    shapes: ShapeLibrary | None = None,
) -> Path:
    """Write a BIDS data set of simulated people, one FLAIR each.

    Parameters
    ----------
    out : Path
        New or empty folder.
    heads : list of Head
        Whole-head anatomies.
    participants : int
        Number of people; diagnoses and protocols alternate.
    seed : int, optional
        Seed.
    diagnoses : tuple of str, optional
        Of ``"MS"``, ``"NMOSD"``, ``"HC"``.
    protocols : tuple of Protocol, optional
        Protocols.
    shapes : ShapeLibrary, optional
        Real lesion shapes.

    Returns
    -------
    Path
        ``out``. The truth lies in its ``derivatives/truth``.
    """
    truth = out / "derivatives" / "truth"
    truth.mkdir(parents=True, exist_ok=True)
    _write_json(out / "dataset_description.json", _description("raw"))
    _write_json(truth / "dataset_description.json", _description("derivative"))
    (out / "README").write_text(
        "Simulated T2-FLAIR with known lesions, for tests and demonstrations.\n"
        "No real person was scanned. The true lesion masks are in derivatives/truth.\n",
        encoding="utf-8",
    )
    rows = ["participant_id\tdiagnosis"]
    for number in range(participants):
        subject = f"sub-{number + 1:02d}"
        rng = np.random.default_rng((seed, number))
        scan = simulate_scan(
            heads[number % len(heads)],
            rng,
            diagnosis=diagnoses[number % len(diagnoses)],
            load=float(np.clip(rng.lognormal(2.14, 0.8), 2.0, 40.0)),
            protocol=protocols[number % len(protocols)],
            shapes=shapes,
        )
        first, second, third = (float(a) for a in rng.normal(0, 4, 3))
        geometry = Geometry("LPS", (first, second, third))
        _write_scan(out, truth, subject, scan, geometry)
        rows.append(f"{subject}\t{scan.diagnosis}")
        LOGGER.info("%s: %s, %s", subject, scan.diagnosis, scan.protocol.name)
    (out / "participants.tsv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    levels = {"MS": "multiple sclerosis", "NMOSD": "neuromyelitis optica spectrum disorder",
              "HC": "healthy"}  # fmt: skip
    _write_json(
        out / "participants.json",
        {"diagnosis": {"Description": "Whose lesions were simulated", "Levels": levels}},
    )
    return out


def _write_scan(
    out: Path, truth: Path, subject: str, scan: SimulatedScan, geometry: Geometry
) -> None:
    folder = out / subject / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    as_image(scanner_units(scan), scan.affine, geometry).to_filename(
        folder / f"{subject}_FLAIR.nii.gz"
    )
    _write_json(
        folder / f"{subject}_FLAIR.json",
        {
            "Manufacturer": "Simulated",
            "ProtocolName": scan.protocol.name,
            "SliceThickness": scan.protocol.thickness,
            "SkullStripped": False,
        },
    )
    folder = truth / subject / "anat"
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{subject}_space-orig_label-L_desc-truth_mask"
    as_image(scan.lesion_mask, scan.affine, geometry).to_filename(folder / f"{name}.nii.gz")
    _write_json(
        folder / f"{name}.json",
        {
            "Type": "Lesion",
            "SpatialReference": "orig",
            "Sources": [f"bids:raw:{subject}/anat/{subject}_FLAIR.nii.gz"],
            "Description": "True lesion mask of the simulation",
        },
    )


def _description(kind: str) -> dict:
    content: dict = {
        "Name": "Simulated T2-FLAIR" if kind == "raw" else "True lesions of simulated T2-FLAIR",
        "BIDSVersion": "1.10.0",
        "DatasetType": kind,
        "License": "CC0",
        "Authors": ["The msnmo developers"],
        "GeneratedBy": [{"Name": "msnmo-simulate", "Version": get_version()}],
    }
    if kind == "derivative":
        content["DatasetLinks"] = {"raw": "../.."}
    return content


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
