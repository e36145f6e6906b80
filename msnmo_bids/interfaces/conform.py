"""Check a raw FLAIR, bring it into RAS order, and see whether it has a skull."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nipype.interfaces.base import BaseInterfaceInputSpec, TraitedSpec, traits

from msnmo_bids.interfaces.base import StepInterface


class _ConformInputSpec(BaseInterfaceInputSpec):
    # A plain string: a broken link must reach the check, which says what to do about it.
    in_file = traits.Str(mandatory=True, desc="raw FLAIR")
    orientation = traits.Either(None, traits.Str, desc="axis codes to assume without valid form")
    look_for_skull = traits.Bool(
        False, usedefault=True, desc="whether the image itself says if it was stripped before"
    )


class _ConformOutputSpec(TraitedSpec):
    out_file = traits.File(desc="FLAIR in RAS order, float32, qform equal to sform")
    stripped = traits.Bool(desc="the image came without its skull")
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
        from msnmo_bids.preprocessing.skullstrip import STRIPPED_BEFORE, looks_stripped

        given, out_file = self.inputs, folder / "flair_ras.nii"
        info = conform(Path(given.in_file), out_file, given.orientation)
        stripped = given.look_for_skull and looks_stripped(out_file)
        if stripped:
            info["flags"].append(STRIPPED_BEFORE)
        return {"out_file": str(out_file), "stripped": stripped, "info": info}
