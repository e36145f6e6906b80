"""Build the region atlas from a folder of whole-head label maps with FreeSurfer labels.

``python -m dev.region_atlas LABEL_MAPS``

Each head is registered affinely to the MNI152 head of ``msnmo_bids.simulation.assets``, by a
synthetic FLAIR contrast of both; the classes and the contrast are averaged on a 2 mm grid. The
same label maps give the same file, to the byte.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from msnmo_bids.lesions.regions import ATLAS_STEPS, FLAIR_STEPS, STRUCTURES
from msnmo_bids.lesions.registration import register_affine
from msnmo_bids.simulation.anatomy import Head, Tissue, load_heads
from msnmo_bids.simulation.assets import mni_head

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
    "lateral_ventricle": (Tissue.LATERAL_VENTRICLE, Tissue.CHOROID_PLEXUS),
    "third_ventricle": (Tissue.THIRD_VENTRICLE,),
    "brainstem": (Tissue.BRAINSTEM,),
    "cerebellum": (Tissue.CEREBELLAR_WHITE, Tissue.CEREBELLAR_CORTEX),
    "cortex": (Tissue.CORTEX,),
    "deep_grey": (Tissue.DEEP_GREY,),
    "white_matter": (Tissue.WHITE_MATTER,),
    "fourth_ventricle": (Tissue.FOURTH_VENTRICLE,),
}


def channels(head: Head) -> np.ndarray:
    """Return the classes and the contrast of a head at 2 mm, (9, X, Y, Z), float32."""
    lookup = np.zeros(len(Tissue), np.float32)
    for tissue, value in CONTRAST.items():
        lookup[tissue] = value
    flair = lookup[head.tissue] * (head.to_surface <= 0)
    volumes = [np.isin(head.tissue, CLASSES[name]) for name in STRUCTURES] + [flair]
    halves = [ndimage.uniform_filter(v.astype(np.float32), 2)[1::2, 1::2, 1::2] for v in volumes]
    return np.stack(halves)


def aligned(head: Head, fixed: np.ndarray) -> np.ndarray:
    """Return the channels of a head on the grid of the fixed contrast, (9, X, Y, Z)."""
    moving = channels(head)
    spacing = (SPACING,) * 3
    matrix = register_affine(fixed, spacing, moving[-1], spacing)
    return np.stack(
        [
            ndimage.affine_transform(
                channel, matrix[:3, :3], matrix[:3, 3], output_shape=fixed.shape, order=1
            )
            for channel in moving
        ]
    )


def main() -> None:
    """Build and write the atlas."""
    parser = argparse.ArgumentParser(description="Build the region atlas from label maps.")
    parser.add_argument("label_maps", type=Path, help="folder of label maps")
    parser.add_argument("--cache", type=Path, help="folder for prepared heads")
    options = parser.parse_args()
    heads = load_heads(options.label_maps, options.cache)
    target = mni_head().cropped(margin=10)
    fixed = channels(target)[-1]
    total = np.zeros((len(STRUCTURES) + 1, *fixed.shape), np.float32)
    for head in heads:
        total += aligned(head.cropped(margin=10), fixed)
    mean = total / len(heads)
    affine = target.affine @ np.diag([SPACING, SPACING, SPACING, 1.0])
    affine[:3, 3] += target.affine[:3, :3] @ np.full(3, 0.5)
    OUT.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        OUT / "region_atlas.npz",
        maps=np.round(mean[:-1].clip(0, 1) * ATLAS_STEPS).astype(np.uint8),
        flair=np.round(mean[-1].clip(0, 2) * FLAIR_STEPS).astype(np.uint8),
        affine=affine,
    )
    about = {
        "Description": "Mean class probabilities and mean synthetic FLAIR contrast of whole heads",
        "Maps": list(STRUCTURES),
        "Steps": {"maps": ATLAS_STEPS, "flair": FLAIR_STEPS},
        "Space": "MNI152 (affine), 2 mm, RAS",
        "Heads": len(heads),
        "Origin": "Whole-head label maps of the SynthSeg project (Billot et al. 2023)",
        "Target": "MNI152 tissue maps (ICBM 2009a symmetric), as shipped with nilearn",
        "GeneratedBy": "dev/region_atlas.py",
        "License": "Apache-2.0",
    }
    (OUT / "region_atlas.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
