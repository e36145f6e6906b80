"""What the app says of images on which no diagnosis may be named.

``python -m dev.unsuitable OUT --anatomy DIR [--each N] [--app "OPTIONS"]``

Makes T1-weighted images, a tumour, a large infarct, heavy motion and pure noise of simulated scans,
as a BIDS data set in OUT/bids; runs the app on it, into OUT/out; prints for each image whether a
diagnosis was withheld, and why. The images look like their models only as far as that test needs;
nothing is trained on them.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import ndimage
from scipy.special import expit

from dev.asset_options import add_asset_options, assets_of
from msnmo_bids.bids.dataset import write_json
from msnmo_bids.simulation.anatomy import DISTANCE_STEP, Head, Tissue
from msnmo_bids.simulation.dataset import Geometry, as_image, scanner_units
from msnmo_bids.simulation.deformation import smooth_noise
from msnmo_bids.simulation.imaging import PRESETS, degrade, flair, sample_grid
from msnmo_bids.simulation.sample import SimulatedScan, simulate_scan

RUN = Path(__file__).resolve().parent.parent / "run.py"
SEED = 20_000
#: Mean intensity of each tissue on a T1-weighted image, relative to white matter.
_T1W = {
    Tissue.AIR: 0.01, Tissue.WHITE_MATTER: 1.0, Tissue.CORTEX: 0.68, Tissue.DEEP_GREY: 0.8,
    Tissue.LATERAL_VENTRICLE: 0.25, Tissue.THIRD_VENTRICLE: 0.28, Tissue.FOURTH_VENTRICLE: 0.28,
    Tissue.CSF: 0.3, Tissue.CEREBELLAR_WHITE: 0.97, Tissue.CEREBELLAR_CORTEX: 0.7,
    Tissue.BRAINSTEM: 0.93, Tissue.CHOROID_PLEXUS: 0.45, Tissue.SOFT_TISSUE: 0.6,
    Tissue.SCALP: 1.5, Tissue.BONE: 0.1, Tissue.MARROW: 1.1, Tissue.EYE: 0.3, Tissue.VESSEL: 0.3,
}  # fmt: skip


def t1_weighted(scan: SimulatedScan, rng: np.random.Generator) -> SimulatedScan:
    """Return the head of a scan as a T1-weighted image; lesions are a little dark."""
    head = scan.head
    ideal = np.array([_T1W[tissue] for tissue in Tissue], dtype=np.float32)[head.tissue]
    ideal *= 1 - 0.25 * np.clip(scan.lesions.profile, 0, 1)
    ideal += ideal * smooth_noise(ideal.shape, 3.5 / head.spacing, rng) * 0.03
    return _acquired(scan, ndimage.gaussian_filter(ideal, 0.6 / head.spacing), rng)


def tumour(scan: SimulatedScan, rng: np.random.Generator) -> SimulatedScan:
    """Return the scan of a head with a glioma-like mass: core, rim, oedema and mass effect.

    The mass is 35 to 60 ml, the oedema reaches 8 to 15 mm beyond it.
    """
    head = scan.head
    centre = _deep_white_matter(head, rng)
    radius = (3 * rng.uniform(35e3, 60e3) / (4 * np.pi)) ** (1 / 3)
    away, outwards = _from_centre(head, centre)
    # Tissue is pushed outwards: what is seen at a place was nearer to the centre.
    push = 0.45 * radius * np.exp(-((away / (2 * radius)) ** 2))
    source = np.indices(away.shape, dtype=np.float32) - outwards * push / head.spacing
    image = ndimage.map_coordinates(_flair(scan, rng), source, order=1, mode="nearest")
    edge = away + 0.25 * radius * smooth_noise(away.shape, 12.0 / head.spacing, rng)
    brain = ndimage.map_coordinates((head.to_surface < 0).astype(np.float32), source, order=1)
    oedema = np.clip(1.2 - (edge - radius) / rng.uniform(8, 15), 0, 1) * (brain > 0.5)
    image += oedema * (rng.uniform(1.6, 1.9) - image)
    inside = expit(radius - edge)
    image += inside * (rng.uniform(1.3, 1.6) - image)
    core = expit(0.6 * radius - edge)
    image += core * (rng.uniform(0.4, 0.8) - image)
    return _acquired(scan, image.astype(np.float32), rng)


def infarct(scan: SimulatedScan, rng: np.random.Generator) -> SimulatedScan:
    """Return the scan of a head with a large infarct: a wedge of cortex and white matter, bright.

    Its territory is that of a middle cerebral artery, 80 to 200 ml.
    """
    head = scan.head
    image = _flair(scan, rng)
    side = rng.choice((-1.0, 1.0))
    box = _brain_box(head)
    centre = box.mean(axis=0) + (box[1] - box[0]) * (side * 0.38, rng.uniform(-0.08, 0.08), 0.05)
    away, _ = _from_centre(head, centre)
    radius = (3 * rng.uniform(120e3, 250e3) / (4 * np.pi)) ** (1 / 3)
    edge = away + 0.15 * radius * smooth_noise(away.shape, 15.0 / head.spacing, rng)
    grey = (head.tissue == Tissue.WHITE_MATTER) | (head.tissue == Tissue.CORTEX)
    share = ndimage.gaussian_filter((grey & (edge < radius)).astype(np.float32), 1 / head.spacing)
    image += share * (rng.uniform(1.55, 1.9) * (1 + 0.05 * image) - image)
    return _acquired(scan, image, rng)


def heavy_motion(scan: SimulatedScan, rng: np.random.Generator) -> SimulatedScan:
    """Return the scan of a head that nodded all the time, by 3 to 6 voxels from line to line."""
    image = _acquired(scan, _flair(scan, rng), rng).image
    axis = next(axis for axis in (1, 0) if axis != scan.protocol.slice_axis)
    lines = np.fft.fftfreq(image.shape[axis])
    order = np.arange(len(lines)) / rng.uniform(3.0, 9.0)
    shift = rng.uniform(3.0, 6.0) * np.sin(2 * np.pi * order) + rng.normal(0.0, 1.5, len(lines))
    turn = np.expand_dims(np.exp(-2j * np.pi * lines * shift), [a for a in range(3) if a != axis])
    moved = np.fft.ifft(np.fft.fft(image, axis=axis) * turn, axis=axis)
    return replace(scan, image=np.abs(moved).astype(np.float32))


def pure_noise(scan: SimulatedScan, rng: np.random.Generator) -> SimulatedScan:
    """Return an image of noise on the grid of a scan."""
    noise = rng.standard_normal((2, *scan.image.shape), dtype=np.float32)
    return replace(scan, image=np.hypot(*noise))


#: How each kind of image is made of a simulated scan.
UNSUITABLE: dict[str, Callable[[SimulatedScan, np.random.Generator], SimulatedScan]] = {
    "t1w": t1_weighted,
    "tumour": tumour,
    "infarct": infarct,
    "motion": heavy_motion,
    "noise": pure_noise,
}


def _flair(scan: SimulatedScan, rng: np.random.Generator) -> np.ndarray:
    return flair(scan.head, scan.lesions, rng, free=False)[0]


def _acquired(scan: SimulatedScan, ideal: np.ndarray, rng: np.random.Generator) -> SimulatedScan:
    image, _ = sample_grid(ideal, scan.head.spacing, scan.protocol)
    return replace(scan, image=degrade(np.maximum(image, 0) * scan.bias, scan.protocol, rng))


def _brain_box(head: Head) -> np.ndarray:
    """Return the first and the last voxel of the brain along each axis, (2, 3)."""
    found = np.argwhere(head.to_surface <= 0)
    return np.stack([found.min(axis=0), found.max(axis=0)]).astype(float)


def _deep_white_matter(head: Head, rng: np.random.Generator) -> np.ndarray:
    """Return a voxel of supratentorial white matter, 18 mm or more below the surface."""
    deep = (head.tissue == Tissue.WHITE_MATTER) & (head.to_surface < -18 / DISTANCE_STEP)
    places = np.argwhere(deep if deep.any() else head.tissue == Tissue.WHITE_MATTER)
    return places[rng.integers(len(places))].astype(float)


def _from_centre(head: Head, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each voxel's distance from a place (mm), and the unit vector away from it."""
    offset = np.indices(head.tissue.shape, dtype=np.float32) - centre[:, None, None, None].astype(
        np.float32
    )
    length = np.sqrt((offset**2).sum(axis=0))
    return length * head.spacing, offset / np.maximum(length, 1e-3)


def main() -> None:
    """Make the images, run the app, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    add_asset_options(parser)
    parser.add_argument("--each", type=int, default=2, help="images of each kind (default: 2)")
    parser.add_argument("--app", type=shlex.split, default=[], help="options of the app")
    options = parser.parse_args()
    bids, out = options.out / "bids", options.out / "out"
    if not bids.exists():
        make(options, bids)
    command = [sys.executable, str(RUN), str(bids), str(out), "participant", *options.app]
    code = subprocess.run(command, check=False).returncode
    print(f"exit code {code}")
    with pd.option_context("display.max_colwidth", 200, "display.width", 250):
        print(table(bids, out).to_string(index=False))


def make(options: argparse.Namespace, bids: Path) -> None:
    """Write the data set."""
    assets = assets_of(options)
    protocols = list(PRESETS.values())
    rows = []
    for number in range(options.each * len(UNSUITABLE)):
        kind = list(UNSUITABLE)[number % len(UNSUITABLE)]
        rng = np.random.default_rng((SEED, number))
        protocol = protocols[number // len(UNSUITABLE) % len(protocols)]
        head = assets.heads[int(rng.integers(len(assets.heads)))]
        scan = simulate_scan(head, rng, load=5.0, protocol=protocol, shapes=assets.shapes)
        changed = UNSUITABLE[kind](scan, rng)
        label = f"sub-{kind}{number // len(UNSUITABLE) + 1}"
        file = bids / label / "anat" / f"{label}_FLAIR.nii.gz"
        file.parent.mkdir(parents=True)
        as_image(scanner_units(changed), scan.affine, Geometry()).to_filename(file)
        rows.append({"participant_id": label, "kind": kind, "protocol": protocol.name})
    pd.DataFrame(rows).to_csv(bids / "participants.tsv", sep="\t", index=False)
    (bids / "README").write_text("Simulated images on which no diagnosis may be named.\n")
    write_json(
        bids / "dataset_description.json",
        {"Name": "Unsuitable images (simulated)", "BIDSVersion": "1.10.0", "License": "CC0",
         "Authors": ["The msnmo developers"]},
    )  # fmt: skip


def table(bids: Path, out: Path) -> pd.DataFrame:
    """Return a row for each image: what was named, and why nothing was."""
    people = pd.read_csv(bids / "participants.tsv", sep="\t")
    rows = []
    for person in people.itertuples():
        found = list(out.glob(f"{person.participant_id}/anat/*_diagnosis.json"))
        said = json.loads(found[0].read_text(encoding="utf-8")) if found else {}
        rows.append(
            {
                "image": person.participant_id,
                "protocol": person.protocol,
                "diagnosis": said.get("Diagnosis", "failed"),
                "marked_ml": said.get("LesionVolume"),
                "quality": said.get("Quality", {}).get("Level"),
                "reason": said.get("Reason"),
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
