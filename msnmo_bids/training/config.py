"""Settings of a training: fields of the programs' options; light to import."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from msnmo_bids.model.config import SIDE_MULTIPLE, TASKS

SCHEDULES = ("plateau", "cosine", "constant")
PRECISIONS = ("fp32", "bf16", "fp16")
MONITORS = ("loss", "dsc", "accuracy")

Value = TypeVar("Value")

_POSITIVE = ("batch_size", "accumulate", "learning_rate", "plateau_epochs", "log_every")
_NOT_NEGATIVE = ("epochs", "steps_per_epoch", "steps", "warm_up", "clip_norm", "side", "patience",
                 "rotation_degrees", "seed", "validate_every", "checkpoint_seconds",
                 "weight_decay")  # fmt: skip
_SHARES = ("final_rate", "flip", "rotation", "ema")
_HOW_IT_RUNS = ("checkpoint_seconds", "log_every")


def _setting(default: Value, text: str, **how: Any) -> Value:
    """Return a field that is an option as well, as :func:`msnmo_bids.run.options.option`."""
    of = type(default)
    if of in (int, float):
        how |= {"type": of, "metavar": {int: "N", float: "X"}[of]}
    return field(default=default, metadata={"help": text, "names": (), **how})


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How a network is trained; by default as in the paper (3.1.3, 4.1), and clipped.

    What a field means is written beside it: the same text is the help of its option.

    Raises
    ------
    ValueError
        If a value is out of range.
    """

    TITLE: ClassVar[str] = "training"

    tasks: tuple[str, ...] = _setting(
        (), "tasks to train (default: all that the network has)", nargs="+", choices=TASKS
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
        "plateau: halved when the epochs' mean loss no longer falls; cosine; constant",
        choices=SCHEDULES,
    )
    plateau_epochs: int = _setting(10, "epochs without a lower loss after which the rate falls")
    warm_up: int = _setting(0, "steps in which the rate rises to its start")
    final_rate: float = _setting(0.02, "last rate of the cosine schedule, as a share of its peak")
    clip_norm: float = _setting(5.0, "largest norm of the gradient; 0: no limit (the paper: none)")
    ema: float = _setting(
        0.0, "decay a step of the averaged weights, which are the result; 0: no averaging"
    )
    precision: str = _setting(
        "fp32", "arithmetic of the network (fp16: CUDA only)", choices=PRECISIONS
    )

    side: int = _setting(0, "side of random crops (voxels, a multiple of 16); 0: whole cubes")
    flip: float = _setting(0.5, "probability of a flip along one randomly chosen axis")
    flip_axes: tuple[int, ...] = _setting(
        (0, 1, 2), "axes to choose from (0: left to right)", nargs="+", type=int, choices=(0, 1, 2)
    )
    rotation: float = _setting(0.5, "probability of a random rotation")
    rotation_degrees: float = _setting(15.0, "largest angle of the rotation about each axis")

    validate_every: int = _setting(
        0, "steps between two validations; 0: after each epoch (needs validation scans)"
    )
    monitor: str = _setting("loss", "what the best weights are chosen by", choices=MONITORS)
    patience: int = _setting(
        0, "validations without improvement after which the training stops; 0: never"
    )
    checkpoint_seconds: float = _setting(240.0, "seconds between two checkpoints; 0: every step")
    log_every: int = _setting(25, "steps between two lines of the log")

    def __post_init__(self) -> None:
        for names, words, good in (
            (_POSITIVE, "above 0", lambda value: value > 0),
            (_NOT_NEGATIVE, "0 or above", lambda value: value >= 0),
            (_SHARES, "from 0 to 1", lambda value: 0 <= value <= 1),
        ):
            for name in names:
                if not good(value := getattr(self, name)):
                    raise ValueError(f"{name} must be {words}, not {value}")
        if self.ema == 1:
            raise ValueError("ema must be below 1: the average would never change")
        if self.side % SIDE_MULTIPLE:
            raise ValueError(f"side must be a multiple of {SIDE_MULTIPLE}, not {self.side}")
        if not self.steps and not self.epochs:
            raise ValueError("steps or epochs must be above 0")

    @property
    def config(self) -> TrainingConfig:
        """These settings alone, of a program's options that inherit them."""
        return TrainingConfig(
            **{one.name: getattr(self, one.name) for one in fields(TrainingConfig)}
        )

    @property
    def samples_per_step(self) -> int:
        """Samples that one process draws for a step."""
        return self.batch_size * self.accumulate

    def identity(self) -> dict[str, Any]:
        """Return the settings that decide on the weights: equal in all parts of one training.

        bf16 and fp32 count as one, so that a training may go on where the processor has the other;
        fp16 scales its loss.
        """
        settings = {k: v for k, v in asdict(self).items() if k not in _HOW_IT_RUNS}
        return settings | {"precision": "fp16" if self.precision == "fp16" else "unscaled"}
