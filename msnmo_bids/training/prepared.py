"""Scans prepared for training: the app's own preprocessing, once, kept by content."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from msnmo_bids.bids.dataset import remove_unfinished
from msnmo_bids.errors import BadInputError
from msnmo_bids.labelled.lesion_masks import read_lesion_mask
from msnmo_bids.labelled.sample_file import NativeGrid, Sample, read_cubes, read_grid, read_record
from msnmo_bids.labelled.scans import Found, LabelledScan, LeftOut, Person
from msnmo_bids.preprocessing.cube import CUBE_SHAPE, MARGIN_MM
from msnmo_bids.preprocessing.geometry import check_flair
from msnmo_bids.preprocessing.nifti_file import read_content
from msnmo_bids.settings import ProcessingSettings, hash_of
from msnmo_bids.version import get_version

logger = logging.getLogger(__name__)

#: Lesions that the brain mask cuts off by more than this share are named in the log.
_MOST_OUTSIDE = 0.1
_KEY_DIGITS = 16


@dataclass(frozen=True)
class PreparedScan:
    """A scan, and what is known of it, after the app's own preprocessing.

    Its file is described in :mod:`msnmo_bids.labelled.sample_file`; a missing or damaged one is a
    MsnmoError where it is read.
    """

    labelled: LabelledScan
    cube_file: Path

    @property
    def name(self) -> str:
        """Name of the scan among all data sets: ``"dataset/sub-01_ses-1"``."""
        return self.labelled.name

    @property
    def person(self) -> Person:
        """Data set and label of the participant."""
        return self.labelled.person

    def load(self, classes: Sequence[str]) -> Sample:
        """Return the scan as a training sample, for classes in the network's order.

        A diagnosis that is none of the classes is not known.
        """
        image, lesions = read_cubes(self.cube_file)
        named = self.labelled.diagnosis
        return Sample(image, lesions, classes.index(named) if named in classes else None, self.name)

    def grid(self) -> NativeGrid:
        """Return the scan's own grid and its brain."""
        return read_grid(self.cube_file)

    def native_image(self) -> nib.Nifti1Image:
        """Return the scan as it was found, with skull and bias: (X, Y, Z), float32, RAS order.

        Raises
        ------
        BadInputError
            The scan cannot be read any more.
        """
        return nib.as_closest_canonical(check_flair(self.labelled.scan.path))

    def native_mask(self) -> np.ndarray:
        """Return the manual lesion mask on the scan's own grid: (X, Y, Z) uint8, RAS order.

        Raises
        ------
        BadInputError
            The mask cannot be read any more.
        ValueError
            The scan has no mask.
        """
        if self.labelled.mask is None:
            raise ValueError(f"{self.name} has no lesion mask")
        return np.asarray(read_lesion_mask(self.labelled.mask).dataobj)


def cache_key(
    labelled: LabelledScan, settings: ProcessingSettings, cube_shape: Sequence[int]
) -> str:
    """Return a SHA-256 (64 hexadecimal digits) of all that a prepared scan depends on.

    The content of scan and mask counts, not where they lie (BadInputError if that cannot be read);
    of the settings, the preprocessing tools and their settings.
    """
    from msnmo_bids.workflows.preprocessing import looks_for_skull, skull_strip_tool

    tool = skull_strip_tool(labelled.scan, settings)
    mask = labelled.mask
    content = {
        "version": get_version(),
        "image": _sha256(labelled.scan.path),
        "mask": None if mask is None else _sha256(mask),
        "skull_strip": tool,
        "looks_for_skull": looks_for_skull(labelled.scan, settings),
        "bet_frac": settings.bet_frac if tool == "bet" else None,
        "bias_correction": settings.bias_correction,
        "sloppy": settings.sloppy,
        "cube_shape": list(cube_shape),
        "margin_mm": MARGIN_MM,
    }
    return hash_of(content)


def data_fingerprint(scans: Sequence[PreparedScan]) -> str:
    """Return 12 digits that change with any image, mask, preparation or diagnosis of scans.

    Where the data set lies, and what its folder is called, does not count; the version does.
    """
    content = [(scan.cube_file.name, scan.labelled.diagnosis or "") for scan in scans]
    return hash_of(sorted(content))[:12]


def prepare_scans(
    found: Found,
    *,
    cache_dir: Path,
    work_dir: Path,
    settings: ProcessingSettings,
    cube_shape: Sequence[int] = CUBE_SHAPE,
    plugin: str = "MultiProc",
    plugin_args: dict[str, Any] | None = None,
    omp_nthreads: int = 1,
) -> tuple[list[PreparedScan], Found]:
    """Prepare scans with the app's workflow; what is there already is not done again.

    Parameters
    ----------
    cache_dir, work_dir : Path
        Folders that keep the prepared scans, for any number of trainings, and what is in between.
    settings : ProcessingSettings
        With the tools resolved (no ``auto``).
    plugin, plugin_args, omp_nthreads
        As for :func:`msnmo_bids.workflows.execution.run_workflow`.

    Returns
    -------
    prepared, found : list of PreparedScan, Found
        In the order of ``found.scans``; without the scans that could not be prepared and the masks
        that could not be read.
    """
    files: dict[LabelledScan, Path] = {}
    left_out: list[LeftOut] = []
    for labelled in found.scans:
        try:
            labelled = _with_readable_mask(labelled)
            key = cache_key(labelled, settings, cube_shape)[:_KEY_DIGITS]
        except BadInputError as error:
            left_out.append(_left_out(labelled, error.problem))
            continue
        folder = Path(cache_dir).absolute() / labelled.dataset
        files[labelled] = folder / f"{labelled.scan.prefix}_{key}.npz"
    _warn_of_copies(files)
    to_do = {labelled: file for labelled, file in files.items() if not file.is_file()}
    logger.info("%d scans are prepared already, %d to do", len(files) - len(to_do), len(to_do))
    reasons: dict[str, str] = {}
    if to_do:
        reasons = _run(
            to_do,
            Path(work_dir).absolute(),
            build={"settings": settings, "cube_shape": cube_shape, "omp_nthreads": omp_nthreads},
            execute={"plugin": plugin, "plugin_args": plugin_args},
        )
    prepared = []
    for labelled, file in files.items():
        if labelled.name in reasons:
            left_out.append(_left_out(labelled, reasons[labelled.name]))
            continue
        prepared.append(PreparedScan(labelled, file))
        if labelled in to_do:
            _warn(prepared[-1])
    scans = tuple(scan.labelled for scan in prepared)
    return prepared, replace(found, scans=scans, left_out=(*found.left_out, *left_out))


def _with_readable_mask(labelled: LabelledScan) -> LabelledScan:
    """Return a scan without its mask where that cannot be read; refuse one with nothing left."""
    if labelled.mask is None:
        return labelled
    try:
        read_lesion_mask(labelled.mask)
    except BadInputError as error:
        if labelled.diagnosis is None:
            raise
        notes = (*labelled.notes, f"lesion mask cannot be read: {error.problem}")
        return replace(labelled, mask=None, notes=notes)
    return labelled


def _run(
    files: dict[LabelledScan, Path],
    work_dir: Path,
    *,
    build: dict[str, Any],
    execute: dict[str, Any],
) -> dict[str, str]:
    """Run the workflow in batches; return why scans failed, by their names."""
    from msnmo_bids.workflows.execution import batches, run_workflow
    from msnmo_bids.workflows.training_samples import LAST_NODE, WORKFLOW, init_samples_wf

    for file in files.values():  # what a run that was killed left half-written
        remove_unfinished(file)
    raw_files = {labelled.name: labelled.scan.path for labelled in files}
    reasons: dict[str, str] = {}
    for batch in batches(list(files)):
        workflow = init_samples_wf(
            files={labelled: files[labelled] for labelled in batch}, work_dir=work_dir, **build
        )
        failures = run_workflow(
            workflow, last_node=LAST_NODE, keep=False, crash_dir=work_dir / "crash", **execute
        )
        for failure in failures:
            logger.warning("%s: %s: %s", failure.prefix, failure.step, failure.message)
            problem = failure.message.removeprefix(f"{raw_files.get(failure.prefix)}: ")
            reasons[failure.prefix] = f"{failure.step}: {problem}"
        for labelled in batch:
            if labelled.name not in reasons and not files[labelled].is_file():
                reasons[labelled.name] = "not prepared"
    with suppress(OSError):  # what failed stays, for a look at it
        (work_dir / WORKFLOW).rmdir()
    return reasons


def _warn_of_copies(files: dict[LabelledScan, Path]) -> None:
    """Name scans that two participants share: one could be trained on and the other tested on."""
    first: dict[str, LabelledScan] = {}
    for labelled, file in files.items():
        other = first.setdefault(file.stem.rpartition("_")[2], labelled)
        if other.person != labelled.person:
            logger.warning(
                "%s and %s are the same image: keep one of them", other.name, labelled.name
            )


def _warn(scan: PreparedScan) -> None:
    outside = read_record(scan.cube_file).get("LesionsOutsideBrain") or 0
    if outside > _MOST_OUTSIDE:
        problem = "of the lesion mask lies outside of the brain mask"
        remedy = "check the skull stripping and the mask"
        logger.warning("%s: %.0f %% %s: %s", scan.name, 100 * outside, problem, remedy)


def _left_out(labelled: LabelledScan, reason: str) -> LeftOut:
    scan = labelled.scan
    return LeftOut(labelled.dataset, scan.subject, scan.session, scan.prefix, reason)


def _sha256(path: Path) -> str:
    return hashlib.sha256(read_content(path)).hexdigest()
