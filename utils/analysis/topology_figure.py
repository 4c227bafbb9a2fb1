"""Table and figure of what utils.analysis.latent_perturbation measured: from the record alone, no networks."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from motion.files import whole_file
from utils.statistics import student

SMALLEST = {"FSQ": "1 step", "VQ": "nearest code", "continuous": "noise, 1 step"}  # the smallest move of each
SWAP = "random token"
COLOURS = {
    "continuous": ["#1f77b4"],
    "FSQ": ["#d95f02", "#e6892f", "#f0a860", "#f5c08a", "#7f3b08"],
    "VQ": ["#1b7837", "#5aae61", "#a6dba0"],
}
SHORT = {
    "nearest code": "nearest",
    "near code (rank 2-8)": "2-8",
    "code of rank 9-64": "9-64",
    "random code": "any",
}


def move_of(one, name):
    return next((move for move in one["moves"] if move["move"] == name), None)


def groups_of(record):
    groups = {}
    for one in record["autoencoders"].values():
        groups.setdefault(one["group"], []).append(one)
    return groups


def mean_over_seeds(runs, name, key):
    """(mean, half width over seeds) of one measure of one move, None where it was not made."""
    moves = [move for move in (move_of(one, name) for one in runs) if move]
    return student([move[key] for move in moves]) if moves else None


def table(record):
    """Markdown: a line for each group and move, and one for each group's code book."""
    titles = (
        "autoencoder,seeds,move,n,norm,joints (mm),own 4 frames (mm),of a random swap,root (mm),yaw (deg)"
    )
    lines = ["| " + titles.replace(",", " | ") + " |", "|" + "---|" * 10]
    for group, runs in groups_of(record).items():
        for move in runs[0]["moves"]:
            name = move["move"]
            values = [
                mean_over_seeds(runs, name, key)[0]
                for key in ("relative_norm", "field_mm", "own_mm", "root_mm", "yaw_deg")
            ]
            share = np.mean([share_of_swap(one, name) for one in runs if move_of(one, name)])
            norm, field, own, root, yaw = (f"{value:.2f}" for value in values)
            cells = [group, len(runs), name, move["n"], norm, field, own, f"{share:.2f}", root, yaw]
            lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += [
        "",
        "| autoencoder | seeds | Spearman (n) | codes used | tokens | usage | perplexity |",
        "|" + "---|" * 7,
    ]
    for group, runs in groups_of(record).items():
        rho = " / ".join("-" if one["spearman"] is None else f"{one['spearman']:.3f}" for one in runs)
        used = ["-"] * 4
        if "usage" in runs[0]:
            keys = ("codes_used", "tokens", "usage", "perplexity")
            used = [f"{np.mean([one['usage'][key] for one in runs]):.4g}" for key in keys]
        lines.append(
            "| " + " | ".join([group, str(len(runs)), f"{rho} ({runs[0]['spearman_n']})", *used]) + " |"
        )
    return "\n".join(lines)


def share_of_swap(one, name, key="field_mm"):
    """How much a move changes, of what a random token in its place changes."""
    return move_of(one, name)[key] / move_of(one, "random token")[key]


def draw(record, path):
    """A: motion against code distance. B: the smallest move of each. C: swaps. D: histograms."""
    groups = groups_of(record)
    colour = palette(groups)
    figure = Figure(figsize=(13, 8.2), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    left, right = top.subplots(1, 2, width_ratios=(1.5, 1))
    moves_panel(left, groups, colour)
    smallest_panel(right, groups, colour)
    panels = bottom.subplots(1, 4)
    shown = [next((g for g, runs in groups.items() if runs[0]["kind"] == kind), None) for kind in COLOURS]
    for axes, group in zip(panels, shown):
        if group is None:
            axes.set_axis_off()
        else:
            swaps_panel(axes, group, groups[group][0], colour[group])
    grids = [runs[0] for runs in groups.values() if runs[0]["kind"] == "FSQ"]
    if grids:
        histogram_panel(panels[3], max(grids, key=lambda one: one["codes"]))
    else:
        panels[3].set_axis_off()
    with whole_file(path) as part:
        figure.savefig(part)


def palette(groups):
    """A colour for each group, of its family's hue."""
    result, used = {}, dict.fromkeys(COLOURS, 0)
    for group, runs in groups.items():
        kind = runs[0]["kind"]
        result[group] = COLOURS[kind][used[kind] % len(COLOURS[kind])]
        used[kind] += 1
    return result


def moves_panel(axes, groups, colour):
    for group, runs in groups.items():
        series = {}
        for move in runs[0]["moves"]:
            series.setdefault(move["move"].partition(", ")[0] if "," in move["move"] else "", []).append(
                move["move"]
            )
        swap = series.pop("") if runs[0]["kind"] == "continuous" else None
        for i, (kind, names) in enumerate(series.items()):
            points = [
                [mean_over_seeds(runs, name, key)[0] for key in ("relative_norm", "field_mm")]
                for name in names
            ]
            order = np.argsort([x for x, _ in points])
            x, y = np.array(points)[order].T
            label = f"{group}, {kind}" if kind else group
            axes.plot(
                x, y, "o-" if not i else "s--", color=colour[group], markersize=4, linewidth=1.3, label=label
            )
            if not kind:
                for j in order:
                    text = SHORT.get(names[j], names[j].removesuffix(" steps").removesuffix(" step"))
                    if names[j] != SWAP:
                        axes.annotate(text, points[j], fontsize=6, xytext=(3, 3), textcoords="offset points")
        if swap:
            x, y = (mean_over_seeds(runs, SWAP, key)[0] for key in ("relative_norm", "field_mm"))
            axes.plot(x, y, "*", color=colour[group], markersize=9)
    axes.set(xlim=(0, None), ylim=(0, None))
    axes.set_xlabel("distance in latent space / mean distance of two random tokens")
    axes.set_ylabel("joint displacement, mm")
    axes.set_title("A  one token moved: how far the motion goes", loc="left", fontsize=10)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def smallest_panel(axes, groups, colour):
    """What the smallest move does, of a random swap: mean and 95% interval over seeds; a dot a seed."""
    names, rows = [], [(g, runs, SMALLEST[runs[0]["kind"]]) for g, runs in groups.items()]
    for i, (group, runs, name) in enumerate(rows):
        shares = [share_of_swap(one, name) for one in runs if move_of(one, name)]
        names.append(f"{group}\n{name}")
        if not shares:
            continue
        mean, half = student(shares)
        axes.barh(i, mean, color=colour[group], alpha=0.8, xerr=None if np.isnan(half) else half, capsize=3)
        axes.plot(shares, [i] * len(shares), "k.", markersize=4)
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlim(0, None)
    axes.set_xlabel("displacement / that of a random swap")
    axes.set_title("B  the smallest move of each", loc="left", fontsize=10)
    axes.grid(alpha=0.3, axis="x")


def swaps_panel(axes, group, one, colour):
    x, y = np.array(one["swaps"]).T
    axes.plot(x, y, ".", color=colour, markersize=3, alpha=0.6)
    rho = "-" if one["spearman"] is None else f"{one['spearman']:.2f}"
    axes.set_title(f"C  {group}: rank correlation {rho} (n={one['spearman_n']})", loc="left", fontsize=8)
    axes.set(xlabel="distance in code space", ylabel="joint displacement, mm")
    axes.grid(alpha=0.3)


def histogram_panel(axes, one):
    """Share of the tokens on each level of each dimension."""
    for k, counts in enumerate(one["histograms"]):
        share = np.array(counts) / sum(counts)
        width = 0.8 / len(share)
        at = k + width * (np.arange(len(share)) - (len(share) - 1) / 2)
        axes.bar(at, share, width=width, color="#d95f02", edgecolor="white", linewidth=0.5)
    axes.set_xticks(
        range(len(one["levels"])), [f"{k + 1}\n({n})" for k, n in enumerate(one["levels"])], fontsize=7
    )
    axes.set(xlabel="dimension (levels)", ylabel="share of test tokens")
    axes.set_title(f"D  {one['group']}: use of the levels", loc="left", fontsize=8)
