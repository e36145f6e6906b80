"""What changes the derivatives of a scan, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from itertools import permutations, product
from pathlib import Path
from typing import Any

from msnmo_bids.lesions.threshold import LesionCriteria

SKULL_STRIP_CHOICES = ("auto", "bet", "deepbet", "skip")
BIAS_CORRECTION_CHOICES = ("auto", "ants", "antspyx", "skip")
#: Axis codes: the sides that an image's three axes run to.
ORIENTATION_CHOICES = tuple(
    "".join(sides) for axes in permutations(("LR", "PA", "IS")) for sides in product(*axes)
)
#: Settings that depend on the machine when the user leaves them to the program.
MACHINE_SETTINGS = ("device", "precision")


@dataclass(frozen=True)
class ProcessingSettings:
    """Settings that the derivatives of a scan depend on."""

    #: {"bet", "deepbet", "skip"}: tool that removes the skull; ``auto`` was resolved before. A scan
    #: whose sidecar says ``SkullStripped`` is treated as ``skip``.
    skull_strip: str
    #: {"ants", "antspyx", "skip"}: tool that corrects the bias field; ``auto`` was resolved before.
    bias_correction: str
    bet_frac: float = 0.5  #: BET's fractional intensity threshold, 0 to 1.
    #: Whether an image of which the sidecar says nothing is looked at, and treated as ``skip``
    #: where it came without a skull; not where the user named the tool.
    detect_stripped: bool = True
    #: Axis codes (such as ``"LAS"``) of images whose header has no valid form; None refuses them.
    assume_orientation: str | None = None
    device: str = "cpu"  #: ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; ``auto`` was resolved before.
    precision: str = "fp32"  #: {"bf16", "fp32"}: arithmetic of the network.
    #: Lesion probability above which a voxel is lesion, 0 to 1.
    threshold: float = LesionCriteria.threshold
    #: Connected lesions smaller than this are removed (mm³).
    min_lesion_volume: float = LesionCriteria.min_volume
    random_seed: int = 0  #: Noted in the records: nothing here draws random numbers now.
    deterministic: bool = False  #: Use deterministic algorithms only.
    sloppy: bool = False  #: Fast and poor, for tests: coarser bias field, smaller network input.

    def fingerprint(self, version: str, weights: str) -> str:
        """Return a SHA-256 (hexadecimal) of the settings, the program's version and the weights.

        `weights` is their fingerprint: of their tensors and of what describes them. It is equal for
        runs that give equal derivatives.
        """
        content = {**asdict(self), "version": version, "weights": weights}
        return hash_of(content)


def hash_of(content: Any) -> str:
    """Return the SHA-256 (64 hexadecimal digits) of what JSON can hold, in any order of keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file: 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
