"""Report of the ablation: its folder -> JSON, and from the JSON alone tables, figures and verdicts.

python -m experiments.ablation.report --folder checkpoints/ablation --comparison fsq_ae_comparison.md
python -m experiments.ablation.report --report results/ablation.json --comparison fsq_ae_comparison.md
"""

import json
import time
from pathlib import Path

from experiments.ablation import tables
from experiments.ablation.collect import collect
from experiments.ablation.figures import draw_all
from experiments.ablation.verdicts import PAIRS, hypotheses, reference_fid
from utils.analysis import topology_figure, training_figure
from utils.analysis.output import markdown
from utils.cli import Parser, name, run, write_text
from utils.errors import BadInput


def flags():
    parser = Parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--folder", type=Path, help="the ablation's --checkpoints_dir: collect anew")
    source.add_argument("--report", type=Path, help="a JSON collected before: nothing else is read")
    parser.add_argument("--dataset_name", type=name, default="BandaiNamco", help="[%(default)s]")
    parser.add_argument("--out", type=Path, help="OUT.json, OUT.md, OUT_*.png [results/<folder>; the JSON's]")
    parser.add_argument("--machine", help="what the runs ran on [this machine]")
    parser.add_argument("--notes", type=Path, help="markdown about this run, kept in the JSON [none]")
    parser.add_argument("--comparison", type=Path, help="markdown file for the table of the zoo [none]")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    if args.report:
        out, record = args.out or args.report.with_suffix(""), read(args.report)
    else:
        out, record = args.out or Path("results") / args.folder.name, collect(args.folder, args.dataset_name)
        record["machine"] = args.machine or record["machine"]
        record["date"] = time.strftime("%Y-%m-%d")
        record["notes"] = args.notes.read_text(encoding="utf-8") if args.notes else ""
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out.with_name(out.name + ".json"), json.dumps(record) + "\n")
    pictures = draw_all(record, out)
    write_text(out.with_name(out.name + ".md"), page(record, out.name, pictures))
    if args.comparison:
        write_text(args.comparison, comparison(record, out))
    for one in hypotheses(record):
        print(f"{one['name']}: {one['verdict']}")
    print(f"{len(record['runs'])} runs: {out}.json, {out}.md and {len(pictures)} figures")


def read(path):
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["runs"], record["training"], record["topology"], record["zoo"], record["quoted"]
    except FileNotFoundError:
        raise BadInput(f"{path} does not exist: collect it with --folder") from None
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise BadInput(f"{path} is not what this program collects: make it anew with --folder") from None
    return record


VERDICTS = """By the rules of `experiments/ablation/verdicts.py`: a claim holds (yes) if the 95% interval over
seeds lies on the claimed side of its limit; one no makes a hypothesis *not supported*, an open claim or fewer
than three seeds leave it *undecided*. Differences are paired by seed; nothing corrects for their number."""
GENERATION = """KID where n < 5 x the embedding's width; for one draw of each seed, see Memorisation.
MultiModality: 30 motions of each of 96 captions."""
TRAINING = """Evaluated on the validation split while training; means over seeds and their range. Steps: the
first evaluation that reaches the threshold. Seconds: steps x median seconds per step. Spikes: logged gradient
norms after warm-up above median + 6 MAD of the 101 around them. CV: of the gradient norm after warm-up;
detrended: divided by its running median first. Losses of different targets share no axis."""
MEMORISATION = """Near-copies: clips nearer to a training clip than 99% of the test clips are, counted over
all seeds; 1% if generated clips were like test clips. KID: one draw of each seed against the test clips."""


def page(record, stem, pictures):
    """ablation.md"""
    parts = [f"# Continuous, FSQ and VQ: the ablation on {record['dataset']}", opening(record, stem)]
    parts += ["## Verdicts", VERDICTS, tables.verdict_table(hypotheses(record))]
    if record.get("notes"):
        parts += ["## To read with it", record["notes"].strip()]
    for title, bodies in sections(record).items():
        parts.append(f"## {title}")
        if title in pictures:
            parts.append(f"![{title}]({pictures[title].name})")
        parts += bodies
    return "\n\n".join(parts) + "\n"


def opening(record, stem):
    runs = record["runs"].values()
    widths = sorted({run["flags"]["width"] for run in runs if "width" in run["flags"]})
    seeds = sorted({run["seed"] for run in runs if run["seed"] is not None})
    evaluated = sum(one["seconds"] for run in runs for one in run["evaluations"].values())
    hours = (evaluated + sum(run.get("train_seconds", 0) for run in runs)) / 3600
    reference = reference_fid(record)
    text = f"""{len(runs)} runs, seeds {", ".join(map(str, seeds))}, autoencoders of width
{", ".join(map(str, widths))} (the continuous latents are as wide); {record["machine"]}. {hours:.1f} hours in
steps and evaluations, collected {record.get("date", "")}. `{stem}.json` holds every command, seed, n and wall
time; `python -m experiments.ablation.report --report results/{stem}.json` makes this page and its figures.

Cells: mean over seeds ± half the 95% interval over seeds (Student's t; left out for one seed), in brackets
the mean half width of the runs' own intervals over repeats (left out where repeats do not differ). *n* is
clips x repeats of one run."""
    if reference is not None:
        text += f""" The train/test reference FID is {reference:.3f}: test clips against as many training
clips of their contents. It is no lower bound: a generator gets the test captions and lengths, these not."""
    return text


def sections(record):
    """-> title -> markdown parts"""
    training, topology, not_run = record["training"], record["topology"], ["Not run."]
    training_parts = [TRAINING, training_figure.table(training)] if training else not_run
    topology_parts = [topology_facts(topology), topology_figure.table(topology)] if topology else not_run
    pair_metrics = {key: tables.RECONSTRUCTION[key] for key in ("FID", "MPJPE mm", "foot skate", "jitter")}
    families = (("FSQ_MARDM", "MARDM"), ("FSQ_MARDM", "VQ_MARDM"), ("MARDM", "VQ_MARDM"))
    family_metrics = {key: tables.GENERATION[key] for key in ("FID", "top 1", "Matching", "foot skate")}
    return {
        "Reconstruction": [
            tables.metric_table(record, tables.AUTOENCODERS, tables.RECONSTRUCTION),
            "Matched pairs, equal seed:",
            tables.paired_table(record, PAIRS, pair_metrics, "FSQ - VQ"),
            "Codes that the test clips need; usage = distinct codes / min(code book, tokens):",
            tables.usage_table(record),
        ],
        "Generation": [
            tables.metric_table(record, tables.GENERATORS, tables.GENERATION),
            GENERATION,
            tables.paired_table(record, families, family_metrics, "difference, equal seed"),
        ],
        "Convergence and stability": training_parts,
        "Effects, each on and off": [
            tables.effects_table(record),
            "Solver steps:",
            tables.solver_table(record),
        ],
        "Topology": topology_parts,
        "Memorisation": [MEMORISATION, tables.memorisation_table(record)],
        "The VQ control's settings": ["Evaluated on the validation split.", tables.tuning_table(record)],
        "Runs": [tables.run_table(record)],
    }


def topology_facts(topology):
    facts = f"{topology['samples']} tokens of {topology['clips']} clips of the {topology['split']} split"
    return f"""One token moved; {facts}. `analyze_topology.py --help` explains moves and norms.
`{topology["command"]}`"""


def comparison(record, out):
    """fsq_ae_comparison.md: every entry of the zoo, measured or not."""
    keys = ("what", "fid", "epoch", "top1", "top3", "matching", "diversity", "note")
    quoted = [["-" if one[key] is None else one[key] for key in keys] for one in record["quoted"]]
    titles = ["", "FID", "epoch", "top 1", "top 3", "Matching", "Diversity", "protocol"]
    facts = f"""Made from `{out}.json` by `experiments/ablation/report.py`. Measured on {record["dataset"]},
test split, by its own evaluator ({record["machine"]}); mean over seeds ± half the 95% interval. FIDs of
different data sets and evaluators are different quantities. *epochs* are finished ones; *best validation
FID* is the mean over seeds of each run's best, *at step* and *epoch* those of each."""
    others = "HumanML3D, reported by others, not measured here; no column is shared with the table above."
    parts = ["# The autoencoders compared", facts, tables.zoo_table(record), "## Others' figures", others]
    return "\n\n".join([*parts, markdown(titles, quoted)]) + "\n"


if __name__ == "__main__":
    run(main)
