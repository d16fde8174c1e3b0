"""What the report's plots are drawn with: SVG that takes its colours and font from the page, so that light and dark both
work.

matplotlib is loaded when a plot is drawn, not before. It draws in stand-in colours, which become CSS variables.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE, ACCENT = "#010101", "#020202", "#030303", "#040404"
GOOD, BAD = "#070707", "#080808"
AUTHORS = {"teacher": ("#040404", "o"), "student": ("#050505", "s"), "lookup": ("#060606", "D")}
VARIABLES = {
    "#010101": "ink",
    "#020202": "muted",
    "#030303": "line",
    "#040404": "teacher",
    "#050505": "student",
    "#060606": "lookup",
    "#070707": "good",
    "#080808": "bad",
}
STYLE: Any = {  # Any: matplotlib types its settings one by one
    "svg.fonttype": "none",
    "svg.hashsalt": "stillhouse",
    "text.parse_math": False,
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.use_mathtext": False,
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
}
P = ParamSpec("P")


@dataclass(frozen=True)
class Plot:
    """One plot: its name (an HTML id), title, SVG ("" where there is nothing to draw), and what it says in words."""

    name: str
    title: str
    svg: str
    words: str


def styled(draw: Callable[P, Plot]) -> Callable[P, Plot]:
    """Draw in the report's style, and leave matplotlib's settings elsewhere alone."""

    @wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> Plot:
        import matplotlib as mpl

        with mpl.rc_context(STYLE):
            return draw(*args, **kwargs)

    return drawn


def canvas(height: float = 3.1) -> tuple["Figure", "Axes"]:
    """A figure of phone width (4.7 inches at 72 points), so that text stays readable there; styled like the page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.7, height), layout="constrained")
    axes = figure.subplots()
    axes.grid(visible=True, axis="y")
    return figure, axes


def svg_of(figure: "Figure", name: str) -> str:
    """The figure as inline SVG: page colours and font, its ids prefixed by `name` so that plots don't collide."""
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;? ?", "", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return re.sub(r"<svg [^>]*?(viewBox=\"[^\"]*\")[^>]*>", r'<svg \1 aria-hidden="true">', svg, count=1)


def percent(value: float, _: object = None) -> str:
    """A share as an axis shows it."""
    return f"{value:.0%}"


def sentence(text: str) -> str:
    """With a capital and a full stop."""
    return text[:1].upper() + text[1:] + "."


def plain(text: object) -> str:
    """Any text as matplotlib takes it: on one line, of at most 40 characters, what can't be printed as U+FFFD."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in str(text))
    return shown if len(shown) <= 40 else shown[:39] + "…"
