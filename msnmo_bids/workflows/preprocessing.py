"""From the raw FLAIR to the network's input: orientation, brain mask, bias field, cube."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces import fsl
from nipype.interfaces.ants import N4BiasFieldCorrection
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.bids.dataset import check_name
from msnmo_bids.preprocessing import bias, geometry
from msnmo_bids.preprocessing.bias import (
    CONVERGENCE_THRESHOLD,
    GRID_MM,
    ITK_THREADS,
    N4_THREADS,
    N_ITERATIONS,
)
from msnmo_bids.preprocessing.cube import to_cube
from msnmo_bids.preprocessing.nifti_file import load_array
from msnmo_bids.preprocessing.skullstrip import (
    STRIPPED_BEFORE,
    ToolRecord,
    bet_version,
    check_mask,
    deepbet_mask,
    foreground_mask,
    looks_stripped,
)
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.workflows.nodes import node, save_array, step, write_like
from msnmo_bids.workflows.step_names import same

if TYPE_CHECKING:
    from msnmo_bids.bids.scans import Scan

_SKULL = {
    "bet": "The skull was removed with the Brain Extraction Tool of FSL{version} [@bet], "
    "fractional intensity threshold {bet_frac:g}. ",
    "deepbet": "The skull was removed with deepbet{version}, a convolutional network for brain "
    "extraction [@deepbet]. ",
    "skip": "The image came without a skull; its brain mask is what is not background. ",
}
_BIAS = {
    "ants": "Intensity non-uniformity was corrected with N4BiasFieldCorrection [@n4] of "
    "ANTs{version} [@ants], {fit}. ",
    "antspyx": "Intensity non-uniformity was corrected with the N4 algorithm [@n4] of ANTs [@ants] "
    "in the Python package antspyx{version}, {fit}. ",
    "skip": "Intensity non-uniformity was not corrected. ",
}
_OUTPUTS = ["raw_file", "info", "mask_file", "mask_flags", "preproc_file", "skull_stripping",
            "bias_correction"]  # fmt: skip
_FIT = "the field fitted on voxels of about {grid_mm:g} mm and applied to the image's own"


def _described(texts: dict[str, str], tool: str, version: str, **values: Any) -> str:
    """Return what the methods text says of a tool; an unknown version is left out."""
    if tool not in texts:
        raise ValueError(f"unknown tool {tool!r} (there are {', '.join(texts)})")
    after_name = "" if version == "unknown" else f" {version}"
    return texts[tool].format(version=after_name, **values)


def skull_strip_tool(scan: Scan, settings: ProcessingSettings) -> str:
    """Return the tool that a scan needs: none where its sidecar says that it has no skull."""
    return "skip" if scan.skull_stripped else settings.skull_strip


def looks_for_skull(scan: Scan, settings: ProcessingSettings) -> bool:
    """Say whether the image itself tells if it was stripped: no sidecar and no user did."""
    return (
        settings.detect_stripped
        and scan.skull_stripped is None
        and skull_strip_tool(scan, settings) != "skip"
    )


def init_preprocessing_wf(
    *, scan: Scan, settings: ProcessingSettings, voxels: int = 0, omp_nthreads: int = 1
) -> LiterateWorkflow:
    r"""Build the workflow that prepares one scan, for a prediction and for a training alike.

    ::

        conform -> bet, deepbet or foreground -> brain_mask -> apply_mask -> outputnode
                                                          \-> shrink -> n4 -/

    `voxels` of the image tell how much memory the nodes ask for.

    Outputs
    -------
    raw_file, info
        FLAIR in RAS order, as it came; geometry of the raw image and its flags.
    mask_file, mask_flags
        Brain mask on the same grid (uint8), and what is odd about it.
    preproc_file
        Bias-corrected FLAIR, 0 outside of the brain.
    skull_stripping, bias_correction
        ``{Tool, Version, Settings}``.

    Raises
    ------
    ValueError
        If a tool is unknown, as ``auto`` is here.
    """
    workflow = LiterateWorkflow(name="preprocessing_wf")
    workflow.__desc__ = (
        "The T2-FLAIR was reoriented to RAS, and its header's two orientations were made equal. "
    )
    look = looks_for_skull(scan, settings)
    if look:
        workflow.__desc__ += "Images that came without a skull were found and not stripped again. "
    check = conform_step(
        in_file=str(scan.path), orientation=settings.assume_orientation, look_for_skull=look
    )
    conform = node(check, "conform", "conform", voxels)
    tool = skull_strip_tool(scan, settings)
    mask = _strip_skull(workflow, conform, tool, settings, voxels, omp_nthreads)
    corrected, bias_correction = _correct_bias(
        workflow, conform, mask, settings, voxels, omp_nthreads
    )
    outputnode = pe.Node(IdentityInterface(fields=_OUTPUTS), name="outputnode")
    outputnode.inputs.bias_correction = bias_correction
    workflow.connect([
        (conform, outputnode, [("out_file", "raw_file"), ("info", "info")]),
        (mask, outputnode, [("mask_file", "mask_file"), ("tool", "skull_stripping"),
                            ("flags", "mask_flags")]),
        (corrected, outputnode, [("out_file", "preproc_file")]),
    ])  # fmt: skip
    return workflow


def _strip_skull(
    workflow: LiterateWorkflow,
    conform: pe.Node,
    tool: str,
    settings: ProcessingSettings,
    voxels: int,
    omp_nthreads: int,
) -> pe.Node:
    """Add the nodes that find the brain; the last one checks the mask, whatever the tool."""
    version = bet_version() if tool == "bet" else metadata.version("deepbet")
    workflow.__desc__ += _described(_SKULL, tool, version, bet_frac=settings.bet_frac)
    finder = _brain_finder(tool, settings, voxels, omp_nthreads)
    checked = node(brain_mask_step(), "brain_mask", "mask", voxels)
    workflow.connect([
        (conform, finder, [("out_file", "in_file")]),
        (conform, checked, [("out_file", "in_file")]),
        (finder, checked, same("mask_file")),
    ])  # fmt: skip
    if tool == "bet":
        used = {"frac": settings.bet_frac}
        checked.inputs.tool = {"Tool": "FSL BET", "Version": version, "Settings": used}
    else:
        workflow.connect(finder, "tool", checked, "tool")
    if tool != "skip":
        workflow.connect(conform, "stripped", checked if tool == "bet" else finder, "stripped")
    return checked


def _brain_finder(
    tool: str, settings: ProcessingSettings, voxels: int, omp_nthreads: int
) -> pe.Node:
    """Return the node that makes the mask."""
    if tool == "bet":
        interface = fsl.BET(frac=settings.bet_frac, mask=True, output_type="NIFTI_GZ")
        return node(interface, "bet", "bet", voxels)
    if tool == "deepbet":  # on the CPU always: a GPU's precision says nothing of it
        precision = settings.precision if settings.device == "cpu" else "fp32"
        finder = deepbet_step(precision=precision)
        return node(finder, "deepbet", "deepbet", voxels, n_procs=omp_nthreads)
    return node(foreground_step(), "foreground", "mask", voxels)


def _correct_bias(
    workflow: LiterateWorkflow,
    conform: pe.Node,
    brain_mask: pe.Node,
    settings: ProcessingSettings,
    voxels: int,
    omp_nthreads: int,
) -> tuple[pe.Node, ToolRecord]:
    """Add the nodes that correct the bias field and apply the mask; return the last one."""
    tool = settings.bias_correction
    grid_mm, n_iterations = GRID_MM, list(N_ITERATIONS)
    if settings.sloppy:
        grid_mm, n_iterations = 2 * GRID_MM, [20, 10]
    version = ants_version() if tool == "ants" else metadata.version("antspyx")
    workflow.__desc__ += _described(_BIAS, tool, version, fit=_FIT.format(grid_mm=grid_mm))
    last = node(apply_mask_step(), "apply_mask", "mask", voxels)
    workflow.connect([
        (conform, last, [("out_file", "in_file")]),
        (brain_mask, last, same("mask_file")),
    ])  # fmt: skip
    if tool == "skip":
        return last, {"Tool": "none", "Version": "n/a", "Settings": {}}
    shrink = node(shrink_step(grid_mm=grid_mm), "shrink", "mask", voxels)
    n4, (image, mask) = _n4_node(tool, n_iterations, omp_nthreads)
    workflow.connect([
        (conform, shrink, [("out_file", "in_file")]),
        (brain_mask, shrink, same("mask_file")),
        (shrink, n4, [("out_file", image), ("mask_file", mask)]),
        (n4, last, [("bias_image", "field_file")]),
    ])  # fmt: skip
    fitted = {"grid_mm": grid_mm, "n_iterations": n_iterations}
    return last, {
        "Tool": "ANTs N4BiasFieldCorrection" if tool == "ants" else "N4 (antspyx)",
        "Version": version,
        "Settings": {**fitted, "convergence_threshold": CONVERGENCE_THRESHOLD},
    }


def _n4_node(
    tool: str, n_iterations: list[int], omp_nthreads: int
) -> tuple[pe.Node, tuple[str, str]]:
    """Return the node that fits the bias field, and the names of its image and its mask."""
    n_procs = min(N4_THREADS, omp_nthreads)
    if tool == "antspyx":
        interface = n4_antspyx_step(n_iterations=n_iterations)
        return node(interface, "n4_antspyx", "n4", n_procs=n_procs), ("in_file", "mask_file")
    interface = N4BiasFieldCorrection(
        dimension=3,
        shrink_factor=1,
        n_iterations=n_iterations,
        convergence_threshold=CONVERGENCE_THRESHOLD,
        copy_header=True,
        save_bias=True,
        environ={ITK_THREADS: str(N4_THREADS)},
    )
    return node(interface, "n4", "n4", n_procs=n_procs), ("input_image", "mask_image")


def ants_version() -> str:
    """Return the version that ``N4BiasFieldCorrection`` tells of itself, or ``"unknown"``."""
    try:
        told = subprocess.run(
            ["N4BiasFieldCorrection", "--version"],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = re.search(r"ANTs Version:\s*v?(\S+)", told)
    return found.group(1) if found else "unknown"


@step("out_file", "stripped", "info")
def conform_step(
    folder: Path, in_file: str, orientation: str | None = None, look_for_skull: bool = False
) -> tuple[Path, bool, dict[str, Any]]:
    """Check a raw FLAIR and write it in RAS order; if asked, look whether it has a skull.

    `in_file` is a text: a broken link must reach the check, which says what to do about it.
    """
    check_name(Path(in_file))
    out = folder / "flair_ras.nii"
    info = geometry.conform(Path(in_file), out, orientation)
    stripped = look_for_skull and looks_stripped(out)
    if stripped:
        info["flags"].append(STRIPPED_BEFORE)
    return out, stripped, info


@step("mask_file", "tool", library="torch")
def deepbet_step(
    folder: Path,
    in_file: Path,
    precision: str = "fp32",
    stripped: bool = False,
    num_threads: int = 1,
) -> tuple[Path, ToolRecord]:
    """Find the brain by deepbet's convolutional network; of a stripped image, what is there."""
    mask = folder / "brain_mask.nii"
    if stripped:
        return mask, foreground_mask(in_file, mask)
    return mask, deepbet_mask(in_file, mask, n_threads=num_threads, precision=precision)


@step("mask_file", "tool")
def foreground_step(folder: Path, in_file: Path) -> tuple[Path, ToolRecord]:
    """Take what is not background for the brain of an image that came without a skull."""
    mask = folder / "brain_mask.nii"
    return mask, foreground_mask(in_file, mask)


@step("mask_file", "tool", "flags")
def brain_mask_step(
    folder: Path, in_file: Path, mask_file: Path, tool: ToolRecord, stripped: bool = False
) -> tuple[Path, ToolRecord, list[str]]:
    """Check a tool's brain mask and write it on the image's own grid; say what is odd about it.

    Of an image that came `stripped`, no tool's mask counts.
    """
    out = folder / "brain_mask.nii"
    if stripped:
        tool = foreground_mask(in_file, out)
    else:
        write_like((load_array(mask_file) > 0).astype("uint8"), in_file, out)
    return out, tool, check_mask(out, in_file)


@step("out_file", "mask_file")
def shrink_step(folder: Path, in_file: Path, mask_file: Path, grid_mm: float) -> tuple[Path, Path]:
    """Bring image and brain mask to the coarse grid that N4 sees."""
    out, mask = folder / "flair_coarse.nii", folder / "mask_coarse.nii"
    bias.shrink(in_file, mask_file, out, mask, grid_mm=grid_mm)
    return out, mask


@step("bias_image", library="ants")
def n4_antspyx_step(
    folder: Path, in_file: Path, mask_file: Path, n_iterations: Sequence[int]
) -> Path:
    """Fit the bias field, a factor on the coarse grid, by the N4 of the package antspyx."""
    field = folder / "bias_field.nii"
    return bias.n4_antspyx(in_file, mask_file, field, n_iterations=n_iterations)


@step("out_file")
def apply_mask_step(
    folder: Path, in_file: Path, mask_file: Path, field_file: Path | None = None
) -> Path:
    """Divide by the bias field, if there is one; set everything outside of the brain to zero."""
    return bias.apply_field(in_file, mask_file, field_file, folder / "flair_preproc.nii")


@step("cube_file", "transform_file")
def to_cube_step(
    folder: Path, in_file: Path, mask_file: Path, shape: Sequence[int]
) -> tuple[Path, Path]:
    """Crop to the brain, resize and z-score: the network's input and its box in the image, JSON."""
    cube, transform = to_cube(in_file, mask_file, shape=shape)
    transform_file = folder / "cube.json"
    transform_file.write_text(transform.to_json(), encoding="utf-8")
    return save_array(cube, folder / "cube.npy"), transform_file
