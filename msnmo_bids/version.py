"""The version of the program, from its one source: the file ``version``."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

CODE_URL = "https://github.com/msnmo/msnmo"


@lru_cache(maxsize=1)
def get_version() -> str:
    """Return the version of a checkout (its file ``version``) or of the installed package."""
    in_checkout = Path(__file__).resolve().parent.parent / "version"
    if in_checkout.is_file():
        return in_checkout.read_text(encoding="utf-8").strip()
    from importlib.metadata import version

    return version("msnmo")
