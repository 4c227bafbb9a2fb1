"""What both evaluation scripts share: the exam on the test split, the rows beside it, table, files."""

import csv
import json
import math
import shlex
import sys
import time
from collections import Counter, defaultdict
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
    "root_speed": "Pace (m/s)",
}


def make_evaluation(args, tokenizer, clips, device, embeddings=None):
    """The exam that the flags of `evaluation_flags` ask for, on these clips."""
    spec, normalizer = tokenizer.spec, tokenizer.normalizer
    root = find_dataset(args.dataset_name, args.dataset_dir)[1]
    dataset = TextMotionSet(clips, normalizer, embeddings, crop=args.protocol == "parent", seed=args.seed)
    evaluator = TextMotionEvaluator.load(args, spec, device, args.eval_mean_std, args.glove_dir)
    if evaluator is not None:
        warn_of_a_weak_evaluator(evaluator)
    if args.protocol == "parent" and len(clips) < metrics.POOL:
        raise BadInput(
            f"{root}/test.txt: {len(clips)} clips; --protocol parent needs at least {metrics.POOL}"
        )
    labels = read_labels(root, clips)
    return EvaluationRun(
        evaluator=evaluator,
        dataset=dataset,
        normalizer=normalizer,
        spec=spec,
        device=device,
        labels=None if labels is None else ["/".join(label) for label in labels],
        protocol=args.protocol,
        seed=args.seed,
        batch_size=args.batch_size,
    )


def warn_of_a_weak_evaluator(evaluator):
    if evaluator.test is not None and evaluator.test["top3"] < metrics.EVALUATOR_BAR:
        print(
            f"warning: this evaluator does not count: real test motion reaches R-precision top-3 "
            f"{evaluator.test['top3']:.3f} < {metrics.EVALUATOR_BAR}; train it longer with train_Evaluators.py"
        )


def read_labels(root, clips):
    """(content, style) of each clip from labels.csv (name,content,style); None where not all have one."""
    file = Path(root) / "labels.csv"
    if not file.is_file():
        return None
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            known = {row["name"]: (row["content"], row["style"] or "") for row in csv.DictReader(stream)}
    except (KeyError, csv.Error, UnicodeDecodeError):
        raise BadInput(f"{file}: expected columns name,content,style; mend it or remove it") from None
    # a caption with its own start and end makes a clip <name>_<line>
    found = [known.get(clip.name, known.get(clip.name.rpartition("_")[0])) for clip in clips]
    return None if None in found else found


def baselines(args, evaluation, real, device):
    """Motions of the training split in the place of an answer. -> row name -> list of Metrics

    "random train" knows nothing; "same content" knows the content of the clip that is asked for. Its FID is
    the floor: no generator of new motion can be expected below it.
    """
    spec, root = evaluation.spec, find_dataset(args.dataset_name, args.dataset_dir)[1]
    clips = load_clips(spec, root, "train")
    train_set = TextMotionSet(clips, evaluation.normalizer)
    train = EvaluationRun(
        evaluation.evaluator, train_set, evaluation.normalizer, spec, device, batch_size=args.batch_size
    ).real()
    n, rng = len(evaluation.dataset), np.random.default_rng((args.seed, 3))
    draws = {"random train": lambda: rng.choice(len(clips), n, replace=n > len(clips))}
    asked, offered = read_labels(root, evaluation.dataset.clips), read_labels(root, clips)
    if asked is not None and offered is not None:
        asked, offered = ([content for content, _ in labels] for labels in (asked, offered))
        if set(asked) <= set(offered):
            draws["same content"] = lambda: same_content(asked, offered, rng)
    return {
        name: [evaluation.compare(real, train.take(draw()), repeat) for repeat in range(REFERENCE_DRAWS)]
        for name, draw in draws.items()
    }


def same_content(asked, offered, rng):
    """For each asked content a row of `offered` that bears it, none twice while there are enough. -> [N]"""
    rows_of = defaultdict(list)
    for row, content in enumerate(offered):
        rows_of[content].append(row)
    drawn = {
        content: iter(rng.choice(rows_of[content], count, replace=count > len(rows_of[content])))
        for content, count in Counter(asked).items()
    }
    return np.array([next(drawn[content]) for content in asked])


def label_ceiling(evaluation):
    """R-precision of an oracle that knows the labels, mean over 20 draws -> [3]; None without labels."""
    if evaluation.labels is None or len(evaluation.labels) < metrics.POOL:
        return None
    pools = (
        metrics.draw_pools(
            len(evaluation.labels), np.random.default_rng((evaluation.seed, i)), evaluation.protocol
        )
        for i in range(REFERENCE_DRAWS)
    )
    return np.mean([metrics.label_ceiling(evaluation.labels, drawn) for drawn in pools], axis=0)


def shown(value, digits=4):
    """(mean, half) -> text."""
    mean, half = value
    return f"{mean:.{digits}f} +- " + ("n/a" if math.isnan(half) else f"{half:.{digits}f}")


def table(columns):
    """column name -> list of Metrics, as text: a line per measure, mean and 95% interval."""
    found = {name: interval(repeats) for name, repeats in columns.items()}
    lines = [" " * COLUMN + "".join(f"{name:>{COLUMN}}" for name in found)]
    for key, title in ROWS.items():
        if any(key in values for values in found.values()):
            cells = (shown(values[key]) if key in values else "-" for values in found.values())
            lines.append(f"{title:<{COLUMN}}" + "".join(f"{cell:>{COLUMN}}" for cell in cells))
    return "\n".join(lines)


class Report:
    """Prints, and appends every line to eval.log at once; the figures go to eval.json."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.command = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
        self.begun, self.date = time.time(), time.strftime("%Y-%m-%d %H:%M:%S")
        self.log(f"# {self.date}  {self.command}", quiet=True)

    def log(self, text, quiet=False):
        if not quiet:
            print(text, flush=True)
        file = self.folder / "eval.log"
        before = file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""
        write_text(file, f"{before}{text}\n")

    def write(self, args, columns, **more):
        """eval/<--record>.json: the command, every flag, per row the interval and each repeat."""
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
            "flags": vars(args),
            "seconds": time.time() - self.begun,
        }
        name = args.record or ("eval" if args.split == "test" else f"eval_{args.split}")
        write_text(self.folder / f"{name}.json", json.dumps(record | more | {"rows": rows}, indent=1))


def finish(report, args, evaluation, columns, **more):
    """Table, ceiling, floor -> screen, eval.log, eval.json."""
    report.log(table(columns))
    n = columns["real"][0].n_real
    if evaluation.evaluator is not None:
        report.log(
            f"n = {n} real, {n} predicted clips; embedding {evaluation.evaluator.width} wide; protocol {evaluation.protocol}"
        )
    ceiling = label_ceiling(evaluation)
    if ceiling is not None:
        text = " / ".join(f"{value:.3f}" for value in ceiling)
        report.log(f"ceiling of an oracle that knows the labels, top 1/2/3: {text}")
        more["label_ceiling"] = ceiling.tolist()
    if "same content" in columns and evaluation.evaluator is not None:
        reference_fid = interval(columns["same content"])["fid"]
        report.log(
            f"FID floor (as many train clips of the test's contents, {REFERENCE_DRAWS} draws): {shown(reference_fid)}"
        )
        more["reference_fid"] = reference_fid[0]
    report.write(args, columns, **more)
