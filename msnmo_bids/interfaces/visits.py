"""Nodes that register two visits, compare them, draw and write what changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.bids.changes import ChangeResults, write_changes
from msnmo_bids.errors import BadInputError
from msnmo_bids.interfaces.base import LastInputSpec, StepInterface, write_array
from msnmo_bids.visits.compare import VisitFiles, compare, describe, find_motion, halfway_images


class _RegisterVisitsInputSpec(BaseInterfaceInputSpec):
    earlier = traits.Dict(mandatory=True, desc="derivatives of the earlier scan by kind")
    later = traits.Dict(mandatory=True, desc="derivatives of the later scan by kind")


class _RegisterVisitsOutputSpec(TraitedSpec):
    motion_file = File(exists=True, desc="earlier to later scanner mm, (4, 4), .npy")


class RegisterVisits(StepInterface):
    """Find the rigid motion of the head between two visits.

    Raises
    ------
    BadInputError
        If an image is empty.
    """

    input_spec = _RegisterVisitsInputSpec
    output_spec = _RegisterVisitsOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        visits = [VisitFiles.of(visit) for visit in (self.inputs.earlier, self.inputs.later)]
        try:
            motion = find_motion(*visits)
        except ValueError as error:
            raise BadInputError(
                f"two visits cannot be registered ({error})",
                file=visits[1].flair,
                remedy="Look at the brain masks of both",
            ) from error
        motion_file = folder / "motion.npy"
        np.save(motion_file, motion, allow_pickle=False)
        return {"motion_file": str(motion_file)}


class _CompareVisitsInputSpec(_RegisterVisitsInputSpec):
    motion_file = File(exists=True, mandatory=True, desc="earlier to later scanner mm, .npy")
    interval_days = traits.Either(None, traits.Float, desc="time between the visits, if known")


class _CompareVisitsOutputSpec(TraitedSpec):
    images = traits.Dict(desc="NIfTI by kind, in the half-way space")
    table_file = File(exists=True, desc="JSON: one row per lesion, summary")


class CompareVisits(StepInterface):
    """Bring two visits to the half-way space and say what became of each lesion."""

    input_spec = _CompareVisitsInputSpec
    output_spec = _CompareVisitsOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        changes = compare(
            VisitFiles.of(self.inputs.earlier),
            VisitFiles.of(self.inputs.later),
            np.load(self.inputs.motion_file),
        )
        images = {
            kind: str(write_array(array, changes.space.affine, folder / f"{kind}.nii"))
            for kind, array in halfway_images(changes).items()
        }
        table_file = folder / "changes.json"
        found = {"Table": changes.table, "Summary": describe(changes, self.inputs.interval_days)}
        table_file.write_text(json.dumps(found), encoding="utf-8")
        return {"images": images, "table_file": str(table_file)}


class _ChangeFigureInputSpec(BaseInterfaceInputSpec):
    images = traits.Dict(mandatory=True, desc="NIfTI by kind, in the half-way space")
    table_file = File(exists=True, mandatory=True, desc="one row per lesion, JSON")
    names = traits.List(traits.Str, mandatory=True, desc="the visits, the earlier one first")


class _ChangeFigureOutputSpec(TraitedSpec):
    figure = File(exists=True, desc="SVG")


class ChangeFigure(StepInterface):
    """Draw both visits side by side where lesions changed."""

    input_spec = _ChangeFigureInputSpec
    output_spec = _ChangeFigureOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from msnmo_bids.reports.figures import change_figure

        images = {kind: Path(path) for kind, path in self.inputs.images.items()}
        table = json.loads(Path(self.inputs.table_file).read_text(encoding="utf-8"))["Table"]
        earlier, later = self.inputs.names
        out = folder / "changes.svg"
        change_figure(images, table, (earlier, later), out)
        return {"figure": str(out)}


class _WriteChangesInputSpec(LastInputSpec):
    comparison = traits.Any(mandatory=True, desc="the two scans (Comparison)")
    output_dir = traits.Str(mandatory=True, desc="root of the derivatives")
    method = traits.Dict(mandatory=True, desc="version of the program and limits")
    methods_text = traits.Str(mandatory=True, desc="how visits were compared, in sentences")
    images = traits.Dict(mandatory=True, desc="NIfTI by kind, in the half-way space")
    table_file = File(exists=True, mandatory=True, desc="JSON: one row per lesion, summary")
    figure = File(exists=True, mandatory=True, desc="SVG")


class _WriteChangesOutputSpec(TraitedSpec):
    out_files = traits.List(traits.Str, desc="paths relative to the output folder")


class WriteChanges(StepInterface):
    """Write all about the change between two visits, the record last."""

    input_spec = _WriteChangesInputSpec
    output_spec = _WriteChangesOutputSpec
    always_run = True

    def _compute(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        found = json.loads(Path(given.table_file).read_text(encoding="utf-8"))
        results = ChangeResults(
            images={kind: Path(path) for kind, path in given.images.items()},
            table=found["Table"],
            figure=Path(given.figure),
            summary={**found["Summary"], "Methods": given.methods_text},
        )
        written = write_changes(
            given.comparison, results, output_dir=Path(given.output_dir), method=given.method
        )
        return {"out_files": written}
