"""Table and figure of how far a moved token moves the motion, from analyze_topology.py's record alone."""

import numpy as np

from utils.analysis.output import group_by, legend, markdown, new_figure, save
from utils.statistics import mean_ci95

SWAP = "random token"
SMALLEST = {"FSQ": "1 step", "VQ": "nearest code", "continuous": "noise, 1 step"}  # the smallest move of each
MEASURES = ("relative_norm", "field_mm", "own_mm", "root_mm", "yaw_deg")
COLOURS = {
    "continuous": ["#1f77b4"],
    "FSQ": ["#d95f02", "#e6892f", "#f0a860", "#f5c08a", "#7f3b08"],
    "VQ": ["#1b7837", "#5aae61", "#a6dba0"],
}
SHORT = {"nearest code": "nearest", "near code (rank 2-8)": "2-8", "code of rank 9-64": "9-64"}
SHORT |= {"random code": "any"}


def move_of(one, name):
    return next((move for move in one["moves"] if move["move"] == name), None)


def smallest_move(one):
    """The name of an autoencoder's smallest move; the first that it has where the usual one was not made."""
    usual = SMALLEST[one["kind"]]
    return usual if move_of(one, usual) else next(m["move"] for m in one["moves"] if m["move"] != SWAP)


def mean_over_seeds(runs, name, key):
    """Mean over seeds of one measure of one move; None if no run has the move."""
    moves = [move for move in (move_of(one, name) for one in runs) if move]
    return float(np.mean([move[key] for move in moves])) if moves else None


def shares_of_swap(runs, name):
    """Joint displacement by a move, relative to a swap for a random token; for each run with that move."""
    return [
        move_of(one, name)["field_mm"] / move_of(one, SWAP)["field_mm"] for one in runs if move_of(one, name)
    ]


def table(record):
    """Markdown: a line for each group and move, and one for each group's code book."""
    moves, books = [], []
    for group, runs in group_by(record["autoencoders"].values()).items():
        for move in runs[0]["moves"]:
            name = move["move"]
            norm, field, own, root, yaw = (mean_over_seeds(runs, name, key) for key in MEASURES)
            values = (norm, field, own, np.mean(shares_of_swap(runs, name)), root, yaw)
            moves.append([group, len(runs), name, move["n"], *(f"{value:.2f}" for value in values)])
        rho = " / ".join("-" if one["spearman"] is None else f"{one['spearman']:.3f}" for one in runs)
        used = ["-"] * 4
        if "usage" in runs[0]:
            keys = ("codes_used", "tokens", "usage", "perplexity")
            used = [f"{np.mean([one['usage'][key] for one in runs]):.4g}" for key in keys]
        books.append([group, len(runs), f"{rho} ({runs[0]['spearman_n']})", *used])
    titles = ["autoencoder", "seeds", "move", "n", "norm", "joints (mm)", "own 4 frames (mm)"]
    titles += ["of a random swap", "root (mm)", "yaw (deg)"]
    used = ["autoencoder", "seeds", "Spearman (n)", "codes used", "tokens", "usage", "perplexity"]
    return markdown(titles, moves) + "\n\n" + markdown(used, books)


def draw(record, path):
    """A: motion against code distance. B: the smallest move of each. C: swaps. D: histograms."""
    groups = group_by(record["autoencoders"].values())
    colours, used = {}, dict.fromkeys(COLOURS, 0)
    for group, runs in groups.items():  # similar colours within a kind
        kind = runs[0]["kind"]
        colours[group] = COLOURS[kind][used[kind] % len(COLOURS[kind])]
        used[kind] += 1
    figure = new_figure(13, 8.2)
    top, bottom = figure.subfigures(2, 1, height_ratios=(1.15, 1))
    left, right = top.subplots(1, 2, width_ratios=(1.5, 1))
    for group, runs in groups.items():
        moves_of_group(left, group, runs, colours[group])
    left.set(xlim=(0, None), ylim=(0, None), ylabel="joint displacement, mm")
    left.set_xlabel("distance in latent space / mean distance of two random tokens")
    left.set_title("A  one token moved: how far the motion goes", loc="left", fontsize=10)
    left.grid(alpha=0.3)
    legend(left)
    smallest_panel(right, groups, colours)
    *swaps, levels = bottom.subplots(1, 4)
    for axes, kind in zip(swaps, COLOURS):
        one = next((runs[0] for runs in groups.values() if runs[0]["kind"] == kind), None)
        if one is None:
            axes.set_axis_off()
        else:
            swaps_panel(axes, one, colours[one["group"]])
    grids = [runs[0] for runs in groups.values() if runs[0]["kind"] == "FSQ"]
    if grids:
        histogram_panel(levels, max(grids, key=lambda one: one["codes"]))
    else:
        levels.set_axis_off()
    save(figure, path)


def moves_of_group(axes, group, runs, colour):
    """A line through the moves of one kind: grid steps or codes, or noise and the way to another token."""
    series = {}
    for name in (move["move"] for move in runs[0]["moves"]):
        series.setdefault(name.partition(", ")[0] if "," in name else "", []).append(name)
    if runs[0]["kind"] == "continuous":
        (swap,) = series.pop("")
        axes.plot(
            *(mean_over_seeds(runs, swap, key) for key in MEASURES[:2]), "*", color=colour, markersize=9
        )
    for style, (kind, names) in zip(("o-", "s--"), series.items()):
        points = sorted((*(mean_over_seeds(runs, name, key) for key in MEASURES[:2]), name) for name in names)
        x, y, names = zip(*points)
        label = f"{group}, {kind}" if kind else group
        axes.plot(x, y, style, color=colour, markersize=4, linewidth=1.3, label=label)
        for *at, name in points if not kind else ():
            if name != SWAP:
                text = SHORT.get(name, name.partition(" ")[0])
                axes.annotate(text, at, fontsize=6, xytext=(3, 3), textcoords="offset points")


def smallest_panel(axes, groups, colours):
    """The smallest move relative to a random swap: mean and 95% interval over seeds; a dot per seed."""
    names = [smallest_move(runs[0]) for runs in groups.values()]
    for i, (name, (group, runs)) in enumerate(zip(names, groups.items())):
        shares = shares_of_swap(runs, name)
        if shares:
            mean, half = mean_ci95(shares)
            error = None if np.isnan(half) else half
            axes.barh(i, mean, color=colours[group], alpha=0.8, xerr=error, capsize=3)
            axes.plot(shares, [i] * len(shares), "k.", markersize=4)
    axes.set_yticks(range(len(names)), [f"{g}\n{name}" for g, name in zip(groups, names)], fontsize=7)
    axes.invert_yaxis()
    axes.set(xlim=(0, None), xlabel="displacement / that of a random swap")
    axes.set_title("B  the smallest move of each", loc="left", fontsize=10)
    axes.grid(alpha=0.3, axis="x")


def swaps_panel(axes, one, colour):
    axes.plot(*zip(*one["swaps"]), ".", color=colour, markersize=3, alpha=0.6)
    rho = "-" if one["spearman"] is None else f"{one['spearman']:.2f}"
    title = f"C  {one['group']}: rank correlation {rho} (n={one['spearman_n']})"
    axes.set_title(title, loc="left", fontsize=8)
    axes.set(xlabel="distance in code space", ylabel="joint displacement, mm")
    axes.grid(alpha=0.3)


def histogram_panel(axes, one):
    """Share of the tokens on each level of each dimension."""
    for k, counts in enumerate(one["histograms"]):
        width = 0.8 / len(counts)
        at = k + width * (np.arange(len(counts)) - (len(counts) - 1) / 2)
        share = np.array(counts) / sum(counts)
        axes.bar(at, share, width=width, color="#d95f02", edgecolor="white", linewidth=0.5)
    levels = [f"{k}\n({n})" for k, n in enumerate(one["levels"], start=1)]
    axes.set_xticks(range(len(levels)), levels, fontsize=7)
    axes.set(xlabel="dimension (levels)", ylabel="share of test tokens")
    axes.set_title(f"D  {one['group']}: use of the levels", loc="left", fontsize=8)
