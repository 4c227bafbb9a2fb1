"""Which measure notices which defect: real test clips with planted defects, scored as if generated.

python -m experiments.measures_check --dataset_name BandaiNamco
needs the data set (with labels.csv) and its evaluator (train_Evaluators.py); replaces the tables in
results/measures.md and keeps the text above them. Every defect but mode collapse is planted in the test clips
themselves. It is noticed (bold) where a measure is worse than that of train clips of the same labels and
nearest length by more than its own 95% half width over clips.
"""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter1d

from models import counter_rng
from models.AE import STRIDE
from models.counter_rng import Purpose
from motion.skeletons import mirror_joints
from utils.analysis.output import write_below
from utils.cli import Parser, run, start
from utils.config import EvaluationConfig, RunConfig, from_flags
from utils.data.clips import load_clips
from utils.datasets import Normalizer, TextMotionSet, find_dataset, tensor
from utils.errors import BadInput
from utils.eval_utils import EvaluationRun, Scores
from utils.evaluation.evaluators import TextMotionEvaluator
from utils.evaluation_report import MEASURES, read_labels, reference_rows
from utils.flags import common_flags

REFERENCE, COLLAPSE = "nearest length", "one clip per label"
MARKER = "<!-- tables: written by experiments/measures_check.py -->\n"
HIGHER_IS_BETTER = {"precision", "recall", "density", "coverage", "top3", "label_top3"}
COMPARED_WITH_REAL = {"foot_skate", "jitter", "root_speed"}
TABLES = (
    ("fid", "fid_content", "kid", "precision", "recall", "density", "coverage", "physical"),
    ("top3", "label_top3", "foot_skate", "jitter", "root_speed")
    + ("path_displacement", "path_turning", "path_speed"),
)


def noise(metres):
    def defect(rows, skeleton, rng):
        rows[:, 3:] += rng.normal(0, metres / skeleton.unit_m, rows[:, 3:].shape)
        return rows

    return defect


def shuffled_tokens(rows, skeleton, rng, window=4):
    """Tokens in random order within windows of four, 0.8 s at 20 frames a second."""
    tokens = rows.reshape(-1, STRIDE, rows.shape[1])
    starts = range(0, len(tokens), window)
    order = [start + rng.permutation(min(window, len(tokens) - start)) for start in starts]
    return tokens[np.concatenate(order)].reshape(rows.shape)


def swapped_sides(rows, skeleton, rng):
    """The mirror image under the caption of the original."""
    joints = np.pad(rows[:, 4:].reshape(len(rows), -1, 3), ((0, 0), (1, 0), (0, 0)))
    joints = mirror_joints(joints, skeleton)[:, 1:].reshape(len(rows), -1)
    return np.concatenate([rows[:, :4] * [-1, -1, 1, 1], joints], axis=1)  # yaw and lateral velocity


DEFECTS = {
    "noise of 1 cm": noise(0.01),  # white, on the root's height and the joints in the root's frame
    "noise of 2 cm": noise(0.02),
    "smoothed, sigma 0.1 s": lambda rows, skeleton, rng: gaussian_filter1d(rows, 2, axis=0, mode="nearest"),
    "tokens shuffled within 0.8 s": shuffled_tokens,
    "half root speed": lambda rows, skeleton, rng: rows * ([1, 0.5, 0.5] + [1] * (rows.shape[1] - 3)),
    "left and right swapped": swapped_sides,
}


def plant(evaluation, defect):
    """The set's clips with a defect. -> Motions"""
    normalizer, skeleton = evaluation.dataset.normalizer, evaluation.spec.skeleton

    def produce(batch, rows):
        motion = normalizer.inverse(batch.motion).double().cpu().numpy()
        for clip, n, row in zip(motion, batch.m_lens.tolist(), rows):
            rng = counter_rng.rng(Purpose.REFERENCE, evaluation.config.seed, row)
            clip[:n] = defect(clip[:n].copy(), skeleton, rng)
        return normalizer(tensor(np.float32(motion)).to(evaluation.device))

    return evaluation.motions(produce)


def one_clip_per_label(evaluation, root):
    """Mode collapse: every clip of a label is the same train clip of it. -> Motions"""
    clips = load_clips(evaluation.spec, root, "train")
    train = replace(evaluation, dataset=TextMotionSet(clips, evaluation.dataset.normalizer)).real()
    first = {}
    for row, (content, style) in enumerate(read_labels(root, clips)):
        first.setdefault((content, style), row)
        first.setdefault(content, row)
    return train.take(np.array([first.get(label, first[label[0]]) for label in evaluation.labels]))


def is_noticed(name, value, half, reference, real):
    """Is a measure worse than the reference's by more than its half width?"""
    if name in COMPARED_WITH_REAL:
        return abs(value - real) > abs(reference - real) + half
    return (reference - value if name in HIGHER_IS_BETTER else value - reference) > half


def table(rows, names):
    """rows {name: Scores} -> Markdown table of these measures, mean ± half width."""
    real, reference = rows["real"].interval(), rows[REFERENCE].interval()
    titles = " | ".join(MEASURES[name].strip() for name in names)
    lines = [f"| | {titles} |", "|---" * (len(names) + 1) + "|"]
    for title, row in rows.items():
        cells, values = [], row.interval()
        for name in names:
            mean, half = values.get(name, (math.nan, 0))
            spread = "n/a" if math.isnan(half) else f"{half:.2g}"
            text = "-" if math.isnan(mean) else f"{mean:.3g} ± {spread}"
            planted = title in (*DEFECTS, COLLAPSE)
            noticed = planted and is_noticed(name, mean, half, reference[name][0], real.get(name, [0])[0])
            cells.append(f"**{text}**" if noticed else text)
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def flags():
    parser = Parser(__doc__)
    common_flags(parser)
    parser.add_argument("--glove_dir", default="./glove", help="published word vectors [%(default)s]")
    parser.add_argument("--output", type=Path, default="results/measures.md", help="report [%(default)s]")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    device, config = start(args), from_flags(EvaluationConfig, args)
    spec, root = find_dataset(args.dataset_name, args.dataset_dir)
    run_config = from_flags(RunConfig, args, name="")
    evaluator = TextMotionEvaluator.load(run_config, spec, device, glove_dir=args.glove_dir)
    clips = load_clips(spec, root, "test")
    dataset = TextMotionSet(clips, Normalizer.load(root, spec.dim), seed=args.seed)
    evaluation = EvaluationRun(evaluator, dataset, spec, device, config, read_labels(root, clips))
    if evaluator is None or evaluation.labels is None:
        raise BadInput(f"{args.dataset_name}: an evaluator and a labels.csv are needed")
    real = evaluation.real()
    rows = {"real": evaluation.repeats(evaluation.real, 1)} | reference_rows(evaluation, root)
    sets = {name: plant(evaluation, defect) for name, defect in DEFECTS.items()}
    sets[COLLAPSE] = one_clip_per_label(evaluation, root)
    for name, motions in sets.items():
        rows[name] = Scores([evaluation.compare(real, motions)], evaluation.halves(real, motions))
    tables = "\n".join(table(rows, names) for names in TABLES)
    print(tables)
    write_below(args.output, MARKER, tables)


if __name__ == "__main__":
    run(main)
