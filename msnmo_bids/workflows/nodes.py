"""What all nodes share: a function becomes a Nipype interface, and says why it failed."""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    Bunch,
    SimpleInterface,
    TraitedSpec,
    traits,
)
from nipype.pipeline import engine as pe
from niworkflows.engine.workflows import LiterateWorkflow

from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.preprocessing.geometry import with_equal_forms
from msnmo_bids.workflows.resources import memory_gb

FAILURE_FILE = "failure.json"
#: Inputs that change no result: Nipype's cache passes over them.
_NOT_HASHED = ("num_threads", "use_gpu")


class _StepInputSpec(BaseInterfaceInputSpec):
    """What the last node of a scan says of it (:mod:`msnmo_bids.workflows.execution`)."""

    prefix = traits.Str(desc="name of the scan, or of the comparison")
    native_file = traits.Str(desc="raw FLAIR")


class StepInterface(SimpleInterface):
    """A step of the work on a scan, made by :func:`step`.

    A :class:`MsnmoError` is written into the node's folder before Nipype turns it into text, so
    that the run can report the problem and the remedy whatever plugin ran the node.
    """

    function: Callable[..., Any]
    #: Names of all inputs and whether each is a path; names of the outputs.
    given: dict[str, bool]
    found: tuple[str, ...]
    #: What the step imports that takes seconds: it goes to a worker that has it.
    library = ""

    def compute(self, folder: Path) -> dict[str, Any]:
        """Do the work in the node's own folder and return its outputs by name."""
        inputs = {name: getattr(self.inputs, name) for name in self.given}
        for name, is_path in self.given.items():
            if is_path and inputs[name] is not None:
                inputs[name] = Path(inputs[name])
        values = self.function(folder, **inputs)
        values = values if len(self.found) > 1 else (values,)
        return dict(zip(self.found, map(_plain, values), strict=True))

    def _run_interface(self, runtime: Bunch) -> Bunch:
        folder = Path(runtime.cwd)
        try:
            self._results.update(self.compute(folder))
        except MsnmoError as error:
            write_failure(folder, error)
            raise
        return runtime


def step(*outputs: str, library: str = "", again: bool = False) -> Callable[[Callable], Any]:
    """Make a Nipype interface of a function, by its signature.

    The function gets the node's own folder and then the inputs; those without a default are
    mandatory, and those that are declared as ``Path`` come as such. It returns its outputs, in the
    order of `outputs`; paths among them become texts, which Nipype's cache looks into.

    `library` is what it imports that takes seconds. What writes into the output folder is called
    `again` even where Nipype has its result.
    """

    def interface(function: Callable[..., Any]) -> type[StepInterface]:
        parameters = list(signature(function).parameters.values())[1:]
        place = {"__module__": function.__module__, "__doc__": function.__doc__}
        name = function.__name__
        content: dict[str, Any] = {
            **place,
            "function": staticmethod(function),
            "given": {one.name: str(one.annotation).startswith("Path") for one in parameters},
            "found": outputs,
            "library": library,
            "always_run": again,
        }
        specs = {
            "input_spec": (_StepInputSpec, {one.name: _trait(one) for one in parameters}),
            "output_spec": (TraitedSpec, {name: traits.Any() for name in outputs}),
        }
        for kind, (base, fields) in specs.items():
            qualified = {"__qualname__": f"{name}.{kind}"}  # so that a worker finds it
            content[kind] = type(kind, (base,), {**fields, **place, **qualified})
        return type(name, (StepInterface,), content)

    return interface


def node(work: Any, name: str, memory: str, *voxels: int, **resources: Any) -> pe.Node:
    """Return a node that needs the memory of a kind of node, for an image of so many voxels."""
    return pe.Node(work, name=name, mem_gb=memory_gb(memory, *voxels), **resources)


def _trait(parameter: Parameter) -> traits.Any:
    nohash = {"nohash": True} if parameter.name in _NOT_HASHED else {}
    if parameter.default is Parameter.empty:
        return traits.Any(mandatory=True, **nohash)
    return traits.Any(parameter.default, usedefault=True, **nohash)


def methods_text(workflow: LiterateWorkflow) -> str:
    """Return what a workflow and those in it say of themselves, for the records.

    The methods of the reports and of ``logs/CITATION.md`` are this text and nothing else; papers
    stand in it as ``[@key]``, with the keys of ``CITATION.bib``. The parts must be connected.
    """
    return " ".join(workflow.visit_desc().split())


def _plain(value: Any) -> Any:
    """Turn paths into texts, in mappings too."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, Path) else value


def write_failure(folder: Path, error: MsnmoError) -> None:
    """Write an error into the working directory of the node that met it."""
    record = {
        "problem": error.problem,
        "file": error.file,
        "remedy": error.remedy,
        "exit_code": int(error.exit_code),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FAILURE_FILE).write_text(json.dumps(record), encoding="utf-8")


def read_failure(folder: Path) -> MsnmoError | None:
    """Return the error that a node left in its folder, None when there is none."""
    try:
        record = json.loads((folder / FAILURE_FILE).read_text(encoding="utf-8"))
        return MsnmoError(
            record["problem"],
            file=record["file"],
            remedy=record["remedy"],
            exit_code=ExitCode(record["exit_code"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_like(array: np.ndarray, reference: Path, out: Path) -> Path:
    """Write an array, (X, Y, Z), its dtype kept, on the grid of another image; return `out`.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    grid = nib.Nifti1Image.from_filename(reference)
    if array.shape != grid.shape[:3]:
        raise ValueError(f"an array of shape {array.shape} does not fit {reference} {grid.shape}")
    nib.save(with_equal_forms(array, grid.affine), out)
    return out


def save_array(array: np.ndarray, out: Path) -> Path:
    """Write an array as ``.npy``; return `out`."""
    np.save(out, array, allow_pickle=False)
    return out
