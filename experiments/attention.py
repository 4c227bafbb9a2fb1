"""Which initialisation ("start") of attention survives a high learning rate? Seeds x starts x kinds of token.

  python -m experiments.attention --dataset_name BandaiNamco --ae_names AE_Model FSQ_AE_High VQ_4096
  python -m experiments.attention ... --seeds 2 3 4 --steps 125 --attention_only    short runs
  python -m experiments.attention ... --report               only what is recorded

Each run trains a generator as train_MARDM.py does, on clips that are tokenised once, each with its first
caption; only seed, start and tokens differ. It records a row of figures on **val**
(<autoencoder>/eval/attention/*.json; all rows: --output's .json and .png, and the table in its .md): the
attention of hidden tokens to the tokens at -1 and +1 every 25 steps, the loss at the end, and of generated
motion FID, physical distance and the root speed of walkers (real clip above 0.5 m/s) as a share of the real
one.

Changed after the first four runs, before any other: seed 1 is run whole; seeds 2 to 4 are cut to 125 steps,
within which the first four lost what they lost. The rule on physical distance is read off whole runs.

The rule, written before the runs. A run has lost its neighbour heads when its last attention is below 0.25
(0.5 to 0.9 at the start; of earlier runs 0.07 to 0.18 where walkers covered half the distance, 0.40 to 0.43
where they walked). Runs of both starts with one seed and kind of tokens are a pair. `relative_bias` becomes
the default if it lost fewer runs than `neighbours`, and the 95% interval (Student's t over pairs) of the
difference of log physical distance is not all above 0. With as many lost runs it becomes the default only if
that interval is all below 0. A pair at size S must show that nothing is lost there: heads kept, and val loss
no more than 2% above.
"""

import json
import time
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.AE import STRIDE
from models.counter_rng import Purpose, rng, sample_keys
from models.draws import TrainingDraws
from models.masking import lengths_to_mask
from models.options import SIZES
from models.sampling import SamplingConfig
from motion.files import write_json
from utils.analysis.output import legend, markdown, new_figure, plus_minus, save, write_below
from utils.checkpoints import load_ae, make_mardm
from utils.cli import Parser, count, run, start
from utils.config import EvaluationConfig, RunConfig, TrainingConfig, WeightsConfig, from_flags
from utils.data.batches import collate
from utils.data.clips import load_clips
from utils.datasets import TextMotionSet, find_dataset
from utils.errors import BadInput
from utils.evaluation.physical import FEATURES, WALKING
from utils.evaluation_report import make_evaluation
from utils.flags import common_flags
from utils.randomness import reseed
from utils.runs import Run
from utils.statistics import mean_ci95
from utils.text_embeddings import embed_captions
from utils.training.monitoring import neighbour_attention
from utils.training.token_statistics import keep_real_tokens
from utils.training.train_utils import EMA, adamw, inference, learning_rate, optimizer_step

STARTS = {"neighbours": "#7570b3", "relative_bias": "#d95f02"}  # and their colours
MARKERS = {"continuous": "o", "FSQ": "s", "VQ": "v"}
FAMILIES = {"continuous": "MARDM", "FSQ": "FSQ-MARDM", "VQ": "VQ_MARDM"}
LOST = 0.25  # of attention, below which a run has lost its neighbour heads
BATCH, EVERY = 16, 25
OPTIONS = {"dropout": 0.1, "diffmlps_batch_mul": 1}
EMA_DECAY = 0.999
MARKER = "<!-- table: written by experiments/attention.py -->\n"
MEASURES = {  # of a row, with the digits in the table
    "attention_first": ("attention, step 0", 2),
    "attention_end": ("at the end", 2),
    "val_loss": ("val loss", 4),
    "fid": ("FID (val)", 2),
    "physical": ("physical distance", 1),
    "walkers": ("speed of walkers / real", 2),
    "top3": ("R-precision top 3", 3),
}


def recipe(steps):
    milestones = (steps * 2 // 3, steps * 9 // 10)
    return TrainingConfig(
        epoch=1, lr=2e-3, weight_decay=1e-5, warm_up_iter=100, milestones=milestones, lr_decay=0.3
    )


@dataclass(frozen=True)
class Arm:
    """What differs between runs on the tokens of one autoencoder."""

    attention: str
    seed: int
    size: str
    steps: int

    @property
    def file(self):
        return f"{self.size}_{self.attention}_{self.steps}_{self.seed}.json"


@dataclass(frozen=True)
class Tokens:
    """N clips as an autoencoder sees them. latents [N,D,L], targets [N,L,d], text [N,E], m_lens [N]."""

    latents: torch.Tensor
    targets: torch.Tensor
    text: torch.Tensor
    m_lens: torch.Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, ae, dataset):
        """Every clip of a TextMotionSet with its first caption."""
        parts = []
        for rows in torch.arange(len(dataset)).split(64):
            batch = collate([dataset[0, i] for i in rows.tolist()])
            room = STRIDE * dataset.longest - batch.motion.shape[1]
            motion = torch.nn.functional.pad(batch.motion, (0, 0, 0, room))
            parts.append((*ae.tokenize(motion, batch.m_lens), batch.text, batch.m_lens // STRIDE))
        return cls(*map(torch.cat, zip(*parts)))

    def take(self, rows):
        """These clips, padded no further than the longest of them."""
        L = int(self.m_lens[rows].max())
        return Tokens(self.latents[rows, :, :L], self.targets[rows, :L], self.text[rows], self.m_lens[rows])

    def statistics(self):
        """Mean and standard deviation [d] of the targets of real tokens."""
        real = self.targets[lengths_to_mask(self.m_lens, self.targets.shape[1])]
        return real.mean(dim=0), real.std(dim=0)


class Bench:
    """One autoencoder with its tokens of both splits and the evaluation on val."""

    def __init__(self, base, name, device):
        source = WeightsConfig(**vars(base) | {"name": name})
        self.autoencoder = load_ae(source, device, name)
        self.name, self.ae, spec = name, self.autoencoder.ae, self.autoencoder.spec
        root = find_dataset(base.dataset_name, base.dataset_dir)[1]
        clips = [load_clips(spec, root, split) for split in ("train", "val")]
        text, self.text_dim = embed_captions(clips, spec.text_encoder, root, device)
        train, val = (TextMotionSet(one, self.autoencoder.normalizer, text) for one in clips)
        keep_real_tokens(self.ae, train, device)
        self.train, self.val = Tokens.of(self.ae, train), Tokens.of(self.ae, val)
        config = EvaluationConfig(split="val")
        self.evaluation = make_evaluation(source, config, self.autoencoder, clips[1], device, text)
        self.cfg, self.folder = spec.cfg, Run.of(source).eval / "attention"

    def measure(self, arm, generate=True):
        """Train and evaluate one generator, unless it is recorded. -> its row"""
        record = self.folder / arm.file
        if record.is_file():
            return json.loads(record.read_text(encoding="utf-8"))
        begun = time.process_time()
        average, points = self.trained(arm)
        row = {"tokens": self.name, "kind": self.ae.kind, **vars(arm)}
        row |= {"attention_at": points, "attention_first": points[0][1], "attention_end": points[-1][1]}
        row["val_loss"] = self.val_loss(average)
        row |= self.generated(average, arm.seed) if generate else {}
        row["cpu_seconds"] = round(time.process_time() - begun, 1)
        write_json(record, row)
        return row

    def trained(self, arm):
        """-> the averaged generator; (step, attention at -1 and +1 on val) every EVERY steps, from 0"""
        reseed(arm.seed)
        model, training = f"{FAMILIES[self.ae.kind]}-SiT-{arm.size}", recipe(arm.steps)
        mardm = make_mardm(model, self.ae, self.text_dim, attention=arm.attention, **OPTIONS)
        mardm.set_target_stats(*self.train.statistics())
        optimizer, ema = adamw(mardm, training), EMA(mardm, EMA_DECAY)
        scheduler, points = learning_rate(optimizer, training, arm.steps), [(0, self.attention(mardm))]
        for step in tqdm(range(1, arm.steps + 1), desc=f"{model} {arm.attention} {arm.seed}"):
            draw = rng(Purpose.ORDER, arm.seed, step)
            rows = torch.from_numpy(draw.choice(len(self.train.m_lens), BATCH))
            loss, n = self.loss(mardm, self.train, rows, sample_keys(rows, Purpose.TRAINING, arm.seed, step))
            (loss / n).backward()
            optimizer_step(optimizer, scheduler)
            optimizer.zero_grad(set_to_none=True)
            ema.update(mardm, step)
            if step % EVERY == 0:
                points.append((step, self.attention(mardm)))
        return ema.model, points

    def loss(self, mardm, tokens, rows, keys):
        """-> (sum of the loss over hidden tokens of these clips, how many)"""
        part = tokens.take(rows)
        replacements = self.ae.random_replacements(part.latents, keys)
        draws = TrainingDraws(keys, tokens.latents.shape[2], random_replacements=replacements)
        return mardm.summed_loss(part.latents, part.targets, part.text, part.m_lens, draws)

    def attention(self, mardm):
        with inference(mardm):
            return float(neighbour_attention(mardm, self.val.latents, self.val.text, self.val.m_lens))

    def val_loss(self, mardm):
        rows = torch.arange(len(self.val.m_lens))
        with inference(mardm):
            loss, n = self.loss(mardm, self.val, rows, sample_keys(rows, Purpose.VALIDATION, 0))
        return float(loss / n)

    def generated(self, mardm, seed):
        """Figures of motion generated for val. -> dict"""
        real, sampling = self.evaluation.real(), SamplingConfig(cfg=self.cfg, seed=seed)
        with inference(mardm):
            drawn = self.evaluation.generated(mardm, self.ae, sampling)
        values = self.evaluation.compare(real, drawn).as_dict()
        speeds = [motions.features[:, FEATURES.index("root_speed")] for motions in (real, drawn)]
        walking = speeds[0] > WALKING
        figures = {key: x for key, x in values.items() if x is not None}
        figures["walkers"] = float(speeds[1][walking].mean() / speeds[0][walking].mean())
        return figures


def pairs(rows, key):
    """(neighbours, relative_bias) values of each two runs that differ in the initialisation alone."""
    of = {
        (row["tokens"], row["seed"], row["steps"], row["attention"]): row[key] for row in rows if key in row
    }
    old, new = STARTS
    names = sorted({name[:3] for name in of})
    return [(of[(*n, old)], of[(*n, new)]) for n in names if (*n, old) in of and (*n, new) in of]


def difference(rows, key):
    """(mean, half width) of log(relative_bias / neighbours) over pairs."""
    return mean_ci95([np.log(new / old) for old, new in pairs(rows, key)])


def lost(rows, attention):
    """(lost, of how many) runs of this start."""
    ours = [row["attention_end"] < LOST for row in rows if row["attention"] == attention]
    return sum(ours), len(ours)


def verdict(rows):
    """Which start the rule chooses -> its name."""
    (old, _), (new, _) = (lost(rows, attention) for attention in STARTS)
    mean, half = difference(rows, "physical")
    chosen = mean - half <= 0 if new < old else new == old and mean + half < 0
    return list(STARTS)[chosen]


def report(rows):
    """Rows as Markdown: a line per pair of runs, lost runs of each start, the outcome of the rule."""
    header = ["tokens", "seed", "steps", *(title for title, _ in MEASURES.values())]
    beside = {}
    for row in sorted(rows, key=lambda row: (row["kind"], -row["steps"], row["seed"])):
        beside.setdefault((row["tokens"], row["seed"], row["steps"]), {})[row["attention"]] = row

    def cell(runs, key, digits):
        """A figure of the run of either start, "-" where it lacks; one "-" where both do."""
        figures = (runs.get(attention, {}).get(key) for attention in STARTS)
        figures = ["-" if figure is None else f"{figure:.{digits}f}" for figure in figures]
        return "-" if figures == ["-", "-"] else ", ".join(figures)

    lines = [
        [*names, *(cell(runs, key, digits) for key, (_, digits) in MEASURES.items())]
        for names, runs in beside.items()
    ]
    text = ["In each cell {}, {}:\n".format(*STARTS), markdown(header, lines), ""]
    for attention in STARTS:
        text.append("- {}: neighbour heads lost in {} of {} runs".format(attention, *lost(rows, attention)))
    if len(pairs(rows, "physical")) > 1:
        for key in ("attention_end", "physical", "fid", "val_loss"):
            text.append(
                f"- log({key}), relative_bias - neighbours: {plus_minus(*difference(rows, key), 3, '+')}"
            )
        text.append(f"- the rule chooses: `{verdict(rows)}`")
    return "\n".join(text) + "\n"


def draw(rows, path):
    """Attention over training, a panel per kind of tokens; and the speed of walkers against it."""
    kinds = [kind for kind in FAMILIES if any(row["kind"] == kind for row in rows)]
    figure = new_figure(4 * (len(kinds) + 1), 3.6)
    *panels, last = figure.subplots(1, len(kinds) + 1)
    for axes, kind in zip(panels, kinds):
        seen = set()
        for row in (row for row in rows if row["kind"] == kind):
            start = row["attention"]
            label = None if start in seen else start
            axes.plot(*zip(*row["attention_at"]), color=STARTS[start], label=label, alpha=0.8)
            seen.add(start)
        axes.axhline(LOST, color="k", linestyle=":", linewidth=1)
        axes.set(title=f"{kind} tokens", xlabel="step", ylabel="attention at -1 and +1", ylim=(0, 1))
        legend(axes)
    whole = [row for row in rows if "walkers" in row]
    for kind, start in dict.fromkeys((row["kind"], row["attention"]) for row in whole):
        ours = [row for row in whole if (row["kind"], row["attention"]) == (kind, start)]
        x, y = [row["attention_end"] for row in ours], [row["walkers"] for row in ours]
        last.plot(x, y, MARKERS[kind], color=STARTS[start], label=f"{kind}, {start}", markersize=5)
    last.axvline(LOST, color="k", linestyle=":", linewidth=1)
    last.axhline(1, color="grey", linewidth=1)
    last.set(xlabel="attention at the end", ylabel="speed of walkers / real", xlim=(0, 1))
    legend(last)
    save(figure, path)


def flags():
    parser = Parser(__doc__)
    common_flags(parser)
    parser.set_defaults(device="cpu")  # where the clips' tokens are kept
    parser.add_argument("--ae_names", nargs="+", required=True, help="trained autoencoders (needed)")
    parser.add_argument(
        "--seeds", type=count(), nargs="+", default=[1, 2, 3, 4], help="of the trainings [1 2 3 4]"
    )
    parser.add_argument("--size", choices=SIZES, default="XS", help="of the generator [%(default)s]")
    parser.add_argument("--steps", type=count(1), default=500, help="of each training [%(default)s]")
    parser.add_argument("--attention_only", action="store_true", help="generate nothing [off]")
    parser.add_argument("--report", action="store_true", help="only what is recorded, of any seed and steps")
    parser.add_argument("--output", type=Path, default=Path("results/attention"), help="stem [%(default)s]")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    device, base = start(args), from_flags(RunConfig, args, name="")
    if args.report:
        folders = [Run.of(replace(base, name=name)).eval / "attention" for name in args.ae_names]
        files = [file for folder in folders for file in sorted(folder.glob(f"{args.size}_*.json"))]
        rows = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    else:
        benches = [Bench(base, name, device) for name in args.ae_names]
        rows = [
            bench.measure(Arm(attention, seed, args.size, args.steps), not args.attention_only)
            for seed, bench, attention in product(args.seeds, benches, STARTS)
        ]
    if not rows:
        raise BadInput("--report: nothing is recorded yet")
    stem, text = args.output, report(rows)
    write_json(stem.with_suffix(".json"), rows)
    write_below(stem.with_suffix(".md"), MARKER, f"{text}\n![attention over training]({stem.name}.png)\n")
    draw(rows, stem.with_suffix(".png"))
    print(text)


if __name__ == "__main__":
    run(main)
