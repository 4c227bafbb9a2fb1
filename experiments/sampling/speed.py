"""Plot FID against time per motion, for teacher and one-step head at each number of rounds, from a study.

python -m experiments.sampling.study --dataset_name Demo --runs demo_MARDM --split test \\
    --cells 'rounds-*/random/*' --repeat_times 4 --threads 1 --record_dir results/one_step
python -m experiments.sampling.speed results/one_step/demo_MARDM.json --output docs/pictures/speed.png
"""

from pathlib import Path

import numpy as np

from utils.analysis.output import check_picture, new_figure, save
from utils.cli import Parser, run
from utils.errors import BadInput
from utils.plain import is_number, parse_json, read_utf8

HEADS = {
    "midpoint": ("trained head, 16 rows a token", "#2166c4"),
    "onestep": ("one-step head, 1 row", "#e0701a"),
}


def curve(cells, sampler):
    """{N: (seconds of the fastest repeat, FIDs of all repeats)} of the cells rounds-N/random/<sampler>."""
    found = {}
    for name, cell in cells.items():
        kind, _, rest = name.partition("/")
        if kind.startswith("rounds-") and rest == f"random/{sampler}":
            repeats = cell["repeats"].values()
            found[int(kind.removeprefix("rounds-"))] = (
                min(repeat["seconds"] for repeat in repeats),
                [repeat["fid"] for repeat in repeats],
            )
    return found


def read(path):
    """A record of `experiments.sampling.study` -> it, {sampler: its `curve`}. Raises BadInput."""
    try:
        record = parse_json(read_utf8(path))
        curves = {sampler: curve(record["cells"], sampler) for sampler in HEADS}
        if not record["clips"] > 0 or not {"model", "dataset"} <= record.keys():
            raise ValueError("not of a run")
        points = [point for found in curves.values() for point in found.values()]
        if not all(is_number(x) for seconds, fids in points for x in (seconds, *fids)):
            raise ValueError("no number")
    except (ValueError, KeyError, TypeError, AttributeError):
        remedy = "take one from --record_dir of experiments.sampling.study"
        raise BadInput(f"{path} is no record of the study: {remedy}") from None
    if not points:
        needed = "rounds-N/random/midpoint or onestep"
        raise BadInput(f"{path} holds no cell {needed}: run the study on them, by --cells")
    return record, curves


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("record", type=Path, help="a record of experiments.sampling.study")
    parser.add_argument("--output", type=Path, required=True, help=".png, .pdf or .svg")
    args = parser.parse_args(argv)
    check_picture(args.output)
    record, curves = read(args.record)
    fig = new_figure(6.4, 3.6)
    axes = fig.subplots()
    for sampler, (label, colour) in HEADS.items():
        rows = curves[sampler]
        milliseconds = [1000 * seconds / record["clips"] for seconds, _ in rows.values()]
        fids = [fid for _, fid in rows.values()]
        axes.plot(milliseconds, [np.mean(fid) for fid in fids], marker="o", label=label, color=colour)
        for n, x, fid in zip(rows, milliseconds, fids):
            axes.plot([x, x], [min(fid), max(fid)], color=colour, lw=1)
            axes.annotate(n, (x, np.mean(fid)), textcoords="offset points", xytext=(4, 5), fontsize=8)
    axes.set(xscale="log", ylim=(0, None), ylabel="FID", xlabel="milliseconds a motion, decoding included")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_title(
        f"{record['model']}, {record['dataset']}, {record['clips']} clips; numbers: rounds", fontsize=9
    )
    axes.legend(fontsize=8)
    save(fig, args.output)
    print(args.output)


if __name__ == "__main__":
    run(main)
