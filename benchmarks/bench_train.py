"""Measure the speed of a training step, and how far it is from what the machine allows.

  python -m benchmarks.bench_train --quick                              size XS, narrow AE: under a minute
  python -m benchmarks.bench_train --output results/bench_train.json    official AE, and size S
  python -m benchmarks.bench_train --sizes XL --batch 64 --device cuda --precision bf16 --compile

Ours is the step of train_AE.py and train_MARDM.py; the reference does what MARDM's does
(training_reference.py). All modes get the same clips and hide the same tokens, and take turns round by round,
because a machine is rarely quiet; medians count. FLOPs are those of matrix products and convolutions, counted
by torch.utils.flop_counter; the matmul rate is the best of six plain float32 products.
"""

import copy
import time
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from statistics import median
from types import SimpleNamespace

import numpy as np
import torch
from torch.nn.functional import smooth_l1_loss
from torch.utils.flop_counter import FlopCounterMode

import train_AE
import train_MARDM
from benchmarks.bench_generate import KINDS, awake
from benchmarks.machine import CLOCKS, machine_flags, matmul_rate, seconds, write_record
from benchmarks.training_reference import (
    average_one_by_one,
    embed,
    plain_products,
    repeat_then_gather_loss,
    text_tower,
)
from models.AE import STRIDE, make_ae
from models.counter_rng import Purpose, sample_keys
from models.MARDM import MARDM_models
from models.options import SIZES
from utils.cli import Parser, count, run
from utils.config import ReconstructionLoss, SpeedConfig, TrainingConfig, add_flags, flag, from_flags
from utils.data.batches import Batch, loader
from utils.data.clips import Caption, Clip
from utils.datasets import DATASETS, Normalizer, TextMotionSet, WindowSet
from utils.distributed import pool_gradients
from utils.flags import speed_up
from utils.randomness import reseed
from utils.training.monitoring import Meter
from utils.training.reconstruction import Reconstruction
from utils.training.train_utils import EMA, CodeUsage, adamw, learning_rate, optimizer_step, parameters_of

DIM, FRAMES, SHORTEST, TEXT = 67, 196, 40, 512
ANOMALY = ", anomaly"
PLAIN = ReconstructionLoss(velocity_weight=0.0, path_weight=0.0)  # the reference's
TRAINING = TrainingConfig(epoch=1, lr=1e-6, warm_up_iter=1)


@dataclass(frozen=True)
class Setup(SpeedConfig):
    """What is trained on what, and how often a step is timed."""

    batch: int = flag("clips a step", 16, type=count(1, 4096))
    ae_batch: int = flag("windows a step", 32, type=count(1, 4096))
    window: int = flag("frames", 64, type=count(4, FRAMES))
    width: int = flag("of the autoencoder", 512, type=count(8, 4096))
    words: int = flag("word pieces of a text, 0 = its pooled vector alone", 0, type=count(0, 512))
    kind: str = flag("of tokens", "continuous", choices=KINDS)
    rounds: int = flag("after one to warm up", 7, type=count(1, 1000))
    num_workers: int = flag("of the loader", 0, type=count(0, 256))
    clock: str = flag("cpu: of this process alone, for one thread on a busy machine", "wall", choices=CLOCKS)


def clips(n, batch, shortest):
    """n clips of noise, the first of every batch as long as can be, each with a caption of its own."""
    rng = np.random.default_rng(0)
    frames = rng.integers(shortest, FRAMES + 1, n)
    frames[::batch] = FRAMES
    return [
        Clip(str(i), rng.standard_normal((T, DIM), dtype=np.float32), (Caption(str(i), ()),))
        for i, T in enumerate(frames)
    ]


def identity():
    return Normalizer(np.zeros(DIM), np.ones(DIM))


def anomalous(step, *given):
    with torch.autograd.set_detect_anomaly(True):
        step(*given)


@dataclass
class Round:
    """What every mode gets: a batch, and its tokens (latents, targets) for the mode that does not encode."""

    batch: Batch
    tokens: tuple = ()


class Bench:
    """A model, its optimizers, and the modes of its training step: name -> function of a Round."""

    def __init__(self, setup, module, dataset, batch_size, device):
        self.setup, self.dataset, self.batch_size, self.device = setup, dataset, batch_size, device
        optimizers = adamw(module, TRAINING), torch.optim.AdamW(module.parameters(), 1e-6, betas=(0.9, 0.99))
        self.fast, self.plain = ((o, learning_rate(o, TRAINING, 1)) for o in optimizers)

    def batches(self):
        batches = loader(self.dataset, self.batch_size, num_workers=self.setup.num_workers)
        return islice(batches, self.setup.rounds)

    def rounds(self):
        return map(Round, self.batches())

    def gradient_step(self, loss, count):
        """As utils/training/training_loop.py. loss: the sum [] of `count` entries."""
        optimizer, scheduler = self.fast
        loss.backward()
        pool_gradients(parameters_of(optimizer), count)
        optimizer_step(optimizer, scheduler)
        optimizer.zero_grad(set_to_none=True)

    def plain_step(self, loss):
        """As MARDM: backward, step, schedule."""
        optimizer, scheduler = self.plain
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer_step(optimizer, scheduler)


class AutoencoderBench(Bench):
    """Stage 1: windows."""

    def __init__(self, setup, device):
        reseed(0)
        self.ae = make_ae(KINDS[setup.kind][0], DIM, setup.width).to(device)
        motions = clips(setup.rounds * setup.ae_batch, setup.ae_batch, setup.window)
        windows = WindowSet(motions, identity(), setup.window)
        super().__init__(setup, self.ae, windows, setup.ae_batch, device)
        self.usage = CodeUsage(self.ae.codebook_size or 1, device)
        self.objective = Reconstruction(PLAIN, identity(), DATASETS["t2m"])
        self.modes = {"ours": self.ours, "reference": self.reference}
        self.modes["reference, anomaly"] = partial(anomalous, self.reference)

    def ours(self, given):
        frames = int(given.batch.m_lens.sum())
        loss, _ = train_AE.train_step(self.ae, given.batch, self.objective, self.usage)
        self.gradient_step(loss * frames, frames)

    def reference(self, given):
        motion = given.batch.motion.to(self.device)
        recons = self.ae.training_pass(motion)[0]
        self.plain_step(smooth_l1_loss(recons, motion) + smooth_l1_loss(recons[..., 4:], motion[..., 4:]))


class GeneratorBench(Bench):
    """Stage 2: whole clips, each with a text."""

    def __init__(self, setup, size, device):
        reseed(0)
        ae_name, family = KINDS[setup.kind]
        self.ae = make_ae(ae_name, DIM, setup.width).to(device).eval()
        mardm = MARDM_models[f"{family}-SiT-{size}"](
            ae_dim=self.ae.latent_dim,
            target_dim=self.ae.target_dim,
            text_dim=TEXT,
            text_tokens="on" if setup.words else "off",
        )
        self.mardm = awake(mardm).to(device).train()
        n = setup.rounds * setup.batch
        shape = (n, 1 + setup.words, TEXT) if setup.words else (n, TEXT)
        texts = {str(i): row for i, row in enumerate(torch.randn(shape))}
        motions = TextMotionSet(clips(n, setup.batch, SHORTEST), identity(), texts, FRAMES)
        super().__init__(setup, self.mardm, motions, setup.batch, device)
        self.average = EMA(self.mardm, 0.9999)
        speed_up(self.mardm, setup)
        no_text = partial(self.reference, text=False)
        self.modes = {
            "ours": self.ours,
            "ours, tokens given": partial(self.ours, tokens=True),
            "ours, plain products": plain_products()(self.ours),
            "reference": self.reference,
            "reference, anomaly": partial(anomalous, self.reference),
            "no text": no_text,
            "no text, anomaly": partial(anomalous, no_text),
        }
        if setup.words:  # MARDM takes the pooled vector alone
            self.modes = {name: step for name, step in self.modes.items() if name.startswith("ours")}

    @cached_property
    def tower(self):
        """The text tower and its average: MARDM averages what is frozen, too."""
        tower = text_tower().to(self.device)
        return tower, copy.deepcopy(tower)

    def rounds(self):
        for batch in self.batches():
            there = batch.to(self.device)
            with torch.no_grad():
                yield Round(batch, self.ae.tokenize(there.motion, there.m_lens))

    def ours(self, given, tokens=False):
        batch, keys = given.batch, sample_keys(given.batch.index, Purpose.TRAINING, 0)
        self.ae.requires_grad_(False)
        ae = self.ae
        if tokens:  # as if they came from a cache
            ae = SimpleNamespace(tokenize=lambda *_: given.tokens, random_replacements=ae.random_replacements)
        on_device = train_MARDM.tokenized(ae, batch, self.device)
        self.gradient_step(*train_MARDM.masked_loss(self.mardm, ae, on_device, keys, FRAMES // STRIDE))
        self.average.update(self.mardm, 10**5)

    @plain_products()
    def reference(self, given, text=True):
        batch, averages, modules = given.batch.to(self.device), [self.average.model], [self.mardm]
        keys = sample_keys(given.batch.index, Purpose.TRAINING, 0).to(self.device)
        self.ae.requires_grad_(True)
        latents, targets = self.ae.tokenize(batch.motion)
        condition = batch.text
        if text:
            tower, its_average = self.tower
            condition = embed(tower, len(batch))
            averages, modules = [*averages, its_average], [*modules, tower]
        m_lens = batch.m_lens // STRIDE
        loss = repeat_then_gather_loss(self.mardm, latents, targets, condition, m_lens, keys)
        self.plain_step(loss)
        average_one_by_one(averages, modules)


def measure(bench, rate):
    """Every mode once a round, in turn, after a round to warm up -> name -> figures. rate: FLOP/s."""
    rounds, names, setup = list(bench.rounds()), list(bench.modes), bench.setup
    took = {name: [] for name in names}
    for r, given in enumerate([rounds[0], *rounds]):
        for name in names[r % len(names) :] + names[: r % len(names)]:
            reseed(0, r)
            work = partial(bench.modes[name], given)
            took[name].append(seconds(work, bench.device, CLOCKS[setup.clock]))
    tokens = median(int(given.batch.m_lens.sum()) // STRIDE for given in rounds)
    rows = {}
    for name, times in took.items():
        plain = name.removesuffix(ANOMALY)  # the same work
        flops = rows[plain]["flops"] if plain in rows else flops_of(bench.modes[name], rounds)
        typical = median(times[1:])
        per_second = median(f / s for f, s in zip(flops, times[1:]))
        row = {"seconds": typical, "all_seconds": times[1:], "flops": flops}
        row |= {"steps_per_second": 1 / typical, "tokens_per_second": tokens / typical}
        row["share_of_matmul_rate"] = per_second / rate
        rows[name] = row
    return rows


def flops_of(step, rounds):
    """FLOPs of each round, with the draws that were timed."""
    counts = []
    for r, given in enumerate(rounds, start=1):
        reseed(0, r)
        with plain_products(), FlopCounterMode(display=False) as counter:
            step(given)
        counts.append(counter.get_total_flops())
    return counts


def data_wait(bench):
    """Share of the time that ours waits for data, in one epoch; what the first batch costs is left out."""
    meter, begun = Meter(bench.device), None
    for batch in meter.waiting(bench.batches()):
        bench.ours(Round(batch))
        if begun is None:
            begun, meter.waited = time.perf_counter(), 0.0
    return meter.waited / (time.perf_counter() - begun)


def case(what, setup, device, rate):
    """The figures of all modes of the autoencoder ("AE") or of a generator's size."""
    bench = AutoencoderBench(setup, device) if what == "AE" else GeneratorBench(setup, what, device)
    modes = measure(bench, rate)
    row = {"what": what, "batch": bench.batch_size, "kind": setup.kind, "modes": modes}
    row |= {"data_wait_share": data_wait(bench), "matmul_gflops": rate / 1e9}
    row["times_ours"] = {name: mode["seconds"] / modes["ours"]["seconds"] for name, mode in modes.items()}
    return row


def report(row):
    waiting = 100 * row["data_wait_share"]
    print(f"{row['what']}, batch {row['batch']}: {waiting:.1f}% of the time waiting for data")
    for name, mode in row["modes"].items():
        print(
            f"  {name:22} {mode['seconds']:8.3f} s  {mode['tokens_per_second']:9.0f} tokens/s  "
            f"{median(mode['flops']) / 1e9:7.1f} GFLOP at {100 * mode['share_of_matmul_rate']:4.0f}% "
            f"of the matmul rate  {row['times_ours'][name]:5.2f} x ours"
        )


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="an AE of width 32 and size XS, two rounds")
    parser.add_argument("--sizes", nargs="*", choices=SIZES, default=["S"], help="[%(default)s]")
    parser.add_argument("--no_ae", action="store_true", help="stage 2 alone")
    add_flags(parser, "case", Setup)
    machine_flags(parser)
    args = parser.parse_args(argv)
    setup, sizes = from_flags(Setup, args), args.sizes
    if args.quick:
        setup, sizes = replace(setup, batch=4, ae_batch=4, width=32, rounds=2), ["XS"]
    torch.set_num_threads(args.threads or torch.get_num_threads())
    device = torch.device(args.device)
    with plain_products():
        rate = matmul_rate(device, n=256 if args.quick else 2048)
    rows = []
    for what in [*([] if args.no_ae else ["AE"]), *sizes]:
        rows.append(case(what, setup, device, rate))
        report(rows[-1])
    if args.output:
        write_record(args.output, "benchmarks.bench_train", argv, device, clock=setup.clock, cases=rows)


if __name__ == "__main__":
    run(main)
