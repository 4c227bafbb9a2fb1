"""Does a generator repeat its training clips? Its clips' nearest training clips, beside those of test clips.

python -m experiments.nearest_neighbours --dataset_name BandaiNamco --name FSQ_MARDM_1

Two distances: of the evaluator's embeddings, and the root mean square distance of the joints in the root's
frame, both clips resampled to 16 frames. A near-copy is nearer to a training clip than 99% of the test clips
are: if generated clips were like test clips, 1% would be near-copies. Reconstructed test clips stand beside
them, because smoothing alone changes distances. JSON and figure go to the run's eval folder. KID of the same
draw is measured too.
"""

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.stats

from utils.analysis.output import new_figure, save
from utils.checkpoints import Run
from utils.cli import Parser, command_line, count, run, start, write_text
from utils.config import EvaluationConfig, WeightsConfig, add_flags, from_flags
from utils.data.clips import load_clips
from utils.datasets import TextMotionSet, find_dataset
from utils.errors import BadInput
from utils.eval_utils import EvaluationRun
from utils.evaluation.evaluators import TextMotionEvaluator
from utils.flags import generator_flags, sampling_config
from utils.metrics import distances, kid
from utils.pipeline import Pipeline
from utils.text_embeddings import embed_captions

FRAMES = 16  # to which every clip is resampled
ROWS = {"test": "C7", "reconstruction": "C0", "generated": "C1"}  # and their colours


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    add_flags(parser, "evaluator", EvaluationConfig, only=("eval_mean_std", "glove_dir"))
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
    pipeline = Pipeline.open(from_flags(WeightsConfig, args), device)
    tokenizer, mardm, encoder = pipeline.tokenizer, pipeline.mardm, pipeline.text_encoder
    spec, root = tokenizer.spec, find_dataset(args.dataset_name, args.dataset_dir)[1]
    evaluator = TextMotionEvaluator.load(args, spec, device, args.eval_mean_std, args.glove_dir)
    if evaluator is None:
        raise BadInput(f"no evaluator for {args.dataset_name}: train one with train_Evaluators.py")

    def examine(clips, embeddings=None):
        dataset = TextMotionSet(clips, tokenizer.normalizer, embeddings)
        return LocalJoints(evaluator, dataset, spec, device, from_flags(EvaluationConfig, args))

    clips, train_clips = load_clips(spec, root, "test")[: args.clips], load_clips(spec, root, "train")
    print(f"{len(clips)} test clips, {len(train_clips)} training clips, text encoder {encoder}")
    evaluation = examine(clips, embed_captions([clips], encoder, root, device, mardm.words)[0])
    motions = {
        "test": evaluation.real(),
        "reconstruction": evaluation.reconstructed(tokenizer.ae),
        "generated": evaluation.generated(mardm, tokenizer.ae, sampling_config(args, spec)),
    }
    train, embeddings = examine(train_clips).real(), {name: x.embeddings for name, x in motions.items()}
    local = {name: postures(x.joints) for name, x in motions.items()}
    record = {
        "command": command_line("experiments.nearest_neighbours", argv),
        "n_train": len(train_clips),
        "spaces": {
            "embedding": measure(embeddings, train.embeddings),
            "joints_mm": measure(local, postures(train.joints)),
        },
        "kid": kid(embeddings["test"], embeddings["generated"]),
        "seconds": time.time() - begun,
    }
    for space, rows in record["spaces"].items():
        for name, row in rows.items():
            copies = f"{row['near_copies']} of {row['n']} [{row['low']:.2%}, {row['high']:.2%}]"
            print(f"{space}, {name}: median {row['median']:.3g}, near-copies {copies}")
    folder = Run.of(args).eval
    write_text(args.json or folder / "memorisation.json", json.dumps(record))
    draw(record, args.output or folder / "memorisation.png")


class LocalJoints(EvaluationRun):
    """An evaluation whose Motions hold the joints in the root's frame, without the path of the root."""

    def to_motions(self, motion, m_lens):
        joints = local_joints(self.dataset.normalizer.inverse(motion), m_lens, self.spec.skeleton.unit_m)
        return replace(super().to_motions(motion, m_lens), joints=joints)


def local_joints(rows, m_lens, unit_m):
    """Features [B,T,dim], m_lens [B] -> B arrays of joints [n,J-1,3] in the root's frame, in metres."""
    local = rows[..., 4:].unflatten(-1, (-1, 3)).cpu() * unit_m
    return [one[:n].numpy() for one, n in zip(local, m_lens.tolist())]


def postures(clips, frames=FRAMES):
    """Clips of joints [T,J,3] in metres -> [N, frames J 3], evenly resampled in time, so that the Euclidean
    distance of two rows is the root mean square distance of their joints, in mm.
    """
    rows = []
    for joints in clips:
        at = np.linspace(0, len(joints) - 1, frames)
        low = np.floor(at).astype(int)
        share, high = (at - low)[:, None, None], np.minimum(low + 1, len(joints) - 1)
        rows.append(((1 - share) * joints[low] + share * joints[high]).ravel())
    return 1000 * np.array(rows) / np.sqrt(frames * clips[0].shape[1])


def nearest(rows, train):
    """Distance of each row [N,D] to the nearest of train [M,D], and which that is. -> two arrays [N]"""
    return tuple(x.numpy() for x in distances(rows, train).min(dim=1))


def near_copies(values, test, percent=1):
    """Share of the distances `values` below the 1st percentile of those of the test clips, with its 95%
    interval (Wilson). -> dict
    """
    hits = int((values < np.percentile(test, percent)).sum())
    low, high = scipy.stats.binomtest(hits, len(values)).proportion_ci(method="wilson")
    return {"n": len(values), "near_copies": hits, "share": hits / len(values), "low": low, "high": high}


def measure(rows, train):
    """name -> [N,D] of test, reconstruction, generated; train [M,D]. -> name -> dict"""
    values = {name: nearest(x, train)[0] for name, x in rows.items()}
    return {
        name: {"median": float(np.median(x)), "distances": [float(f"{d:.4g}") for d in x]}
        | near_copies(x, values["test"])
        for name, x in values.items()
    }


def draw(record, path):
    """Histograms of the distances to the nearest training clip; dotted: 1st percentile of the test clips."""
    figure = new_figure(10, 4)
    labels = {"embedding": "evaluator's embedding", "joints_mm": "joints, root mean square, mm"}
    for axes, (space, rows) in zip(figure.subplots(1, 2), record["spaces"].items()):
        values = {name: rows[name]["distances"] for name in ROWS}
        bins = np.linspace(0, max(np.percentile(x, 99.5) for x in values.values()), 41)
        for name, x in values.items():
            label = f"{name} (n={len(x)})"
            axes.hist(x, bins, density=True, histtype="step", color=ROWS[name], label=label)
        bound = np.percentile(values["test"], 1)
        axes.axvline(bound, color="k", linestyle=":", label="nearer than 99% of test clips")
        axes.set_title(labels[space], fontsize=10)
        axes.set(ylabel="density", xlabel=f"distance to the nearest of {record['n_train']} training clips")
        axes.legend(fontsize=7)
    save(figure, path)


if __name__ == "__main__":
    run(main)
