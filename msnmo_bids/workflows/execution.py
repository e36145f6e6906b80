"""Run the workflow, say in one line per scan what failed, and keep the work folder small."""

from __future__ import annotations

import errno
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from nipype.pipeline.engine import Workflow

from msnmo_bids.errors import ExitCode, MsnmoError, disk_error_in, out_of_memory
from msnmo_bids.workflows.nodes import read_failure
from msnmo_bids.workflows.plugin import WorkerPoolPlugin
from msnmo_bids.workflows.resources import Usage, thread_limits
from msnmo_bids.workflows.step_names import (
    BATCH,
    LAST_NODE,
    PROGRAMS,
    STOPPED,
    WAITING,
    scan_of,
    step_name,
)

logger = logging.getLogger(__name__)

EventCallback = Callable[[str, str, str], None]
UsageCallback = Callable[[str, Usage], None]
_T = TypeVar("_T")

#: In a scan's work folder: what its steps depend on.
STAMP_NAME = "made-from.txt"
_REPORT_REMEDY = "The crash file has the details"


@dataclass(frozen=True)
class Failure:
    """Why one scan has no derivatives."""

    prefix: str  #: The scan (its name without suffix); empty when no scan is to blame.
    #: What was being done, in words ("skull stripping"); the problem in one line, the file first
    #: where there is one; what the user can do.
    step: str
    message: str
    remedy: str | None = None
    crash_file: Path | None = None  #: Nipype's crash file with the trace.
    exit_code: ExitCode = ExitCode.FAILURE  #: Exit code of a run in which only this went wrong.


def run_workflow(
    workflow: Workflow,
    *,
    plugin: str = "MultiProc",
    plugin_args: dict[str, Any] | None = None,
    on_event: EventCallback | None = None,
    on_usage: UsageCallback | None = None,
    stop_on_first_crash: bool = False,
    crash_dir: Path,
    last_node: str = LAST_NODE,
    stamps: Mapping[str, str] | None = None,
    keep: bool = True,
    so_far: list[Failure] | None = None,
) -> list[Failure]:
    """Run every node of the workflow; return the first failure of each scan that has one, in order.

    ``MultiProc`` is run by :class:`~msnmo_bids.workflows.plugin.WorkerPoolPlugin`. Nipype's cache
    does not know all that a scan depends on: what an interrupted run left is used only under the
    same stamp.

    Parameters
    ----------
    on_event, on_usage : callable, optional
        Called with the full name of a node, ``"start"``, ``"end"`` or ``"exception"``, and the
        problem of the last as far as it is known; and with what a node cost (``MultiProc`` only).
    crash_dir : Path
        Folder for Nipype's crash files; made when it is needed.
    last_node : str
        The node whose end completes a scan; its inputs ``prefix`` and ``native_file`` name it.
    stamps : mapping of str to str, optional
        By its `prefix`.
    keep : bool
        False removes the work folder of a scan when it is done: thousands would fill a disk.
    so_far : list of Failure, optional
        Gets what failed before the run was interrupted.

    Raises
    ------
    Exception
        What `on_event` or `on_usage` raised; it ends the run.
    """
    scans = _scans(workflow, last_node)
    crash_dir = Path(crash_dir).absolute()
    before = set(crash_dir.glob("crash-*.txt"))
    for key, scan in scans.items():
        _prepare_work(Path(workflow.base_dir, *key.split(".")), (stamps or {}).get(scan.prefix))
    _configure(workflow, crash_dir, stop_on_first_crash, poll=0.02 if plugin == "MultiProc" else 2)
    calls = _Calls(last_node, on_event, None if keep else Path(workflow.base_dir))
    arguments = {**(plugin_args or {}), "status_callback": calls.guarded(calls.status)}
    if on_usage is not None and plugin == "MultiProc":
        arguments["on_usage"] = calls.guarded(on_usage)
    try:
        error = _run(workflow, plugin, arguments)
        if calls.error is not None:
            raise calls.error
    except BaseException:
        if so_far is not None:
            with suppress(OSError):
                so_far += _failures(_new_crashes(crash_dir, before), scans).values()
        raise
    finally:
        calls.clean()
    failures = _failures(_new_crashes(crash_dir, before), scans)
    stopped = stop_on_first_crash and bool(failures)
    for key in scans.keys() - failures.keys() - calls.finished:
        failures[key] = _unfinished(scans[key].prefix, error, stopped)
    return [failures[key] for key in dict.fromkeys([*scans, *failures]) if key in failures]


class _Calls:
    """What Nipype tells of its nodes; the first error of a callback, which Nipype may swallow."""

    def __init__(
        self, last_node: str, on_event: EventCallback | None, to_clean: Path | None
    ) -> None:
        self._last_node, self._on_event, self._to_clean = last_node, on_event, to_clean
        self._started: set[str] = set()
        self._done: list[Path] = []
        self.finished: set[str] = set()
        self.error: Exception | None = None

    def status(self, node: Any, event: str) -> None:
        self.clean()  # not at once: Nipype still looks at a node's folder when it reports its end
        if event == "start":
            self._started.add(node.fullname)
        elif node.fullname not in self._started:  # Nipype's Linear plugin ends what it never ran
            return
        if event == "end" and node.name == self._last_node:
            self.finished.add(scan_of(node.fullname))
            if self._to_clean is not None:
                self._done.append(self._to_clean.joinpath(*scan_of(node.fullname).split(".")))
        if self._on_event is not None:
            self._on_event(node.fullname, event, _reason(node) if event == "exception" else "")

    def clean(self) -> None:
        while self._done:
            folder = self._done.pop()
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # the participant's folder, when this was its last scan
                folder.parent.rmdir()

    def guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception as error:
                self.error = self.error or error
                raise

        return call


def _run(workflow: Workflow, plugin: str, arguments: dict[str, Any]) -> Exception | None:
    """Run the graph; Nipype ends a run in which any node failed with an exception of its own."""
    try:
        if plugin == "MultiProc":
            workflow.run(plugin=WorkerPoolPlugin(arguments))
        else:
            with thread_limits(arguments.get("omp_nthreads")):
                workflow.run(plugin=plugin, plugin_args=arguments)
    except Exception as error:
        logger.debug("Nipype ended the run with an error", exc_info=True)
        return error
    return None


def _configure(
    workflow: Workflow, crash_dir: Path, stop_on_first_crash: bool, *, poll: float
) -> None:
    """Set Nipype's options for this workflow; each `poll` (s) asks a cluster about every job."""
    workflow.config["execution"] = {
        "crashdump_dir": str(crash_dir),
        "crashfile_format": "txt",
        "stop_on_first_crash": str(stop_on_first_crash).lower(),
        "poll_sleep_duration": str(poll),
        "create_report": "false",
        "local_hash_check": "false",
        "remove_unnecessary_outputs": "false",
        "check_version": "false",
        "hash_method": "timestamp",
        "job_finished_timeout": "60",
    }


class _ScanEntry(NamedTuple):
    prefix: str
    raw_file: str
    work_dir: str


def _scans(workflow: Workflow, last_node: str) -> dict[str, _ScanEntry]:
    """Return the scans of the workflow by the full name of their own workflow."""
    entries = {}
    for name in workflow.list_node_names():
        if name.rsplit(".", 1)[-1] == last_node:
            inputs = workflow.get_node(name).inputs
            key = f"{workflow.name}.{name.rsplit('.', 1)[0]}"
            entries[key] = _ScanEntry(inputs.prefix, inputs.native_file, str(workflow.base_dir))
    return entries


def _prepare_work(folder: Path, stamp: str | None) -> None:
    """Empty the work folder of a scan, unless an earlier run worked under the same stamp there."""
    file = folder / STAMP_NAME
    with suppress(OSError, UnicodeDecodeError):
        if stamp is not None and file.read_text(encoding="utf-8") == stamp:
            return
    if folder.exists():
        shutil.rmtree(folder)
    if stamp is not None:
        folder.mkdir(parents=True)
        file.write_text(stamp, encoding="utf-8")


def _reason(node: Any) -> str:
    """Return the problem of a node that has just failed; its crash file is not written yet."""
    error = read_failure(Path(node.output_dir()))
    if error is None and (trace := getattr(node, "_traceback", None)):
        error = _from_trace("".join(trace), node.name)
    return "" if error is None else " ".join(error.problem.split())


#: What an empty crash file says: there was no room for it.
_EMPTY = f"[Errno {errno.ENOSPC}] {os.strerror(errno.ENOSPC)}"


def _new_crashes(folder: Path, before: set[Path]) -> list[Path]:
    """Return the crash files that were not there before, the oldest first."""
    return sorted(set(folder.glob("crash-*.txt")) - before, key=lambda p: p.stat().st_mtime)


def _failures(crashes: list[Path], scans: dict[str, _ScanEntry]) -> dict[str, Failure]:
    """Return the first failure of each scan, by the scan's workflow."""
    failures: dict[str, Failure] = {}
    for crash in crashes:
        text = crash.read_text(encoding="utf-8", errors="replace")
        node, folder = _field(text, "Node"), _field(text, "Working directory")
        key = scan_of(node)
        known = read_failure(Path(folder)) if folder else None
        error = known or _from_trace(text or _EMPTY, node.rsplit(".", 1)[-1])
        failure = Failure(
            prefix=scans[key].prefix if key in scans else "",
            step=step_name(node),
            message=_message(error, scans.get(key)),
            remedy=error.remedy,
            crash_file=crash,
            exit_code=error.exit_code,
        )
        failures.setdefault(key, failure)
    return failures


def _message(error: MsnmoError, scan: _ScanEntry | None) -> str:
    """Return the file and the problem in one line; of files in between, the scan's raw one."""
    file = error.file
    if scan is not None and (file is None or file.startswith(scan.work_dir)):
        file = scan.raw_file
    where = f"{file}: " if file else ""
    return " ".join(f"{where}{error.problem}".split())


def _from_trace(text: str, node: str) -> MsnmoError:
    """Make the best one-line error of a trace that holds no error of ours."""
    if "MemoryError" in text or "can't allocate memory" in text:
        return out_of_memory()
    if problem := disk_error_in(text):
        return problem
    said = _last_line(_section(text, "Stderr")) or _last_line(_section(text, "Stdout"))
    if node in PROGRAMS:
        reason = said or _exception(text) or "it gave no reason"
        program, remedy = PROGRAMS[node]
        return MsnmoError(f"{program} failed: {reason}", remedy=remedy)
    return MsnmoError(f"unexpected error: {_exception(text) or 'no trace'}", remedy=_REPORT_REMEDY)


def _field(text: str, name: str) -> str:
    found = re.search(rf"^{name}: (.*)$", text, flags=re.MULTILINE)
    return found.group(1).strip() if found else ""


def _section(text: str, name: str) -> str:
    """Return the indented block under ``Stdout:`` or ``Stderr:`` of Nipype's error text."""
    found = re.search(rf"^\s*{name}:\n((?:\t.*\n|\n)*)", text, flags=re.MULTILINE)
    return found.group(1) if found else ""


def _exception(trace: str) -> str:
    """Return the last exception of a trace in one line, its name first."""
    names = r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit|Warning)"
    found = re.findall(rf"^\s*({names}: .*|{names})$", trace, flags=re.MULTILINE)
    return found[-1].strip() if found else _last_line(trace)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _unfinished(prefix: str, error: Exception | None, stopped: bool) -> Failure:
    if stopped:
        return Failure(prefix, WAITING, STOPPED, "Run again without --stop-on-first-crash")
    reason = _exception(str(error)) if error is not None else "the run ended before it"
    return Failure(prefix, "workflow", f"not finished: {reason}", "Run again: it resumes here")


def batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield a sequence in parts of at most `BATCH`, in order."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]
