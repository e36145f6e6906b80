"""Settings of a training: from code, a YAML or JSON file, or the command line; light to import."""

from __future__ import annotations

import argparse
import difflib
import typing
from collections.abc import Collection, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from msnmo_bids.errors import UsageError
from msnmo_bids.model.config import TASKS

SCHEDULES = ("plateau", "cosine", "constant")
PRECISIONS = ("fp32", "bf16", "fp16")
MONITORS = ("loss", "dsc", "accuracy")
NETWORK_SECTIONS = ("network", "loss")

Value = TypeVar("Value")

_POSITIVE = ("batch_size", "accumulate", "learning_rate", "plateau_epochs", "log_every")
_NOT_NEGATIVE = (
    "epochs", "steps_per_epoch", "steps", "warm_up", "clip_norm", "side", "rotation_degrees",
    "seed", "validate_every", "patience", "checkpoint_seconds", "weight_decay",
)  # fmt: skip
_SHARES = (
    "final_rate", "plateau_factor", "lesion_crops", "flip", "rotation", "intensity", "ema",
)  # fmt: skip
_HOW_IT_RUNS = ("checkpoint_seconds", "log_every")


def _setting(
    default: Value, text: str, choices: tuple[str, ...] = (), each: tuple[str, ...] = ()
) -> Value:
    """Return a field with its documentation, which is the help of its flag too."""
    return field(default=default, metadata={"help": text, "choices": choices or each})


@dataclass(frozen=True)
class TrainingConfig:
    """How a network is trained; the defaults are the paper's (sections 3.1.3 and 4.1).

    What a field means is written beside it: the same text is the help of its flag.

    Raises
    ------
    ValueError
        If a value has the wrong type or is out of range.

    Examples
    --------
    >>> TrainingConfig().learning_rate
    0.0001
    >>> TrainingConfig.from_dict({"batchsize": 4})
    Traceback (most recent call last):
    ValueError: unknown training setting batchsize (did you mean batch_size?)
    """

    tasks: tuple[str, ...] = _setting(
        (), "tasks to train (default: all that the network has)", each=TASKS
    )
    frozen: tuple[str, ...] = _setting(
        (), "parts of the network to leave as they are, such as sharing or classification.blocks.0"
    )
    seed: int = _setting(
        0, "seed; the randomness of a step depends on it, the step and the process alone"
    )

    epochs: int = _setting(200, "passes over the training scans, where --steps is 0")
    steps_per_epoch: int = _setting(0, "steps of an epoch; 0: as many as show every scan once")
    steps: int = _setting(0, "number of steps; 0: as many as the epochs have")
    batch_size: int = _setting(2, "samples computed at once")
    accumulate: int = _setting(
        1, "batches whose gradients make one step, as if they were one large batch"
    )

    learning_rate: float = _setting(1e-4, "of Adam: the start, or the cosine schedule's peak")
    weight_decay: float = _setting(0.0, "decoupled weight decay (AdamW) per unit of the rate")
    schedule: str = _setting(
        "plateau",
        "plateau: lowered when the epochs' mean loss no longer falls; cosine; constant",
        SCHEDULES,
    )
    plateau_epochs: int = _setting(10, "epochs without a lower loss after which the rate falls")
    plateau_factor: float = _setting(0.5, "factor of the rate on a plateau")
    warm_up: int = _setting(0, "steps in which the rate rises to its start")
    final_rate: float = _setting(0.02, "last rate of the cosine schedule, as a share of its peak")
    clip_norm: float = _setting(5.0, "largest norm of the gradient; 0: no limit (the paper: none)")
    ema: float = _setting(
        0.0, "decay a step of the averaged weights, which are the result; 0: no averaging"
    )
    precision: str = _setting("fp32", "arithmetic of the network (fp16: CUDA only)", PRECISIONS)
    channels_last: bool = _setting(True, "memory format channels_last_3d, often faster")

    side: int = _setting(0, "side of random crops (voxels, a multiple of 16); 0: whole cubes")
    lesion_crops: float = _setting(0.6, "probability of a crop around a lesion voxel")
    flip: float = _setting(0.5, "probability of a flip along one randomly chosen axis")
    flip_axes: tuple[int, ...] = _setting((0, 1, 2), "axes to choose from (0: left to right)")
    rotation: float = _setting(0.5, "probability of a random rotation")
    rotation_degrees: float = _setting(15.0, "largest angle of the rotation about each axis")
    intensity: float = _setting(0.0, "probability of each change of intensity: scale, shift, noise")
    classify_without_lesions: bool = _setting(
        True, "train the classification on samples whose mask is empty too"
    )

    validate_every: int = _setting(
        0, "steps between two validations; 0: after each epoch (needs validation scans)"
    )
    monitor: str = _setting("loss", "what the best weights are chosen by", MONITORS)
    patience: int = _setting(
        0, "validations without improvement after which the training stops; 0: never"
    )
    checkpoint_seconds: float = _setting(240.0, "seconds between two checkpoints; 0: every step")
    log_every: int = _setting(25, "steps between two lines of the log")

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for one in fields(self):
            value = _as_type(one.name, getattr(self, one.name), hints[one.name])
            object.__setattr__(self, one.name, value)
            _check_choices(one, value)
        _check_range(self, _POSITIVE, "above 0", lambda value: value > 0)
        _check_range(self, _NOT_NEGATIVE, "0 or above", lambda value: value >= 0)
        _check_range(self, _SHARES, "from 0 to 1", lambda value: 0 <= value <= 1)
        if self.ema == 1:
            raise ValueError("ema must be below 1: the average would never change")
        if self.side % 16:
            raise ValueError(f"side must be a multiple of 16, not {self.side}")
        if not self.flip_axes or not set(self.flip_axes) <= {0, 1, 2}:
            raise ValueError(f"flip_axes must be some of 0, 1, 2, not {self.flip_axes}")
        if not self.steps and not self.epochs:
            raise ValueError("steps or epochs must be above 0")

    @property
    def samples_per_step(self) -> int:
        """Samples that one process draws for a step."""
        return self.batch_size * self.accumulate

    def to_dict(self) -> dict[str, Any]:
        """Return the settings as JSON holds them (lists for tuples)."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide on the weights: equal in all parts of one training."""
        return {k: v for k, v in self.to_dict().items() if k not in _HOW_IT_RUNS}

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> TrainingConfig:
        """Build from values by the names of the fields; texts that hold a number may stand for it.

        Raises
        ------
        ValueError
            If a key is not a setting, or a value is wrong.
        """
        names = [one.name for one in fields(cls)]
        for key in settings:
            if key not in names:
                near = difflib.get_close_matches(str(key), names, 1)
                hint = f" (did you mean {near[0]}?)" if near else ""
                raise ValueError(f"unknown training setting {key}{hint}")
        return cls(**settings)

    @classmethod
    def from_flags(cls, given: Mapping[str, Any]) -> TrainingConfig:
        """Build from a command line: flags before the file, the file before the defaults.

        Parameters
        ----------
        given : mapping
            What the arguments of `add_training_arguments` were given; other names are ignored.

        Raises
        ------
        UsageError
            If the file cannot be read, or holds a setting that is unknown or wrong.
        """
        file = given.get("training_config")
        flags = {one.name: given[one.name] for one in fields(cls) if one.name in given}
        try:
            settings = {} if file is None else read_settings(file)
            cls.from_dict(settings)  # what is wrong in it is said with its name
            file = None
            return cls.from_dict({**settings, **flags})
        except ValueError as error:
            raise UsageError(str(error), file=file, remedy="See --help for the settings") from error


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--training-config FILE`` and a flag for each field of `TrainingConfig`.

    They are a group of their own. A flag that is not given leaves no attribute, so that the file's
    value stands.
    """
    group = parser.add_argument_group("training")
    group.add_argument(
        "--training-config",
        type=Path,
        metavar="FILE",
        help="settings of the training (YAML or JSON: names of the flags below with _ for -)",
    )
    hints = typing.get_type_hints(TrainingConfig)
    for one in fields(TrainingConfig):
        _add_flag(group, one, hints[one.name])


def _add_flag(group: argparse._ArgumentGroup, one: Field, kind: Any) -> None:
    flag = f"--{one.name.replace('_', '-')}"
    text = one.metadata["help"]
    if "default" not in text and one.default is not MISSING:
        default = one.default
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else f"{default}"
        text = f"{text} (default: {shown})"
    common: dict[str, Any] = {"dest": one.name, "default": argparse.SUPPRESS, "help": text}
    if kind is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
        return
    if typing.get_origin(kind) is tuple:
        kind, common["nargs"] = typing.get_args(kind)[0], "+"
    common |= {"type": kind, "metavar": {int: "N", float: "X", str: "NAME"}[kind]}
    if one.metadata["choices"]:
        common |= {"choices": one.metadata["choices"]}
        del common["metavar"]
    group.add_argument(flag, **common)


def read_settings(path: Path) -> dict[str, Any]:
    """Read settings by name from a YAML file, of which JSON is a case.

    Raises
    ------
    UsageError
        If the file cannot be read, or holds no settings by name.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read ({error.strerror})", file=path) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"is neither YAML nor JSON ({error})", file=path) from error
    if not isinstance(content, dict):
        remedy = "Its form: {batch_size: 2, learning_rate: 0.0001}"
        raise UsageError("holds no settings by name", file=path, remedy=remedy)
    return content


def read_network_settings(file: Path | None) -> dict[str, dict[str, Any]]:
    """Read the settings of the joint model and of the losses.

    Returns
    -------
    dict
        By `NETWORK_SECTIONS`; empty where the file (``--network-config``) has none.

    Raises
    ------
    UsageError
        If the file cannot be read, or holds something else.
    """
    sections: dict[str, dict[str, Any]] = {name: {} for name in NETWORK_SECTIONS}
    if file is None:
        return sections
    content = read_settings(file)
    for name, settings in content.items():
        if name not in NETWORK_SECTIONS or not isinstance(settings, dict):
            raise UsageError(
                f"has '{name}', where only {' and '.join(NETWORK_SECTIONS)} with settings stand",
                file=file,
            )
        sections[name] = settings
    return sections


def _as_type(name: str, value: Any, kind: Any) -> Any:
    """Return a value as its field's type; YAML reads 1e-4 as a text."""
    if typing.get_origin(kind) is tuple:
        if isinstance(value, str | bytes) or not isinstance(value, Collection):
            raise ValueError(f"{name} must be a list, not {value!r}")
        return tuple(_as_type(name, item, typing.get_args(kind)[0]) for item in value)
    wanted = {bool: "true or false", str: "a name", int: "a whole number", float: "a number"}[kind]
    wrong = ValueError(f"{name} must be {wanted}, not {value!r}")
    if kind in (bool, str) or isinstance(value, bool):
        if type(value) is not kind:
            raise wrong
        return value
    try:
        converted = kind(value)
    except (TypeError, ValueError):
        raise wrong from None
    if not isinstance(value, str) and converted != value:
        raise wrong
    return converted


def _check_choices(one: Field, value: Any) -> None:
    choices = one.metadata["choices"]
    if not choices:
        return
    for item in (value,) if isinstance(value, str) else value:
        if item not in choices:
            raise ValueError(f"{one.name} must be of {', '.join(choices)}, not {item!r}")


def _check_range(
    config: TrainingConfig, names: tuple[str, ...], words: str, good: typing.Callable[[Any], bool]
) -> None:
    for name in names:
        value = getattr(config, name)
        if not good(value):
            raise ValueError(f"{name} must be {words}, not {value}")
