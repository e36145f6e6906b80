"""From the words of a command line to frozen options: a parser made of their class.

The options themselves, with names, defaults and help, stand in ``run/options.py`` (the app) and in
the program's own file.

Only the standard library is imported here: ``--help`` must come at once.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from msnmo_bids.errors import MEANINGS, ExitCode
from msnmo_bids.version import get_version
from msnmo_bids.vocabulary import RESEARCH_ONLY

REPEATABLE = (argparse._CountAction, argparse._AppendAction)

T = TypeVar("T")


class Parser(argparse.ArgumentParser, Generic[T]):
    """A parser of a class of frozen options (:mod:`msnmo_bids.run.options`).

    Without abbreviations; every option with a dash in its name also takes underscores; an option
    given twice is an error; ``~`` is expanded in paths. Wrong usage ends with its exit code (64).
    Behind the examples the help says what exit codes mean, and that this is no medical device.
    """

    def __init__(self, program: str, options: type[T], description: str, examples: str) -> None:
        codes = "\n".join(f"  {code:<4}{meaning}" for code, meaning in MEANINGS.items())
        super().__init__(
            prog=program,
            description=description,
            epilog=f"{examples}\n\nexit codes:\n{codes}\n\n{RESEARCH_ONLY}",
            formatter_class=HelpFormatter,
            allow_abbrev=False,
        )
        self.register("type", Path, _path)
        self.add_argument("--version", action="version", version=f"msnmo {get_version()}")
        self._options = options
        self._given: set[str] = set()
        arguments = {one.name: one for one in fields(options) if "help" in one.metadata}  # type: ignore[arg-type]
        for one in arguments.values():
            if "names" not in one.metadata:
                self.add_argument(one.name, **_how(one))
        owners = {name: _owner(options, name) for name in arguments}
        kind: Any
        for kind in (options, *reversed(options.__mro__[1:])):
            own = [
                arguments[name]
                for name in vars(kind).get("__annotations__", {})
                if owners.get(name) is kind and "names" in arguments[name].metadata
            ]
            if own:
                about = getattr(kind, "DESCRIPTION", None)
                group = self.add_argument_group(kind.TITLE, about)
                for one in own:
                    how = {"dest": one.name, "default": one.default, **_how(one)}
                    group.add_argument(*_names(one), **how)

    def options(self, words: Sequence[str]) -> T:
        """Return the options that a command line gives.

        Lists are tuples.

        Raises
        ------
        SystemExit
            With 64 for wrong usage, also by what the class says; 0 after ``--help`` and
            ``--version``.
        """
        self._given.clear()
        found: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in vars(self.parse_args(words)).items()
        }
        try:
            return self._options(**found)
        except ValueError as error:
            self.error(str(error))

    def error(self, message: str) -> NoReturn:
        """Show the usage and the problem, then end."""
        self.stop(message, ExitCode.USAGE)

    def stop(self, message: str, code: ExitCode) -> NoReturn:
        """Show the usage and the problem, then end with an exit code."""
        self.print_usage(sys.stderr)
        self.exit(code, f"{self.prog}: error: {message}\n")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and not isinstance(action, REPEATABLE):
            if action.dest in self._given:
                hint = "; give all its values after one" if action.nargs == "+" else ""
                raise argparse.ArgumentError(action, f"given twice{hint}")
            self._given.add(action.dest)
        return super()._get_values(action, arg_strings)


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help that names defaults, and shows one spelling of options that have several."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        shown = [option for option in action.option_strings if "_" not in option]
        if not shown:
            return super()._format_action_invocation(action)
        if action.nargs == 0:
            return ", ".join(shown)
        return f"{', '.join(shown)} {self._format_args(action, action.dest.upper())}"

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        unsaid = action.default is None or action.default is False or action.default == ()
        if unsaid or action.nargs == 0 or "default" in text or action.default is argparse.SUPPRESS:
            return text
        return f"{text} (default: %(default)s)"


def _owner(options: type, name: str) -> Any:
    """Return the class that defines a field last: its group is where the option stands."""
    return next(kind for kind in options.__mro__ if name in vars(kind).get("__annotations__", {}))


def _names(one: Field) -> list[str]:
    """Return all names of an option: short ones, with dashes, and the same with underscores."""
    other = one.metadata["names"]
    short = [name for name in other if not name.startswith("--")]
    dashed = [f"--{one.name.replace('_', '-')}", *(name for name in other if name not in short)]
    underscored = [f"--{name[2:].replace('-', '_')}" for name in dashed]
    return list(dict.fromkeys([*short, *dashed, *underscored]))


def _how(one: Field) -> dict[str, Any]:
    how = {name: value for name, value in one.metadata.items() if name != "names"}
    return how | ({"type": _with_problem(how["type"])} if "type" in how else {})


def _with_problem(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a type whose ValueError is shown to the user; argparse would hide its words."""
    if isinstance(kind, type):
        return kind

    @functools.wraps(kind)
    def convert(text: str) -> Any:
        try:
            return kind(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


def _path(text: str) -> Path:
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"'{text}': there is no such home folder") from error
