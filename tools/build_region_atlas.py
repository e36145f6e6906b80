#!/usr/bin/env python3
"""Build the region atlas from a folder of whole-head label maps with FreeSurfer labels.

``tools/build_region_atlas.py LABEL_MAPS``

Each head is registered affinely to the MNI152 head of ``msnmo_bids.simulation.mni_head``, by a
synthetic FLAIR contrast of both; the classes and the contrast are averaged on a 2 mm grid.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from msnmo_bids.lesions.regions import ATLAS_MAPS
from msnmo_bids.simulation.anatomy import INFRATENTORIAL, Head, Tissue, load_head
from msnmo_bids.simulation.mni_head import mni_head

OUT = Path(__file__).resolve().parent.parent / "msnmo_bids" / "lesions" / "data"
SPACING = 2.0
CONTRAST = {
    **dict.fromkeys((Tissue.WHITE_MATTER, Tissue.CEREBELLAR_WHITE, Tissue.BRAINSTEM), 1.0),
    **dict.fromkeys((Tissue.CORTEX, Tissue.DEEP_GREY, Tissue.CEREBELLAR_CORTEX), 1.12),
    **dict.fromkeys((Tissue.LATERAL_VENTRICLE, Tissue.THIRD_VENTRICLE), 0.35),
    **dict.fromkeys((Tissue.FOURTH_VENTRICLE, Tissue.CSF), 0.4),
    Tissue.CHOROID_PLEXUS: 0.9,
}
CLASSES = {
    "ventricle": (Tissue.LATERAL_VENTRICLE, Tissue.THIRD_VENTRICLE, Tissue.CHOROID_PLEXUS),
    "infratentorial": (*INFRATENTORIAL, Tissue.FOURTH_VENTRICLE),
    "cortex": (Tissue.CORTEX,),
    "deep": (Tissue.WHITE_MATTER, Tissue.DEEP_GREY),
}


def channels(head: Head) -> np.ndarray:
    """Return the classes and the contrast of a head at 2 mm, (5, X, Y, Z), float32."""
    lookup = np.zeros(len(Tissue), np.float32)
    for tissue, value in CONTRAST.items():
        lookup[tissue] = value
    flair = lookup[head.tissue] * (head.to_surface <= 0)
    volumes = [np.isin(head.tissue, CLASSES[name]) for name in ATLAS_MAPS] + [flair]
    halves = [ndimage.uniform_filter(v.astype(np.float32), 2)[1::2, 1::2, 1::2] for v in volumes]
    return np.stack(halves)


def main() -> None:
    """Build and write the atlas."""
    import ants

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("label_maps", type=Path, help="folder of label maps")
    paths = sorted(parser.parse_args().label_maps.glob("*.nii.gz"))
    ants.config.set_ants_deterministic(on=True, seed_value=1)
    target = mni_head().cropped(margin=10)
    fixed = ants.from_numpy(channels(target)[-1], spacing=(SPACING,) * 3)
    total = np.zeros((len(ATLAS_MAPS) + 1, *fixed.shape), np.float32)
    for path in paths:
        moving = [
            ants.from_numpy(c, spacing=(SPACING,) * 3)
            for c in channels(load_head(path).cropped(margin=10))
        ]
        found = ants.registration(fixed, moving[-1], type_of_transform="Affine")
        for number, channel in enumerate(moving):
            total[number] += ants.apply_transforms(fixed, channel, found["fwdtransforms"]).numpy()
    mean = total / len(paths)
    affine = target.affine @ np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] += target.affine[:3, :3] @ np.full(3, 0.5)
    OUT.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        OUT / "region_atlas.npz",
        maps=np.round(mean[:-1].clip(0, 1) * 255).astype(np.uint8),
        flair=np.round(mean[-1].clip(0, 1.99) * 128).astype(np.uint8),
        affine=affine,
    )
    about = {
        "Description": "Mean class probabilities and mean synthetic FLAIR contrast of whole heads",
        "Maps": list(ATLAS_MAPS),
        "Space": "MNI152 (affine), 2 mm, RAS",
        "Heads": len(paths),
        "Origin": "Whole-head label maps of the SynthSeg project",
        "License": "Apache-2.0",
    }
    (OUT / "region_atlas.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
