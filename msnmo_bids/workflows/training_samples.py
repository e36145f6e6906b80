"""Scans of a site, prepared for training as the app prepares them for a prediction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
from nipype.pipeline import engine as pe

from msnmo_bids.errors import BadInputError
from msnmo_bids.labelled.lesion_masks import read_lesion_mask
from msnmo_bids.labelled.sample_file import NativeGrid, write_sample_file
from msnmo_bids.preprocessing.cube import CubeTransform
from msnmo_bids.preprocessing.nifti_file import load_array
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.version import get_version
from msnmo_bids.workflows.nodes import node, step
from msnmo_bids.workflows.preprocessing import init_preprocessing_wf, to_cube_step
from msnmo_bids.workflows.resources import voxel_count
from msnmo_bids.workflows.step_names import same, workflow_name

if TYPE_CHECKING:
    from msnmo_bids.labelled.scans import LabelledScan

#: The node whose end completes a scan.
LAST_NODE = "write_sample"
WORKFLOW = "samples_wf"


def init_samples_wf(
    *,
    files: Mapping[LabelledScan, Path],
    settings: ProcessingSettings,
    cube_shape: Sequence[int],
    work_dir: Path,
    omp_nthreads: int = 1,
) -> pe.Workflow:
    """Build the workflow that prepares scans: one workflow per data set, in it one per scan.

    `files` are what to prepare with the file to write (``.npz``), `cube_shape` is (3,); the tools
    in the settings are resolved (no ``auto``). `LAST_NODE` completes a scan.
    """
    workflow = pe.Workflow(name=WORKFLOW, base_dir=str(Path(work_dir).absolute()))
    ordered = sorted(files, key=lambda labelled: labelled.name)
    groups = groupby(ordered, key=lambda labelled: labelled.dataset)
    shared: dict[str, Any] = {
        "settings": settings,
        "cube_shape": cube_shape,
        "omp_nthreads": omp_nthreads,
    }
    for number, (_, group) in enumerate(groups):
        dataset_wf = pe.Workflow(name=f"dataset_{number}_wf")
        dataset_wf.add_nodes(
            [init_sample_wf(labelled=one, out_file=files[one], **shared) for one in group]
        )
        workflow.add_nodes([dataset_wf])
    return workflow


def init_sample_wf(
    *,
    labelled: LabelledScan,
    out_file: Path,
    settings: ProcessingSettings,
    cube_shape: Sequence[int],
    omp_nthreads: int,
) -> pe.Workflow:
    """Build the workflow of one scan: ``preprocessing_wf -> to_cube -> write_sample``."""
    scan = labelled.scan
    digest = hashlib.sha256(labelled.name.encode()).hexdigest()[:8]  # of its data set as well
    workflow = pe.Workflow(name=workflow_name("scan", f"{digest}_{scan.prefix}"))
    voxels = voxel_count(scan.path)
    preprocessing_wf = init_preprocessing_wf(
        scan=scan, settings=settings, voxels=voxels, omp_nthreads=omp_nthreads
    )
    to_cube = node(to_cube_step(shape=list(cube_shape)), "to_cube", "cube", voxels)
    write = write_sample_step(
        native_file=str(scan.path),
        prefix=labelled.name,
        lesion_file=None if labelled.mask is None else str(labelled.mask),
        out_file=str(Path(out_file).absolute()),
    )
    write_sample = node(write, LAST_NODE, "derivatives", voxels)
    workflow.connect([
        (preprocessing_wf, to_cube, [("outputnode.preproc_file", "in_file"),
                                     ("outputnode.mask_file", "mask_file")]),
        (preprocessing_wf, write_sample,
         same("mask_file", "mask_flags", "info", "skull_stripping", "bias_correction",
              of="outputnode.")),
        (to_cube, write_sample, same("cube_file", "transform_file")),
    ])  # fmt: skip
    return workflow


@step("out_file", again=True)
def write_sample_step(
    folder: Path,
    mask_file: Path,
    skull_stripping: Mapping[str, Any],
    bias_correction: Mapping[str, Any],
    info: Mapping[str, Any],
    cube_file: Path,
    transform_file: Path,
    out_file: Path,
    lesion_file: Path | None = None,
    mask_flags: Sequence[str] = (),
) -> Path:
    """Write all that a training needs of a scan (``.npz``): cube, way back, manual mask as it came.

    Raises
    ------
    BadInputError
        If the manual mask cannot be read or lies on another grid.
    """
    sizes = nib.affines.voxel_sizes(nib.Nifti1Image.from_filename(mask_file).affine)
    x, y, z = (float(size) for size in sizes)
    transform = CubeTransform.from_json(transform_file.read_text(encoding="utf-8"))
    grid = NativeGrid(transform, load_array(mask_file) > 0, (x, y, z))
    lesions = None
    if lesion_file is not None:
        lesions = np.asarray(read_lesion_mask(lesion_file).dataobj)
        if lesions.shape != grid.brain.shape:
            raise BadInputError("lesion mask on another grid", file=lesion_file)
    record = {
        "SkullStripping": skull_stripping,
        "BiasCorrection": bias_correction,
        "Flags": [*info.get("flags", ()), *mask_flags],
        "LesionsOutsideBrain": _share_outside(lesions, grid.brain),
        "Version": get_version(),
    }
    image = np.load(cube_file)
    write_sample_file(out_file, image=image, grid=grid, lesions=lesions, record=record)
    return out_file


def _share_outside(lesions: Any, brain: Any) -> float | None:
    """Return which part of the lesions the brain mask cuts off; None without lesions."""
    if lesions is None or not lesions.any():
        return None
    return round(float((lesions[~brain] > 0).sum() / (lesions > 0).sum()), 4)
