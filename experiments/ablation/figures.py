"""The record as pictures."""

import numpy as np
from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter

from experiments.ablation.tables import AUTOENCODERS, GENERATORS, beside_row
from experiments.ablation.verdicts import measured, reference_fid, seeds_of
from utils.analysis import topology_figure, training_figure
from utils.analysis.output import legend, new_figure, save
from utils.statistics import student

COLOURS = {"MARDM": "#1f77b4", "FSQ_MARDM": "#d95f02", "VQ_MARDM": "#1b7837"}
FAMILIES = {"FSQ": ("#d95f02", "o"), "VQ": ("#1b7837", "s")}


def draw_all(record, stem):
    """Every figure for which there is something measured. -> title of its section -> path"""
    figures = {
        "Reconstruction": (draw_reconstruction, any(measured(record, v) for v in AUTOENCODERS)),
        "Generation": (draw_generation, any(measured(record, v) for v in GENERATORS)),
        "Convergence and stability": (
            lambda r, path: training_figure.draw(r["training"], path),
            record["training"],
        ),
        "Topology": (lambda r, path: topology_figure.draw(r["topology"], path), record["topology"]),
        "Memorisation": (draw_memorisation, any(memorised(record, v) for v in GENERATORS)),
    }
    paths = {}
    for title, (draw, there) in figures.items():
        if there:
            name = "training" if title.startswith("Convergence") else title.lower()
            paths[title] = stem.with_name(f"{stem.name}_{name}.png")
            draw(record, paths[title])
    return paths


def draw_reconstruction(record, path):
    """FID and MPJPE over the size of the code book; the continuous autoencoder as a line."""
    figure = new_figure(11, 4)
    left, right = figure.subplots(1, 2)
    if reference_fid(record) is not None:
        label = "train/test reference: training clips, same contents"
        left.axhline(reference_fid(record), color="grey", linestyle=":", label=label)
    metrics = {"fid": "reconstruction FID", "mpjpe": "MPJPE, mm, root-aligned"}
    for axes, (key, title) in zip((left, right), metrics.items()):
        plain = list(measured(record, "AE_Model", key).values())
        if plain:
            axes.axhline(np.mean(plain), color="#1f77b4", label=f"continuous AE (seeds: {len(plain)})")
            axes.axhspan(min(plain), max(plain), color="#1f77b4", alpha=0.15)
        for family in FAMILIES:
            code_books(axes, record, family, key)
        axes.set(xscale="log", xlabel="codes", ylabel=title, xlim=(300, 150_000))
        axes.set_ylim(0, 1.08 * axes.get_ylim()[1])
        axes.grid(alpha=0.3)
        legend(axes)
    save(figure, path)


def code_books(axes, record, family, key):
    """One family's metric over the number of codes: a dot a run, a line through the means."""
    books = []
    for variant in AUTOENCODERS:
        values = list(measured(record, variant, key).values())
        if variant.startswith(family) and values:
            books.append((next(iter(seeds_of(record, variant).values()))["codes"], variant, values))
    if not books:
        return
    codes, variants, values = zip(*sorted(books))
    means, (colour, marker) = [np.mean(one) for one in values], FAMILIES[family]
    for at, one in zip(codes, values):
        axes.plot([at] * len(one), one, marker, color=colour, markersize=4, alpha=0.5)
    axes.plot(codes, means, "-", color=colour, label=f"{family} (runs: {sum(map(len, values))})")
    for i, (variant, *place) in enumerate(zip(variants, codes, means)):
        offset = (3, 6 if i % 2 else -10)
        axes.annotate(variant, place, fontsize=6, xytext=offset, textcoords="offset points")


def draw_generation(record, path):
    """FID, top 1 and foot skate of each family: a dot a seed, a bar for the mean and its interval."""
    figure = new_figure(12, 3.8)
    metrics = {"fid": "FID", "top1": "R-precision top 1", "foot_skate": "foot skate"}
    for axes, (key, title) in zip(figure.subplots(1, 3), metrics.items()):
        values = {variant: list(measured(record, variant, key).values()) for variant in GENERATORS}
        for i, (variant, one) in enumerate(values.items()):
            if one:
                mean, half = student(one)
                bar = None if np.isnan(half) else half
                axes.bar(i, mean, color=COLOURS[variant], alpha=0.7, yerr=bar, capsize=4)
                axes.plot([i] * len(one), one, "k.", markersize=5)
        names = [f"{variant}\n(seeds: {len(one)})" for variant, one in values.items()]
        axes.set_xticks(range(len(names)), names, fontsize=8)
        for name, colour, style in (
            ("real", "k", "--"),
            ("random train", "grey", ":"),
            ("same content", "grey", "--"),
        ):
            row = beside_row(record, name)
            if key in row:
                axes.axhline(row[key]["mean"], color=colour, linestyle=style, linewidth=1, label=name)
        axes.set(ylabel=title, xlim=(-0.6, len(names) - 0.4), ylim=(0, 1.3 * axes.get_ylim()[1]))
        axes.grid(alpha=0.3, axis="y")
        legend(axes, ncols=3)
    save(figure, path)


def memorised(record, variant):
    """What the runs of a generator found of their nearest neighbours."""
    return [run["memorisation"] for run in seeds_of(record, variant).values() if "memorisation" in run]


def draw_memorisation(record, path):
    """Share of clips whose nearest training clip is nearer than x: generated, and the test clips'."""
    figure = new_figure(10, 4)
    labels = {"embedding": "evaluator's embedding", "joints_mm": "joints, root mean square, mm"}
    share = np.linspace(0, 1, 101)
    for axes, (space, label) in zip(figure.subplots(1, 2), labels.items()):
        test = None
        for variant in GENERATORS:
            runs = memorised(record, variant)
            for i, run in enumerate(runs):
                generated, test = run["spaces"][space]["generated"], run["spaces"][space]["test"]
                title = f"{variant} (n={generated['n']} x {len(runs)})" if not i else None
                colour = COLOURS[variant]
                axes.plot(generated["percentiles"], share, color=colour, alpha=0.7, linewidth=1, label=title)
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
