"""What a processing step says about the tool that did it."""

from __future__ import annotations

from typing import TypedDict


class ToolRecord(TypedDict):
    """Tool, version and settings, as the sidecars of the derivatives carry them."""

    Tool: str
    Version: str
    Settings: dict[str, float | int | str | list[float] | list[int]]
