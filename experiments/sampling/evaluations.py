"""Plot what one network evaluation a token costs in quality, on a grid and on continuous latents.

bash experiments/bandai_namco.sh    # leaves them in eval/; those of the page are copies
python -m experiments.sampling.evaluations results/bandai_namco/equal --output docs/pictures/evaluations.png

The folder holds <targets>_<seed>_<sampler>.json: targets grid, finer or continuous, sampler midpoint or
onestep, each with the guidance that was chosen on val.
"""

import json
from pathlib import Path

from utils.analysis.output import check_picture, new_figure, save
from utils.cli import Parser, run
from utils.errors import BadInput

TARGETS = {
    "grid": ("6 grid coordinates", "#e0701a"),
    "finer": ("8 of a finer grid", "#c9a227"),
    "continuous": ("192-d latents", "#2166c4"),
}
MEASURES = {"fid": "FID", "physical": "physical distance"}
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


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("folder", type=Path, help="of the records")
    parser.add_argument("--output", type=Path, required=True, help="picture")
    args = parser.parse_args(argv)
    check_picture(args.output)
    fig = new_figure(8, 3.2)
    runs = [(kind, i, stages) for kind, seeds in read(args.folder).items() for i, stages in enumerate(seeds)]
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


if __name__ == "__main__":
    run(main)
