"""What one network evaluation a token costs in quality, on a grid and on continuous latents: a plot, and the
differences between the two over paired seeds.

bash experiments/bandai_namco.sh    # leaves them in eval/; those of the page are copies
python -m experiments.sampling.evaluations results/bandai_namco/equal --output docs/pictures/evaluations.png

The folder holds <targets>_<seed>_<sampler>.json: targets grid, finer or continuous, sampler midpoint or
onestep, each with the guidance that was chosen on val.
"""

import json
from pathlib import Path

import numpy as np

from utils.analysis.output import check_picture, markdown, new_figure, plus_minus, save
from utils.cli import Parser, run
from utils.errors import BadInput
from utils.statistics import mean_ci95

TARGETS = {
    "grid": ("6 grid coordinates", "#e0701a"),
    "finer": ("8 of a finer grid", "#c9a227"),
    "continuous": ("192-d latents", "#2166c4"),
}
MEASURES = {"fid": "FID", "physical": "physical distance"}
PAIRED = {
    "fid": 3, "physical": 2, "coverage": 3, "precision": 3, "recall": 3, "foot_skate": 3, "jitter": 1,
    "root_speed": 3, "path_speed": 3,
}  # measure: digits  # fmt: skip
DIFFERENCES = (
    "latents - grid, 8 guided evaluations",
    "latents - grid, 1 evaluation",
    "1 evaluation - 8, grid",
    "1 evaluation - 8, latents",
    "the latter - the former",
)
STAGES = ("reconstruction", "generated,\n8 guided evaluations", "generated,\n1 evaluation")


def read(folder):
    """-> targets -> a list of seeds: for each of STAGES, measure -> interval."""
    found = {}
    for kind in TARGETS:
        for file in sorted(folder.glob(f"{kind}_*_midpoint.json")):
            names = file.name, file.name.replace("midpoint", "onestep")
            full, one = (json.loads((folder / name).read_text("utf-8"))["rows"] for name in names)
            rows = full["reconstruction"], full["generated"], one["generated"]
            found.setdefault(kind, []).append([row["interval"] for row in rows])
    if not found:
        raise BadInput(f"{folder}: no records such as grid_1_midpoint.json")
    return found


def differences(grid, latents):
    """Means over the paired seeds ± 95% (Student's t) of what differs. -> markdown. grid, latents: lists of
    seeds as in `read`.
    """
    columns = []
    for measure, digits in PAIRED.items():
        means = [[[stage[measure]["mean"] for stage in seed] for seed in pair] for pair in zip(grid, latents)]
        g, x = np.array(means).swapaxes(0, 1)  # each [seeds,stages]
        costs = g[:, 2] - g[:, 1], x[:, 2] - x[:, 1]
        found = x[:, 1] - g[:, 1], x[:, 2] - g[:, 2], *costs, costs[1] - costs[0]
        columns.append([plus_minus(*mean_ci95(values), digits, "+") for values in found])
    return markdown(["", *PAIRED], [[title, *row] for title, row in zip(DIFFERENCES, zip(*columns))])


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="of the records")
    parser.add_argument("--output", type=Path, required=True, help="picture")
    args = parser.parse_args(argv)
    check_picture(args.output)
    fig, found = new_figure(8, 3.2), read(args.folder)
    runs = [(kind, i, stages) for kind, seeds in found.items() for i, stages in enumerate(seeds)]
    for axes, (measure, title) in zip(fig.subplots(1, 2), MEASURES.items()):
        for k, (kind, i, stages) in enumerate(runs):
            label, colour = TARGETS[kind]
            x = [place + 0.08 * (k - (len(runs) - 1) / 2) for place in range(len(STAGES))]
            means = [stage[measure]["mean"] for stage in stages]
            halves = [stage[measure]["half_clips"] for stage in stages]
            label = None if i else label
            axes.errorbar(x, means, halves, marker="o", ms=4, capsize=2, color=colour, label=label)
        axes.set_xticks(range(len(STAGES)), STAGES, fontsize=8)
        axes.set_ylim(0, None)
        axes.set_ylabel(title)
    axes.legend(fontsize=8)
    save(fig, args.output)
    print(args.output)
    if {"grid", "continuous"} <= found.keys():
        print(differences(found["grid"], found["continuous"]))


if __name__ == "__main__":
    run(main)
