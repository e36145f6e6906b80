"""Nodes whose end the tests choose."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from nipype.interfaces.utility import IdentityInterface
from nipype.pipeline import engine as pe

from msnmo_bids.errors import BadInputError
from msnmo_bids.workflows.nodes import step


@step("pid")
def act_step(folder: Path, given: Any = None, act: str = "pass", use_gpu: bool = False) -> Any:
    match act:
        case "bad":
            raise BadInputError("4D image", file=folder / "flair.nii", remedy="Keep one volume")
        case "bug":
            raise ZeroDivisionError("one line\nand another")
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "hang":
            child = subprocess.Popen(["sleep", "600"])
            (folder / "pids").write_text(f"{os.getpid()} {child.pid}")
            time.sleep(600)
        case "locked":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/work")
        case "full":
            raise RuntimeError("I/O error: No space left on device (os error 28)")  # as of Rust
        case "memory":
            raise MemoryError
        case "unpicklable":
            return lambda: None
        case "note":
            note = {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "pid": os.getpid()}
            (folder / "note.json").write_text(json.dumps(note))
        case "work":
            block = b"1" * 200_000_000
            until = time.process_time() + 0.2
            while time.process_time() < until:
                pass
            del block
        case "pass":
            pass
    return os.getpid()


def workflow_of(tmp_path: Path, acts: dict[str, str], last: dict[str, str] | None = None) -> Any:
    """Build ``msnmo_wf.subject_wf.<scan>.{conform, write_derivatives}`` for each scan."""
    workflow = pe.Workflow(name="msnmo_wf", base_dir=str(tmp_path / "work"))
    subject = pe.Workflow(name="single_subject_wf")
    for scan, act in acts.items():
        inner = pe.Workflow(name=f"scan_{scan}_wf")
        conform = pe.Node(act_step(act=act), name="conform")
        end = pe.Node(
            act_step(
                prefix=scan, native_file=f"/raw/{scan}.nii", act=(last or {}).get(scan, "pass")
            ),
            name="write_derivatives",
        )
        outputnode = pe.Node(IdentityInterface(fields=["pid"]), name="outputnode")
        inner.connect([(conform, end, [("pid", "given")]), (end, outputnode, [("pid", "pid")])])
        subject.add_nodes([inner])
    workflow.add_nodes([subject])
    return workflow
