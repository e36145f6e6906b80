"""From the raw FLAIR to the preprocessed one: orientation, brain mask, bias field."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata
from typing import TYPE_CHECKING, Any

from nipype.interfaces import fsl
from nipype.interfaces.ants import N4BiasFieldCorrection
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.interfaces.preprocessing import (
    ApplyMask,
    BrainMask,
    Conform,
    DeepBET,
    Foreground,
    N4AntsPyX,
    Shrink,
)
from msnmo_bids.preprocessing.bias import CONVERGENCE_THRESHOLD, GRID_MM, ITK_THREADS, N4_THREADS
from msnmo_bids.preprocessing.skullstrip import bet_version
from msnmo_bids.settings import ProcessingSettings
from msnmo_bids.workflows.resources import memory_gb
from msnmo_bids.workflows.steps import same

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
    """Build the workflow that prepares one scan, for a prediction and for a training alike.

    ``conform -> skull_strip_wf -> bias_correction_wf``; the tools in the settings are resolved (no
    ``auto``), and `voxels` of the image tell how much memory the nodes ask for.

    Outputs
    -------
    raw_file, info
        FLAIR in RAS order, as it came; geometry of the raw image and its flags.
    mask_file, mask_flags
        Brain mask on the same grid, and what is odd about it.
    preproc_file
        Bias-corrected FLAIR, 0 outside of the brain.
    skull_stripping, bias_correction
        ``{Tool, Version, Settings}``.
    """
    workflow = LiterateWorkflow(name="preprocessing_wf")
    workflow.__desc__ = (
        "The T2-FLAIR was reoriented to RAS, and its header's two orientations were made equal. "
    )
    look = looks_for_skull(scan, settings)
    if look:
        workflow.__desc__ += "Images that came without a skull were found and not stripped again. "
    outputnode = pe.Node(IdentityInterface(fields=_OUTPUTS), name="outputnode")
    check = Conform(
        in_file=str(scan.path), orientation=settings.assume_orientation, look_for_skull=look
    )
    conform = pe.Node(check, name="conform", mem_gb=memory_gb("conform", voxels))
    skull_strip_wf = init_skull_strip_wf(
        tool=skull_strip_tool(scan, settings),
        bet_frac=settings.bet_frac,
        voxels=voxels,
        omp_nthreads=omp_nthreads,
    )
    bias_correction_wf = init_bias_correction_wf(
        tool=settings.bias_correction,
        sloppy=settings.sloppy,
        voxels=voxels,
        omp_nthreads=omp_nthreads,
    )
    workflow.connect([
        (conform, skull_strip_wf, [("out_file", "inputnode.in_file"),
                                   ("stripped", "inputnode.stripped")]),
        (conform, bias_correction_wf, [("out_file", "inputnode.in_file")]),
        (skull_strip_wf, bias_correction_wf, [("outputnode.mask_file", "inputnode.mask_file")]),
        (conform, outputnode, [("out_file", "raw_file"), ("info", "info")]),
        (skull_strip_wf, outputnode, [("outputnode.mask_file", "mask_file"),
                                      ("outputnode.tool", "skull_stripping"),
                                      ("outputnode.flags", "mask_flags")]),
        (bias_correction_wf, outputnode, [("outputnode.out_file", "preproc_file"),
                                          ("outputnode.tool", "bias_correction")]),
    ])  # fmt: skip
    return workflow


def init_skull_strip_wf(
    *, tool: str, bet_frac: float = 0.5, voxels: int = 0, omp_nthreads: int = 1
) -> LiterateWorkflow:
    """Build the workflow that finds the brain.

    ``bet``: ``inputnode -> bet -> brain_mask -> outputnode`` with Nipype's stock node for FSL;
    ``deepbet`` and ``skip``: the same with another first node. Whatever the tool, ``brain_mask``
    checks that the mask holds a plausible brain. Where ``stripped`` says that the image came
    without a skull, its foreground counts and no tool's mask.

    Parameters
    ----------
    tool : {"bet", "deepbet", "skip"}
        ``skip`` for an image without a skull; any other is a ValueError.
    bet_frac : float
        BET's fractional intensity threshold, 0 to 1.

    Inputs
    ------
    in_file, stripped
        FLAIR in RAS order; whether it came without a skull, as the image itself says.

    Outputs
    -------
    mask_file, flags
        Brain mask on the same grid (uint8); what is odd about it.
    tool
        ``{Tool, Version, Settings}`` of what made it.
    """
    workflow = LiterateWorkflow(name="skull_strip_wf")
    version = bet_version() if tool == "bet" else metadata.version("deepbet")
    workflow.__desc__ = _described(_SKULL, tool, version, bet_frac=bet_frac)
    inputnode = pe.Node(IdentityInterface(fields=["in_file", "stripped"]), name="inputnode")
    inputnode.inputs.stripped = False
    outputnode = pe.Node(
        IdentityInterface(fields=["mask_file", "tool", "flags"]), name="outputnode"
    )
    brain_mask = pe.Node(BrainMask(), name="brain_mask", mem_gb=memory_gb("mask", voxels))
    finder = _brain_finder(tool, bet_frac, voxels, omp_nthreads)
    workflow.connect([
        (inputnode, finder, same("in_file")),
        (inputnode, brain_mask, same("in_file")),
        (finder, brain_mask, same("mask_file")),
        (brain_mask, outputnode, same("mask_file", "tool", "flags")),
    ])  # fmt: skip
    if tool == "bet":
        settings = {"frac": bet_frac}
        brain_mask.inputs.tool = {"Tool": "FSL BET", "Version": version, "Settings": settings}
        workflow.connect(inputnode, "stripped", brain_mask, "stripped")
        return workflow
    workflow.connect(finder, "tool", brain_mask, "tool")
    if tool == "deepbet":
        workflow.connect(inputnode, "stripped", finder, "stripped")
    return workflow


def _brain_finder(tool: str, bet_frac: float, voxels: int, omp_nthreads: int) -> pe.Node:
    """Return the node that makes the mask."""
    if tool == "bet":
        interface = fsl.BET(frac=bet_frac, mask=True, output_type="NIFTI_GZ")
        return pe.Node(interface, name="bet", mem_gb=memory_gb("bet", voxels))
    if tool == "deepbet":
        memory = memory_gb("deepbet", voxels)
        return pe.Node(DeepBET(), name="deepbet", n_procs=omp_nthreads, mem_gb=memory)
    return pe.Node(Foreground(), name="foreground", mem_gb=memory_gb("mask", voxels))


def init_bias_correction_wf(
    *, tool: str, sloppy: bool = False, voxels: int = 0, omp_nthreads: int = 1
) -> LiterateWorkflow:
    """Build the workflow that corrects the bias field and applies the brain mask.

    ``inputnode -> shrink -> n4 -> apply_mask -> outputnode``, with Nipype's stock node for
    ``ants``, with ``n4_antspyx`` in its place for ``antspyx``, and with ``apply_mask`` alone for
    ``skip``. N4 sees a coarse grid, whose size does not grow with the matrix. It runs in
    `N4_THREADS` threads everywhere: its sums depend on their number.

    Parameters
    ----------
    tool : {"ants", "antspyx", "skip"}
        Any other is a ValueError.
    sloppy : bool
        Fewer iterations on a coarser grid, for tests.

    Inputs
    ------
    in_file, mask_file
        FLAIR in RAS order, and its brain mask.

    Outputs
    -------
    out_file
        Corrected FLAIR, 0 outside of the brain.
    tool
        ``{Tool, Version, Settings}`` of what corrected it.
    """
    workflow = LiterateWorkflow(name="bias_correction_wf")
    grid_mm, n_iterations = (2 * GRID_MM, [20, 10]) if sloppy else (GRID_MM, [50] * 4)
    version = ants_version() if tool == "ants" else metadata.version("antspyx")
    workflow.__desc__ = _described(_BIAS, tool, version, fit=_FIT.format(grid_mm=grid_mm))
    inputnode = pe.Node(IdentityInterface(fields=["in_file", "mask_file"]), name="inputnode")
    outputnode = pe.Node(IdentityInterface(fields=["out_file", "tool"]), name="outputnode")
    apply_mask = pe.Node(ApplyMask(), name="apply_mask", mem_gb=memory_gb("mask", voxels))
    workflow.connect([
        (inputnode, apply_mask, same("in_file", "mask_file")),
        (apply_mask, outputnode, same("out_file")),
    ])  # fmt: skip
    if tool == "skip":
        outputnode.inputs.tool = {"Tool": "none", "Version": "n/a", "Settings": {}}
        return workflow
    shrink = pe.Node(Shrink(grid_mm=grid_mm), name="shrink", mem_gb=memory_gb("mask", voxels))
    n4, (image, mask) = _n4_node(tool, n_iterations, omp_nthreads)
    fitted = {"grid_mm": grid_mm, "n_iterations": n_iterations}
    outputnode.inputs.tool = {
        "Tool": "ANTs N4BiasFieldCorrection" if tool == "ants" else "N4 (antspyx)",
        "Version": version,
        "Settings": {**fitted, "convergence_threshold": CONVERGENCE_THRESHOLD},
    }
    workflow.connect([
        (inputnode, shrink, same("in_file", "mask_file")),
        (shrink, n4, [("out_file", image), ("mask_file", mask)]),
        (n4, apply_mask, [("bias_image", "field_file")]),
    ])  # fmt: skip
    return workflow


def _n4_node(
    tool: str, n_iterations: list[int], omp_nthreads: int
) -> tuple[pe.Node, tuple[str, str]]:
    """Return the node that fits the bias field, and the names of its image and its mask."""
    resources = {"n_procs": min(N4_THREADS, omp_nthreads), "mem_gb": memory_gb("n4")}
    if tool == "antspyx":
        interface = N4AntsPyX(n_iterations=n_iterations)
        return pe.Node(interface, name="n4_antspyx", **resources), ("in_file", "mask_file")
    interface = N4BiasFieldCorrection(
        dimension=3,
        shrink_factor=1,
        n_iterations=n_iterations,
        convergence_threshold=CONVERGENCE_THRESHOLD,
        copy_header=True,
        save_bias=True,
        environ={ITK_THREADS: str(N4_THREADS)},
    )
    return pe.Node(interface, name="n4", **resources), ("input_image", "mask_image")


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
