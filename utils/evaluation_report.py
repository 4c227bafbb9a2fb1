"""Shared evaluation: test split, reference rows, report files."""

import csv
import json
import math
import os
import shlex
import sys
import time
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from motion.files import write_text
from utils import metrics
from utils.data.clips import load_clips
from utils.datasets import TextMotionSet, find_dataset
from utils.errors import BadInput
from utils.eval_utils import EvaluationRun, interval
from utils.evaluation.evaluators import TextMotionEvaluator

REFERENCE_DRAWS = 20
COLUMN = 22
ROWS = {
    "fid": "FID",
    "kid": "KID",
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
}


def make_evaluation(run, config, tokenizer, clips, device, embeddings=None):
    """The evaluation of a RunConfig under an EvaluationConfig on these clips. -> EvaluationRun"""
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise BadInput("an evaluation runs in one process: start it without accelerate launch or torchrun")
    parent, root = config.protocol == "parent", find_dataset(run.dataset_name, run.dataset_dir)[1]
    evaluator = TextMotionEvaluator.load(run, tokenizer.spec, device, config.eval_mean_std, config.glove_dir)
    if evaluator is not None:
        warn_of_a_weak_evaluator(evaluator)
    if parent and len(clips) < metrics.POOL:
        raise BadInput(
            f"{root}/test.txt: {len(clips)} clips; --protocol parent needs at least {metrics.POOL}"
        )
    dataset = TextMotionSet(clips, tokenizer.normalizer, embeddings, crop=parent, seed=config.seed)
    return EvaluationRun(evaluator, dataset, tokenizer.spec, device, config, read_labels(root, clips))


def warn_of_a_weak_evaluator(evaluator):
    if evaluator.test is not None and evaluator.test["top3"] < metrics.EVALUATOR_BAR:
        print(
            f"warning: the evaluator is too weak: real test motion reaches R-precision top-3 "
            f"{evaluator.test['top3']:.3f} < {metrics.EVALUATOR_BAR}; train it longer (train_Evaluators.py)"
        )


def read_labels(root, clips):
    """(content, style) of each clip from labels.csv (name,content,style); None where not all have one."""
    file = Path(root) / "labels.csv"
    if not file.is_file():
        return None
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            rows = [row for row in csv.DictReader(stream) if row["content"]]
            known = {row["name"]: (row["content"], row["style"] or "") for row in rows}
    except (KeyError, csv.Error, UnicodeDecodeError):
        raise BadInput(f"{file}: expected columns name,content,style; mend it or remove it") from None
    # a caption with its own start and end makes a clip <name>_<line>
    labels = [known.get(clip.name, known.get(clip.name.rpartition("_")[0])) for clip in clips]
    return None if None in labels else labels


def reference_rows(evaluation, root):
    """Random training clips scored as if generated. -> row name -> list of Metrics

    "random train" is drawn from all of them, "same content" from those of the content that is asked for.
    """
    clips = load_clips(evaluation.spec, root, "train")
    train_set = TextMotionSet(clips, evaluation.dataset.normalizer)
    train = replace(evaluation, dataset=train_set, labels=None, _real=(None, None)).real()
    n, rng = len(evaluation.dataset), np.random.default_rng((evaluation.config.seed, 3))
    draws = {"random train": lambda: rng.choice(len(clips), n, replace=n > len(clips))}
    wanted, offered = evaluation.labels, read_labels(root, clips)
    if wanted is not None and offered is not None:
        wanted, offered = ([content for content, _ in labels] for labels in (wanted, offered))
        if set(wanted) <= set(offered):
            draws["same content"] = lambda: same_content(wanted, offered, rng)
    real = evaluation.real()
    return {
        name: [evaluation.compare(real, train.take(draw()), repeat) for repeat in range(REFERENCE_DRAWS)]
        for name, draw in draws.items()
    }


def same_content(wanted, offered, rng):
    """For each wanted content a row of `offered` that has it, none twice while there are enough. -> [N]"""
    rows_of = defaultdict(list)
    for row, content in enumerate(offered):
        rows_of[content].append(row)
    drawn = {
        content: iter(rng.choice(rows_of[content], count, replace=count > len(rows_of[content])))
        for content, count in Counter(wanted).items()
    }
    return np.array([next(drawn[content]) for content in wanted])


def label_ceiling(evaluation):
    """R-precision of an oracle that knows the labels, mean over 20 draws -> [3]; None without labels."""
    if evaluation.labels is None or len(evaluation.labels) < metrics.POOL:
        return None
    labels, config = ["/".join(label) for label in evaluation.labels], evaluation.config
    rngs = (np.random.default_rng((config.seed, i)) for i in range(REFERENCE_DRAWS))
    pools = (metrics.draw_pools(len(labels), rng, config.protocol) for rng in rngs)
    return np.mean([metrics.label_ceiling(labels, drawn) for drawn in pools], axis=0)


def format_interval(value, digits=4):
    """(mean, half) -> text."""
    mean, half = value
    return f"{mean:.{digits}f} +- " + ("n/a" if math.isnan(half) else f"{half:.{digits}f}")


def table(columns):
    """column name -> list of Metrics, as text: a line per measure, mean and 95% interval."""
    intervals = {name: interval(repeats) for name, repeats in columns.items()}
    lines = [" " * COLUMN + "".join(f"{name:>{COLUMN}}" for name in intervals)]
    for key, title in ROWS.items():
        if any(key in values for values in intervals.values()):
            cells = (format_interval(values[key]) if key in values else "-" for values in intervals.values())
            lines.append(f"{title:<{COLUMN}}" + "".join(f"{cell:>{COLUMN}}" for cell in cells))
    return "\n".join(lines)


class Report:
    """Prints, and appends every line to eval.log at once; `finish` writes the figures to eval.json."""

    def __init__(self, folder, flags):
        self.folder, self.flags = Path(folder), flags
        self.command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        self.begun, self.date = time.time(), time.strftime("%Y-%m-%d %H:%M:%S")
        self.log(f"# {self.date}  {self.command}", quiet=True)

    def log(self, text, quiet=False):
        if not quiet:
            print(text, flush=True)
        file = self.folder / "eval.log"
        before = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        write_text(file, f"{before}{text}\n")

    def finish(self, evaluation, columns, **more):
        """Table, ceiling and reference -> screen, eval.log and eval/<record>.json. columns as for `table`."""
        self.log(table(columns))
        n, config = columns["real"][0].n_real, evaluation.config
        if evaluation.evaluator is not None:
            width = evaluation.evaluator.width
            self.log(f"n = {n} real, {n} predicted clips; embedding {width} wide; protocol {config.protocol}")
        ceiling = label_ceiling(evaluation)
        if ceiling is not None:
            text = " / ".join(f"{value:.3f}" for value in ceiling)
            self.log(f"ceiling of an oracle that knows the labels, top 1/2/3: {text}")
            more["label_ceiling"] = ceiling.tolist()
        if "same content" in columns:
            reference_fid = interval(columns["same content"])["fid"]
            self.log(
                f"train/test reference FID (train clips of the test's contents, {REFERENCE_DRAWS} draws): "
                f"{format_interval(reference_fid)}"
            )
            more["reference_fid"] = reference_fid[0]
        rows = {
            name: {
                "interval": {
                    key: {"mean": mean, "half": None if math.isnan(half) else half}
                    for key, (mean, half) in interval(repeats).items()
                },
                "repeats": [one.as_dict() for one in repeats],
            }
            for name, repeats in columns.items()
        }
        record = {
            "command": self.command,
            "date": self.date,
            "flags": self.flags,
            "seconds": time.time() - self.begun,
        }
        name = config.record or ("eval" if config.split == "test" else f"eval_{config.split}")
        write_text(self.folder / f"{name}.json", json.dumps(record | more | {"rows": rows}, indent=1))
