"""The command line as a Boutiques descriptor: ``python -m dev.boutiques > msnmo.json``.

Boutiques (Glatard et al. 2018, https://doi.org/10.1093/gigascience/giy016) is what platforms read
to offer a program: its options, results, error codes and needs.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from msnmo_bids.cli.main import build_parser
from msnmo_bids.errors import MEANINGS, ExitCode
from msnmo_bids.run.options import LEVELS, at_least, between
from msnmo_bids.version import CODE_URL, get_version

#: Of one participant with one scan on two cores without a GPU (``benchmarks/``), with a margin.
RESOURCES = {"cpu-cores": 2, "ram": 4, "walltime-estimate": 300}
OUTPUTS = {
    "description": ("Description of the derivatives", "dataset_description.json"),
    "participants": ("Participants with derivatives", "participants.tsv"),
    "logs": ("Logs of the runs, and what to cite", "logs"),
    "group_table": ("Table of all scans (group level)", "group_FLAIR.tsv"),
    "group_page": ("Page of all scans (group level)", "group_FLAIR.html"),
}
_FILES = ("FILE", "FOLDER")


def descriptor() -> dict[str, Any]:
    """Return the descriptor of the BIDS App, JSON-ready, by version 0.5 of the schema."""
    parser = build_parser()
    actions = [
        action
        for action in parser._actions
        if not isinstance(action, argparse._HelpAction | argparse._VersionAction)
    ]
    words = " ".join(f"[{action.dest.upper()}]" for action in actions)
    return {
        "name": "msnmo",
        "tool-version": get_version(),
        "schema-version": "0.5",
        "description": f"{parser.description} Research use only; not a medical device.",
        "author": "The msnmo developers",
        "url": CODE_URL,
        "command-line": f"{parser.prog} {words}",
        "container-image": {"type": "docker", "image": f"msnmo:{get_version()}"},
        "inputs": [_input(action) for action in actions],
        "output-files": [
            {
                "id": key,
                "name": name,
                "path-template": f"[OUTPUT_DIR]/{path}",
                "optional": key.startswith(("group", "participants")),
            }
            for key, (name, path) in OUTPUTS.items()
        ],
        "error-codes": [
            {"code": int(code), "description": text}
            for code, text in MEANINGS.items()
            if code != ExitCode.OK
        ],
        "suggested-resources": RESOURCES,
        "tags": {"domain": ["neuroinformatics", "mri"], "modality": ["FLAIR"]},
    }


def _input(action: argparse.Action) -> dict[str, Any]:
    """Return the descriptor of one option."""
    content: dict[str, Any] = {
        "id": action.dest,
        "name": action.dest.replace("_", " "),
        "description": (action.help or "").replace("%%", "%").replace("%(default)s", ""),
        "value-key": f"[{action.dest.upper()}]",
        "optional": not action.required,
        **_type(action),
    }
    if action.option_strings:
        content["command-line-flag"] = next(s for s in action.option_strings if s[:2] == "--")
    choices = LEVELS if action.dest == "analysis_level" else action.choices
    if choices is not None:
        content["value-choices"] = list(choices)
    if action.nargs == "+":
        content["list"] = True
    return content


def _type(action: argparse.Action) -> dict[str, Any]:
    """Return Boutiques' type of an option; numbers have their range in the help's words."""
    if action.nargs == 0:
        return {"type": "Flag"}
    if not action.option_strings and action.dest.endswith("_dir"):
        return {"type": "String" if action.dest == "output_dir" else "File"}
    if action.metavar in _FILES:
        return {"type": "String" if action.dest == "work_dir" else "File"}
    made_by = getattr(action.type, "__qualname__", "").split(".")[0]
    if made_by in (at_least.__name__, between.__name__):
        return {"type": "Number", "integer": made_by == at_least.__name__}
    return {"type": "String"}


if __name__ == "__main__":
    json.dump(descriptor(), sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
