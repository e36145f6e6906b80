from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from nipype.interfaces.utility import Function
from nipype.pipeline import engine as pe
from steps_for_tests import workflow_of

from msnmo_bids.errors import ExitCode
from msnmo_bids.workflows.execution import Failure, _failures, run_workflow
from msnmo_bids.workflows.lesions import classify_step, network_step
from msnmo_bids.workflows.plugin import WorkerPoolPlugin, _Worker, warm
from msnmo_bids.workflows.preprocessing import conform_step, deepbet_step, n4_antspyx_step
from msnmo_bids.workflows.resources import AHEAD, Usage

ARGS = {"n_procs": 2, "memory_gb": 2.0}


def run(tmp_path: Path, acts: dict[str, str], **options) -> list[Failure]:
    options = {"plugin_args": ARGS, "crash_dir": tmp_path / "crash", **options}
    last = options.pop("last", None)
    return run_workflow(workflow_of(tmp_path, acts, last), **options)


@pytest.mark.parametrize("plugin", ["MultiProc", "Linear"])
def test_a_failure_costs_its_own_scan_only(tmp_path, plugin):
    events: list[tuple[str, str, str]] = []
    failures = run(
        tmp_path,
        {"a": "pass", "b": "bad", "c": "pass"},
        plugin=plugin,
        plugin_args=ARGS if plugin == "MultiProc" else {},
        on_event=lambda node, event, reason: events.append((node.split(".")[2], event, reason)),
    )
    assert [failure.prefix for failure in failures] == ["b"]
    [failure] = failures
    assert failure.step == "checking the image"
    assert failure.message == "/raw/b.nii: 4D image"  # the raw file, not the one in between
    assert failure.remedy == "Keep one volume"
    assert failure.exit_code is ExitCode.BAD_DATA
    assert "BadInputError" in failure.crash_file.read_text()
    assert events.count(("scan_a_wf", "end", "")) == events.count(("scan_c_wf", "end", "")) == 2
    assert ("scan_b_wf", "end", "") not in events
    assert ("scan_b_wf", "exception", "4D image") in events


def test_what_each_node_cost_is_told(tmp_path):
    told: dict[str, Usage] = {}
    run(tmp_path, {"a": "work", "b": "bad"}, on_usage=lambda *pair: told.update([pair]))
    by_name = {".".join(name.split(".")[2:]): usage for name, usage in told.items()}
    assert {"scan_a_wf.conform", "scan_a_wf.write_derivatives", "scan_b_wf.conform"} == {*by_name}
    work, idle = by_name["scan_a_wf.conform"], by_name["scan_a_wf.write_derivatives"]
    assert 0.2 <= work.cpu_seconds <= work.wall_seconds + 0.1
    assert work.memory_gb > idle.memory_gb + 0.15  # its 200 MB are gone, and forgotten
    assert (work + idle).memory_gb == work.memory_gb
    assert (work + idle).cpu_seconds == work.cpu_seconds + idle.cpu_seconds


@pytest.mark.parametrize(
    ("act", "message", "code"),
    [
        ("die", "was ended by the system (signal 9), most likely because memory ran out", 75),
        ("exit", "was ended by the system (exit code 3)", 75),
        ("bug", "unexpected error: ZeroDivisionError: one line", 1),
        ("memory", "memory ran out", 75),
        ("locked", "Permission denied (/work). Get permission there", 74),
        ("full", "No space left on device", 74),
    ],
)
def test_any_end_of_a_worker_is_one_line(tmp_path, act, message, code):
    reasons: list[str] = []
    failures = run(
        tmp_path,
        {"a": "pass", "b": act, "c": "pass"},
        on_event=lambda _node, event, why: reasons.append(why) if event == "exception" else None,
    )
    assert [failure.prefix for failure in failures] == ["b"]
    assert message in f"{failures[0].message}. {failures[0].remedy}"
    assert failures[0].message == f"/raw/b.nii: {reasons[0]}"
    assert "\n" not in failures[0].message
    assert failures[0].message.startswith("/raw/b.nii: ")
    assert failures[0].exit_code == code


def test_last_node_counts(tmp_path):
    failures = run(tmp_path, {"a": "pass", "b": "pass"}, last={"b": "bad"})
    assert [(failure.prefix, failure.step) for failure in failures] == [
        ("b", "writing the derivatives")
    ]


def test_stop_on_first_crash_names_what_was_left(tmp_path):
    acts = {"a": "bad", "b": "pass", "c": "pass"}
    failures = run(tmp_path, acts, plugin_args={"n_procs": 1}, stop_on_first_crash=True)
    assert [failure.prefix for failure in failures] == ["a", "b", "c"]
    assert failures[0].message == "/raw/a.nii: 4D image"
    assert "stopped at the first failure" in failures[1].message


def test_a_node_that_asks_for_more_than_there_is_still_runs(tmp_path):
    workflow = workflow_of(tmp_path, {"a": "pass"})
    for name in workflow.list_node_names():
        workflow.get_node(name)._mem_gb = 64
    arguments = {"n_procs": 1, "memory_gb": 1.0}
    assert run_workflow(workflow, plugin_args=arguments, crash_dir=tmp_path) == []


def test_what_an_earlier_run_left_is_not_used(tmp_path):
    assert run(tmp_path, {"a": "pass"}) == []
    results = sorted((tmp_path / "work").rglob("result_conform.pklz"))
    before = results[0].stat().st_mtime_ns
    (results[0].parent / "remains").write_text("old")
    assert run(tmp_path, {"a": "pass"}) == []
    assert results[0].stat().st_mtime_ns > before
    assert not (results[0].parent / "remains").exists()


def test_done_steps_of_an_interrupted_scan_are_not_done_again(tmp_path):
    def conformed(last: str, stamp: str) -> int:
        failures = run(tmp_path, {"a": "pass"}, last={"a": last}, stamps={"a": stamp})
        assert len(failures) == (last != "pass")
        (result,) = (tmp_path / "work").rglob("result_conform.pklz")
        return result.stat().st_mtime_ns

    before = conformed("die", "this image")
    assert conformed("pass", "this image") == before
    assert conformed("pass", "another image") > before


@pytest.mark.parametrize("plugin", ["MultiProc", "Linear"])
def test_what_failed_before_an_interruption_is_known(tmp_path, plugin):
    def interrupt(node: str, event: str, _: str) -> None:
        if event == "start" and "scan_b_wf" in node:
            raise KeyboardInterrupt

    known: list[Failure] = []
    acts = {"a": "bad", "b": "pass"}
    arguments = {"n_procs": 1}
    with pytest.raises(KeyboardInterrupt):
        run(
            tmp_path, acts, plugin=plugin, plugin_args=arguments, on_event=interrupt, so_far=known
        )  # fmt: skip
    assert [(one.prefix, one.message) for one in known] == [("a", "/raw/a.nii: 4D image")]


@pytest.mark.parametrize("plugin", ["MultiProc", "Linear"])
def test_the_work_of_scans_that_succeed_is_removed(tmp_path, plugin):
    run(tmp_path, {"a": "pass", "b": "bad", "c": "pass"}, keep=False, plugin=plugin)
    assert [path.name for path in (tmp_path / "work").rglob("scan_*_wf")] == ["scan_b_wf"]


def test_scans_finish_one_after_the_other(tmp_path):
    order: list[str] = []
    run(
        tmp_path,
        dict.fromkeys("abcd", "pass"),
        plugin_args={"n_procs": 1},
        on_event=lambda node, event, _: (
            order.append(node.split(".")[2]) if event == "end" else None
        ),
    )
    assert order == [f"scan_{name}_wf" for name in "aabbccdd"]


def test_what_was_there_before_is_not_collected_at_each_node(tmp_path):
    """Much is in memory before a run, and Nipype looks for garbage at each node."""
    frozen: list[int] = []
    follow = lambda *_: frozen.append(gc.get_freeze_count())  # noqa: E731
    run(tmp_path, {"a": "pass"}, plugin_args={"n_procs": 1}, on_event=follow)
    assert min(frozen) > 10_000
    assert gc.get_freeze_count() == 0


def test_a_step_goes_to_the_worker_that_has_its_library():
    plugin = WorkerPoolPlugin({"n_procs": 3})
    idle = [
        SimpleNamespace(busy=False, alive=True, gpu=None, history={name}, waits_for="")
        for name in ("conform_step", warm(deepbet_step()), warm(n4_antspyx_step()))
    ]
    plugin._workers = list(idle)
    for step, worker in (
        (network_step(), 1), (classify_step(), 1), (n4_antspyx_step(), 2), (conform_step(), 0),
    ):  # fmt: skip
        assert plugin._free_worker(warm(step), None) is idle[worker]


def test_a_worker_that_loads_a_library_ahead_waits_for_its_first_step():
    plugin = WorkerPoolPlugin({"n_procs": 2})
    library = warm(n4_antspyx_step())
    ahead, other = (
        SimpleNamespace(busy=False, alive=True, gpu=None, history={name}, waits_for=name)
        for name in (library, "")
    )
    plugin._workers = [ahead, other]
    assert plugin._free_worker(warm(conform_step()), None) is other
    assert plugin._free_worker(library, None) is ahead
    assert library in AHEAD


def test_a_library_is_there_before_the_first_step(tmp_path):
    def ask() -> bool:
        import sys

        return "mailbox" in sys.modules

    for library, there in (("mailbox", True), ("", False), ("no_such_library", False)):
        worker = _Worker({}, library=library)
        asks = Function(function=ask, output_names=["there"])
        worker.submit(pe.Node(asks, "ask", base_dir=tmp_path / f"with-{library}"), False, 1)
        assert worker.waits_for == ""
        with deadline(60):
            while (answer := worker.result()) is None:
                time.sleep(0.01)
        worker.stop()
        assert answer["result"].outputs.there is there


def test_a_worker_that_may_still_import_does_not_hold_up_the_end():
    for library, code in (("mailbox", -signal.SIGKILL), ("", 0)):
        worker = _Worker({}, library=library)
        worker.stop()
        assert worker._process.exitcode == code


def test_few_scans_are_under_way_at_once(tmp_path):
    begun: set[str] = set()
    ended: list[str] = []
    most = 0

    def follow(node: str, event: str, _reason: str) -> None:
        nonlocal most
        scan = node.split(".")[2]
        if event == "start":
            begun.add(scan)
        elif event == "end":
            ended.append(scan)
        most = max(most, len(begun) - len([scan for scan in begun if ended.count(scan) == 2]))

    arguments = {"n_procs": 2, "omp_nthreads": 2}
    run(tmp_path, dict.fromkeys("abcdef", "pass"), plugin_args=arguments, on_event=follow)
    assert len(ended) == 12
    assert most == 2


@contextmanager
def deadline(seconds: int) -> Iterator[None]:
    """Fail what takes longer, even if it waits for ever."""

    def end(*_: object) -> None:
        pytest.fail(f"still running after {seconds} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("callback", ["on_usage", "on_event"])
@pytest.mark.parametrize("act", ["pass", "bad"])
def test_an_error_of_a_callback_ends_the_run(tmp_path, callback, act):
    called: list[str] = []

    def fail(node: str, event: object, _reason: str = "") -> None:
        if "scan_b_wf" in node and event != "start":
            called.append(node)
            raise ZeroDivisionError("of the callback")

    with deadline(300), pytest.raises(ZeroDivisionError, match="of the callback"):
        run(
            tmp_path,
            {"a": "pass", "b": act, "c": "pass"},
            plugin_args={"n_procs": 1},
            **{callback: fail},
        )
    assert len(called) == 1
    done = {path.parent.parent.name for path in (tmp_path / "work").rglob("result_*.pklz")}
    assert "scan_a_wf" in done
    assert "scan_c_wf" not in done


def test_no_process_outlives_a_run(tmp_path):
    run(tmp_path, {"a": "pass", "b": "die"})
    assert multiprocessing.active_children() == []


SCRIPT = """
import sys
from pathlib import Path
from steps_for_tests import workflow_of
from msnmo_bids.workflows.execution import run_workflow

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    workflow = workflow_of(folder, {"a": "hang"})
    run_workflow(workflow, plugin_args={"n_procs": 1}, crash_dir=folder / "crash")
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_workers_and_their_programs_end_with_the_run(tmp_path, how):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    path = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    pids = [int(pid) for pid in _wait_for(tmp_path, "pids").split()]
    process.send_signal(how)
    assert process.wait(timeout=300) != 0
    for _ in range(200):
        if not any(_runs(pid) for pid in pids):
            return
        time.sleep(0.05)
    pytest.fail(f"still there: {[pid for pid in pids if _runs(pid)]}")


def _wait_for(folder: Path, name: str) -> str:
    for _ in range(1200):
        for found in folder.rglob(name):
            if text := found.read_text():
                return text
        time.sleep(0.05)
    pytest.fail("the node never began")


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_a_cluster_computes_as_the_workers_do(tmp_path, monkeypatch):
    """What a job inherits: the same threads as here."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    seen: dict[str, str] = {}

    def note(_node: str, event: str, _reason: str) -> None:
        if event == "start":
            seen.update(os.environ)

    run(tmp_path, {"a": "pass"}, plugin="Linear", plugin_args={"omp_nthreads": 3}, on_event=note)
    assert seen["OMP_NUM_THREADS"] == "3"
    assert os.environ.get("OMP_NUM_THREADS") is None


def test_an_empty_crash_file_means_a_full_disk(tmp_path):
    crash = tmp_path / "crash-1.txt"
    crash.touch()
    [failure] = _failures([crash], {}).values()
    assert "No space left" in failure.message
    assert failure.exit_code is ExitCode.IO_ERROR
