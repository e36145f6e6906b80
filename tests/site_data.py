"""Tiny BIDS data sets of a site: skull-stripped heads of 7 mm voxels with manual masks."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np

SHAPE = (20, 24, 18)
AFFINE = np.array([[7.0, 0, 0, -70], [0, 7, 0, -90], [0, 0, 7, -60], [0, 0, 0, 1]])


def brain(seed: int = 0) -> np.ndarray:
    """Return an ellipsoid of about 1.3 l with noise and two lesions; background 0."""
    centre = (np.array(SHAPE) - 1) / 2
    index = np.stack(np.indices(SHAPE), -1) - centre
    inside = np.linalg.norm(index / (np.array(SHAPE) / 2), axis=-1) < 0.9
    noise = np.random.default_rng(seed).normal(0, 5, SHAPE)
    return np.where(inside, 100 + noise + 100 * lesions(), 0).astype(np.float32)


def lesions() -> np.ndarray:
    """Return the mask of the two lesions; it is like no mirror image of itself."""
    mask = np.zeros(SHAPE, np.uint8)
    mask[4:7, 8:10, 9:11] = mask[12:14, 14:18, 6:8] = 1
    return mask


def save(data: np.ndarray, path: Path, axcodes: str = "RAS", affine: np.ndarray = AFFINE) -> Path:
    """Write an RAS array in another axis order, at the same place."""
    image = nib.Nifti1Image(data, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    wanted = nib.orientations.axcodes2ornt(axcodes)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image.as_reoriented(nib.orientations.ornt_transform(
        nib.orientations.io_orientation(affine), wanted)), path)  # fmt: skip
    return path


class Site:
    """A data set that is built scan by scan.

    ``add("01_ses-1", "MS", mask=True)`` writes FLAIR, sidecar and mask, and a row of
    ``participants.tsv`` where a diagnosis is given.
    """

    def __init__(self, root: Path, name: str | None = "Tiny site") -> None:
        self.root = root
        root.mkdir(parents=True)
        if name is not None:
            (root / "dataset_description.json").write_text(
                json.dumps({"Name": name, "BIDSVersion": "1.10.0", "DatasetType": "raw"})
            )
        self.rows: dict[str, dict[str, str]] = {}

    def add(
        self,
        label: str,
        diagnosis: str | None = None,
        *,
        mask: bool | str = False,
        axcodes: str = "RAS",
        data: np.ndarray | None = None,
        **columns: str,
    ) -> Path:
        """Write a scan; ``mask`` may be the part of a mask's name after the entities."""
        subject = label.split("_")[0]
        folder = f"sub-{subject}/" + "".join(
            f"{part}/" for part in label.split("_")[1:] if part.startswith("ses-")
        )
        path = self.root / folder / "anat" / f"sub-{label}_FLAIR.nii.gz"
        save(brain(len(self.rows)) if data is None else data, path, axcodes)
        sidecar = path.with_name(f"sub-{label}_FLAIR.json")
        sidecar.write_text(json.dumps({"SkullStripped": True}))
        if mask:
            end = mask if isinstance(mask, str) else "space-orig_label-L_desc-manual_mask"
            self.mask(folder, f"sub-{label}_{end}", axcodes=axcodes)
        if diagnosis is not None or columns:
            self.rows[subject] = {"diagnosis": diagnosis or "n/a", **columns}
            self.write_participants()
        return path

    def mask(self, folder: str, name: str, data: np.ndarray | None = None, **how) -> Path:
        """Write a mask into ``derivatives/manual``."""
        path = self.root / "derivatives" / "manual" / folder / "anat" / f"{name}.nii.gz"
        return save(lesions() if data is None else data, path, **how)

    def write_participants(self) -> None:
        """Write ``participants.tsv`` from ``rows``."""
        columns = list(dict.fromkeys(key for row in self.rows.values() for key in row))
        lines = ["\t".join(["participant_id", *columns])]
        lines += [
            "\t".join([f"sub-{subject}", *(row.get(key, "n/a") for key in columns)])
            for subject, row in self.rows.items()
        ]
        (self.root / "participants.tsv").write_text("\n".join(lines) + "\n")
