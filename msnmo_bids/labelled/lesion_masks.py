"""Manual lesion masks: which file belongs to which scan, and how its values are read.

The rule, in one place
----------------------
A mask lies anywhere in the folder of the labels (``derivatives/manual``, else
``derivatives/truth``) and is named after its scan,
``<entities of the scan>[_FLAIR]<further entities>_{mask,dseg}.nii[.gz]``.

1. *It shows lesions*: ``label`` is one of `LESION_WORDS` (``label-L``, ``label-lesion``); without
   ``label``, ``seg`` is (``seg-lesions``); without both, ``desc`` holds "lesion", or the sidecar
   beside it says ``"Type": "Lesion"``.
2. *It lies on the scan's grid*: no ``space``, or one of `OWN_SPACES` (``space-orig``). Shape and
   affine are compared besides, both in RAS order.
   Masks that msnmo itself found (``desc-msnmo``) are no truth.
3. *It is this scan's*: all its entities except `DERIVED_ENTITIES` are the scan's. The mask that
   names most of them wins; one that names fewer than the scan has must fit no other scan.
4. *One is chosen*: a ``mask`` before a ``dseg`` (all values above 0.5 are lesion in both), and
   ``desc-consensus`` before others. Where several are left, none is taken.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from msnmo_bids.bids.names import sidecar
from msnmo_bids.bids.scans import Scan
from msnmo_bids.bids.text_files import read_json
from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.geometry import FORM_TOLERANCE_MM, corner_distance
from msnmo_bids.preprocessing.nifti_file import has_form, open_nifti, read_nifti
from msnmo_bids.text import Note

LABEL_FOLDERS = ("derivatives/manual", "derivatives/truth")
LESION_WORDS = frozenset({"l", "lesion", "lesions", "wml", "wmh"})
OWN_SPACES = frozenset({"orig", "flair", "native", "individual"})
DERIVED_ENTITIES = frozenset({"space", "seg", "res", "den", "label", "desc"})
CONSENSUS = "consensus"
_OWN = re.compile(r"(.*\+)?msnmo")  # desc of what this program found
_SUFFIXES = ("mask", "dseg")  # in the order of preference
_LESION_ABOVE, _MOST_LESION = 0.5, 0.5
_MOST_ML = 500.0  # of lesions; a brain has 1,000 and more
CLOSED = "folders of lesion masks that may not be read (check their permissions)"


@dataclass(frozen=True)
class MaskFile:
    """A file that shows lesions, by its name: suffix ``"mask"`` or ``"dseg"``, and all entities."""

    path: Path
    suffix: str
    entities: dict[str, str]

    @property
    def source(self) -> frozenset[tuple[str, str]]:
        """The entities that its scan must have."""
        return frozenset(item for item in self.entities.items() if item[0] not in DERIVED_ENTITIES)


class LesionMasks:
    """The lesion masks of one data set; its folder of labels, which may be missing, is listed once.

    Of all FLAIR `scans` of the data set: a mask that fits several of them belongs to none.
    """

    def __init__(self, folder: Path, scans: Sequence[Scan]) -> None:
        self.folder = folder
        self._scans = [_entities_of(scan) for scan in scans]
        self._people = {scan.subject for scan in scans}
        self._roots = {scan.bids_dir for scan in scans}
        self._masks: dict[str, list[MaskFile]] = defaultdict(list)
        self._found: dict[str, list[MaskFile]] = defaultdict(list)
        self._others: list[Path] = []
        self._closed: list[str] = []
        for path in sorted(self._listed()):
            mask = parse_mask_name(path)
            if mask is None:
                self._others.append(path)
                continue
            ours = _OWN.fullmatch(mask.entities.get("desc", ""))
            (self._found if ours else self._masks)[mask.entities["sub"]].append(mask)

    def _listed(self) -> Iterator[Path]:
        """Find what may be an image; take down folders that may not be read."""
        if not self.folder.is_dir():
            return
        for place, folders, files in os.walk(
            self.folder, onerror=lambda error: self._closed.append(str(error.filename))
        ):
            yield from (Path(place, name) for name in (*folders, *files) if ".nii" in name)

    def unused(self) -> list[Note]:
        """Name the masks that fit no scan, and images that may be masks but are not named so."""
        scans: dict[str, list[frozenset[tuple[str, str]]]] = defaultdict(list)
        for scan in self._scans:
            scans[dict(scan)["sub"]].append(scan)
        notes = [
            Note("lesion masks that fit no scan, not used", mask.path.name)
            for label, masks in self._masks.items()
            for mask in masks
            if not self._left_out(label) and not any(mask.source <= scan for scan in scans[label])
        ]
        notes += [
            Note(CLOSED, Path(place).relative_to(self.folder).as_posix()) for place in self._closed
        ]
        what = "images that are not named as lesion masks (…_label-L_mask.nii.gz), not used"
        without = self._people - {label for label, masks in self._masks.items() if masks}
        return notes + [
            Note(what, path.name)
            for path in self._others
            if path.name.split("_")[0].removeprefix("sub-") in without
        ]

    def _left_out(self, label: str) -> bool:
        """Whether a participant is there, but none whose scans these are."""
        if label in self._people:
            return False
        return any((root / f"sub-{label}").is_dir() for root in self._roots)

    def of(self, scan: Scan) -> tuple[Path | None, str]:
        """Return the mask of a FLAIR, or None and why there is none."""
        entities = _entities_of(scan)
        fitting = [mask for mask in self._masks[scan.subject] if mask.source <= entities]
        if not fitting:
            ours = any(mask.source <= entities for mask in self._found[scan.subject])
            but = ", but one that msnmo found, which is no manual one" if ours else ""
            return None, f"no lesion mask in {self.folder.name}{but}"
        here = [m for m in fitting if m.entities.get("space", "orig").lower() in OWN_SPACES]
        if not here:
            return None, f"lesion mask in another space ({fitting[0].path.name})"
        most = max(len(mask.source) for mask in here)
        here = [mask for mask in here if len(mask.source) == most]
        if most < len(entities) and sum(here[0].source <= them for them in self._scans) > 1:
            return None, f"lesion mask that fits several scans ({here[0].path.name})"
        best = _preferred(here)
        if len(best) > 1:
            names = ", ".join(mask.path.name for mask in best)
            return None, f"several lesion masks ({names})"
        reason = grid_problem(best[0].path, scan.path)
        return (None, reason) if reason else (best[0].path, "")


def parse_mask_name(path: Path) -> MaskFile | None:
    """Read the name of a file; None when it is not that of a lesion mask.

    Only its sidecar is opened, and only where the name leaves open what is shown.

    Examples
    --------
    >>> mask = parse_mask_name(Path("sub-01_ses-2_space-orig_label-L_desc-rater1_mask.nii.gz"))
    >>> sorted(mask.source)
    [('ses', '2'), ('sub', '01')]
    >>> parse_mask_name(Path("sub-01_space-orig_desc-brain_mask.nii.gz")) is None
    True
    """
    stem = path.name.removesuffix(".gz").removesuffix(".nii")
    *parts, suffix = stem.split("_")
    if not path.name.endswith((".nii", ".nii.gz")) or suffix not in _SUFFIXES:
        return None
    pairs = [part.partition("-") for part in parts if part != "FLAIR"]
    entities = {key: value for key, _, value in pairs}
    if "sub" not in entities or not all(value for _, _, value in pairs):
        return None
    mask = MaskFile(path, suffix, entities)
    return mask if _shows_lesions(mask) else None


def read_lesion_mask(path: Path, assumed: np.ndarray | None = None) -> nib.Nifti1Image:
    """Read a lesion mask, label map or probability: (X, Y, Z) uint8 in RAS order.

    1 where the value is above 0.5. Where the header has no orientation it is that of `assumed`,
    (4, 4), index to RAS mm, if that is given.

    Raises
    ------
    BadInputError
        The file cannot be read, is not a 3D volume, or has values that are not numbers, that are
        one value of 0.5 or less, or that make more than half of the image or 500 ml lesion.
    """
    image = read_nifti(path)
    shape = image.shape[:3]
    if len(shape) < 3 or np.prod(image.shape[3:], dtype=int) != 1:
        text = " x ".join(map(str, image.shape))
        raise BadInputError(f"lesion mask of {text} voxels, not a 3D volume", file=path)
    values = np.asanyarray(image.dataobj).reshape(shape, order="F")
    if values.dtype.kind not in "iuf" or not np.all(np.isfinite(values)):
        raise BadInputError(
            "lesion mask with values that are not finite numbers",
            file=path,
            remedy="Export the mask again (0: no lesion, 1: lesion)",
        )
    lesions = (values > _LESION_ABOVE).astype(np.uint8)
    levels = [] if lesions.any() else np.unique(values[values != 0]).tolist()
    # Else it is the probability map of someone without lesions.
    if len(levels) == 1 or (len(levels) and levels[-1] < 0):
        raise BadInputError(
            f"lesion mask with values, but none above {_LESION_ABOVE} (the largest: "
            f"{float(values.max()) + 0.0:.3g})",
            file=path,
            remedy="Export the mask again (0: no lesion, 1: lesion)",
        )
    if lesions.mean() > _MOST_LESION:
        raise BadInputError(
            f"lesion mask that covers {lesions.mean():.0%} of the image",
            file=path,
            remedy="If it shows what is no lesion, exchange 0 and 1",
        )
    affine = image.affine if assumed is None or has_form(image) else assumed
    volume = lesions.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000
    if volume > _MOST_ML:
        raise BadInputError(
            f"lesion mask of {volume:.0f} ml, which is no lesion load",
            file=path,
            remedy="If it shows the brain or its tissues, name it otherwise; lesions are 1, all "
            "else is 0",
        )
    return nib.as_closest_canonical(nib.Nifti1Image(lesions, affine))


def grid_problem(mask: Path, flair: Path) -> str:
    """Say why a mask does not lie on the grid of its FLAIR, from the two headers.

    Their axes may be in different orders. Empty when shape and affine agree in RAS order (to
    `FORM_TOLERANCE_MM` at the corners), or when the FLAIR cannot be read: its own check says so.
    """
    try:
        ours = _ras_grid(flair)
    # A broken file raises errors of all kinds here.
    except Exception:
        return ""
    try:
        theirs = _ras_grid(mask)
    except Exception:
        return _unreadable(mask)
    if ours[0] != theirs[0]:
        shapes = ["x".join(map(str, shape)) for shape in (theirs[0], ours[0])]
        return f"lesion mask on another grid ({shapes[0]} voxels for {shapes[1]})"
    distance = corner_distance(theirs[1], ours[1], ours[0])
    if distance > FORM_TOLERANCE_MM:
        return f"lesion mask on another grid (up to {distance:.1f} mm away)"
    return ""


def _unreadable(mask: Path) -> str:
    try:
        read_lesion_mask(mask)
    except BadInputError as error:
        return f"lesion mask cannot be read: {error.problem}"
    return "lesion mask cannot be read"


def _ras_grid(path: Path) -> tuple[tuple[int, ...], np.ndarray]:
    """Return shape and affine of an image in RAS order, from its header."""
    image = open_nifti(path)
    shape = image.shape[:3]
    to_ras = nib.orientations.io_orientation(image.affine)
    affine = image.affine @ nib.orientations.inv_ornt_aff(to_ras, shape)
    moved = [0, 0, 0]
    for size, axis in zip(shape, to_ras[:, 0].astype(int), strict=True):
        moved[axis] = int(size)
    return tuple(moved), affine


def _shows_lesions(mask: MaskFile) -> bool:
    for entity in ("label", "seg"):
        if entity in mask.entities:
            return mask.entities[entity].lower() in LESION_WORDS
    if "lesion" in mask.entities.get("desc", "").lower():
        return True
    beside = mask.path.with_name(sidecar(mask.path.name))
    try:
        content, _ = read_json(beside)
    except (OSError, ValueError):
        return False
    return isinstance(content, dict) and str(content.get("Type", "")).lower() == "lesion"


def _preferred(masks: Iterable[MaskFile]) -> list[MaskFile]:
    """Return the masks of the best suffix, and of those the consensus where there is one."""
    known = list(masks)
    first = min((mask.suffix for mask in known), key=_SUFFIXES.index)
    best = [mask for mask in known if mask.suffix == first]
    agreed = [mask for mask in best if mask.entities.get("desc", "").lower() == CONSENSUS]
    return agreed or best


def _entities_of(scan: Scan) -> frozenset[tuple[str, str]]:
    pairs = (part.partition("-") for part in scan.prefix.split("_"))
    return frozenset((key, value) for key, _, value in pairs)
