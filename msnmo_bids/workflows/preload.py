"""Imported first by the process that workers are forked from; see `start_fork_server`.

Garbage collection looks through all that the imports make, again and again, and finds nothing:
without it they take a fifth less. A worker collects as usual, and leaves alone what it was forked
with (the way that Python's documentation of `gc.freeze` names).
"""

from __future__ import annotations

import gc
import os


def _collect_again() -> None:
    gc.freeze()
    gc.enable()


gc.disable()
os.register_at_fork(after_in_child=_collect_again)
