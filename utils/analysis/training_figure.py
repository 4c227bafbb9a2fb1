"""Table and figure of how several runs trained, from the record of analyze_training.py alone."""

import numpy as np
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from utils.analysis.convergence import FID, NORM, TOP3, running_median
from utils.analysis.event_files import smooth
from utils.analysis.output import group_by, legend, markdown, new_figure, save

COLUMNS = {  # of the table: title, key, digits
    "best FID": ("best_fid", 3), "at step": ("best_fid_step", 0), "steps to FID": ("steps_to_fid", 0),
    "s to FID": ("seconds_to_fid", 0), "best top-3": ("best_top3", 3), "steps to top-3": ("steps_to_top3", 0),
    "s to top-3": ("seconds_to_top3", 0), "spikes": ("spikes", 1), "CV": ("cv", 3),
    "CV detrended": ("cv_detrended", 3),
}  # fmt: skip


def cell(runs, key, digits):
    """Mean and range over seeds, and, if not all reached it, how many did; "never"; or "-" if unknown."""
    values = [one[key] for one in runs if one.get(key) is not None]
    if not values:
        return "never" if all(key in one for one in runs) else "-"
    text = f"{np.mean(values):.{digits}f}"
    if max(values) > min(values):
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    return text if len(values) == len(runs) else f"{text}, {len(values)} of {len(runs)} runs"


def table(record):
    """Markdown: a row for each group, means over its seeds and their range."""
    columns = {"steps": ("steps", 0)} | COLUMNS
    rows = [
        [group, len(runs), *(cell(runs, *column) for column in columns.values())]
        for group, runs in group_by(record["runs"].values()).items()
    ]
    at = {"FID": record["fid_at"], "top-3": record["top3_at"]}
    at = [f"{title} {value:.4g}" for title, value in at.items() if value is not None]
    last = f"Thresholds: {', '.join(at)}." if at else "No run was evaluated."
    return markdown(["run", "seeds", *columns], rows) + f"\n\n{last}"


def draw(record, path, weight=0.8):
    """Draw evaluations on shared axes; metric and gradient norm in a panel for each group."""
    groups = group_by(record["runs"].values())
    columns = max(len(groups), 3)
    figure = new_figure(3.7 * columns, 9)
    top, *rest = figure.subfigures(3, 1)
    fid_at, top3_at = record["fid_at"], record["top3_at"]
    for axes, *what in zip(top.subplots(1, 3), (FID, FID, TOP3), (fid_at, fid_at, top3_at), (0, 1, 0)):
        evaluated(axes, groups, *what)
    own_axes = "loss" in record["metric"].lower()
    for part, tag, sharey in zip(rest, (record["metric"], NORM), (not own_axes, True)):
        panels = part.subplots(1, columns, sharey=sharey, squeeze=False)[0]
        for i, (axes, (name, runs)) in enumerate(zip(panels, groups.items())):
            one_group(axes, tag, runs, f"C{i}", weight)
            axes.set_title(name, fontsize=9)
        for axes in panels[len(groups) :]:
            axes.set_axis_off()
        label = "gradient norm / running median" if tag == NORM else tag
        panels[0].set_ylabel(label + (" (own axis each)" if tag != NORM and own_axes else ""))
    save(figure, path)


def evaluated(axes, groups, tag, at, clock):
    """Draw a metric over steps, or seconds if `clock`: a thin line per seed, a thick one for their mean."""
    axes.set(xlabel="seconds of training" if clock else "step", ylabel=tag)
    axes.grid(alpha=0.3)
    for i, (name, runs) in enumerate(groups.items()):
        runs = [one for one in runs if tag in one["curves"]]
        if not runs:
            continue
        for one in runs:
            curve = one["curves"][tag]
            x = np.array(curve["steps"]) * scale([one], clock)
            axes.plot(x, numbers(curve), color=f"C{i}", alpha=0.35, linewidth=1, marker=".")
        x, y = mean_curve(runs, tag, clock)
        axes.plot(x, y, color=f"C{i}", linewidth=2, label=f"{name} (seeds: {len(runs)})")
    if at is not None:
        axes.axhline(at, color="grey", linestyle=":", label=f"threshold {at:.3g}")
        if tag == FID:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axes.yaxis.set_major_formatter(FormatStrFormatter("%.3g"))
            axes.yaxis.set_minor_formatter(NullFormatter())
    legend(axes)


def numbers(curve):
    """[N]; NaN where the record has null."""
    return np.array(curve["values"], dtype=float)


def scale(runs, clock):
    return np.mean([one["seconds_per_step"] or 1 for one in runs]) if clock else 1


def mean_curve(runs, tag, clock):
    """Mean over seeds at the steps that all of them have -> (x, y)."""
    curves = [dict(zip(one["curves"][tag]["steps"], numbers(one["curves"][tag]))) for one in runs]
    common = sorted(set.intersection(*map(set, curves)))
    return np.array(common) * scale(runs, clock), [np.mean([curve[at] for curve in curves]) for at in common]


def one_group(axes, tag, runs, colour, weight):
    axes.grid(alpha=0.3)
    axes.set_xlabel("step")
    for curve in (one["curves"][tag] for one in runs if tag in one["curves"]):
        x, y = np.array(curve["steps"]), numbers(curve)
        if tag == NORM:
            axes.plot(x, y / running_median(y)[0], color=colour, alpha=0.6, linewidth=0.8)
        else:
            axes.plot(x, y, color=colour, alpha=0.2, linewidth=0.8)
            axes.plot(x, smooth(y, weight), color=colour, linewidth=1.5)
