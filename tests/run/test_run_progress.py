from __future__ import annotations

import io
import logging

import pytest

from msnmo_bids.run.session import ERASE_LINE, ConsoleHandler, Progress
from msnmo_bids.text import duration

NAMES = {f"scan_{number}_wf": f"sub-{number}" for number in range(4)}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def make(stream) -> tuple[Progress, Clock]:
    clock = Clock()
    progress = Progress(NAMES, stream, clock)
    return progress, clock


def test_counts():
    progress, _ = make(io.StringIO())
    for number in range(3):
        progress.on_event(f"wf.subject.scan_{number}_wf.first", "start")
    progress.on_event("wf.subject.scan_0_wf.first", "end")
    assert (progress.running, len(progress.done), len(progress.failed)) == (3, 0, 0)
    progress.on_event("wf.subject.scan_0_wf.write_derivatives", "end")
    progress.on_event("wf.subject.scan_1_wf.inner_wf.first", "exception")
    progress.on_event("wf.subject.scan_1_wf.other", "exception")
    progress.on_event("wf.subject.scan_1_wf.write_derivatives", "end")
    progress.on_event("wf.subject.unknown", "start")
    assert (progress.running, progress.done, progress.failed) == (1, ["scan_0_wf"], ["scan_1_wf"])
    assert progress.line().startswith("1 of 4 scans done, 1 running, 1 failed")


def test_time_left():
    progress, clock = make(io.StringIO())
    assert progress.time_left() is None
    progress.on_event("wf.scan_0_wf.first", "start")
    clock.now = 60
    progress.on_event("wf.scan_0_wf.write_derivatives", "end")
    assert progress.time_left() == 180
    assert progress.line() == "1 of 4 scans done, 0 running, about 3 min left"


def test_plain_lines_without_a_terminal(caplog):
    stream = io.StringIO()
    progress, clock = make(stream)
    with caplog.at_level(logging.INFO):
        progress.on_event("wf.scan_2_wf.first", "start")
        clock.now = 41
        progress.on_event("wf.scan_2_wf.write_derivatives", "end")
        progress.on_event("wf.scan_3_wf.to_cube", "exception", "4D image")
    assert [record.getMessage() for record in caplog.records] == [
        "[1/4] sub-2: done in 41 s (about 2 min left)",
        "[2/4] sub-3: failed (preparing the network's input: 4D image) (about 41 s left)",
    ]
    assert stream.getvalue() == ""


def test_a_live_line_at_a_terminal():
    stream = Terminal()
    progress, _ = make(stream)
    progress.on_event("wf.scan_2_wf.first", "start")
    assert stream.getvalue() == f"{ERASE_LINE}0 of 4 scans done, 1 running"


def test_messages_do_not_break_the_live_line(capsys):
    stream = Terminal()
    progress, _ = make(stream)
    handler = ConsoleHandler()
    handler.progress = progress
    handler.handle(
        logging.makeLogRecord(
            {"msg": "hello %s", "args": ("you",), "levelno": 30, "levelname": "WARNING"}
        )
    )
    assert stream.getvalue() == f"{ERASE_LINE}{ERASE_LINE}0 of 4 scans done, 0 running"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (99.4, "99 s"), (100, "1 min"), (3599, "59 min"), (7260, "2 h 1 min")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text
