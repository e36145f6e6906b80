#!/usr/bin/env python3
"""What the app says of images on which no diagnosis may be named.

``benchmarks/unsuitable.py OUT --anatomy DIR [--each N] [--app "OPTIONS"]``

Makes T1-weighted images, a tumour, a large infarct, heavy motion and pure noise of simulated scans
(`msnmo_bids.simulation.unsuitable`), as a BIDS data set in OUT/bids; runs the app on it, into
OUT/out; prints for each image whether a diagnosis was withheld, and why.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from msnmo_bids.bids.dataset import write_json
from msnmo_bids.simulation.acquisition import PRESETS
from msnmo_bids.simulation.dataset import Geometry, as_image, scanner_units
from msnmo_bids.simulation.material import add_material_options, material_of
from msnmo_bids.simulation.sample import simulate_scan
from msnmo_bids.simulation.unsuitable import UNSUITABLE

RUN = Path(__file__).resolve().parent.parent / "run.py"
SEED = 20_000


def main() -> None:
    """Make the images, run the app, print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    add_material_options(parser)
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
    material = material_of(options)
    protocols = list(PRESETS.values())
    rows = []
    for number in range(options.each * len(UNSUITABLE)):
        kind = list(UNSUITABLE)[number % len(UNSUITABLE)]
        rng = np.random.default_rng((SEED, number))
        protocol = protocols[number // len(UNSUITABLE) % len(protocols)]
        head = material.heads[int(rng.integers(len(material.heads)))]
        scan = simulate_scan(head, rng, load=5.0, protocol=protocol, shapes=material.shapes)
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
