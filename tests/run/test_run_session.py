"""How every program ends: exit code, last line, log and crash file."""

from __future__ import annotations

import errno
import gc
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from msnmo_bids.cli import crossval, main, meta, simulate, train
from msnmo_bids.errors import ExitCode, MsnmoError
from msnmo_bids.run.session import Session, guard

PROGRAMS = {"msnmo": main, "msnmo-crossval": crossval, "msnmo-meta": meta,
            "msnmo-simulate": simulate, "msnmo-train": train}  # fmt: skip


def end(error: BaseException, folder=None) -> Session:
    """Return the session of a program that ends with an error."""
    with guard("msnmo-test", ["in", "out"]) as session:
        if folder is not None:
            session.open_log(folder)
        raise error
    return session


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("words", [["--nonsense"], []])
def test_wrong_usage_ends_alike_in_all_programs(name, words, capsys):
    assert PROGRAMS[name].main(words) == ExitCode.USAGE
    said = capsys.readouterr()
    assert f"usage: {name} " in said.err
    assert f"{name}: error: " in said.err
    assert said.out.startswith(f"{name}: FAILED")


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("words", [["--help"], ["--version"]])
def test_help_and_version_end_well(name, words, capsys):
    assert PROGRAMS[name].main(words) == ExitCode.OK
    text = capsys.readouterr().out
    assert "msnmo" in text
    assert "SUCCESS" not in text


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (MsnmoError("it is bad", file="x", exit_code=ExitCode.BAD_DATA), 65, "x: it is bad"),
        (KeyboardInterrupt(), 75, "Interrupted by Ctrl-C. Run the same command again"),
        (OSError(errno.ENOSPC, "Full", "/x"), 74, "No space left on device (/x). Make room there"),
        (OSError(errno.EACCES, "No", "/x"), 74, "Permission denied (/x). Get permission there"),
        (OSError(errno.ENOENT, "No", "/x"), 74, "(/x). Check that the folder is still there"),
        (RuntimeError("something\nodd"), 1, "RuntimeError: something odd. Please report it"),
    ],
)
def test_every_error_has_a_code_a_line_and_a_log(error, code, text, tmp_path, capsys):
    session = end(error, tmp_path)
    said = capsys.readouterr().out
    assert session.exit_code == code
    assert text in said
    assert "Traceback" not in said
    assert said.splitlines()[-1] == "msnmo-test: FAILED"
    log = (tmp_path / "msnmo-test.log").read_text()
    assert text in log
    assert log.strip().endswith("msnmo-test: FAILED")
    crash = tmp_path / "crash-msnmo-test.txt"
    assert crash.exists() == isinstance(error, RuntimeError)
    assert not crash.exists() or "Traceback" in crash.read_text()


def test_what_was_said_before_the_log_is_in_it(tmp_path):
    with guard("msnmo-test", []) as session:
        logging.getLogger("msnmo_bids.x").info("early")
        session.open_log(tmp_path / "new")
    assert "early" in (tmp_path / "new" / "msnmo-test.log").read_text()


def test_a_log_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    with guard("msnmo-test", []) as session:
        session.open_log(tmp_path / "file" / "out")
    assert session.exit_code == ExitCode.CANNOT_CREATE_OUTPUT
    assert "cannot be written" in capsys.readouterr().out


def test_the_first_process_of_torchrun_speaks(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    with guard("msnmo-test", []) as session:
        session.show(0)
        session.open_log(tmp_path)
    assert capsys.readouterr().out == ""
    assert (tmp_path / "msnmo-test-1.log").is_file()


def test_sigterm_ends_as_ctrl_c_does(capsys):
    before = signal.getsignal(signal.SIGTERM)
    with guard("msnmo-test", [], remedy="Begin anew") as session:
        os.kill(os.getpid(), signal.SIGTERM)
        signal.sigtimedwait([], 1)
    assert session.exit_code == ExitCode.TEMPORARY_FAILURE
    assert "Interrupted by the system (SIGTERM). Begin anew" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) == before


def test_loggers_are_as_before():
    logger = logging.getLogger("msnmo_bids")
    before = (list(logger.handlers), logger.level, logger.propagate)
    end(MsnmoError("x"))
    assert (list(logger.handlers), logger.level, logger.propagate) == before


@pytest.mark.parametrize(
    ("ok", "failed", "code", "line"),
    [
        (8, 0, ExitCode.OK, "msnmo: SUCCESS 8 0"),
        (0, 0, ExitCode.OK, "msnmo: SUCCESS 0 0"),
        (7, 1, ExitCode.BAD_DATA, "msnmo: PARTIAL 7 1"),
        (0, 1, ExitCode.BAD_DATA, "msnmo: FAILED 0 1"),
        (3, 0, ExitCode.FAILURE, "msnmo: PARTIAL 3 0"),
        (None, None, ExitCode.OK, "msnmo: SUCCESS"),
    ],
)
def test_last_line(ok, failed, code, line):
    session = Session("msnmo")
    session.ok, session.failed, session.exit_code = ok, failed, code
    assert session.last_line == line


def test_garbage_is_not_looked_for_when_the_process_ends(monkeypatch):
    at_exit = []
    monkeypatch.setattr("atexit.register", at_exit.append)
    with guard("msnmo", []):
        pass
    assert at_exit == []  # called from Python, which goes on
    monkeypatch.setattr("sys.argv", ["msnmo"])
    with guard("msnmo", None):
        pass
    assert at_exit == [gc.freeze]


def test_a_full_disk_under_the_log_does_not_end_in_an_error_of_its_own(tmp_path):
    with guard("msnmo", []) as session:
        session.open_log(tmp_path / "logs")
        stream = session._log_file.stream
        session._log_file.stream = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115
        session.exit_code = ExitCode.IO_ERROR
        stream.close()
    assert session.exit_code is ExitCode.IO_ERROR


def test_a_reader_that_stops_reading_is_no_error():
    code = (
        "from msnmo_bids.run.session import guard\nimport logging\n"
        "with guard('program', []) as session:\n"
        "    for k in range(20000):\n        logging.getLogger('msnmo_bids').warning('%d', k)\n"
    )
    both = f'{sys.executable} -c "$CODE" | head -n 1'
    ended = subprocess.run(
        ["bash", "-c", both], env={**os.environ, "CODE": code}, capture_output=True, text=True
    )
    assert ended.stdout == "WARNING: 0\n"
    assert ended.stderr == ""


def test_letters_that_the_terminal_lacks_do_not_end_the_program():
    code = "import sys; from msnmo_bids.cli.main import main; sys.exit(main(['--help']))"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert ended.returncode == 0
    assert "in mm?" in ended.stdout
