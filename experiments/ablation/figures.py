"""The record as pictures."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from experiments.ablation.tables import AUTOENCODERS, GENERATORS, beside_row
from experiments.ablation.verdicts import measured, reference_fid, seeds_of
from motion.files import whole_file
from utils.analysis import topology_figure, training_figure
from utils.statistics import student

COLOURS = {"MARDM": "#1f77b4", "FSQ_MARDM": "#d95f02", "VQ_MARDM": "#1b7837"}
MARKERS = {"AE": ("#1f77b4", "D"), "FSQ": ("#d95f02", "o"), "VQ": ("#1b7837", "s")}


def draw_all(record, stem):
    """Every figure for which there is something measured. -> section -> path"""
    have = {
        "reconstruction": (draw_reconstruction, any(measured(record, v) for v in AUTOENCODERS)),
        "generation": (draw_generation, any(measured(record, v) for v in GENERATORS)),
        "training": (lambda r, path: training_figure.draw(r["training"], path), record["training"]),
        "topology": (lambda r, path: topology_figure.draw(r["topology"], path), record["topology"]),
        "memorisation": (draw_memorisation, any(memorised(record, v) for v in GENERATORS)),
    }
    paths = {}
    for section, (draw, there) in have.items():
        if there:
            paths[section] = stem.with_name(f"{stem.name}_{section}.png")
            draw(record, paths[section])
    return paths


def canvas(width, height, columns):
    figure = Figure(figsize=(width, height), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(1, columns)


def save(figure, path):
    with whole_file(path) as part:
        figure.savefig(part)


def draw_reconstruction(record, path):
    """FID and MPJPE over the size of the code book; the continuous autoencoder as a line."""
    figure, panels = canvas(11, 4, 2)
    for axes, (key, title) in zip(
        panels, (("fid", "reconstruction FID"), ("mpjpe", "MPJPE, mm, root-aligned"))
    ):
        plain = list(measured(record, "AE_Model", key).values())
        if plain:
            axes.axhline(np.mean(plain), color=MARKERS["AE"][0], label=f"continuous AE (seeds: {len(plain)})")
            axes.axhspan(min(plain), max(plain), color=MARKERS["AE"][0], alpha=0.15)
        if key == "fid" and reference_fid(record) is not None:
            axes.axhline(
                reference_fid(record),
                color="grey",
                linestyle=":",
                label="floor: training clips, same contents",
            )
        for family in ("FSQ", "VQ"):
            books = sorted(
                (next(iter(seeds_of(record, v).values()))["codes"], v)
                for v in AUTOENCODERS
                if v.startswith(family) and measured(record, v, key)
            )
            colour, marker = MARKERS[family]
            points = [(codes, value) for codes, v in books for value in measured(record, v, key).values()]
            if points:
                axes.plot(*zip(*points), marker, color=colour, markersize=4, alpha=0.5)
                means = [np.mean(list(measured(record, v, key).values())) for _, v in books]
                label = f"{family} (runs: {len(points)})"
                axes.plot([codes for codes, _ in books], means, "-", color=colour, label=label)
                for i, ((codes, v), mean) in enumerate(zip(books, means)):
                    up = (3, 6) if i % 2 else (3, -10)
                    axes.annotate(v, (codes, mean), fontsize=6, xytext=up, textcoords="offset points")
        axes.set_xscale("log")
        axes.set(xlabel="codes", ylabel=title, xlim=(300, 150_000))
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7)
    save(figure, path)


def draw_generation(record, path):
    """FID, top 1 and foot skate of each family: a dot a seed, a bar for the mean and its interval."""
    figure, panels = canvas(12, 3.8, 3)
    for axes, (key, title) in zip(
        panels, (("fid", "FID"), ("top1", "R-precision top 1"), ("foot_skate", "foot skate"))
    ):
        for i, variant in enumerate(GENERATORS):
            values = list(measured(record, variant, key).values())
            if values:
                mean, half = student(values)
                bar = None if np.isnan(half) else half
                axes.bar(i, mean, color=COLOURS[variant], alpha=0.7, yerr=bar, capsize=4)
                axes.plot([i] * len(values), values, "k.", markersize=5)
        names = [f"{v}\n(seeds: {len(measured(record, v, key))})" for v in GENERATORS]
        axes.set_xticks(range(len(names)), names, fontsize=8)
        for name, colour in (("real", "k"), ("random train", "grey"), ("same content", "grey")):
            value = beside_row(record, name).get(key)
            if value:
                style = ":" if name == "random train" else "--"
                axes.axhline(value["mean"], color=colour, linestyle=style, linewidth=1, label=name)
        axes.set(ylabel=title, xlim=(-0.6, len(names) - 0.4), ylim=(0, 1.3 * axes.get_ylim()[1]))
        axes.grid(alpha=0.3, axis="y")
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=7, ncols=3)
    save(figure, path)


def memorised(record, variant):
    """The runs of a generator whose neighbours were looked for."""
    return [run for run in seeds_of(record, variant).values() if "memorisation" in run]


def draw_memorisation(record, path):
    """Share of clips whose nearest training clip is nearer than x: generated, and the test clips'."""
    figure, panels = canvas(10, 4, 2)
    labels = {"embedding": "evaluator's embedding", "joints_mm": "joints, root mean square, mm"}
    share = np.linspace(0, 1, 101)
    for axes, (space, label) in zip(panels, labels.items()):
        test = None
        for variant in GENERATORS:
            runs = [run["memorisation"] for run in memorised(record, variant)]
            for i, run in enumerate(runs):
                found, test = run["spaces"][space]["generated"], run["spaces"][space]["test"]
                title = f"{variant} (n={found['n']} x {len(runs)})" if not i else None
                axes.plot(
                    found["percentiles"], share, color=COLOURS[variant], alpha=0.7, linewidth=1, label=title
                )
        axes.plot(test["percentiles"], share, "k--", linewidth=1.2, label=f"test clips (n={test['n']})")
        axes.axvline(test["percentiles"][1], color="grey", linestyle=":", label="near-copy: below")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FormatStrFormatter("%.3g"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="distance to the nearest training clip", ylabel="share of clips nearer")
        axes.set_title(label, fontsize=10)
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    save(figure, path)
