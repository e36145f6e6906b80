"""Self-contained HTML pages: template, style, script and figures in one file."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from msnmo_bids.reports import report_text
from msnmo_bids.reports.methods import calibration
from msnmo_bids.version import get_version
from msnmo_bids.vocabulary import LOOK_ALIKES, flag_text, location_name, region_name

# Characters that may stand as they are in a data URI inside a quoted attribute.
_SAFE = "/+=:;,.-_~!*'()@$?[]| "
_CLASS_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#8a6d00")


def render(template: str, **values: Any) -> str:
    """Fill a file of ``templates/``; everything is escaped that is not marked as safe.

    A whole page asks for nothing from elsewhere.
    """
    return _environment().get_template(template).render(**values)


def class_colour(names: list[str], name: str) -> str:
    """Return the colour (CSS) of one of all classes; grey for what is not a class.

    The palette is safe with colour vision deficiencies.
    """
    if name not in names:
        return "#777777"
    return _CLASS_COLOURS[names.index(name) % len(_CLASS_COLOURS)]


def data_uri(figure: Path) -> str | None:
    """Return a figure, SVG or PNG, as a data URI; None when the file is missing.

    As an image of its own an SVG's identifiers cannot clash with those of another figure, and no
    script in it would run.
    """
    try:
        if figure.suffix == ".png":
            return "data:image/png;base64," + b64encode(figure.read_bytes()).decode("ascii")
        text = figure.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    start = text.find("<svg")
    return "data:image/svg+xml," + quote(re.sub(r"\s+", " ", text[max(start, 0) :]), safe=_SAFE)


def decimals(value: Any, digits: int = 2) -> str:
    """Round a number, or a text that is one; other texts stay, anything else becomes ``n/a``.

    Examples
    --------
    >>> decimals(3.14159), decimals("12.3456", 1), decimals("none"), decimals(None)
    ('3.14', '12.3', 'none', 'n/a')
    """
    with suppress(ValueError):
        value = float(value) if isinstance(value, str) else value
    if not isinstance(value, int | float):
        return value if isinstance(value, str) else "n/a"
    return f"{round(value, digits) + 0.0:.{digits}f}"  # adding 0 turns a rounded -0 into 0


def probability(value: Any) -> str:
    """Format a class score; never as certainty.

    Examples
    --------
    >>> probability(0.9999), probability(0.42), probability(0.001)
    ('> 0.99', '0.42', '< 0.01')
    """
    if not isinstance(value, int | float):
        return "n/a"
    if value > 0.99:
        return "> 0.99"
    return "< 0.01" if value < 0.01 else f"{value:.2f}"


def signed(value: float | str) -> str:
    """Round a number that can speak for or against something; other texts stay.

    Examples
    --------
    >>> signed("0.4249"), signed(-1.5), signed("n/a")
    ('+0.42', '−1.50', 'n/a')
    """
    try:
        return f"{round(float(value), 2) + 0.0:+.2f}".replace("-", "−")
    except ValueError:
        return str(value)


def span(ends: Sequence[float | None]) -> str:
    """Format a range that may have one end only.

    Examples
    --------
    >>> span((None, 3.05)), span((0.97, None)), span((0.95, 1.25))
    ('≤ 3.05', '≥ 0.97', '0.95 to 1.25')
    """
    low, high = ends
    if low is None:
        return f"≤ {high:g}"
    return f"≥ {low:g}" if high is None else f"{low:g} to {high:g}"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("msnmo_bids.reports"),
        autoescape=select_autoescape(disabled_extensions=("txt.j2",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    here = files("msnmo_bids.reports").joinpath("templates")
    environment.globals.update(
        report_text=report_text,
        look_alikes=LOOK_ALIKES,
        version=get_version(),
        style=here.joinpath("style.css").read_text(encoding="utf-8"),
        script=here.joinpath("tables.js").read_text(encoding="utf-8"),
        viewer_script=here.joinpath("viewer.js").read_text(encoding="utf-8"),
    )
    environment.filters.update(
        decimals=decimals,
        signed=signed,
        span=span,
        probability=probability,
        calibration=calibration,
        flag_text=flag_text,
        region_name=region_name,
        location_name=location_name,
    )
    return environment
