"""The last nodes of a scan: its quality, the report's figures, the decision, the derivatives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.bids.resume import RAW_IMAGE, identify
from msnmo_bids.bids.sink import ScanResults, write_scan_derivatives
from msnmo_bids.diagnosis import decide
from msnmo_bids.interfaces.base import PreprocessedInputSpec, StepInterface
from msnmo_bids.quality.measures import scan_quality


class _QualityInputSpec(BaseInterfaceInputSpec):
    raw_file = File(exists=True, mandatory=True, desc="conformed FLAIR")
    preproc_file = File(exists=True, mandatory=True, desc="preprocessed FLAIR")
    mask_file = File(exists=True, mandatory=True, desc="brain mask")
    mni_file = File(exists=True, mandatory=True, desc="index to MNI mm (4, 4), .npy")


class _QualityOutputSpec(TraitedSpec):
    quality = traits.Dict(desc="level, reasons, contrast and figures")


class Quality(StepInterface):
    """Figures of quality with green, amber and red."""

    input_spec = _QualityInputSpec
    output_spec = _QualityOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        raw, preproc, mask = (
            Path(path) for path in (given.raw_file, given.preproc_file, given.mask_file)
        )
        return {"quality": scan_quality(raw, preproc, mask, np.load(given.mni_file))}


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


class _WriteDerivativesInputSpec(PreprocessedInputSpec):
    scan = traits.Any(mandatory=True, desc="the raw FLAIR (Scan)")
    raw_image = traits.Either(None, traits.Dict, desc="its size and time before it was read")
    output_dir = traits.Str(mandatory=True, desc="root of the derivatives")
    provenance = traits.Dict(mandatory=True, desc="what all scans of the run share")
    preproc_file = File(exists=True, mandatory=True, desc="preprocessed FLAIR (RAS)")
    lesion_file = File(exists=True, mandatory=True, desc="lesion mask (RAS)")
    probability_file = File(exists=True, mandatory=True, desc="lesion probability (RAS)")
    label_file = File(exists=True, mandatory=True, desc="lesion labels (RAS)")
    cam_files = traits.Dict(mandatory=True, desc="class activation map by class (RAS)")
    table_file = File(exists=True, mandatory=True, desc="JSON: one row per lesion, summary")
    class_probabilities = traits.Dict(mandatory=True, desc="by class")
    class_votes = traits.List(traits.Dict, desc="the same of each network and view")
    distance = traits.Either(None, traits.Float, desc="from the training scans")
    quality = traits.Dict(mandatory=True, desc="level, reasons, contrast and figures")
    figures = traits.Dict(desc="SVG file by kind")


class _WriteDerivativesOutputSpec(TraitedSpec):
    out_files = traits.List(traits.Str, desc="paths relative to the output folder")


class WriteDerivatives(StepInterface):
    """Decide on a diagnosis and write all derivatives of a scan, the diagnosis last."""

    input_spec = _WriteDerivativesInputSpec
    output_spec = _WriteDerivativesOutputSpec
    always_run = True

    def _compute(self, folder: Path) -> dict[str, Any]:
        given = self.inputs
        measures = json.loads(Path(given.table_file).read_text(encoding="utf-8"))
        decision = decide(
            given.class_probabilities,
            lesions=len(measures["Table"]),
            quality=given.quality,
            limits=given.provenance["NamingLimits"],
            votes=given.class_votes or (),
            distance=given.distance,
            farthest=given.provenance["MaximumOutOfDistributionScore"],
        )
        results = ScanResults(
            preproc=Path(given.preproc_file),
            brain_mask=Path(given.mask_file),
            lesion_mask=Path(given.lesion_file),
            lesion_probability=Path(given.probability_file),
            lesion_labels=Path(given.label_file),
            cams={name: Path(path) for name, path in given.cam_files.items()},
            table=measures["Table"],
            summary=measures["Summary"],
            decision=decision,
            distance=given.distance,
            skull_stripping=given.skull_stripping,
            bias_correction=given.bias_correction,
            quality=given.quality,
            figures={kind: Path(path) for kind, path in (given.figures or {}).items()},
            orientation=given.info.get("axcodes"),
            flags=(*given.info.get("flags", ()), *(given.mask_flags or ())),
        )
        provenance = {
            **given.provenance,
            RAW_IMAGE: identify(given.scan, given.raw_image),
            "Intensities": given.info.get("intensities"),
        }
        written = write_scan_derivatives(
            given.scan, results, output_dir=Path(given.output_dir), provenance=provenance
        )
        return {"out_files": written}
