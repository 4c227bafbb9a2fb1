"""What the evaluation scripts share: building an evaluation, reference rows, report files."""

import math
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from models import counter_rng
from models.counter_rng import Purpose
from motion.files import folder_lock, write_json, write_text
from utils import distributed, metrics
from utils.cli import command_line
from utils.data.clips import load_clips
from utils.datasets import TextMotionSet, find_dataset
from utils.errors import BadInput
from utils.eval_utils import EvaluationRun, Scores, interval
from utils.evaluation.evaluators import TextMotionEvaluator
from utils.plain import read_csv
from utils.text_embeddings import embed_captions

REFERENCE_DRAWS = 20
COLUMN = 22
MEASURES = {
    "fid": "FID",
    "fid_content": "  within contents",
    "kid": "KID",
    "precision": "Precision",
    "recall": "Recall",
    "density": "Density",
    "coverage": "Coverage",
    "physical": "Physical distance",
    "top1": "R-precision top 1",
    "top2": "R-precision top 2",
    "top3": "R-precision top 3",
    "label_top1": "  same label, top 1",
    "label_top2": "  same label, top 2",
    "label_top3": "  same label, top 3",
    "matching": "Matching",
    "diversity": "Diversity",
    "multimodality": "MultiModality",
    "clip_score": "CLIP score",
    "mpjpe": "MPJPE (mm)",
    "mpjpe_global": "MPJPE global (mm)",
    "foot_skate": "Foot skate",
    "jitter": "Jitter (m/s^3)",
    "root_speed": "Root speed (m/s)",
    "path_displacement": "Path W1 (m)",
    "path_turning": "Turning W1 (deg)",
    "path_speed": "Walkers W1 (m/s)",
}


def make_evaluation(run_config, config, autoencoder, clips, device, embeddings=None):
    """The EvaluationRun of a RunConfig under an EvaluationConfig on these clips.

    embeddings: of the captions, if motions are to be generated from them. These and config.baselines need an
    evaluator (BadInput).
    """
    distributed.refuse_several("an evaluation")
    parent = config.protocol == "parent"
    root = find_dataset(run_config.dataset_name, run_config.dataset_dir, trained_on=autoencoder.spec)[1]
    files = {"eval_mean_std": config.eval_mean_std, "glove_dir": config.glove_dir}
    required = embeddings is not None or config.baselines
    evaluator = TextMotionEvaluator.load(run_config, autoencoder.spec, device, **files, required=required)
    if evaluator is not None:
        warn_of_a_weak_evaluator(evaluator)
    if parent and len(clips) < metrics.POOL:
        raise BadInput(
            f"{root}/{config.split}.txt: {len(clips)} clips; --protocol parent needs at least {metrics.POOL}"
        )
    dataset = TextMotionSet(clips, autoencoder.normalizer, embeddings, crop=parent, seed=config.seed)
    return EvaluationRun(evaluator, dataset, autoencoder.spec, device, config, read_labels(root, clips))


def make_generator_evaluation(run_config, config, pipeline):
    """`make_evaluation` of a Pipeline, on the clips of the config's split with their captions embedded."""
    root = find_dataset(run_config.dataset_name, run_config.dataset_dir)[1]
    clips, device = load_clips(pipeline.spec, root, config.split), pipeline.device
    words = pipeline.mardm.words
    embeddings, width = embed_captions([clips], pipeline.text_encoder, root, device, words)
    pipeline.check_text(width)
    return make_evaluation(run_config, config, pipeline.autoencoder, clips, device, embeddings)


def warn_of_a_weak_evaluator(evaluator):
    if evaluator.test is None:
        return
    bar = metrics.EVALUATOR_BAR * evaluator.test.get("reach", 1.0)  # older files lack "reach"
    if evaluator.test["top3"] < bar:
        print(
            f"warning: the evaluator is too weak: real test motion reaches R-precision top-3 "
            f"{evaluator.test['top3']:.3f} < {bar:.3f}; train it longer (train_Evaluators.py)"
        )


def read_labels(root, clips):
    """(content, style) of each clip from labels.csv (name,content,style); None where not all have one."""
    file = Path(root) / "labels.csv"
    if not file.is_file():
        return None
    try:
        known = {row["name"]: (row["content"], row["style"]) for row in read_csv(file) if row["content"]}
    except (KeyError, BadInput):
        raise BadInput(f"{file}: expected columns name,content,style; mend it or remove it") from None
    # a caption with its own start and end is a clip <name>_<line>, labelled like <name>
    labels = [known.get(clip.name, known.get(clip.name.rpartition("_")[0])) for clip in clips]
    return None if None in labels else labels


def reference_rows(evaluation, root, ae=None):
    """Training clips scored as if they had been generated, mean of 20 draws. -> row name -> Scores

    "random train": any clip. "same content", "content + style": a clip with these labels of the test clip
    (only its content if training lacks the style). "nearest length": of these the one nearest in length, as
    good as a generator of real motion of the right kind would be. "retrieval": the clip whose caption is
    nearest, in the evaluator's space, to that of the test clip in the same repeat. These two, with an
    autoencoder, also "..., reconstructed": what a generator would reach that recites them from its tokens.
    """
    clips = load_clips(evaluation.spec, root, "train")
    train_set = TextMotionSet(clips, evaluation.dataset.normalizer, seed=evaluation.config.seed)
    train_run = replace(evaluation, dataset=train_set, labels=read_labels(root, clips))
    train, real = train_run.real(), evaluation.real()
    n, rng = len(evaluation.dataset), counter_rng.rng(Purpose.REFERENCE, evaluation.config.seed)
    draws = {"random train": lambda _: rng.choice(len(clips), n, replace=n > len(clips))}
    if evaluation.labels is not None and train_run.labels is not None:
        asked, offered = evaluation.labels, train_run.labels
        lengths = evaluation.dataset.lengths, train_set.lengths
        contents = [content for content, _ in asked], [content for content, _ in offered]
        seen = set(offered)
        styled = [label if label in seen else (label[0], None) for label in asked]
        if set(contents[0]) <= set(contents[1]):
            draws |= {
                "same content": lambda _: matched_clips(*contents, rng),
                "content + style": lambda _: matched_clips(styled, offered, rng),
                "nearest length": lambda _: matched_clips(styled, offered, rng, lengths),
            }
    embed = evaluation.evaluator.embed_text
    theirs = embed(*train_run.captions())
    draws["retrieval"] = lambda repeat: nearest_rows(
        metrics.distances(embed(*evaluation.captions(repeat)), theirs).numpy(), rng
    )
    rows, recited = {}, train_run.reconstructed(ae) if ae else None
    for name, draw in draws.items():
        drawn = [draw(repeat) for repeat in range(REFERENCE_DRAWS)]
        offers = {name: train}
        if recited and name in ("nearest length", "retrieval"):
            offers[f"{name}, reconstructed"] = recited
        for title, motions in offers.items():
            picked = [motions.take(indices) for indices in drawn]
            repeats = [evaluation.compare(real, one, i) for i, one in enumerate(picked)]
            rows[title] = Scores(repeats, evaluation.halves(real, picked[0]))
    return rows


def matched_clips(asked, offered, rng, lengths=None):
    """For each label in `asked` the index of an `offered` one, none twice while there are enough. -> [N]

    A label (content, None) accepts any style. lengths: of asked [N] and offered [M]; if given, the nearest is
    taken, else any. Labels are served in random order, so that none always has the first choice.
    """
    rows_of = defaultdict(list)
    for row, label in enumerate(offered):
        rows_of[label].append(row)
        if isinstance(label, tuple):
            rows_of[label[0], None].append(row)
    left, picked = {}, np.zeros(len(asked), dtype=int)
    for i in rng.permutation(len(asked)):
        rows = left.get(asked[i]) or rng.permutation(rows_of[asked[i]]).tolist()
        distance = [abs(lengths[1][row] - lengths[0][i]) for row in rows] if lengths else [0]
        picked[i] = rows.pop(int(np.argmin(distance)))
        left[asked[i]] = rows
    return picked


def nearest_rows(distances, rng):
    """For each row of distances [N,M] the nearest column; ties are broken at random. -> [N]"""
    equals = distances <= distances.min(axis=1, keepdims=True) + 1e-6
    return np.where(equals, rng.random(distances.shape), -1).argmax(axis=1)


def mean_label_ceiling(evaluation):
    """R-precision of an oracle that knows the labels, mean over 20 draws -> [3]; None without labels."""
    if evaluation.labels is None or len(evaluation.labels) < metrics.POOL:
        return None
    labels, config = ["/".join(label) for label in evaluation.labels], evaluation.config
    rngs = (counter_rng.rng(Purpose.LABELS, config.seed, i) for i in range(REFERENCE_DRAWS))
    pools = (metrics.draw_pools(len(labels), rng, config.protocol) for rng in rngs)
    return np.mean([metrics.label_ceiling(labels, drawn) for drawn in pools], axis=0)


def format_interval(value, digits=4):
    """(mean, half) -> text."""
    mean, half = value
    return f"{mean:.{digits}f} +- " + ("n/a" if math.isnan(half) else f"{half:.{digits}f}")


def table(rows):
    """{name: Scores} as text: a line per measure and a column per name, with mean and 95% half width."""
    intervals = {name: row.interval() for name, row in rows.items()}
    lines = [" " * COLUMN + "".join(f"{name:>{COLUMN}}" for name in intervals)]
    for key, title in MEASURES.items():
        if any(key in values for values in intervals.values()):
            cells = (format_interval(values[key]) if key in values else "-" for values in intervals.values())
            lines.append(f"{title:<{COLUMN}}" + "".join(f"{cell:>{COLUMN}}" for cell in cells))
    return "\n".join(lines)


class Report:
    """Prints lines and appends each to eval.log at once; `finish` writes the figures to eval.json."""

    def __init__(self, folder, flags):
        self.folder, self.flags = Path(folder), flags
        self.folder.mkdir(parents=True, exist_ok=True)
        self.command = command_line()
        self.begun, self.date = time.time(), time.strftime("%Y-%m-%d %H:%M:%S")
        self.log(f"# {self.date}  {self.command}", quiet=True)

    def log(self, text, quiet=False):
        if not quiet:
            print(text, flush=True)
        file = self.folder / "eval.log"
        with folder_lock(self.folder):  # other evaluations of the run may write to it
            before = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
            write_text(file, f"{before}{text}\n")

    def finish(self, evaluation, rows, **more):
        """Log the table and the ceiling, write eval/<record>.json. rows: {name: Scores}; more: other keys."""
        self.log(table(rows))
        n, config = rows["real"].repeats[0].n_real, evaluation.config
        self.log("+-: 95% over clips (delete-half jackknife; FID, KID, physical: at least that)")
        self.log("diversity and multimodality: over repeats")
        if evaluation.evaluator is not None:
            width = evaluation.evaluator.width
            self.log(f"n = {n} real, {n} predicted clips; embedding {width} wide; protocol {config.protocol}")
            if n < metrics.POOL:
                self.log(f"R-precision is left out: it needs {metrics.POOL} clips")
        ceiling = mean_label_ceiling(evaluation)
        if ceiling is not None:
            text = " / ".join(f"{value:.3f}" for value in ceiling)
            self.log(f"ceiling of an oracle that knows the labels, top 1/2/3: {text}")
            more["label_ceiling"] = ceiling.tolist()
        record = {
            "command": self.command,
            "date": self.date,
            "flags": self.flags,
            "seconds": time.time() - self.begun,
        }
        record |= more | {"rows": {name: as_record(row) for name, row in rows.items()}}
        name = config.record or ("eval" if config.split == "test" else f"eval_{config.split}")
        write_json(self.folder / f"{name}.json", record)


def as_record(row):
    """Scores as plain data. half: half width over repeats; half_clips: over clips; halves: for comparing."""
    intervals = {name: {"mean": mean, "half": half} for name, (mean, half) in interval(row.repeats).items()}
    over_clips = row.interval()
    for name in intervals.keys() & row.halves.keys():
        intervals[name]["half_clips"] = over_clips[name][1]
    known = {name: x for name, x in row.halves.items() if len(x) and np.isfinite(x).all()}
    halves = {name: [six_digits(value) for value in x] for name, x in known.items()}
    repeats = [{name: six_digits(x) for name, x in one.as_dict().items()} for one in row.repeats]
    return {"interval": intervals, "repeats": repeats, "halves": halves}


def six_digits(x):
    return float(f"{x:.6g}") if isinstance(x, float) else x
