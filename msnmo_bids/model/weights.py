"""Weights of the joint model: a safetensors file and, beside it, all that inference must know.

``NAME.safetensors`` holds the tensors, ``NAME.json`` the :class:`WeightsMetadata`. Nothing is ever
unpickled. Reading the metadata alone imports no torch.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msnmo_bids.errors import ExitCode, MsnmoError, how_to_get, keeper_of
from msnmo_bids.lesions.threshold import LesionCriteria
from msnmo_bids.model.calibration import Calibration
from msnmo_bids.model.config import CLASSIFICATION, SIDE_MULTIPLE, TASKS, JointConfig
from msnmo_bids.preprocessing.cube import CUBE_SHAPE, NORMALIZATIONS, Z_SCORE
from msnmo_bids.settings import hash_file, hash_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from msnmo_bids.model.joint import JointNetwork

logger = logging.getLogger(__name__)

DTYPES = {"fp16": "float16", "bf16": "bfloat16", "fp32": "float32"}
FORMAT_VERSION = 3
#: The weights that come with the program.
SHIPPED_WEIGHTS = Path(__file__).parent / "weights" / "msnmo-joint.safetensors"
_KEPT = "density."  # in float32: correlated features need the digits
_GET_AGAIN = "Get the two files of the weights again, or name other weights"


class _OtherFormatError(ValueError):
    """A description that another version of the program wrote."""


class WeightsError(MsnmoError, ValueError):
    """Weights that cannot be used; the message names the file and the remedy."""

    exit_code = ExitCode.INPUT_MISSING


@dataclass(frozen=True)
class WeightsMetadata:
    """What travels with the weights.

    Parameters
    ----------
    class_names : tuple of str
        Diagnoses in the order of the logits.
    configuration : dict
        :meth:`JointConfig.to_dict` of the network; filled by `save_weights`.
    cube_shape : tuple of int
        Sides of the input (voxels).
    normalization : {"z-score", "robust"}
        Of the input's brain voxels (:func:`~msnmo_bids.preprocessing.cube.normalize`).
    threshold : float
        Lesion probability above which a voxel is lesion.
    min_lesion_volume : float
        Connected lesions below it are dropped (mm³).
    naming_limits : dict of str to float or None
        With which scores a disease is named (:func:`msnmo_bids.decision.doubt_of_scores`).
    max_distance : float or None
        A diagnosis is named only if the scan is no farther from the training scans
        (:class:`msnmo_bids.model.sharing.FeatureDensity`).
    lesion_descriptors : tuple of str
        Names of what the lesion branch reads of each lesion
        (:data:`msnmo_bids.lesions.descriptors.DESCRIPTORS`); empty without a branch.
    trained_on, licence : tuple of str, str
        Data sets, with their licences; licence of the weights.
    dtype, sha256 : str
        Of the stored tensors, which are compared with them; filled by `save_weights`.
    """

    name: str
    version: str
    class_names: tuple[str, ...] = ("MS", "NMOSD")
    configuration: dict[str, Any] = field(default_factory=dict)
    cube_shape: tuple[int, int, int] = CUBE_SHAPE
    normalization: str = Z_SCORE
    threshold: float = LesionCriteria.threshold
    min_lesion_volume: float = LesionCriteria.min_volume
    calibration: Calibration = field(default_factory=Calibration)
    naming_limits: dict[str, float | None] = field(default_factory=dict)
    max_distance: float | None = None
    lesion_descriptors: tuple[str, ...] = ()
    trained_on: tuple[str, ...] = ()
    licence: str = "Apache-2.0"
    dtype: str = "fp32"
    sha256: str = ""
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for name in ("class_names", "cube_shape", "lesion_descriptors", "trained_on"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if isinstance(self.calibration, Mapping):
            object.__setattr__(self, "calibration", Calibration(**self.calibration))
        names, fitted = ", ".join(self.class_names), len(self.calibration.offset)
        if self.calibration.matrix and fitted != len(self.class_names):
            raise ValueError(f"the calibration is for {fitted} classes, not for {names}")
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must be between 0 and 1, not {self.threshold}")
        limits = (limit for limit in self.naming_limits.values() if limit is not None)
        if not self.naming_limits.keys() <= set(self.class_names) or any(
            not 0 <= limit <= 1 for limit in limits
        ):
            raise ValueError(f"naming_limits must be from 0 to 1, of {names}: {self.naming_limits}")
        if self.min_lesion_volume < 0:
            raise ValueError(f"min_lesion_volume must be 0 or above, not {self.min_lesion_volume}")
        if self.normalization not in NORMALIZATIONS:
            known = " or ".join(NORMALIZATIONS)
            raise ValueError(f"normalization must be {known}, not {self.normalization!r}")
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, not {self.dtype!r}")
        if len(self.cube_shape) != 3 or any(side % SIDE_MULTIPLE for side in self.cube_shape):
            raise ValueError(f"cube_shape must be three multiples of 16, not {self.cube_shape}")

    @property
    def classifies_lesions(self) -> bool:
        """Whether the class comes from the lesions, one by one."""
        return bool(self.configuration.get("lesion_descriptors"))

    @property
    def criteria(self) -> LesionCriteria:
        """What counts as a lesion."""
        return LesionCriteria(self.threshold, self.min_lesion_volume)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that is known of the weights, their tensors' hash included.

        Weights whose threshold, calibration or input cube was changed give other derivatives,
        though the tensors are the same.
        """
        return hash_of(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the metadata as JSON holds it."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> WeightsMetadata:
        """Build from what a JSON file holds.

        Raises
        ------
        ValueError
            If a key is unknown, a required one is missing or a value is wrong.
        """
        if (version := content.get("format_version")) != FORMAT_VERSION:
            kind = ValueError if version is None else _OtherFormatError
            raise kind(f"this program reads format_version {FORMAT_VERSION}, not {version}")
        try:
            return cls(**content)
        except TypeError as error:
            raise ValueError(
                f"entries are missing, unknown or of a wrong type ({error})"
            ) from error


def read_metadata(path: str | Path) -> WeightsMetadata:
    """Read the metadata of weights, without torch and not yet compared with the tensors.

    `path` is the safetensors file or the JSON file beside it.

    Raises
    ------
    WeightsError
        If the JSON file is missing or malformed.
    """
    _, description = weights_files(path)
    try:
        return WeightsMetadata.from_dict(json.loads(description.read_text(encoding="utf-8")))
    except OSError as error:
        problem = f"the description of the weights cannot be read ({error.strerror})"
    except _OtherFormatError as error:
        remedy = "Use the version of the program that the weights came with, or train again"
        raise WeightsError(str(error), file=description, remedy=remedy) from error
    except (ValueError, TypeError, AttributeError) as error:
        problem = f"this is not a valid description of weights: {error}"
    raise WeightsError(problem, file=description, remedy=_GET_AGAIN)


def find_weights(path: Path) -> tuple[Path, WeightsMetadata]:
    """Find the tensors' file of weights, ``NAME.safetensors``, and what travels with it.

    Raises
    ------
    WeightsError
        If a file is missing or altered, a task is lacking, or they classify by other descriptors of
        lesions than this version makes.
    """
    from msnmo_bids.lesions.descriptors import DESCRIPTORS

    remedy = "Name a .safetensors file that has its .json beside it (--weights)"
    if path.is_dir():
        raise WeightsError("this is a folder, no weights file", file=path, remedy=remedy)
    weights, description = weights_files(path)
    for file in (weights, description):
        if not file.is_file():
            raise WeightsError("the weights file does not exist", file=file, remedy=remedy)
    metadata = read_metadata(weights)
    _check_whole(weights, description, metadata)
    tasks = {*metadata.configuration.get("tasks", TASKS)}
    if metadata.classifies_lesions:
        tasks.add(CLASSIFICATION)
    if lacking := set(TASKS) - tasks:
        raise WeightsError(
            f"these weights were trained without the {' and '.join(sorted(lacking))} task",
            file=description,
            remedy="Name the weights of the joint model (--weights)",
        )
    if metadata.classifies_lesions and metadata.lesion_descriptors != tuple(DESCRIPTORS):
        raise WeightsError(
            "the lesion branch of these weights reads other descriptors than this version makes",
            file=description,
            remedy="Use the version of the program that the weights came with, or other weights",
        )
    return weights, metadata


def _check_whole(tensors_file: Path, description: Path, metadata: WeightsMetadata) -> None:
    """Refuse tensors that are not those that their description was written for."""
    if hash_file(tensors_file) == metadata.sha256:
        return
    with tensors_file.open("rb") as stream:
        if keeper := keeper_of(stream.read(1000)):
            remedy = how_to_get(keeper, tensors_file)
            problem = f"{keeper} link without its content"
            raise WeightsError(problem, file=tensors_file, remedy=remedy)
    problem = f"the weights are damaged or are not those that {description.name} describes"
    raise WeightsError(problem, file=tensors_file, remedy=_GET_AGAIN)


def save_weights(
    path: str | Path, network: JointNetwork, metadata: WeightsMetadata, dtype: str = "fp32"
) -> WeightsMetadata:
    """Write ``NAME.safetensors`` and ``NAME.json``; `path` is either, or ``NAME``.

    Parameters
    ----------
    metadata : WeightsMetadata
        Its configuration, dtype and hash are replaced by the true ones, and so it is returned.
    dtype : {"fp16", "bf16", "fp32"}, optional
        Of the floating-point tensors in the file.

    Raises
    ------
    ValueError
        If the class names are not the network's, or a tensor does not fit the dtype.
    """
    from safetensors.torch import save_file

    metadata = replace(metadata, configuration=network.config.to_dict(), dtype=dtype)
    own = network.config.classes
    if metadata.class_names != own:
        raise ValueError(f"class_names {metadata.class_names} are not the network's {own}")
    tensors_file, description = weights_files(path)
    tensors_file.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: _stored(name, value, dtype) for name, value in network.state_dict().items()}
    save_file(tensors, tensors_file)
    tensors_file.chmod(0o644)  # safetensors makes files that only their owner reads
    metadata = replace(metadata, sha256=hash_file(tensors_file))
    text = json.dumps(metadata.to_dict(), indent=2, ensure_ascii=False)
    description.write_text(text + "\n", encoding="utf-8")
    return metadata


def load_weights(path: str | Path, device: str = "cpu") -> tuple[JointNetwork, WeightsMetadata]:
    """Build the network that ``NAME.safetensors`` describes and fill it.

    The network is float32, on `device`, in evaluation mode.

    Raises
    ------
    WeightsError
        If a file is missing or altered, or tensors and configuration do not fit each other.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    metadata = read_metadata(path)
    tensors_file, description = weights_files(path)
    if not tensors_file.is_file():
        raise WeightsError("there are no weights here", file=tensors_file, remedy=_GET_AGAIN)
    _check_whole(tensors_file, description, metadata)
    network = _build(metadata, description)
    try:
        tensors = load_file(tensors_file)
    except SafetensorError as error:
        problem = f"this is not a safetensors file ({error})"
        raise WeightsError(problem, file=tensors_file, remedy=_GET_AGAIN) from error
    _check_tensors(network, tensors, metadata.dtype, tensors_file)
    network.load_state_dict({name: value.float() for name, value in tensors.items()})
    return network.to(device).eval(), metadata


@lru_cache(maxsize=2)  # for the lesions, and for what classifies them
def load_weights_cached(
    path: str | Path, device: str = "cpu", precision: str = "fp32"
) -> tuple[JointNetwork, WeightsMetadata]:
    """Load weights once in a process, ready for inference.

    They are those of `load_weights`, channels last in memory and without gradients, each batch
    normalisation multiplied into the convolution before it. Shared: do not change them. With
    ``"bf16"`` the convolutions keep their weights in bfloat16, which autocast would otherwise
    convert at every forward pass.
    """
    import torch
    from torch import nn

    from msnmo_bids.model.blocks import fold_batch_normalization

    network, metadata = load_weights(path, device)
    fold_batch_normalization(network)
    network.requires_grad_(False).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    if precision == "bf16":
        for module in network.modules():
            if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
                module.to(torch.bfloat16)
    logger.info("Loaded weights %s %s on %s", metadata.name, metadata.version, device)
    return network, metadata


def weights_files(path: str | Path) -> tuple[Path, Path]:
    """Return the safetensors file and the JSON file of ``NAME`` (with or without suffix)."""
    path = Path(path)
    stem = path.name.removesuffix(".safetensors").removesuffix(".json")
    return path.with_name(f"{stem}.safetensors"), path.with_name(f"{stem}.json")


def _stored(name: str, value: Tensor, dtype: str) -> Tensor:
    stored = value.detach().cpu().to(_stored_type(name, value, dtype))
    if not stored.isfinite().all():
        raise ValueError(f"{name} is not finite as {dtype}: store the weights as fp32")
    return stored.contiguous()


def _stored_type(name: str, value: Tensor, dtype: str) -> torch.dtype:
    import torch

    changes = value.is_floating_point() and not name.startswith(_KEPT)
    return getattr(torch, DTYPES[dtype]) if changes else value.dtype


def _build(metadata: WeightsMetadata, description: Path) -> JointNetwork:
    from msnmo_bids.model.joint import JointNetwork

    try:
        config = JointConfig(**metadata.configuration)
    except (ValueError, TypeError) as error:
        problem = f"the configuration of the weights is not valid: {error}"
        raise WeightsError(problem, file=description, remedy=_GET_AGAIN) from error
    if config.classes != metadata.class_names:
        problem = f"class_names {metadata.class_names} are not those of the configuration"
        raise WeightsError(f"{problem} {config.classes}", file=description, remedy=_GET_AGAIN)
    return JointNetwork(config)


def _check_tensors(
    network: JointNetwork, tensors: dict[str, Tensor], dtype: str, file: Path
) -> None:
    expected = network.state_dict()
    both = expected.keys() & tensors.keys()
    kinds = {name: _stored_type(name, value, dtype) for name, value in tensors.items()}
    problems = {
        "are missing": expected.keys() - tensors.keys(),
        "are not expected": tensors.keys() - expected.keys(),
        "have another shape": {n for n in both if expected[n].shape != tensors[n].shape},
        f"are not {dtype}": {n for n, value in tensors.items() if value.dtype != kinds[n]},
    }
    for problem, names in problems.items():
        if names:
            some = f"{', '.join(sorted(names)[:3])}{' ...' if len(names) > 3 else ''}"
            raise WeightsError(
                f"tensors {problem} by their description: {some} ({len(names)} in all)",
                file=file,
                remedy=_GET_AGAIN,
            )
