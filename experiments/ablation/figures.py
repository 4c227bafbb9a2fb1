"""One figure per claim, from the record alone."""

import numpy as np

from experiments.ablation.claims import lost, measured, story_growth
from experiments.ablation.plan import DIFFUSION, FULL_WIDTH, NARROWED
from utils.analysis import topology_figure, training_figure
from utils.analysis.output import legend, new_figure, save

COLOURS = {
    "continuous": "C0",
    "narrow": "C4",
    "fsq": "C1",
    "finer": "C6",
    "vq": "C2",
    "softmax": "C3",
    "independent": "C5",
}
COLOURS |= {"FSQ": "C1", "VQ": "C2", "AE": "C0", "Narrow": "C4"}
TOKENS_PER_SECOND = 5  # at 20 frames a second


def draw_all(record, stem, done=()):
    """Every figure for which enough is measured, without the titles in `done`. -> {title: path}"""
    paths = {}
    for title, draw in FIGURES.items():
        if title in done:
            continue
        path = stem.with_name(f"{stem.name}_{record['dataset']}_{title.split()[0].lower().strip(':')}.png")
        if draw(record, path):
            paths[title] = path
    return paths


def series(axes, points, **style):
    """Plot points, x -> Numbers: a dot per seed, their mean and its interval. -> how many"""
    points = {x: one for x, one in points.items() if one.seeds}
    for x, one in points.items():
        axes.plot([x] * len(one.seeds), one.seeds.values(), ".", color=style["color"], alpha=0.5)
    if points:
        means, halves = zip(*(one.interval() for one in points.values()))
        halves = np.nan_to_num(halves)
        axes.errorbar(list(points), means, yerr=halves, capsize=3, marker="_", linewidth=1, **style)
    return len(points)


def panels(path, plots, **settings):
    """A panel for each of plots, {title: axes -> whether it drew}; saved if any did. -> whether any did"""
    figure = new_figure(5.5 * len(plots), 3.8)
    drawn = []
    for axes, (title, plot) in zip(np.atleast_1d(figure.subplots(1, len(plots))), plots.items()):
        drawn.append(plot(axes))
        axes.set(ylabel=title, **settings)
        axes.grid(alpha=0.3)
        legend(axes)
    if any(drawn):
        save(figure, path)
    return any(drawn)


def of_arms(record, path):
    def plot(metric):
        def draw(axes):
            limit = record["reference"].get(metric, {}).get("mean")
            if limit is not None:
                axes.axhline(limit, color="grey", linestyle=":", label="fair reference")
            styles = (("test_latest", "last checkpoint", "k"), ("test_best", "best on val", "C7"))
            return any(
                [
                    series(axes, {arm: measured(record, arm, metric, file) for arm in record["arms"]},
                           label=label, linestyle="", color=colour)
                    for file, label, colour in styles
                ]
            )  # fmt: skip

        return draw

    return panels(path, {"FID": plot("fid"), "physical distance": plot("physical")})


def of_codes(record, path):
    """Rate and distortion: bits per second of the code book against the reconstruction's errors."""

    def plot(metric):
        def draw(axes):
            for name in ("AE", "Narrow"):
                values = measured(record, name, metric).seeds.values()
                if values:
                    axes.axhline(np.mean(list(values)), color=COLOURS[name], linestyle="--", label=name)
            drawn = []
            for kind in ("FSQ", "VQ"):  # FSQ_16 has 2^16 codes
                names = [name for name in record["variants"] if name.startswith(kind)]
                rates = [int(name.split("_")[1]) * TOKENS_PER_SECOND for name in names]
                errors = {rate: measured(record, name, metric) for rate, name in zip(rates, names)}
                drawn.append(series(axes, errors, label=kind, color=COLOURS[kind]))
            return max(drawn) > 1

        return draw

    return panels(path, {"FID": plot("fid"), "MPJPE, mm": plot("mpjpe")}, xlabel="bits per second")


def of_heads(record, path):
    def draw(axes):
        drawn = [
            series(axes, {w: measured(record, f"{arm}_w{w}") for w in record["widths"]}
                   | {FULL_WIDTH: measured(record, arm)}, label=arm, color=COLOURS[arm])
            for arm in NARROWED
        ]  # fmt: skip
        widths = [*record["widths"], FULL_WIDTH]
        axes.set(xscale="log")
        axes.set_xticks(widths, map(str, widths))
        axes.minorticks_off()
        return max(drawn) > 1

    return panels(path, {"FID": draw}, xlabel="width of the head")


def of_drawing(record, path):
    """FID lost by cheaper drawing: one solver step, one distilled evaluation. The arms side by side."""
    ways = {"1 step": ("snap_step_1", "test_latest"), "1 step, never snapped": ("snap_off_1", "snap_off_4")}
    ways["one-step head"] = ("onestep", "test_latest")

    def draw(axes):
        drawn = []
        for k, arm in enumerate(DIFFUSION):
            at = {way + (k - 2) / 8: lost(record, arm, *records) for way, records in enumerate(ways.values())}
            drawn.append(series(axes, at, label=arm, color=COLOURS[arm], linestyle=""))
        axes.set_xticks(range(len(ways)), ways)
        return any(drawn)

    return panels(path, {"FID lost": draw})


def of_stories(record, path):
    def draw(axes):
        drawn = []
        told = ("continuous", "step"), ("narrow", "step"), ("fsq", "step"), ("fsq", "off")
        for k, (arm, snap) in enumerate(told):
            label = f"{arm}, never snapped" if snap == "off" else arm
            at = {q + 1 + (k - 1.5) / 15: story_growth(record, arm, snap, quarter=q) for q in range(4)}
            colour = "C6" if snap == "off" else COLOURS[arm]
            drawn.append(series(axes, at, label=label, color=colour))
        axes.set_xticks(range(1, 5))
        return any(drawn)

    return panels(path, {"FID - that of the first quarter": draw}, xlabel="quarter of a story")


def of_training(record, path):
    if record["training"]:
        training_figure.draw(record["training"], path)
    return bool(record["training"])


def of_topology(record, path):
    if record["topology"]:
        topology_figure.draw(record["topology"], path)
    return bool(record["topology"])


FIGURES = {
    "Arms: grid, latents, classes": of_arms,
    "Rate and distortion (H1, H4, H8)": of_codes,
    "Convergence (H2)": of_training,
    "Cheaper drawing (H5, H7)": of_drawing,
    "Topology (H6)": of_topology,
    "Heads of other widths (H9)": of_heads,
    "Stories (H10)": of_stories,
}
