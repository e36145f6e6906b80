"""What a processing step says about the tool that did it."""

from __future__ import annotations

from typing import TypedDict

#: Tool of a brain mask that is all of an image without a skull.
FOREGROUND_TOOL = "msnmo foreground"
#: Flag of a scan of which only the image itself says that it has no skull.
STRIPPED_BEFORE = "skull_stripped_before"


class ToolRecord(TypedDict):
    """Tool, version and settings, as the sidecars of the derivatives carry them."""

    Tool: str
    Version: str
    Settings: dict[str, float | int | str | list[float] | list[int]]
