"""One look for every figure, and bytes that are the same on every run."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = ("#332288", "#cc6677", "#44aa99", "#ddaa33", "#88ccee", "#aa4499", "#117733", "#999933")
"""Paul Tol's muted scheme, reordered: safe for colour-blind readers, and distinct in grey."""


def style() -> dict[Any, Any]:
    """rcParams: sans serif at 8 points, thin axes, no frames, no LaTeX. The pipeline draws within them."""
    from cycler import cycler
    from tueplots import axes

    sizes = dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize"), 8)
    return {
        **axes.lines(base_width=0.6, line_base_ratio=2.2),
        **axes.spines(top=False, right=False),
        **sizes,
        **dict.fromkeys(("legend.fontsize", "xtick.labelsize", "ytick.labelsize"), 7),
        "axes.prop_cycle": cycler(color=PALETTE),
        "axes.titlelocation": "left",
        "errorbar.capsize": 1.5,
        "figure.constrained_layout.use": True,
        "font.family": "DejaVu Sans",
        "legend.frameon": False,
        "lines.markersize": 3.5,
        "mathtext.fontset": "dejavusans",
        "pdf.fonttype": 42,
        "savefig.dpi": 250,
    }


def page(rows: int = 1, columns: int = 2, height_to_width: float = 0.8) -> tuple[float, float]:
    """Size in inches of a figure as wide as a page, of `rows` x `columns` panels of this shape."""
    width = 6.75
    return width, width / columns * height_to_width * rows


def save(figure: "Figure", path: Path) -> None:
    """Write `path`.png and `path`.pdf, without dates or versions."""
    # matplotlib's own mathematical fonts have a date that fontTools warns of.
    logging.getLogger("fontTools").setLevel(logging.ERROR)
    # Laid out once, not twice for each file, which took half of the time.
    figure.draw_without_rendering()
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")
    figure.savefig(path.with_name(f"{path.name}.png"), metadata={"Software": None})
    figure.savefig(
        path.with_name(f"{path.name}.pdf"), metadata={"CreationDate": None, "Creator": None, "Producer": None}
    )
    figure.set_layout_engine(engine or "none")
