"""The joint network as a node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nipype.interfaces.base import BaseInterfaceInputSpec, File, TraitedSpec, traits

from msnmo_bids.errors import MsnmoError
from msnmo_bids.interfaces.base import StepInterface

if TYPE_CHECKING:
    import numpy as np


class _PredictInputSpec(BaseInterfaceInputSpec):
    cube_file = File(exists=True, mandatory=True, desc="network input (D, H, W), .npy")
    weights = traits.List(
        File(exists=True), minlen=1, mandatory=True, desc="NAME.safetensors; of several the mean"
    )
    classify = traits.Bool(True, usedefault=True, desc="whether this network gives the class")
    tta = traits.Bool(False, usedefault=True, desc="mean with the mirror image, left to right")
    device = traits.Str("cpu", usedefault=True, desc="cpu, cuda or cuda:N")
    precision = traits.Enum("fp32", "bf16", usedefault=True, desc="arithmetic")
    random_seed = traits.Int(0, usedefault=True, desc="seed of torch's random numbers")
    deterministic = traits.Bool(False, usedefault=True, desc="deterministic algorithms only")
    num_threads = traits.Int(1, usedefault=True, nohash=True, desc="threads")
    use_gpu = traits.Bool(
        False, usedefault=True, nohash=True, desc="takes one of the plugin's GPU slots"
    )


class _PredictOutputSpec(TraitedSpec):
    probability_file = File(exists=True, desc="lesion probability (D, H, W), .npy")
    cam_file = File(exists=True, desc="class activation maps (K, D, H, W), .npy, if wanted")
    class_probabilities = traits.Dict(desc="calibrated probability by class, if wanted")
    class_votes = traits.List(traits.Dict, desc="the same of each network and view")
    distance = traits.Either(None, traits.Float, desc="from the training scans")


class Predict(StepInterface):
    """Lesion probability, class probabilities and class activation maps of one scan.

    The weights are read once a worker process (``model.weights.load_weights_cached``).

    Raises
    ------
    MsnmoError
        If the weights lack a task that is wanted, or the network's output is not finite.
    """

    input_spec = _PredictInputSpec
    output_spec = _PredictOutputSpec

    def _compute(self, folder: Path) -> dict[str, Any]:
        import numpy as np

        from msnmo_bids.model.inference import predict

        prediction = predict(
            np.load(self.inputs.cube_file, allow_pickle=False),
            *self.inputs.weights,
            tta=self.inputs.tta,
            device=self.inputs.device,
            precision=self.inputs.precision,
            n_threads=self.inputs.num_threads,
            deterministic=self.inputs.deterministic,
            seed=self.inputs.random_seed,
        )
        weights = ", ".join(self.inputs.weights)
        probability = _checked(prediction.probability, "segmentation", weights)
        probability_file = folder / "probability.npy"
        np.save(probability_file, probability, allow_pickle=False)
        outputs = {"probability_file": str(probability_file), "distance": prediction.distance}
        if not self.inputs.classify:
            return outputs
        cams = _checked(prediction.cams, "classification", weights)
        values = _checked(prediction.class_probabilities, "classification", weights)
        votes = _checked(prediction.class_votes, "classification", weights)
        cam_file = folder / "cams.npy"
        np.save(cam_file, cams, allow_pickle=False)
        return {
            **outputs,
            "cam_file": str(cam_file),
            "class_probabilities": by_class(prediction.class_names, values),
            "class_votes": [by_class(prediction.class_names, vote) for vote in votes],
        }


def by_class(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    """Return numbers by the names of the classes."""
    return dict(zip(names, values.tolist(), strict=True))


def _checked(array: np.ndarray | None, task: str, weights: str) -> np.ndarray:
    """Return the network's output, or say why it is of no use."""
    import numpy as np

    if array is None:
        raise MsnmoError(
            f"these weights were trained without the {task} task",
            file=weights,
            remedy="Name the weights of the joint model (--weights)",
        )
    if not np.isfinite(array).all():
        raise MsnmoError(
            f"the network's {task} is not finite",
            file=weights,
            remedy="Try --precision fp32; if that fails too, get the weights again",
        )
    return array
