"""Markdown tables and figures, as every analysis writes them."""

import math

from matplotlib.figure import Figure

from motion.files import atomic_file, write_text
from utils.errors import BadInput


def markdown(header, rows):
    """Markdown table of strings or numbers."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def write_below(path, marker, text):
    """Replace the text below a marker in a page; what is above it stays."""
    above = path.read_text(encoding="utf-8").partition(marker)[0] if path.is_file() else ""
    write_text(path, f"{above}{marker}\n{text}")


def plus_minus(mean, half, digits, sign=""):
    """0.123 ± 0.045; without the interval if `half` is NaN."""
    return f"{mean:{sign}.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


def new_figure(width, height):
    return Figure(figsize=(width, height), dpi=120, layout="constrained")


def save(figure, path):
    with atomic_file(path) as part:
        figure.savefig(part)


def legend(axes, **options):
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7, **options)


def group_by(runs):
    """Runs -> {group: its runs, in order}; the runs of a group differ in the seed."""
    groups = {}
    for one in runs:
        groups.setdefault(one["group"], []).append(one)
    return groups


def check_picture(path):
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise BadInput(f"--output {path}: pictures are written as .png, .pdf or .svg")
