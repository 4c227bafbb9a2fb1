"""Compare solvers, numbers of evaluations, rounds and orders on real data.

  python -m experiments.sampling.study --dataset_name BandaiNamco --runs FSQ_MARDM_1 FSQ_MARDM_2 FSQ_MARDM_3
  python -m experiments.sampling.study --list                         the names of the cells
  python -m experiments.sampling.study ... --repeat_times 1           a cheap pass over all of them
  python -m experiments.sampling.study ... --cells 'dopri5/step' 'heun-*/step' --repeat_times 5
  python -m experiments.sampling.study --report     the tables and the picture of results/sampling.md

A cell is a setting, such as heun-8/step: Heun, 8 evaluations, snapped at every step; or
rounds-9/halton/onestep: 9 rounds, tokens in Halton's order, by the one-step head where the run has one. One
repeat of it is one motion per clip of the split, evaluated as evaluation_MARDM.py does. Every finished repeat
is written to <record_dir>/<run>.json at once and never run again, so the study can be stopped, spread over
processes (one per run) and deepened later.

The cell called landing: the distance of each solver from a tight solution of the same equation (dopri5 in
float64, tolerances 1e-6). Every token of 64 clips is drawn once, with the clip's own tokens around it and the
same noise for all solvers, so that a token that lands elsewhere does not move those after it.
"""

import copy
import fnmatch
import json
import time
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from diffusions.samplers import EVALUATIONS, guided, integrate
from experiments.sampling.report import write_report
from models.AE import STRIDE
from models.draws import REVEAL_ORDERS, SamplingNoise
from models.masking import lengths_to_mask, reveal_rounds
from models.sampling import SamplingConfig
from motion.files import write_json
from utils.cli import Parser, count, run, start
from utils.config import EvaluationConfig, RunConfig, from_flags
from utils.data.batches import collate
from utils.errors import BadInput
from utils.evaluation_report import make_generator_evaluation
from utils.flags import common_flags, evaluation_flags
from utils.pipeline import load

ROUNDS = (18, 12, 9, 6, 4)
BUDGETS = (2, 4, 8, 16, 32)  # evaluations a token
KEPT = ("fid", "kid", "top1", "top2", "top3", "matching", "diversity", "foot_skate", "jitter", "root_speed")
LANDING, LANDING_CLIPS, TOLERANCE = "landing", 64, 1e-6


def solvers():
    """name -> fields of SamplingConfig: dopri5 first, then by their cost."""
    fixed = {
        f"{solver}-{n}": {"sampler": solver, "sampler_steps": n // EVALUATIONS[solver]}
        for n in BUDGETS
        for solver in EVALUATIONS
        if n >= EVALUATIONS[solver]
    }
    return {"dopri5": {"sampler": "dopri5", "sampler_steps": None}} | fixed


def cells(base):
    """name -> SamplingConfig"""
    table = {f"{name}/step": fields for name, fields in solvers().items()}
    for sampler, order, rounds in product(("midpoint", "onestep"), REVEAL_ORDERS, ROUNDS):
        how = {"sampler": sampler, "order": order, "time_steps": rounds}
        how |= {"sampler_steps": 1} if sampler == "onestep" else {}
        table[f"rounds-{rounds}/{order}/{sampler}"] = how
    return {name: replace(base, **fields) for name, fields in table.items()}


class Record:
    """<record_dir>/<run>.json: what was measured of one run."""

    def __init__(self, folder, name, facts):
        self.path = Path(folder) / f"{name}.json"
        known = json.loads(self.path.read_text(encoding="utf-8")) if self.path.is_file() else {}
        for key in ("split", "batch_size", "checkpoint"):
            if key in known and known[key] != facts[key]:
                raise BadInput(
                    f"{self.path} was measured with {key} {known[key]}, not {facts[key]}: choose another "
                    "--record_dir or remove it"
                )
        self.state = {"cells": {}, LANDING: {}} | known | facts

    def repeats(self, cell, sampling):
        """The repeats of a cell so far, number -> figures. A cell drawn with other settings starts anew."""
        kept, settings = self.state["cells"].get(cell), asdict(sampling)
        # a setting that the record lacks was added after it was written
        if kept is None or any(kept["how"].get(key, value) != value for key, value in settings.items()):
            kept = self.state["cells"][cell] = {"how": settings, "repeats": {}}
        return kept["repeats"]

    def save(self):
        write_json(self.path, self.state)


def measure(evaluation, pipeline, real, sampling, repeat):
    """One repeat of one cell -> figures."""
    rows = []
    head = pipeline.mardm.head(sampling)
    hook = head.net.register_forward_hook(lambda module, given, out: rows.append(len(out)))
    begun = time.perf_counter()
    try:
        drawn = evaluation.generated(pipeline.mardm, pipeline.autoencoder.ae, sampling, repeat)
    finally:
        hook.remove()
    seconds = time.perf_counter() - begun
    tokens = sum(len(evaluation.dataset[(repeat, i)][0]) // STRIDE for i in range(len(evaluation.dataset)))
    metrics = evaluation.compare(real, drawn, repeat).as_dict()
    figures = {name: float(f"{metrics[name]:.6g}") for name in KEPT if metrics[name] is not None}
    passes = 2 if sampling.cfg != 1 and sampling.sampler != "onestep" else 1
    evaluations = sum(rows) / tokens / passes
    return figures | {"evaluations": round(evaluations, 3), "seconds": round(seconds, 2)}


@torch.no_grad()
def teacher_forced(pipeline, evaluation, sampling):
    """Every token of some real clips at the round in which it is drawn, the clip's own tokens around it.

    -> conditions z, z_null [N,H], noise [N,D]
    """
    mardm, ae, n = pipeline.mardm, pipeline.autoencoder.ae, len(evaluation.dataset)
    chosen = np.linspace(0, n - 1, min(LANDING_CLIPS, n)).astype(int).tolist()
    batch = collate([evaluation.dataset[(0, i)] for i in chosen]).to(evaluation.device)
    targets, m_lens = ae.tokenize(batch.motion, batch.m_lens)[1], batch.m_lens // STRIDE
    inside = lengths_to_mask(m_lens, targets.shape[1])
    noise = SamplingNoise(sampling.seed, chosen, targets.device)
    order = noise.order(targets.shape[1])
    leaves = reveal_rounds(inside.cpu(), order, sampling.time_steps).to(evaluation.device)
    latents, rounds = ae.embed_codes(targets).mT, []
    for r in range(sampling.time_steps):
        x = torch.where((leaves >= r)[..., None], mardm.mask_latent, latents) * inside[..., None]
        now = leaves == r
        z, z_null = (mardm.transformer(x, c, inside)[now] for c in (batch.text, torch.zeros_like(batch.text)))
        start = noise.rows(*now.nonzero(as_tuple=True), mardm.DiffMLPs.noise_shape)
        rounds.append((z, z_null, start.to(x)))
    return tuple(torch.cat(parts) for parts in zip(*rounds))


@torch.no_grad()
def landing(pipeline, evaluation, base):
    """solver -> share of coordinates on another grid point than the tight solution's, RMS error in units of
    the targets' standard deviation.
    """
    mardm, ae = pipeline.mardm, pipeline.autoencoder.ae
    z, z_null, noise = teacher_forced(pipeline, evaluation, base)
    net = copy.deepcopy(mardm.DiffMLPs.net).double()
    field = guided(net, z.double(), z_null.double(), base.cfg)
    tight = integrate(field, noise.double(), "dopri5", rtol=TOLERANCE, atol=TOLERANCE)

    def on_grid(rows):
        rows = rows.double() * mardm.target_std + mardm.target_mean
        return ae.quantize(rows[None])[0], rows

    (legal, free), errors = on_grid(tight), {}
    for name, fields in solvers().items():
        drawn = mardm.DiffMLPs.sample(z, z_null, noise, replace(base, **fields))
        errors[name] = {"rms": float((drawn - tight).square().mean().sqrt()), "tokens": len(z)}
        if not torch.equal(legal, free):
            errors[name]["share"] = float((on_grid(drawn)[0] != legal).float().mean())
    return errors


def study(run_config, config, device, checkpoint, patterns, record_dir):
    """All cells of one run whose names match one of the patterns."""
    name, dataset_name = run_config.name, run_config.dataset_name
    pipeline = load(f"{dataset_name}/{name}", run_config.checkpoints_dir, str(device), checkpoint)
    mardm, evaluation = pipeline.mardm, make_generator_evaluation(run_config, config, pipeline)
    base = SamplingConfig(time_steps=ROUNDS[0], cfg=pipeline.spec.cfg, sampler="midpoint", sampler_steps=4)
    base = replace(base, order="random", refine=0, seed=config.seed)
    real = evaluation.real()
    facts = {
        "run": name,
        "family": mardm.kind,
        "model": pipeline.model,
        "dataset": dataset_name,
        "split": config.split,
        "clips": len(evaluation.dataset),
        "batch_size": config.batch_size,
        "checkpoint": checkpoint,
        "default": asdict(base),
        "root_speed": evaluation.compare(real, real, 0).as_dict()["root_speed"],
        "threads": torch.get_num_threads(),
    }
    record = Record(record_dir, name, facts)

    def wanted(cell):
        return any(fnmatch.fnmatch(cell, pattern) for pattern in patterns)

    table = cells(base)
    if mardm.onestep is None:
        table = {cell: sampling for cell, sampling in table.items() if sampling.sampler != "onestep"}
    # every cell once before any twice: a study that is cut off has compared all of them
    jobs = [
        (cell, repeat)
        for repeat in range(config.repeat_times)
        for cell, sampling in table.items()
        if wanted(cell) and str(repeat) not in record.repeats(cell, sampling)
    ]
    with tqdm(jobs, desc=name, unit="repeat") as bar:
        for cell, repeat in bar:
            figures = measure(evaluation, pipeline, real, table[cell], repeat)
            record.repeats(cell, table[cell])[str(repeat)] = figures
            record.save()
            bar.set_postfix_str(f"{cell}: FID {figures['fid']:.3f}, {figures['seconds']:.0f} s")
    if wanted(LANDING) and not record.state[LANDING]:
        record.state[LANDING] = landing(pipeline, evaluation, base)
        record.save()


def flags():
    parser = Parser(__doc__)
    common_flags(parser)
    evaluation_flags(parser)
    parser.set_defaults(repeat_times=5, device="cpu")
    group = parser.add_argument_group("study")
    group.add_argument("--runs", nargs="+", default=[], help="trained generators, one per seed [none]")
    group.add_argument("--cells", nargs="+", default=["*"], help="patterns of names, see --list [all]")
    group.add_argument(
        "--checkpoint", choices=("best", "latest"), default="best", help="of the runs [%(default)s]"
    )
    group.add_argument("--record_dir", default="results/sampling", help="of the JSON files [%(default)s]")
    group.add_argument(
        "--threads", type=count(0, 256), default=0, help="of the CPU, 0 = PyTorch's choice [0]"
    )
    group.add_argument("--list", action="store_true", help="print the names of the cells and leave")
    group.add_argument("--report", action="store_true", help="write --output from what is recorded")
    group.add_argument("--output", default="results/sampling.md", help="report, .png beside it [%(default)s]")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    if args.list:
        print(*cells(SamplingConfig()), LANDING, sep="\n")
        return
    if args.threads:
        torch.set_num_threads(args.threads)
    device, config = start(args), from_flags(EvaluationConfig, args)
    for name in args.runs:
        run_config = from_flags(RunConfig, args, name=name)
        study(run_config, config, device, args.checkpoint, args.cells, args.record_dir)
    if args.report:
        write_report(args.record_dir, args.output)


if __name__ == "__main__":
    run(main)
