"""Quality of a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.interfaces.base import StepInterface


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
        import numpy as np

        from msnmo_bids.quality.measures import scan_quality

        given = self.inputs
        raw, preproc, mask = (
            Path(path) for path in (given.raw_file, given.preproc_file, given.mask_file)
        )
        return {"quality": scan_quality(raw, preproc, mask, np.load(given.mni_file))}
