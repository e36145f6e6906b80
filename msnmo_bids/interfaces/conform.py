"""Check a raw FLAIR and bring it into RAS order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, TraitedSpec, traits

from msnmo_bids.interfaces.base import StepInterface


class _ConformInputSpec(BaseInterfaceInputSpec):
    # A plain string: a broken link must reach the check, which says what to do about it.
    in_file = traits.Str(mandatory=True, desc="raw FLAIR")


class _ConformOutputSpec(TraitedSpec):
    out_file = traits.File(desc="FLAIR in RAS order, float32, qform equal to sform")
    info = traits.Dict(desc="axis codes, voxel size, shape and flags of the raw image")


class Conform(StepInterface):
    """Check a raw FLAIR and write it in RAS order.

    Raises
    ------
    BadInputError
        If the file cannot be processed (see ``preprocessing.geometry.check_flair``).
    """

    input_spec = _ConformInputSpec
    output_spec = _ConformOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        from msnmo_bids.preprocessing.geometry import conform

        out_file = folder / "flair_ras.nii"
        info = conform(Path(self.inputs.in_file), out_file)
        return {"out_file": str(out_file), "info": info}
