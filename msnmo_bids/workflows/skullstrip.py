"""From the conformed FLAIR to a brain mask."""

from __future__ import annotations

from importlib import metadata

from nipype.interfaces import fsl
from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.interfaces.masks import BrainMask, DeepBET, Foreground
from msnmo_bids.preprocessing.skullstrip import bet_version
from msnmo_bids.workflows.provenance import after_name
from msnmo_bids.workflows.resources import memory_gb

_DESCRIPTIONS = {
    "bet": "The skull was removed with the Brain Extraction Tool of FSL{version} [@bet], "
    "fractional intensity threshold {bet_frac:g}. ",
    "deepbet": "The skull was removed with deepbet{version}, a convolutional network for brain "
    "extraction [@deepbet]. ",
    "skip": "The image came without a skull; its brain mask is what is not background. ",
}


def init_skull_strip_wf(
    *,
    tool: str,
    bet_frac: float = 0.5,
    voxels: int = 0,
    omp_nthreads: int = 1,
    name: str = "skull_strip_wf",
) -> LiterateWorkflow:
    """Build the workflow that finds the brain.

    ``bet``: ``inputnode -> bet -> brain_mask -> outputnode`` with Nipype's stock node for FSL;
    ``deepbet`` and ``skip``: the same with another first node. Whatever the tool, ``brain_mask``
    checks that the mask holds a plausible brain. Where ``stripped`` says that the image came
    without a skull, its foreground counts and no tool's mask.

    Parameters
    ----------
    tool : {"bet", "deepbet", "skip"}
        Tool that removes the skull; ``skip`` for an image without one.
    bet_frac : float
        BET's fractional intensity threshold, 0 to 1.
    voxels : int
        Number of voxels of the image, for the memory that the nodes ask for.
    omp_nthreads : int
        Threads of one node.
    name : str
        Name of the workflow.

    Inputs
    ------
    in_file
        FLAIR in RAS order.
    stripped
        Whether it came without a skull, as the image itself says.

    Outputs
    -------
    mask_file
        Brain mask on the same grid (uint8).
    tool
        ``{Tool, Version, Settings}`` of what made it.
    flags
        What is odd about the mask.

    Raises
    ------
    ValueError
        If there is no such tool.
    """
    if tool not in _DESCRIPTIONS:
        raise ValueError(f"unknown tool {tool!r} (there are {', '.join(_DESCRIPTIONS)})")
    workflow = LiterateWorkflow(name=name)
    version = bet_version() if tool == "bet" else metadata.version("deepbet")
    workflow.__desc__ = _DESCRIPTIONS[tool].format(version=after_name(version), bet_frac=bet_frac)
    inputnode = pe.Node(IdentityInterface(fields=["in_file", "stripped"]), name="inputnode")
    inputnode.inputs.stripped = False
    outputnode = pe.Node(
        IdentityInterface(fields=["mask_file", "tool", "flags"]), name="outputnode"
    )
    brain_mask = pe.Node(BrainMask(), name="brain_mask", mem_gb=memory_gb("mask", voxels))
    workflow.connect([
        (inputnode, brain_mask, [("in_file", "in_file")]),
        (brain_mask, outputnode, [("mask_file", "mask_file"), ("tool", "tool"),
                                  ("flags", "flags")]),
    ])  # fmt: skip

    if tool == "bet":
        brain_mask.inputs.tool = {
            "Tool": "FSL BET",
            "Version": version,
            "Settings": {"frac": bet_frac},
        }
        bet = pe.Node(
            fsl.BET(frac=bet_frac, mask=True, output_type="NIFTI_GZ"),
            name="bet",
            mem_gb=memory_gb("bet", voxels),
        )
        workflow.connect(
            [
                (inputnode, bet, [("in_file", "in_file")]),
                (inputnode, brain_mask, [("stripped", "stripped")]),
                (bet, brain_mask, [("mask_file", "mask_file")]),
            ]
        )
        return workflow

    if tool == "deepbet":
        finder = pe.Node(
            DeepBET(), name="deepbet", n_procs=omp_nthreads, mem_gb=memory_gb("deepbet", voxels)
        )
        workflow.connect(inputnode, "stripped", finder, "stripped")
    else:
        finder = pe.Node(Foreground(), name="foreground", mem_gb=memory_gb("mask", voxels))
    workflow.connect(
        [
            (inputnode, finder, [("in_file", "in_file")]),
            (finder, brain_mask, [("mask_file", "mask_file"), ("tool", "tool")]),
        ]
    )
    return workflow
