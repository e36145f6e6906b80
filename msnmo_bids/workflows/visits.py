"""The work on two visits of a participant, from the derivatives of their scans."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.bids.change_files import ChangeResults, write_changes
from msnmo_bids.bids.comparisons import Comparison
from msnmo_bids.bids.names import derivative_paths
from msnmo_bids.errors import BadInputError
from msnmo_bids.preprocessing.geometry import with_equal_forms
from msnmo_bids.visits.compare import compare, describe, find_motion, halfway_images
from msnmo_bids.visits.halfway import SPACING_MM
from msnmo_bids.visits.lesion_changes import DEFAULT_RULE
from msnmo_bids.workflows.nodes import methods_text, node, save_array, step
from msnmo_bids.workflows.resources import voxel_count
from msnmo_bids.workflows.step_names import (
    LAST_NODE_OF_VISITS,
    VISITS_WORKFLOW,
    same,
    subject_workflow_name,
    workflow_name,
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

    The scans have their derivatives in `output_dir`; `method` is the version of the program and the
    limits, as the records' fingerprints have them.
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
    workflow = LiterateWorkflow(name=workflow_name("visits", comparison.name))
    workflow.__desc__ = DESCRIPTION
    visits = {
        which: {
            kind: str(output_dir / path)
            for kind, path in derivative_paths(scan.folder, scan.prefix, ()).items()
        }
        for which, scan in (("earlier", comparison.earlier), ("later", comparison.later))
    }
    voxels = max(voxel_count(Path(visit["preproc"])) for visit in visits.values())
    register = node(register_step(**visits), "register", "regions", voxels)
    compare_both = compare_step(**visits, interval_days=comparison.interval_days)
    compared = node(compare_both, "compare", "visits", voxels)
    names = tuple(f"ses-{scan.session}" for scan in (comparison.earlier, comparison.later))
    change_figure = node(change_figure_step(names=names), "change_figure", "figures", voxels)
    write = write_changes_step(
        comparison=comparison,
        prefix=comparison.name,
        native_file=str(comparison.later.path),
        output_dir=str(output_dir),
        method=method,
        methods_text=methods_text(workflow),
    )
    last = node(write, LAST_NODE_OF_VISITS, "derivatives", voxels)
    workflow.connect([
        (register, compared, same("motion_file")),
        (compared, change_figure, same("images", "table_file")),
        (compared, last, same("images", "table_file")),
        (change_figure, last, same("figure")),
    ])  # fmt: skip
    return workflow


@step("motion_file")
def register_step(folder: Path, earlier: Mapping[str, str], later: Mapping[str, str]) -> Path:
    """Find the rigid motion of the head, earlier to later scanner mm, (4, 4), ``.npy``.

    The visits are derivatives by kind.

    Raises
    ------
    BadInputError
        If an image is empty.
    """
    try:
        motion = find_motion(earlier, later)
    except ValueError as error:
        raise BadInputError(
            f"two visits cannot be registered ({error})",
            file=later["preproc"],
            remedy="Look at the brain masks of both",
        ) from error
    return save_array(motion, folder / "motion.npy")


@step("images", "table_file")
def compare_step(
    folder: Path,
    earlier: Mapping[str, str],
    later: Mapping[str, str],
    motion_file: Path,
    interval_days: float | None = None,
) -> tuple[dict[str, Path], Path]:
    """Bring two visits to the half-way space and say what became of each lesion.

    The images are NIfTI by kind; the table is JSON, one row per lesion and the summary.
    """
    changes = compare(earlier, later, np.load(motion_file))
    images = {}
    for kind, array in halfway_images(changes).items():
        images[kind] = folder / f"{kind}.nii"
        nib.save(with_equal_forms(array, changes.space.affine), images[kind])
    table_file = folder / "changes.json"
    found = {"Table": changes.table, "Summary": describe(changes, interval_days)}
    table_file.write_text(json.dumps(found), encoding="utf-8")
    return images, table_file


@step("figure")
def change_figure_step(
    folder: Path, images: Mapping[str, str], table_file: Path, names: tuple[str, str]
) -> Path:
    """Draw both visits side by side where lesions changed; the earlier one's name is first."""
    from msnmo_bids.reports.figures import change_figure

    table = json.loads(table_file.read_text(encoding="utf-8"))["Table"]
    out = folder / "changes.svg"
    change_figure({kind: Path(path) for kind, path in images.items()}, table, names, out)
    return out


@step("out_files", again=True)
def write_changes_step(
    folder: Path,
    comparison: Comparison,
    output_dir: Path,
    method: Mapping[str, Any],
    methods_text: str,
    images: Mapping[str, str],
    table_file: Path,
    figure: Path,
) -> list[str]:
    """Write all about the change between two visits, the record last."""
    found = json.loads(table_file.read_text(encoding="utf-8"))
    results = ChangeResults(
        images={kind: Path(path) for kind, path in images.items()},
        table=found["Table"],
        figure=figure,
        summary={**found["Summary"], "Methods": methods_text},
    )
    return write_changes(comparison, results, output_dir=output_dir, method=method)
