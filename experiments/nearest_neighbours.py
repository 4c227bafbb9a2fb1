"""Does a generator repeat its training clips? Its clips' nearest training clips, beside those of test clips.

python -m experiments.nearest_neighbours --dataset_name BandaiNamco --name FSQ_MARDM --model FSQ-MARDM-SiT-XS \\
    --ae_name FSQ_AE_High --ae_model FSQ_AE_High
Two distances: of the evaluator's embeddings, and the root mean square distance of the joints in the root's
frame, both clips resampled to 16 frames. A near-copy lies nearer to a training clip than 99% of the test
clips do: were generated clips like test clips, 1% would be near-copies. Test clips through the autoencoder
and back stand beside them, because smoothing alone changes distances. JSON and figure go to the run's eval
folder. KID of the same draw is measured too: the evaluations leave it out where n >= 5 D.
"""

import json
import shlex
import sys
import time
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from experiments.nearest_neighbours_metrics import PostureExam, near_copies, nearest, postures
from motion.files import whole_file
from utils.checkpoints import Run, load_ae, load_mardm
from utils.cli import Parser, count, run, start, write_text
from utils.config import EvaluationConfig, from_flags
from utils.data.clips import load_clips
from utils.datasets import TextMotionSet, find_dataset
from utils.errors import BadInput
from utils.evaluation.evaluators import TextMotionEvaluator
from utils.flags import decoding, evaluator_flags, generator_flags
from utils.metrics import kid
from utils.text_embeddings import embed_captions

ROWS = {"test": "C7", "reconstruction": "C0", "generated": "C1"}  # and their colours


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    evaluator_flags(parser)
    parser.add_argument(
        "--batch_size", type=count(1, 10**5), default=64, help="clips at a time [%(default)s]"
    )
    parser.add_argument("--clips", type=count(1), help="only the first N test clips [all]")
    parser.add_argument("--json", type=Path, help="[eval/memorisation.json of the run]")
    parser.add_argument("--output", type=Path, help="figure [eval/memorisation.png of the run]")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    begun, device = time.time(), start(args)
    sets, mardm, ae, sampling, encoder = parts(args, device)
    evaluation, train = sets
    print(
        f"{len(evaluation.dataset)} test clips, {len(train.dataset)} training clips, text encoder {encoder}"
    )
    motions = {
        "test": evaluation.real(),
        "reconstruction": evaluation.reconstructed(ae),
        "generated": evaluation.generated(mardm, ae, sampling),
    }
    known = train.real()
    record = {
        "command": shlex.join(
            ["experiments/nearest_neighbours.py", *(sys.argv[1:] if argv is None else argv)]
        ),
        "n_train": len(train.dataset),
        "spaces": {
            "embedding": measure({k: x.embeddings for k, x in motions.items()}, known.embeddings),
            "joints_mm": measure({k: postures(x.joints) for k, x in motions.items()}, postures(known.joints)),
        },
        "kid": kid(motions["test"].embeddings, motions["generated"].embeddings),
        "seconds": time.time() - begun,
    }
    folder = Run.of(args).eval
    folder.mkdir(parents=True, exist_ok=True)
    for space, found in record["spaces"].items():
        print(f"{space}: " + "; ".join(f"{k}: median {x['median']:.3g}, {told(x)}" for k, x in found.items()))
    write_text(args.json or folder / "memorisation.json", json.dumps(record))
    draw(record, args.output or folder / "memorisation.png")


def parts(args, device):
    """-> (exams on test and training split), generator, autoencoder, how to draw, text encoder"""
    tokenizer = load_ae(args, device)
    spec, root = tokenizer.spec, find_dataset(args.dataset_name, args.dataset_dir)[1]
    mardm, config = load_mardm(args, tokenizer, device)
    encoder = args.text_encoder or config.get("text_encoder", spec.text_encoder)
    clips = load_clips(spec, root, "test")[: args.clips]
    text, _ = embed_captions([clips], encoder, root, device)
    evaluator = TextMotionEvaluator.load(args, spec, device, args.eval_mean_std, args.glove_dir)
    if evaluator is None:
        raise BadInput(f"no evaluator for {args.dataset_name}: train one with train_Evaluators.py")
    exams = [
        PostureExam(
            evaluator,
            TextMotionSet(some, tokenizer.normalizer, embeddings),
            spec,
            device,
            from_flags(EvaluationConfig, args),
        )
        for some, embeddings in ((clips, text), (load_clips(spec, root, "train"), None))
    ]
    return exams, mardm, tokenizer.ae, decoding(args, spec), encoder


def measure(rows, train):
    """name -> [N,D] of test, reconstruction, generated; train [M,D]. -> name -> dict"""
    found = {name: nearest(x, train)[0] for name, x in rows.items()}
    return {
        name: {
            "median": float(np.median(values)),
            "distances": [float(f"{value:.4g}") for value in values],
            **near_copies(values, found["test"]),
        }
        for name, values in found.items()
    }


def told(x):
    return f"near-copies {x['near_copies']} of {x['n']} = {x['share']:.2%} [{x['low']:.2%}, {x['high']:.2%}]"


def draw(record, path):
    """Histograms of the distances to the nearest training clip, a panel a space."""
    figure = Figure(figsize=(10, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    labels = {"embedding": "evaluator's embedding", "joints_mm": "joints, root mean square, mm"}
    for axes, (space, found) in zip(figure.subplots(1, 2), record["spaces"].items()):
        histogram(axes, {name: found[name]["distances"] for name in ROWS})
        axes.set_title(labels[space], fontsize=10)
        axes.set_xlabel(f"distance to the nearest of {record['n_train']} training clips")
    with whole_file(path) as part:
        figure.savefig(part)


def histogram(axes, found):
    """found: name of a row of ROWS -> distances. Dotted: the 1st percentile of the test clips'."""
    high = max(np.percentile(values, 99.5) for values in found.values())
    bins = np.linspace(0, high, 41)
    for name, values in found.items():
        axes.hist(
            values, bins, density=True, histtype="step", color=ROWS[name], label=f"{name} (n={len(values)})"
        )
    axes.axvline(
        np.percentile(found["test"], 1), color="k", linestyle=":", label="nearer than 99% of test clips"
    )
    axes.set_ylabel("density")
    axes.legend(fontsize=7)


if __name__ == "__main__":
    run(main)
