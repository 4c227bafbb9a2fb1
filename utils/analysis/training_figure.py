"""Table and figure of how several runs trained: from the record alone, no event files."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from motion.files import whole_file
from utils.analysis.convergence import FID, NORM, TOP3, running_median
from utils.analysis.event_files import smooth
from utils.statistics import student

COLUMNS = {  # of the table: title, key, digits
    "best FID": ("best_fid", 3),
    "at step": ("best_fid_step", 0),
    "steps to FID": ("steps_to_fid", 0),
    "s to FID": ("seconds_to_fid", 0),
    "best top-3": ("best_top3", 3),
    "steps to top-3": ("steps_to_top3", 0),
    "s to top-3": ("seconds_to_top3", 0),
    "spikes": ("spikes", 1),
    "CV": ("cv", 3),
    "CV detrended": ("cv_detrended", 3),
}


def groups_of(record):
    """group -> its runs, in the order they were given."""
    groups = {}
    for one in record["runs"].values():
        groups.setdefault(one["group"], []).append(one)
    return groups


def cell(runs, key, digits):
    """Mean and range over seeds; where some never got there, how many did."""
    values = [one[key] for one in runs if one.get(key) is not None]
    asked = [one for one in runs if key in one]
    if not values:
        return "never" if asked else "-"
    text = f"{student(values)[0]:.{digits}f}"
    if len(values) > 1 and max(values) > min(values):
        text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
    return text if len(values) == len(runs) else f"{text}, {len(values)} of {len(runs)} runs"


def table(record):
    """Markdown: a row for each group, means over its seeds and their range."""
    rows = [["run", "seeds", "steps", *COLUMNS]]
    for group, runs in groups_of(record).items():
        cells = (cell(runs, key, digits) for key, digits in COLUMNS.values())
        rows.append([group, str(len(runs)), cell(runs, "steps", 0), *cells])
    rows.insert(1, ["---"] * len(rows[0]))
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    at = [
        f"{title} {value:.4g}"
        for title, value in (("FID", record["fid_at"]), ("top-3", record["top3_at"]))
        if value is not None
    ]
    return "\n".join(lines) + (f"\n\nThresholds: {', '.join(at)}." if at else "\n\nNo run was judged.")


def draw(record, path, weight=0.8):
    """Judged metrics on shared axes; the metric and the gradient norm of each group in a panel of its own."""
    groups = groups_of(record)
    columns = max(len(groups), 3)
    figure = Figure(figsize=(3.7 * columns, 9), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    top, *rest = figure.subfigures(3, 1)
    evaluated(top.subplots(1, 3), record, groups)
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
    with whole_file(path) as part:
        figure.savefig(part)


def evaluated(panels, record, groups):
    """FID over steps and over seconds, top-3 over steps: a thin line a seed, a thick one for their mean."""
    for axes, tag, at, clock in zip(
        panels, (FID, FID, TOP3), (record["fid_at"], record["fid_at"], record["top3_at"]), (0, 1, 0)
    ):
        axes.set(xlabel="seconds of training" if clock else "step", ylabel=tag)
        axes.grid(alpha=0.3)
        for i, (name, runs) in enumerate(groups.items()):
            have = [one for one in runs if tag in one["curves"]]
            for one in have:
                curve, root_speed = one["curves"][tag], one["seconds_per_step"] or 1
                x = np.array(curve["steps"]) * (root_speed if clock else 1)
                axes.plot(x, curve["values"], color=f"C{i}", alpha=0.35, linewidth=1, marker=".")
            x, y = mean_curve(have, tag, clock)
            axes.plot(
                x, y, color=f"C{i}", linewidth=2, label=f"{name} (seeds: {len(have)})" if have else None
            )
        if at is not None:
            axes.axhline(at, color="grey", linestyle=":", label=f"threshold {at:.3g}")
        if tag == FID and at is not None:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
            axes.yaxis.set_major_formatter(FormatStrFormatter("%.3g"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)


def mean_curve(runs, tag, clock):
    """Mean over seeds at the steps that all of them have -> (x, y)."""
    curves = [dict(zip(one["curves"][tag]["steps"], one["curves"][tag]["values"])) for one in runs]
    common = sorted(set.intersection(*map(set, curves))) if curves else []
    root_speed = np.mean([one["seconds_per_step"] or 1 for one in runs]) if clock and runs else 1
    return np.array(common) * root_speed, [np.mean([curve[step] for curve in curves]) for step in common]


def one_group(axes, tag, runs, colour, weight):
    axes.grid(alpha=0.3)
    axes.set_xlabel("step")
    for one in runs:
        if tag not in one["curves"]:
            continue
        x, y = (np.array(one["curves"][tag][key]) for key in ("steps", "values"))
        if tag == NORM:
            axes.plot(x, y / running_median(y)[0], color=colour, alpha=0.6, linewidth=0.8)
        else:
            axes.plot(x, y, color=colour, alpha=0.2, linewidth=0.8)
            axes.plot(x, smooth(y, weight), color=colour, linewidth=1.5)
