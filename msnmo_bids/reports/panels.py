"""Draw rows of sections into one SVG, the same bytes for the same input."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from msnmo_bids.bids.dataset import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.path import Path as DrawnPath

# Okabe and Ito's palette: told apart with every common colour vision deficiency.
LESION_COLOUR = "#E69F00"
BRAIN_COLOUR = "#56B4E9"
TEXT_COLOUR = "#E8E8E8"
BACKGROUND = "#000000"
# Bright at both ends and grey between them, to be seen on a dark grey brain; no end is a colour
# that stands for lesions or for a class elsewhere.
DIVERGING = ("#2FD08A", "#8C8C8C", "#FF5CC0")

# Inches.
FIGURE_WIDTH = 8.0
GAP = 0.14
TITLE_HEIGHT = 0.32
NOTE_HEIGHT = 0.19
FOOT_HEIGHT = 0.34
BAR_HEIGHT = 0.50

DPI = 150  # of PNG files
MAX_PIXELS = 400
RC_PARAMS: dict[Any, Any] = {
    "svg.hashsalt": "msnmo",
    "svg.fonttype": "none",
    "svg.image_inline": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "path.simplify": False,
    "text.color": TEXT_COLOUR,
}
# Else another day or another matplotlib would give another file.
NO_METADATA = {"Date": None, "Creator": None}
PIXELATED = "image-rendering:crisp-edges;image-rendering:pixelated"
EMBEDDED_PNG = re.compile(r"data:image/png;base64,([A-Za-z0-9+/=\s]+)")


# Left, top, height and width of a panel in the figure (inches).
Place = tuple[float, float, float, float]


@dataclass(frozen=True)
class Panel:
    """One section with what lies over it.

    The image, (rows, columns), has grey values from 0 (black) to 1 (white), first row on top; its
    size is height and width. Letters stand at its left and right sides, a note under it. Over it
    lie ``heat``, RGBA from 0 to 1 on a grid of its own over the same area, (rows, columns, 4), and
    a bool mask, (rows, columns): outlined along its pixels' edges (``colour``, width ``line`` in
    points), its inside with the opacity ``fill``. ``tags`` are texts with their place, as fractions
    of the height (from the top) and of the width.
    """

    image: np.ndarray
    size_mm: tuple[float, float]
    sides: tuple[str, str]
    note: str
    heat: np.ndarray | None = None
    mask: np.ndarray | None = None
    colour: str = LESION_COLOUR
    fill: float = 0.0
    line: float = 0.8
    tags: tuple[tuple[float, float, str], ...] = ()


@dataclass(frozen=True)
class Row:
    """Panels side by side under a title."""

    title: str
    panels: list[Panel]

    @property
    def scale(self) -> float:
        """Inches per mm when the panels fill the figure's width."""
        room = FIGURE_WIDTH - GAP * (len(self.panels) + 1)
        return room / sum(panel.size_mm[1] for panel in self.panels)

    @property
    def picture_height(self) -> float:
        """Height (inches) of the tallest panel."""
        return max(panel.size_mm[0] for panel in self.panels) * self.scale

    @property
    def height(self) -> float:
        """Height (inches) with title and notes."""
        return TITLE_HEIGHT + self.picture_height + NOTE_HEIGHT


@dataclass(frozen=True)
class ColourBar:
    """A horizontal colour bar under the panels, from a low to a high value; the label has the unit.

    The colours are a matplotlib colour map, or those to interpolate between.
    """

    low: float
    high: float
    label: str
    colours: str | tuple[str, ...] = DIVERGING

    def rgba(self, values: np.ndarray) -> np.ndarray:
        """Return the colours ``(…, 4)`` of values; beyond the ends those of the ends."""
        import matplotlib as mpl
        from matplotlib.colors import LinearSegmentedColormap

        if isinstance(self.colours, str):
            colour_map = mpl.colormaps[self.colours]
        else:
            colour_map = LinearSegmentedColormap.from_list("own", self.colours)
        return colour_map(np.clip((values - self.low) / (self.high - self.low), 0, 1))


@contextmanager
def style(own: dict[Any, Any]) -> Iterator[None]:
    """Draw with matplotlib's defaults and `own` parameters, whatever the user's are."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(own)
        yield


def draw(rows: Sequence[Row], foot: str, bar: ColourBar | None = None) -> Figure:
    """Draw rows of panels, each as wide as the figure, with a colour bar and a line below them.

    The figure has one pair of axes, in inches from the top left corner, and no state in pyplot.
    """
    from matplotlib.figure import Figure

    height = sum(row.height for row in rows) + FOOT_HEIGHT + (BAR_HEIGHT if bar else 0.0)
    with style(RC_PARAMS):
        figure = Figure(figsize=(FIGURE_WIDTH, height), facecolor=BACKGROUND)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        top = 0.0
        for row in rows:
            _draw_row(axes, row, top)
            top += row.height
        if bar:
            _draw_bar(axes, bar, top + 0.14)
        axes.text(GAP, height - FOOT_HEIGHT / 2, foot, va="center", fontsize=10)
        axes.set(xlim=(0, FIGURE_WIDTH), ylim=(height, 0), aspect="auto")
    return figure


def save_svg(figure: Figure, out: Path) -> Path:
    """Write a figure of :func:`draw` as SVG without date, so that equal figures are equal files."""
    buffer = io.StringIO()
    with style(RC_PARAMS):
        figure.savefig(buffer, format="svg", metadata=NO_METADATA, facecolor=BACKGROUND)
    # The voxels are embedded as they are: let the viewer interpolate instead of showing blocks.
    text = EMBEDDED_PNG.sub(_smaller_png, buffer.getvalue().replace(PIXELATED, ""))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(text, encoding="utf-8")
    return out


def save_png(figure: Figure, out: Path) -> Path:
    """Write a figure of :func:`draw` as PNG."""
    with atomic_path(out) as temporary:
        figure.savefig(temporary, dpi=DPI, facecolor=BACKGROUND)
    return out


def shrink(image: np.ndarray, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Average blocks of pixels until no side is longer than `max_pixels`.

    The picture is (rows, columns) or (rows, columns, channels) and keeps its range of values.
    Incomplete blocks at the end are filled with the border: it is stretched by less than one.
    """
    factor = [max(1, -(-size // max_pixels)) for size in image.shape[:2]]
    if factor == [1, 1]:
        return image
    rest = [-size % step for size, step in zip(image.shape[:2], factor, strict=True)]
    none = [(0, 0)] * (image.ndim - 2)
    padded = np.pad(image, [(0, rest[0]), (0, rest[1]), *none], mode="edge")
    rows, columns = (size // step for size, step in zip(padded.shape[:2], factor, strict=True))
    blocks = padded.reshape(rows, factor[0], columns, factor[1], *image.shape[2:])
    return blocks.mean(axis=(1, 3))


def _smaller_png(found: re.Match[str]) -> str:
    """Store a grey picture with one channel instead of matplotlib's four."""
    from PIL import Image

    picture = Image.open(io.BytesIO(base64.b64decode(found[1])))
    pixels = np.asarray(picture.convert("RGBA"))
    grey = (pixels[..., :1] == pixels[..., :3]).all() and (pixels[..., 3] == 255).all()
    if not grey:
        return found[0]
    buffer = io.BytesIO()
    picture.convert("L").save(buffer, format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _draw_row(axes: Axes, row: Row, top: float) -> None:
    axes.text(GAP, top + TITLE_HEIGHT / 2, row.title, va="center", fontsize=12)
    left = GAP
    pixels = MAX_PIXELS if len(row.panels) <= 4 else MAX_PIXELS // 2
    for panel in row.panels:
        tall, wide = (size * row.scale for size in panel.size_mm)
        above = top + TITLE_HEIGHT + (row.picture_height - tall) / 2
        _draw_panel(axes, panel, (left, above, tall, wide), pixels)
        middle, below = left + wide / 2, top + row.height - NOTE_HEIGHT
        axes.text(middle, below, panel.note, ha="center", va="top", fontsize=9)
        left += wide + GAP


def _draw_panel(axes: Axes, panel: Panel, place: Place, pixels: int) -> None:
    left, top, tall, wide = place
    where: dict[str, Any] = {
        "extent": (left, left + wide, top + tall, top),
        "interpolation": "none",
        "aspect": "auto",
    }
    axes.imshow(shrink(panel.image, pixels), cmap="gray", vmin=0, vmax=1, **where)
    if panel.heat is not None:
        axes.imshow(panel.heat, **where)
    if panel.mask is not None and panel.mask.any():
        _draw_mask(axes, panel, place)
    for x, align, letter in ((left, "left", 0), (left + wide, "right", 1)):
        axes.text(x, top + tall / 2, panel.sides[letter], ha=align, va="center", fontsize=10)
    for down, right, text in panel.tags:
        x, y = left + right * wide, top + down * tall
        axes.text(x, y, text, fontsize=9, va="center", color=panel.colour)


def _draw_mask(axes: Axes, panel: Panel, place: Place) -> None:
    from matplotlib.patches import PathPatch

    left, top, tall, wide = place
    mask = np.asarray(panel.mask, dtype=bool)
    pixel = np.array([wide / mask.shape[1], tall / mask.shape[0]])
    corner = np.array([left, top])
    # add_artist, for add_patch measures the path, which costs more than all the rest.
    if panel.fill:
        inside = _path(_runs(mask), pixel, corner)
        axes.add_artist(PathPatch(inside, fc=panel.colour, ec="none", alpha=panel.fill))
    outline = _path(_edges(mask), pixel, corner)
    axes.add_artist(PathPatch(outline, fc="none", ec=panel.colour, lw=panel.line))


def _edges(mask: np.ndarray) -> np.ndarray:
    """Return the edges between pixels in and out of a mask, as (2 ends, 2: x and y, edges)."""
    padded = np.pad(mask, 1).astype(np.int8)
    rows, columns = np.nonzero(np.diff(padded, axis=1)[1:-1])
    upright = np.array([[columns, rows], [columns, rows + 1]])
    rows, columns = np.nonzero(np.diff(padded, axis=0)[:, 1:-1])
    level = np.array([[columns, rows], [columns + 1, rows]])
    return np.concatenate([upright, level], axis=2)


def _runs(mask: np.ndarray) -> np.ndarray:
    """Return a rectangle per run of pixels in a row, as (4 corners, 2: x and y, runs)."""
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    stops = np.nonzero(steps == -1)[1]
    return np.array([[starts, rows], [stops, rows], [stops, rows + 1], [starts, rows + 1]])


def _path(points: np.ndarray, pixel: np.ndarray, corner: np.ndarray) -> DrawnPath:
    """Join shapes (points, 2, shapes), in pixels, to one path in inches."""
    from matplotlib.path import Path as DrawnPath

    vertices = points.transpose(2, 0, 1).reshape(-1, 2) * pixel + corner
    codes = np.full(len(vertices), DrawnPath.LINETO, dtype=DrawnPath.code_type)
    codes[:: points.shape[0]] = DrawnPath.MOVETO
    return DrawnPath(vertices, codes)


def _draw_bar(axes: Axes, bar: ColourBar, top: float) -> None:
    left, right, bottom = 0.36 * FIGURE_WIDTH, 0.72 * FIGURE_WIDTH, top + 0.13
    ramp = bar.rgba(np.linspace(bar.low, bar.high, 128))[None]
    axes.imshow(ramp, extent=(left, right, bottom, top), interpolation="none", aspect="auto")
    axes.text(left - 0.1, (top + bottom) / 2, bar.label, ha="right", va="center", fontsize=9)
    for share in (0.0, 0.5, 1.0):
        value = bar.low + share * (bar.high - bar.low)
        x = left + share * (right - left)
        axes.text(x, bottom + 0.04, f"{float(f'{value:.2g}'):g}", ha="center", va="top", fontsize=8)
