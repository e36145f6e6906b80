"""From the conformed FLAIR and its brain mask to the preprocessed FLAIR."""

from __future__ import annotations

import re
import subprocess
from importlib import metadata

from nipype.interfaces.ants import N4BiasFieldCorrection
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.interfaces.masks import ApplyMask
from msnmo_bids.interfaces.n4 import N4AntsPyX, Shrink
from msnmo_bids.preprocessing.bias import CONVERGENCE_THRESHOLD, GRID_MM
from msnmo_bids.workflows.provenance import after_name
from msnmo_bids.workflows.resources import memory_gb

_DESCRIPTIONS = {
    "ants": "Intensity non-uniformity was corrected with N4BiasFieldCorrection [@n4] of "
    "ANTs{version} [@ants], {fit}. ",
    "antspyx": "Intensity non-uniformity was corrected with the N4 algorithm [@n4] of ANTs [@ants] "
    "in the Python package antspyx{version}, {fit}. ",
    "skip": "Intensity non-uniformity was not corrected. ",
}
_FIT = "the field fitted on voxels of about {grid_mm:g} mm and applied to the image's own"


def init_bias_correction_wf(
    *,
    tool: str,
    sloppy: bool = False,
    voxels: int = 0,
    name: str = "bias_correction_wf",
) -> LiterateWorkflow:
    """Build the workflow that corrects the bias field and applies the brain mask.

    ``inputnode -> shrink -> n4 -> apply_mask -> outputnode``, with Nipype's stock node for
    ``ants``, with ``n4_antspyx`` in its place for ``antspyx``, and with ``apply_mask`` alone for
    ``skip``. N4 sees a coarse grid, whose size does not grow with the matrix. It runs in one
    thread: its sums depend on the number of threads.

    Parameters
    ----------
    tool : {"ants", "antspyx", "skip"}
        Tool that corrects the bias field.
    sloppy : bool
        Fewer iterations on a coarser grid, for tests.
    voxels : int
        Number of voxels of the image, for the memory that the nodes ask for.
    name : str
        Name of the workflow.

    Inputs
    ------
    in_file
        FLAIR in RAS order.
    mask_file
        Brain mask on the same grid.

    Outputs
    -------
    out_file
        Corrected FLAIR, 0 outside of the brain.
    tool
        ``{Tool, Version, Settings}`` of what corrected it.

    Raises
    ------
    ValueError
        If there is no such tool.
    """
    if tool not in _DESCRIPTIONS:
        raise ValueError(f"unknown tool {tool!r} (there are {', '.join(_DESCRIPTIONS)})")
    workflow = LiterateWorkflow(name=name)
    grid_mm, n_iterations = (2 * GRID_MM, [20, 10]) if sloppy else (GRID_MM, [50] * 4)
    version = ants_version() if tool == "ants" else metadata.version("antspyx")
    workflow.__desc__ = _DESCRIPTIONS[tool].format(
        version=after_name(version), fit=_FIT.format(grid_mm=grid_mm)
    )
    inputnode = pe.Node(IdentityInterface(fields=["in_file", "mask_file"]), name="inputnode")
    outputnode = pe.Node(IdentityInterface(fields=["out_file", "tool"]), name="outputnode")
    apply_mask = pe.Node(ApplyMask(), name="apply_mask", mem_gb=memory_gb("mask", voxels))
    workflow.connect(
        [
            (inputnode, apply_mask, [("in_file", "in_file"), ("mask_file", "mask_file")]),
            (apply_mask, outputnode, [("out_file", "out_file")]),
        ]
    )
    if tool == "skip":
        outputnode.inputs.tool = {"Tool": "none", "Version": "n/a", "Settings": {}}
        return workflow

    shrink = pe.Node(Shrink(grid_mm=grid_mm), name="shrink", mem_gb=memory_gb("mask", voxels))
    n4, (image, mask) = _n4_node(tool, n_iterations)
    outputnode.inputs.tool = {
        "Tool": "ANTs N4BiasFieldCorrection" if tool == "ants" else "N4 (antspyx)",
        "Version": version,
        "Settings": {
            "grid_mm": grid_mm,
            "n_iterations": n_iterations,
            "convergence_threshold": CONVERGENCE_THRESHOLD,
        },
    }
    workflow.connect(
        [
            (inputnode, shrink, [("in_file", "in_file"), ("mask_file", "mask_file")]),
            (shrink, n4, [("out_file", image), ("mask_file", mask)]),
            (n4, apply_mask, [("bias_image", "field_file")]),
        ]
    )
    return workflow


def _n4_node(tool: str, n_iterations: list[int]) -> tuple[pe.Node, tuple[str, str]]:
    """Return the node that fits the bias field, and the names of its image and its mask."""
    resources = {"n_procs": 1, "mem_gb": memory_gb("n4")}
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
