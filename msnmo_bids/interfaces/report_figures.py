"""The figures of a scan's report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.interfaces.base import StepInterface


class _FiguresInputSpec(BaseInterfaceInputSpec):
    raw_file = File(exists=True, mandatory=True, desc="conformed FLAIR")
    preproc_file = File(exists=True, mandatory=True, desc="preprocessed FLAIR")
    mask_file = File(exists=True, mandatory=True, desc="brain mask")
    lesion_file = File(exists=True, mandatory=True, desc="lesion mask")
    label_file = File(exists=True, mandatory=True, desc="lesion labels")
    cam_files = traits.Dict(mandatory=True, desc="class activation map by class")


class _FiguresOutputSpec(TraitedSpec):
    figures = traits.Dict(desc="SVG file by kind: brainmask, bias, lesions, cam")


class Figures(StepInterface):
    """Draw brain mask, bias correction, lesions and class activation maps."""

    input_spec = _FiguresInputSpec
    output_spec = _FiguresOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from msnmo_bids.reports import figures

        raw, preproc = Path(self.inputs.raw_file), Path(self.inputs.preproc_file)
        lesions, labels = Path(self.inputs.lesion_file), Path(self.inputs.label_file)
        cams = {name: Path(path) for name, path in self.inputs.cam_files.items()}
        out = {kind: folder / f"{kind}.svg" for kind in ("brainmask", "bias", "lesions", "cam")}
        figures.brain_mask_figure(raw, Path(self.inputs.mask_file), out["brainmask"])
        figures.bias_figure(raw, preproc, out["bias"])
        figures.lesions_figure(preproc, lesions, labels, out["lesions"])
        figures.cam_figure(preproc, lesions, cams, out["cam"])
        return {"figures": {kind: str(path) for kind, path in out.items()}}
