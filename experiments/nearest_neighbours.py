"""Does a generator repeat its training clips? Distances of its motions and of test clips to the nearest one.

python -m experiments.nearest_neighbours --dataset_name BandaiNamco --name FSQ_MARDM_1

Two distances: of the evaluator's embeddings, and of the joints in the root's frame (`nearest_clips`).
Training and test clips have gone through the autoencoder. A near-copy is nearer to a training clip than 99%
of the test clips are. Positive control: training clips without their first token, which stand for the output
of a generator that repeats them; the share of them that is flagged is the power of the test. `nearer`: how
often a clip is nearer to training than a test clip is, over all pairs; 0.5 if they are alike. JSON and
figure go to the run's eval folder, with the KID of the same motions.
"""

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import scipy.stats
from tqdm import tqdm

from models import counter_rng
from models.AE import STRIDE
from models.counter_rng import Purpose
from motion.files import write_json
from utils.analysis.output import new_figure, save
from utils.cli import Parser, command_line, count, run, start
from utils.config import EvaluationConfig, WeightsConfig, add_flags, from_flags
from utils.data.clips import load_clips
from utils.datasets import TextMotionSet, find_dataset
from utils.eval_utils import EvaluationRun
from utils.evaluation.evaluators import TextMotionEvaluator
from utils.flags import generator_flags, sampling_config
from utils.metrics import distances, kid
from utils.pipeline import Pipeline
from utils.runs import Run
from utils.statistics import wilson
from utils.text_embeddings import embed_captions

OVERLAP = 0.8  # of a clip's frames, at least, are compared with those of a training clip
POWER = 0.8  # share of the positive control that a conclusive test flags at least
ROWS = {"test": "C7", "reconstruction": "C0", "generated": "C1", "copies": "C2"}  # and their colours


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
    source = from_flags(WeightsConfig, args)
    pipeline = Pipeline.open(source, device)
    autoencoder, mardm, encoder = pipeline.autoencoder, pipeline.mardm, pipeline.text_encoder
    spec, root = autoencoder.spec, find_dataset(args.dataset_name, args.dataset_dir)[1]
    files = args.eval_mean_std, args.glove_dir
    evaluator = TextMotionEvaluator.load(source, spec, device, *files, required=True)

    def examine(clips, embeddings=None):
        dataset = TextMotionSet(clips, autoencoder.normalizer, embeddings)
        return LocalJoints(evaluator, dataset, spec, device, from_flags(EvaluationConfig, args))

    clips, train_clips = load_clips(spec, root, "test")[: args.clips], load_clips(spec, root, "train")
    print(f"{len(clips)} test clips, {len(train_clips)} training clips, text encoder {encoder}")
    evaluation = examine(clips, embed_captions([clips], encoder, root, device, mardm.words)[0])
    motions = {
        "test": evaluation.real(),
        "reconstruction": evaluation.reconstructed(autoencoder.ae),
        "generated": evaluation.generated(mardm, autoencoder.ae, sampling_config(args, spec, mardm)),
        "copies": examine(cut_copies(train_clips, len(clips), args.seed)).reconstructed(autoencoder.ae),
    }
    train = examine(train_clips).reconstructed(autoencoder.ae)
    embeddings, joints = (
        {name: getattr(x, of) for name, x in motions.items()} for of in ("embeddings", "joints")
    )
    record = {
        "command": command_line("experiments.nearest_neighbours", argv),
        "n_train": len(train_clips),
        "spaces": {
            "embedding": measure(embeddings, lambda rows: nearest(rows, train.embeddings)),
            "joints_mm": measure(joints, lambda clips: nearest_clips(clips, train.joints)),
        },
        "kid": kid(embeddings["test"], embeddings["generated"]),
        "seconds": time.time() - begun,
    }
    for space, rows in record["spaces"].items():
        for name, row in rows.items():
            copies = f"{row['near_copies']} of {row['n']} [{row['low']:.2%}, {row['high']:.2%}]"
            nearer = f"nearer than test clips {row['nearer']:.2f}"
            print(f"{space}, {name}: median {row['median']:.3g}, {nearer}, near-copies {copies}")
        if rows["copies"]["share"] < POWER:
            print(f"{space}: flags {rows['copies']['share']:.0%} of copied training clips, too few to tell")
    folder = Run.of(source).eval
    write_json(args.json or folder / "memorisation.json", record)
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


def cut_copies(clips, n, seed):
    """n of the training clips (all if fewer), drawn uniformly, without their first token."""
    chosen = counter_rng.rng(Purpose.REFERENCE, seed).permutation(len(clips))[:n]
    long = [clips[i] for i in sorted(chosen) if len(clips[i].motion) > 2 * STRIDE]
    return [replace(clip, motion=clip.motion[STRIDE:]) for clip in long]


def nearest(rows, train):
    """Distance of each row [N,D] to the nearest of train [M,D] -> [N]"""
    return distances(rows, train).min(dim=1).values.numpy()


def nearest_clips(clips, train):
    """Distance in mm of each clip of joints [T,J,3] to the nearest training clip: the root mean square over
    joints and the frames that overlap, at the offset where it is least. Every fourth frame counts, one of
    each token. -> [N]
    """
    train = [tokens(clip) for clip in train]
    padded = np.zeros((len(train), max(map(len, train)), train[0].shape[1]))
    for row, clip in zip(padded, train):
        row[: len(clip)] = clip
    lengths, least = np.array([len(clip) for clip in train]), []
    for clip in tqdm(clips, desc="nearest", unit="clip", leave=False):
        least.append(least_square(tokens(clip), padded, lengths).min())
    return 1000 * np.sqrt(np.array(least) / clips[0].shape[1])


def tokens(clip):
    return np.float64(clip[::STRIDE]).reshape(-1, clip.shape[1] * clip.shape[2])


def least_square(clip, train, lengths):
    """clip [n,F], train [M,L,F] of `lengths` [M] -> [M] mean over the overlap of the squared distance, least
    of all offsets; inf where none overlaps in OVERLAP of the clip.
    """
    n, (M, L, _) = len(clip), train.shape
    products = (train.reshape(M * L, -1) @ clip.T).reshape(M, L, n)
    squares = np.square(train).sum(axis=2)[..., None] + np.square(clip).sum(axis=1) - 2 * products
    squares *= (np.arange(L) < lengths[:, None])[..., None]  # [M,L,n]
    needed, best = int(np.ceil(OVERLAP * n)), np.full(M, np.inf)
    for offset in range(needed - n, L - needed + 1):  # of the clip's first frame in the training clip
        overlap = np.minimum(n, lengths - offset) - max(0, -offset)
        sums = squares.diagonal(-offset, axis1=1, axis2=2).sum(axis=1)
        means = np.maximum(sums, 0) / np.maximum(overlap, 1)
        best = np.where(overlap >= needed, np.minimum(best, means), best)
    return best


def near_copies(values, bound):
    """Share of the distances `values` below `bound`, with its 95% interval (Wilson). -> dict"""
    hits = int((values < bound).sum())
    low, high = wilson(hits, len(values))
    return {"n": len(values), "near_copies": hits, "share": hits / len(values), "low": low, "high": high}


def measure(sets, distance, percent=1):
    """sets: name -> clips of ROWS; distance(clips) -> [N], to the nearest training clip. -> name -> dict

    The bound of a near-copy is the 1st percentile of the reconstructed test clips.
    """
    values = {name: distance(clips) for name, clips in sets.items()}
    test = values["reconstruction"]
    bound, rows = float(np.percentile(test, percent)), {}
    for name, x in values.items():
        pairs = scipy.stats.mannwhitneyu(
            test, x
        ).statistic  # the number of pairs in which x is nearer; ties count one half
        rows[name] = {"median": float(np.median(x)), "nearer": float(pairs / (len(x) * len(test)))}
        rows[name] |= {"distances": [float(f"{d:.4g}") for d in x], "bound": bound} | near_copies(x, bound)
    return rows


def draw(record, path):
    """Histograms of the distances to the nearest training clip; dotted: the bound of a near-copy."""
    figure = new_figure(10, 4)
    labels = {"embedding": "evaluator's embedding", "joints_mm": "joints, root mean square, mm"}
    for axes, (space, rows) in zip(figure.subplots(1, 2), record["spaces"].items()):
        values = {name: rows[name]["distances"] for name in ROWS}
        bins = np.linspace(0, max(np.percentile(x, 99.5) for x in values.values()), 41)
        for name, x in values.items():
            label = f"{name} (n={len(x)})"
            axes.hist(x, bins, density=True, histtype="step", color=ROWS[name], label=label)
        label = "nearer than 99% of test clips"
        axes.axvline(rows["reconstruction"]["bound"], color="k", linestyle=":", label=label)
        axes.set_title(labels[space], fontsize=10)
        axes.set(ylabel="density", xlabel=f"distance to the nearest of {record['n_train']} training clips")
        axes.legend(fontsize=7)
    save(figure, path)


if __name__ == "__main__":
    run(main)
