"""The app with stand-ins for the nodes of the workflow and the group's page."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest

from msnmo_bids.bids.change_files import ChangeResults, write_changes
from msnmo_bids.bids.comparisons import Comparison
from msnmo_bids.bids.records import ScanRecord
from msnmo_bids.bids.scans import Scan
from msnmo_bids.cli.main import main
from msnmo_bids.errors import BadInputError, ExitCode
from msnmo_bids.group import write as group_write
from msnmo_bids.model.device import Machine
from msnmo_bids.model.weights import WeightsMetadata, read_metadata
from msnmo_bids.reports import participant
from msnmo_bids.run import execute, plan
from msnmo_bids.settings import hash_file
from msnmo_bids.version import get_version
from msnmo_bids.visits.compare import summary
from msnmo_bids.workflows import execution, visits
from msnmo_bids.workflows import scan as scan_workflow
from msnmo_bids.workflows.execution import Failure
from msnmo_bids.workflows.resources import Usage
from msnmo_bids.workflows.step_names import LAST_NODE, workflow_name


@dataclass
class FakeWorkflow:
    """What the stand-in was asked to do, and how it shall behave."""

    failures: dict[str, Failure] = field(default_factory=dict)
    interrupt_at: str | None = None
    interrupt: Callable[[], None] | None = None
    error: Exception | None = None
    idle: bool = False
    runs: list[list[str]] = field(default_factory=list)
    arguments: dict[str, Any] = field(default_factory=dict)
    reports: list[tuple] = field(default_factory=list)
    group: list[tuple] = field(default_factory=list)
    report_error: Exception | None = None
    compared: list[str] = field(default_factory=list)

    @property
    def processed(self) -> list[str]:
        """Prefixes of all scans that ran, in order."""
        return [prefix for run in self.runs for prefix in run]


class _Graph:
    def __init__(self, scans: list[Scan], arguments: dict[str, Any]) -> None:
        self.scans, self.arguments = scans, arguments


class _VisitsGraph:
    def __init__(self, comparisons: list[Comparison], arguments: dict[str, Any]) -> None:
        self.comparisons, self.arguments = comparisons, arguments


def _pretend_comparisons(
    graph: _VisitsGraph, state: FakeWorkflow, made_images: Callable[..., dict[str, Path]]
) -> list[Failure]:
    """Write the files of comparisons that do not fail: all images of ones, one lesion is stable."""
    failures = []
    row = {"index": 1, "change": "stable", "volume_earlier_mm3": 5.0, "volume_later_mm3": 5.0}
    for comparison in graph.comparisons:
        state.compared.append(comparison.name)
        if comparison.name in state.failures:
            failures.append(state.failures[comparison.name])
            continue
        made = made_images(comparison.later.path)
        parts = ("flair", "mask", "probability")
        kinds = [f"{visit}_{part}" for visit in ("earlier", "later") for part in parts]
        said = {"Flags": [], "Methods": "Visits were compared."}
        results = ChangeResults(
            images=dict.fromkeys([*kinds, "classes"], made["image"]),
            table=[row],
            figure=made["figure"],
            summary={**summary([row], comparison.interval_days), **said},
        )
        out, method = Path(graph.arguments["output_dir"]), graph.arguments["method"]
        write_changes(comparison, results, output_dir=out, method=method)
    return failures


@pytest.fixture
def fake(
    monkeypatch: pytest.MonkeyPatch,
    write_derivatives: Callable,
    made_images: Callable[..., dict[str, Path]],
    weights: Path,
) -> FakeWorkflow:
    """Replace the workflow's nodes, Nipype's loggers, device probe and the group's page.

    What is written is written by the real writers, and reports by the real ones.
    """
    state = FakeWorkflow()

    def init_msnmo_wf(*, scans: list[Scan], **arguments: Any) -> _Graph:
        return _Graph(list(scans), arguments)

    def init_visits_wf(*, comparisons: list[Comparison], **arguments: Any) -> _VisitsGraph:
        return _VisitsGraph(list(comparisons), arguments)

    def run_workflow(graph: _Graph | _VisitsGraph, **arguments: Any) -> list[Failure]:
        if isinstance(graph, _VisitsGraph):
            return _pretend_comparisons(graph, state, made_images)
        state.arguments = {**graph.arguments, **arguments}
        state.runs.append([scan.prefix for scan in graph.scans])
        if state.error is not None:
            raise state.error
        if state.idle:
            return []
        return _pretend(graph, state, arguments, write_derivatives)

    real_report = participant.write_participant_report

    def write_participant_report(output_dir: Path, subject: str, *rest: Any, **more: Any) -> Path:
        if state.report_error is not None:
            raise state.report_error
        state.reports.append((subject, *rest, more))
        return real_report(output_dir, subject, *rest, **more)

    def write_group(output_dir: Path, scans: list[ScanRecord], **more: Any) -> None:
        state.group.append((scans, more))

    for module, stand_in in (
        (scan_workflow, init_msnmo_wf),
        (visits, init_visits_wf),
        (execution, run_workflow),
        (participant, write_participant_report),
        (group_write, write_group),
    ):
        name = stand_in.__name__
        real = getattr(module, name)  # a call that does not fit the real one is an error
        monkeypatch.setattr(module, name, create_autospec(real, side_effect=stand_in))
    monkeypatch.setattr(execute, "route_nipype", lambda verbose: None)
    monkeypatch.setattr(plan, "probe", lambda *_: Machine("cpu", "fp32"))
    monkeypatch.setattr(execute, "set_environment", lambda folder: None)
    return state


def _pretend(
    graph: _Graph, state: FakeWorkflow, arguments: dict[str, Any], write: Callable
) -> list[Failure]:
    """Send the events and write the derivatives of a run."""
    failures = []
    for scan in graph.scans:
        node = f"msnmo_wf.single_subject_{scan.subject}_wf.{workflow_name('scan', scan.prefix)}"
        arguments["on_event"](f"{node}.conform", "start")
        arguments["on_usage"](f"{node}.preprocessing_wf.conform", Usage(1.0, 2.0, 0.5))
        arguments["on_usage"](f"{node}.regions", Usage(0.5, 0.5, 0.25))
        if scan.prefix == state.interrupt_at:
            if state.interrupt is not None:
                state.interrupt()
            arguments["so_far"] += failures
            raise KeyboardInterrupt
        if scan.prefix in state.failures:
            arguments["on_event"](f"{node}.conform", "exception")
            failures.append(state.failures[scan.prefix])
            if arguments["stop_on_first_crash"]:
                break
            continue
        metadata = read_metadata(graph.arguments["weights"])
        output_dir = Path(graph.arguments["output_dir"])
        try:
            write(scan, output_dir, graph.arguments["settings"], metadata, get_version())
        except BadInputError as error:
            step, code = "checking the image", error.exit_code
            failures.append(Failure(scan.prefix, step, error.problem, exit_code=code))
            continue
        arguments["on_event"](f"{node}.{LAST_NODE}", "end")
    return failures


@pytest.fixture
def bad_data() -> Callable[..., Failure]:
    """Make the failure of a scan whose image is bad."""

    def make(prefix: str, **changes: Any) -> Failure:
        problem = {
            "step": "checking the image",
            "message": "the image has 4 dimensions",
            "remedy": "Give one volume",
            "exit_code": ExitCode.BAD_DATA,
        }
        return Failure(prefix, **{**problem, **changes})

    return make


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights that describe themselves but hold nothing; they are the default ones."""
    tensors = tmp_path / "weights" / "tiny.safetensors"
    tensors.parent.mkdir()
    tensors.write_bytes(b"no tensors")
    metadata = WeightsMetadata(
        name="tiny",
        version="1",
        threshold=0.35,
        min_lesion_volume=5.0,
        sha256=hash_file(tensors),
    )
    tensors.with_suffix(".json").write_text(json.dumps(metadata.to_dict()))
    monkeypatch.setattr("msnmo_bids.model.weights.SHIPPED_WEIGHTS", tensors)
    return tensors


@dataclass(frozen=True)
class Result:
    """What a call of the program gave."""

    code: int
    text: str

    @property
    def last_line(self) -> str:
        """The last line of the log."""
        return self.text.strip().splitlines()[-1]


@pytest.fixture
def call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., Result]:
    """Call the program in a folder of its own, and check what every call must keep."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)

    def run(*arguments: str | Path) -> Result:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        result = Result(code, captured.err + captured.out)
        word = result.last_line.split()[1]
        assert result.last_line.startswith("msnmo: ")
        assert (word == "SUCCESS") == (code == 0)
        return result

    return run
