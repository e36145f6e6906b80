"""Run Nipype nodes in worker processes that may die without taking the run with them."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection
from pathlib import Path
from traceback import format_exc
from typing import Any

from nipype.pipeline.plugins.multiproc import MultiProcPlugin, run_node

from msnmo_bids.errors import out_of_memory
from msnmo_bids.workflows.nodes import write_failure
from msnmo_bids.workflows.resources import (
    AHEAD,
    QUIET,
    Meter,
    Usage,
    start_fork_server,
    thread_limits,
)
from msnmo_bids.workflows.step_names import NIPYPE_LOGGERS, scan_of

#: The variable that says which GPUs a process sees; a process that sees one calls it ``cuda``.
VISIBLE = "CUDA_VISIBLE_DEVICES"
#: The GPU of a device that the user named (``cuda:1``): its process sees all, as this one does.
NAMED = "named"


class WorkerPoolPlugin(MultiProcPlugin):
    """Nipype's MultiProc with one pipe per worker process instead of one shared pool.

    Nipype's own pool waits for ever when the system kills a worker (memory ran out), and one dead
    worker breaks the whole pool. Here a dead worker costs the node that it ran, no more: the next
    node gets a new process. Workers end with their parent, even when that is killed, so that a
    second run never meets the remains of the first. The nodes of the scan that was begun first
    go first: scans finish one after the other instead of all at the end.

    Parameters
    ----------
    plugin_args : dict, optional
        As for ``MultiProc`` (``n_procs``, ``memory_gb``, ``status_callback``), and

        * ``gpus`` : names of the GPUs (`gpu_names`). Nodes that ask for a GPU are spread over
          them, one at a time on each and always in the same process, so that a GPU holds one
          context, one copy of the weights and the maps of one scan; the other nodes run beside,
          in processes that see no GPU;
        * ``omp_nthreads`` : threads of a node's numerical libraries;
        * ``on_usage`` : called with the full name of a node that has ended and its
          :class:`~msnmo_bids.workflows.resources.Usage`, before the status callback;
        * ``worker_log`` : file that collects what the workers print (discarded without one);
        * ``log_level`` : level of Nipype's loggers in the workers.
    """

    def __init__(self, plugin_args: dict[str, Any] | None = None) -> None:
        self._gpus: list[str] = list((plugin_args or {}).get("gpus") or [NAMED])
        self._gpu_load: Counter[str] = Counter()
        plugin_args = {"raise_insufficient": False, **(plugin_args or {})}
        plugin_args["n_gpu_procs"] = len(self._gpus)
        super().__init__(plugin_args=plugin_args)
        self.pool.shutdown()  # never used, and it starts no process before the first task
        self._workers: list[_Worker] = []
        self._news = True
        self._usage: tuple[str, Usage] | None = None

    def run(self, graph: Any, config: dict, updatehash: bool = False) -> None:
        """Execute the graph and leave no process behind, however the run ends.

        Nipype collects garbage before it submits nodes. What is there when the run begins stays
        until its end and is not looked through each time.
        """
        gc.collect()
        gc.freeze()
        libraries = {getattr(node.interface, "library", "") for node in graph.nodes()}
        try:
            self._workers += [
                _Worker(self.plugin_args, library=library)
                for library in AHEAD
                if library in libraries and self.processors > 1
            ]
            super().run(graph, config, updatehash=updatehash)
        finally:
            gc.unfreeze()
            for worker in self._workers:
                worker.stop()
            self._workers.clear()

    def _submit_job(self, node: Any, updatehash: bool = False) -> int:
        self._taskid += 1
        if getattr(node.interface, "terminal_output", "") == "stream":
            node.interface.terminal_output = "allatonce"
        gpu = self._free_gpu() if node.is_gpu_node() else None
        worker = self._free_worker(warm(node.interface), gpu)
        worker.submit(node, updatehash, self._taskid)
        self._task_obj[self._taskid] = worker
        return self._taskid

    def _free_gpu(self) -> str:
        busy = {worker.gpu for worker in self._workers if worker.busy and worker.gpu is not None}
        gpu = next_gpu(self._gpus, busy, self._gpu_load)
        self._gpu_load[gpu] += 1
        return gpu

    def _free_worker(self, needed: str, gpu: str | None) -> _Worker:
        """Return an idle worker with that GPU (or without any), best one with warm libraries."""
        self._workers = [worker for worker in self._workers if worker.busy or worker.alive]
        idle = [
            worker
            for worker in self._workers
            if not worker.busy and worker.gpu == gpu and worker.waits_for in ("", needed)
        ]
        if not idle:
            idle = [_Worker(self.plugin_args, gpu)]
            self._workers += idle
        return max(idle, key=lambda worker: needed in worker.history)

    def _send_procs_to_workers(self, updatehash: bool = False, graph: Any = None) -> None:
        """Look for nodes to start, but only after one has ended: nothing else frees any."""
        if self._news:
            self._news = False
            super()._send_procs_to_workers(updatehash=updatehash, graph=graph)

    def _get_result(self, taskid: int) -> dict[str, Any] | None:
        answer = self._task_obj[taskid].result()
        self._usage = (answer or {}).pop("usage", None)
        return answer

    def _task_finished_cb(self, jobid: int, cached: bool = False) -> None:
        self._node_ended()
        super()._task_finished_cb(jobid, cached=cached)

    def _clean_queue(self, jobid: int, graph: Any, result: dict[str, Any] | None = None) -> Any:
        """Give the node its trace before the status callback is called: it says what failed."""
        self._node_ended()
        if result is not None:
            self.procs[jobid]._traceback = result["traceback"]
        return super()._clean_queue(jobid, graph, result=result)

    def _node_ended(self) -> None:
        """Tell what the node cost: not in `_get_result`, whose errors Nipype takes for a node's."""
        self._news = True
        usage, self._usage = self._usage, None
        if usage and (on_usage := self.plugin_args.get("on_usage")):
            on_usage(*usage)

    def _sort_jobs(self, jobids: Any, scheduler: str | None = "tsort") -> Any:
        """Put the jobs of the first scan in front, few scans at once: files would fill the disk."""
        scans = [scan_of(node.fullname) for node in self.procs]
        nodes = list(zip(scans, self.proc_done, self.proc_pending, strict=True))
        begun = {scan for scan, done, _ in nodes if done}
        active = begun & {scan for scan, done, pending in nodes if pending or not done}
        most = max(1, 2 * self.processors // (self.plugin_args.get("omp_nthreads") or 1))
        chosen = []
        # The graph is in the order of the scans only scan by scan, not node by node.
        first = {scan: index for index, scan in reversed(list(enumerate(scans)))}
        for job in sorted(jobids, key=lambda job: first[scans[job]]):
            if scans[job] in active or len(active) < most:
                active.add(scans[job])
                chosen.append(job)
        return chosen

    def _postrun_check(self) -> None:
        """Nothing to close: ``run`` ends the workers."""


def warm(interface: Any) -> str:
    """Return what a worker has loaded after a step: its library, or what the step itself needs."""
    return getattr(interface, "library", "") or type(interface).__name__


class _Worker:
    """A process that runs one node at a time.

    With a `library` it imports that first, and its first node is one that needs the library.
    """

    def __init__(
        self, plugin_args: dict[str, Any], gpu: str | None = None, library: str = ""
    ) -> None:
        self.gpu = gpu
        self.waits_for = library
        context = get_context(plugin_args.get("mp_context") or "forkserver")
        if context.get_start_method() == "forkserver":
            start_fork_server(threads=plugin_args.get("omp_nthreads"))
        self._connection: Connection
        self._connection, theirs = context.Pipe()
        options = {k: plugin_args.get(k) for k in ("worker_log", "log_level", "omp_nthreads")}
        with thread_limits(plugin_args.get("omp_nthreads")):
            # The fork server keeps the variables that it was started with: pass them on.
            options["environ"] = {**os.environ, **gpu_environment(gpu)}
            options["library"] = library
            self._process = context.Process(
                target=_serve, args=(theirs, str(Path.cwd()), options), daemon=False
            )
            self._process.start()
        theirs.close()
        self._node: Any = None
        self._taskid = 0
        self.history: set[str] = {library} - {""}

    @property
    def busy(self) -> bool:
        return self._node is not None

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    def submit(self, node: Any, updatehash: bool, taskid: int) -> None:
        self._node, self._taskid, self.waits_for = node, taskid, ""
        self.history.add(warm(node.interface))
        try:
            self._connection.send((node, updatehash, taskid))
        except (BrokenPipeError, ConnectionResetError):  # it died while idle: `result` tells
            self._process.join()

    def result(self) -> dict[str, Any] | None:
        """Return what the node gave, None while it runs; a dead process gives a traceback."""
        finished = not self._process.is_alive()  # asked first: its last words may still come
        try:
            answer = self._connection.recv() if self._connection.poll() else None
        except (EOFError, ConnectionResetError):
            self._process.join()
            answer, finished = None, True
        if answer is None and not finished:
            return None
        if answer is None:
            answer = self._obituary()
        self._node = None
        return answer

    def _obituary(self) -> dict[str, Any]:
        code = self._process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        error = out_of_memory(
            f"the process was ended by the system ({how}), most likely because memory ran out"
        )
        with suppress(OSError):
            write_failure(Path(self._node.output_dir()), error)
        text = f"{type(error).__module__}.{type(error).__name__}: {error}\n"
        return {"result": None, "traceback": [text], "taskid": self._taskid}

    def stop(self) -> None:
        """End the process: at once when it works or imports, else by closing the pipe."""
        if self.busy or self.waits_for:
            _kill_group(self._process.pid)
        self._connection.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            _kill_group(self._process.pid)
            self._process.join(timeout=5)


def _kill_group(pid: int | None) -> None:
    """Kill a worker and the programs that it started."""
    if pid is None:
        return
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue


def _serve(connection: Connection, cwd: str, options: dict[str, Any]) -> None:
    """Run the nodes that come through the pipe until it is closed (a worker's main loop)."""
    os.setpgrp()  # a Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update({**QUIET, **options["environ"], "MPLBACKEND": "Agg"})
    if options["omp_nthreads"] and "torch" in sys.modules:  # the fork server's, however it began
        sys.modules["torch"].set_num_threads(options["omp_nthreads"])
    _redirect_output(options["worker_log"])
    level = options["log_level"] or logging.ERROR
    for name in NIPYPE_LOGGERS:
        logging.getLogger(name).setLevel(level)
    if options["library"]:
        with suppress(Exception):  # the node that needs it says what is wrong
            import_module(options["library"])
    while True:
        try:
            node, updatehash, taskid = connection.recv()
        except EOFError:
            return
        with Meter() as meter:
            try:
                answer = run_node(node, updatehash, taskid)
            except BaseException:  # run_node itself fails when a crashed node left no result file
                answer = {"result": None, "traceback": [format_exc()], "taskid": taskid}
        answer["usage"] = (node.fullname, meter.usage)
        _send(connection, answer)


def _send(connection: Connection, answer: dict[str, Any]) -> None:
    try:
        connection.send(answer)
    except BrokenPipeError:
        return
    except Exception:  # a result that cannot be pickled
        connection.send({**answer, "result": None, "traceback": [format_exc()]})


def _redirect_output(log: str | os.PathLike[str] | None) -> None:
    """Send what the process and its children print to a file, so that no terminal is littered."""
    target = os.open(
        log if log is not None else os.devnull, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644
    )
    os.dup2(target, 1)
    os.dup2(target, 2)
    os.close(target)


def _end_with_parent() -> None:
    """Wait for the parent's end, then end this process and all that it started."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os.killpg(0, signal.SIGKILL)


def gpu_names(device: str, gpus: Sequence[int]) -> list[str]:
    """Return the GPUs of a run under the names that CUDA's variable has for them; none on the CPU.

    `gpus` are those behind ``"cuda"``, as torch counts those that this process sees.
    """
    if device != "cuda":
        return [] if device == "cpu" else [NAMED]
    seen = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return [seen[gpu] if seen else str(gpu) for gpu in gpus] or [NAMED]


def gpu_environment(gpu: str | None) -> dict[str, str]:
    """Return a worker's variables about GPUs; None is for one that shall not see any."""
    return {} if gpu == NAMED else {VISIBLE: gpu or ""}


def next_gpu(gpus: Sequence[str], busy: Collection[str], load: Mapping[str, int]) -> str:
    """Return the GPU that the next node gets: a free one, of these (else of all) the least used.

    `load` counts the nodes that each was given.

    >>> next_gpu(["0", "1", "2"], busy={"0"}, load={"0": 1, "1": 2, "2": 1})
    '2'
    """
    free = [gpu for gpu in gpus if gpu not in busy] or gpus
    return min(free, key=lambda gpu: load.get(gpu, 0))
