"""What all nodes share: how a failure is reported, and the images that they hand to each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, Bunch, File, SimpleInterface, traits

from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.preprocessing.geometry import with_equal_forms

FAILURE_FILE = "failure.json"


class StepInterface(SimpleInterface):
    """One step of the work on a scan.

    A subclass defines ``input_spec``, ``output_spec`` and ``_compute``. A :class:`MsnmoError` that
    ``_compute`` raises is written into the node's folder before Nipype turns it into text, so that
    the run can report the problem and the remedy whatever plugin ran the node.

    ``library`` is what the step imports that takes seconds: it goes to a worker that has it.
    """

    library = ""

    def _compute(self, folder: Path) -> dict[str, Any]:
        """Do the work in the node's own folder and return its outputs by name."""
        raise NotImplementedError

    def _run_interface(self, runtime: Bunch) -> Bunch:
        folder = Path(runtime.cwd)
        try:
            self._results.update(self._compute(folder))
        except MsnmoError as error:
            write_failure(folder, error)
            raise
        return runtime


class BrainInputSpec(BaseInterfaceInputSpec):
    """What the steps on a brain need."""

    in_file = File(exists=True, mandatory=True, desc="FLAIR (RAS)")
    mask_file = File(exists=True, mandatory=True, desc="brain mask on the same grid")


class LastInputSpec(BaseInterfaceInputSpec):
    """What the last node of a scan says of it (:mod:`msnmo_bids.workflows.execution`)."""

    prefix = traits.Str(mandatory=True, desc="name of the scan, or of the comparison")
    native_file = traits.Str(mandatory=True, desc="raw FLAIR")


class PreprocessedInputSpec(LastInputSpec):
    """What the preprocessing says of a scan."""

    mask_file = File(exists=True, mandatory=True, desc="brain mask (RAS)")
    skull_stripping = traits.Dict(mandatory=True, desc="{Tool, Version, Settings}")
    bias_correction = traits.Dict(mandatory=True, desc="{Tool, Version, Settings}")
    info = traits.Dict(mandatory=True, desc="what the check of the raw image found")
    mask_flags = traits.List(traits.Str, desc="what is odd about the brain mask")


def write_failure(folder: Path, error: MsnmoError) -> None:
    """Write an error into the working directory of the node that met it."""
    record = {
        "problem": error.problem,
        "file": error.file,
        "remedy": error.remedy,
        "exit_code": int(error.exit_code),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE_FILE).write_text(json.dumps(record), encoding="utf-8")


def read_failure(folder: Path) -> MsnmoError | None:
    """Return the error that a node left in its folder, None when there is none."""
    try:
        record = json.loads((folder / FAILURE_FILE).read_text(encoding="utf-8"))
        return MsnmoError(
            record["problem"],
            file=record["file"],
            remedy=record["remedy"],
            exit_code=ExitCode(record["exit_code"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_array(path: Path) -> np.ndarray:
    """Return an image's values, (X, Y, Z), in its own dtype."""
    return np.asanyarray(nib.Nifti1Image.from_filename(path).dataobj)


def write_like(array: np.ndarray, reference: Path, out: Path) -> Path:
    """Write an array, (X, Y, Z), its dtype kept, on the grid of another image; return `out`.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    grid = nib.Nifti1Image.from_filename(reference)
    if array.shape != grid.shape[:3]:
        raise ValueError(f"an array of shape {array.shape} does not fit {reference} {grid.shape}")
    return write_array(array, grid.affine, out)


def write_array(array: np.ndarray, affine: np.ndarray, out: Path) -> Path:
    """Write an array, (X, Y, Z), its dtype kept, with an affine, (4, 4), index to mm."""
    nib.save(with_equal_forms(array, affine), out)
    return out
