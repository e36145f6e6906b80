"""The work on two visits of a participant, from the derivatives of their scans."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.bids.comparisons import Comparison
from msnmo_bids.bids.names import derivative_paths
from msnmo_bids.interfaces.visits import ChangeFigure, CompareVisits, RegisterVisits, WriteChanges
from msnmo_bids.visits.rule import DEFAULT_RULE, SPACING_MM
from msnmo_bids.workflows.provenance import methods_text
from msnmo_bids.workflows.resources import memory_gb, voxel_count
from msnmo_bids.workflows.steps import (
    LAST_NODE_OF_VISITS,
    VISITS_WORKFLOW,
    same,
    subject_workflow_name,
)

DESCRIPTION = f"""\
Consecutive visits of a participant were registered rigidly, by a robust least-squares fit of the
FLAIR images without random sampling, and both were brought to the space half-way between them
[@halfway] ({SPACING_MM:g} mm, trilinear). Lesions that overlap there were matched. A lesion counts
as new or vanished if it has at least {DEFAULT_RULE.least_volume:g} mm³ at one visit, less than
{DEFAULT_RULE.remnant_share:.0%} of that at the other, and less than
{DEFAULT_RULE.visible_share:.0%} of its contrast there; as enlarging or shrinking if its area
(of the great circle of the sphere of
equal volume) changed by more than {DEFAULT_RULE.small_ratio - 1:.0%}
({DEFAULT_RULE.large_ratio - 1:.0%} from {DEFAULT_RULE.small_area:g} mm²), its outline by more
than {DEFAULT_RULE.border_share:.0%} of the border's uncertainty, and what it gained or lost had
less than {DEFAULT_RULE.grown_share:.0%} of its contrast at the other visit.
"""


def init_visits_wf(
    *, comparisons: Sequence[Comparison], output_dir: Path, work_dir: Path, method: dict[str, Any]
) -> pe.Workflow:
    """Build the workflow that compares visits: one per participant, in it one per comparison.

    Parameters
    ----------
    comparisons : sequence of Comparison
        Scans that have their derivatives.
    output_dir, work_dir : Path
        Root of the derivatives; folder for what is in between.
    method : dict
        Version of the program and limits, as the records' fingerprints have them.
    """
    workflow = pe.Workflow(name=VISITS_WORKFLOW, base_dir=str(Path(work_dir).absolute()))
    shared: dict[str, Any] = {"output_dir": Path(output_dir).absolute(), "method": method}
    for subject in dict.fromkeys(one.subject for one in comparisons):
        person = pe.Workflow(name=subject_workflow_name(subject))
        own = [one for one in comparisons if one.subject == subject]
        person.add_nodes([init_comparison_wf(comparison=one, **shared) for one in own])
        workflow.add_nodes([person])
    return workflow


def init_comparison_wf(
    *, comparison: Comparison, output_dir: Path, method: dict[str, Any]
) -> LiterateWorkflow:
    """Build the workflow of one comparison.

    ``register -> compare -> change_figure -> write_changes``
    """
    name = re.sub(r"[^0-9A-Za-z]", "_", comparison.name)
    workflow = LiterateWorkflow(name=f"visits_{name}_wf")
    workflow.__desc__ = DESCRIPTION
    visits = {
        which: {
            kind: str(output_dir / path)
            for kind, path in derivative_paths(scan.folder, scan.prefix, ()).items()
        }
        for which, scan in (("earlier", comparison.earlier), ("later", comparison.later))
    }
    voxels = max(voxel_count(Path(visit["preproc"])) for visit in visits.values())
    needed = memory_gb("regions", voxels)
    register = pe.Node(RegisterVisits(**visits), name="register", mem_gb=needed)
    compare = pe.Node(
        CompareVisits(**visits, interval_days=comparison.interval_days),
        name="compare",
        mem_gb=memory_gb("visits", voxels),
    )
    change_figure = pe.Node(
        ChangeFigure(names=[f"ses-{s.session}" for s in (comparison.earlier, comparison.later)]),
        name="change_figure",
        mem_gb=memory_gb("figures", voxels),
    )
    write_changes = pe.Node(
        WriteChanges(
            comparison=comparison,
            prefix=comparison.name,
            native_file=str(comparison.later.path),
            output_dir=str(output_dir),
            method=method,
            methods_text=methods_text(workflow),
        ),
        name=LAST_NODE_OF_VISITS,
        mem_gb=memory_gb("derivatives", voxels),
    )
    workflow.connect([
        (register, compare, same("motion_file")),
        (compare, change_figure, same("images", "table_file")),
        (compare, write_changes, same("images", "table_file")),
        (change_figure, write_changes, same("figure")),
    ])  # fmt: skip
    return workflow
