"""Measure the speed of a training step, and how far it is from what the machine allows.

  python -m benchmarks.bench_train --quick                              size XS, narrow AE: under a minute
  python -m benchmarks.bench_train --output results/bench_train.json    official AE, and size S
  python -m benchmarks.bench_train --sizes XL --batch 64 --device cuda --precision bf16 --compile

Ours is the step of train_AE.py and train_MARDM.py; the reference does what MARDM's does
(training_reference.py). All modes get the same clips and hide the same tokens, and take turns round by round,
because a machine is rarely quiet; medians count. FLOPs are those of matrix products and convolutions, counted
by torch.utils.flop_counter; the matmul rate is the best of five float32 2048^3 products. Peak memory is that
of a process of its own for each mode.
"""

import multiprocessing
import os
import time
from functools import partial
from itertools import islice
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.machine import machine_flags, seconds, write_record
from benchmarks.rehearsal import status
from benchmarks.training_modes import (
    ANOMALY,
    FRAMES,
    KINDS,
    AutoencoderBench,
    GeneratorBench,
    Round,
)
from benchmarks.training_reference import plain_products
from models.AE import STRIDE
from models.DiffMLPs import HEAD_SIZES
from utils.cli import Parser, count, number, run
from utils.config import SpeedConfig, add_flags
from utils.randomness import reseed
from utils.training.monitoring import Meter

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
MATMUL = 2048  # rows and columns


class Stopwatch:
    """Seconds of some work, by the wall or by this process's share of the CPU."""

    def __init__(self, clock, device):
        self.clock, self.device, self.rate = CLOCKS[clock], device, 0.0

    def __call__(self, work):
        return seconds(work, self.device, self.clock)

    def update_rate(self):
        """The machine's float32 matmul rate: the best of five products, and of all calls so far."""
        a, b = torch.randn(2, MATMUL, MATMUL, device=self.device)
        fastest = min(self(lambda: a @ b) for _ in range(6))
        self.rate = max(self.rate, 2 * MATMUL**3 / fastest)
        return 2 * MATMUL**3 / fastest


def measure(bench, watch, args):
    """Every mode once a round, in turn, after a round to warm up -> (name -> figures, matmul rates met)."""
    rounds, names = list(bench.rounds()), list(bench.modes)
    took, rates = {name: [] for name in names}, []
    for r, given in enumerate([rounds[0], *rounds]):
        rates.append(watch.update_rate())
        for name in names[r % len(names) :] + names[: r % len(names)]:
            reseed(0, r)
            took[name].append(watch(partial(bench.modes[name], given)))
    tokens = median(int(given.batch.m_lens.sum()) // STRIDE for given in rounds)
    rows = {}
    for name, times in took.items():
        plain = name.removesuffix(ANOMALY)  # the same work
        flops = rows[plain]["flops"] if plain in rows else flops_of(bench.modes[name], rounds)
        rows[name] = figures(flops, times[1:], tokens, watch.rate, args.peak_tflops)
    return rows, rates


def flops_of(step, rounds):
    """FLOPs of each round, with the draws that were timed."""
    counts = []
    for r, given in enumerate(rounds, start=1):
        reseed(0, r)
        with plain_products(), FlopCounterMode(display=False) as counter:
            step(given)
        counts.append(counter.get_total_flops())
    return counts


def figures(flops, seconds, tokens, rate, peak_tflops):
    typical = median(seconds)
    per_second = median(f / s for f, s in zip(flops, seconds))
    row = {"seconds": typical, "all_seconds": seconds, "flops": flops}
    row |= {"steps_per_second": 1 / typical, "tokens_per_second": tokens / typical}
    row["share_of_matmul_rate"] = per_second / rate
    if peak_tflops:
        row["model_flop_utilisation"] = per_second / (1e12 * peak_tflops)
    return row


def data_wait(bench):
    """Share of the time that ours waits for data, in one epoch; what the first batch costs is left out."""
    meter, begun = Meter(bench.device), None
    for batch in meter.waiting(bench.batches()):
        bench.ours(Round(batch))
        if begun is None:
            begun, meter.waited = time.perf_counter(), 0.0
    return meter.waited / (time.perf_counter() - begun)


def build(what, args):
    torch.set_num_threads(args.threads or torch.get_num_threads())
    device = torch.device(args.device)
    return AutoencoderBench(args, device) if what == "AE" else GeneratorBench(args, what, device)


def peak_memory(what, name, args):
    """GiB that two steps of a mode take, in a process of its own (on a GPU: of its memory)."""
    bench = build(what, args)
    for given in islice(bench.rounds(), 2):
        bench.modes[name](given)
    if bench.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return status(os.getpid())["peak"]


def case(what, args):
    bench = build(what, args)
    watch = Stopwatch(args.clock, bench.device)
    modes, rates = measure(bench, watch, args)
    if not args.no_memory:
        with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as process:
            for name, row in modes.items():
                row["peak_gib"] = process.apply(peak_memory, (what, name, args))
    row = {"what": what, "batch": bench.batch_size, "kind": args.kind, "modes": modes}
    row |= {"data_wait_share": data_wait(bench), "matmul_gflops": [rate / 1e9 for rate in rates]}
    ours = modes["ours"]["seconds"]
    row["times_ours"] = {name: mode["seconds"] / ours for name, mode in modes.items()}
    return row


def report(row):
    waiting = 100 * row["data_wait_share"]
    print(f"{row['what']}, batch {row['batch']}: {waiting:.1f}% of the time waiting for data")
    for name, mode in row["modes"].items():
        memory = f"{mode['peak_gib']:5.2f} GiB  " if "peak_gib" in mode else ""
        print(
            f"  {name:28} {mode['seconds']:8.3f} s  {mode['tokens_per_second']:9.0f} tokens/s  {memory}"
            f"{median(mode['flops']) / 1e9:7.1f} GFLOP at {100 * mode['share_of_matmul_rate']:4.0f}% "
            f"of the matmul rate  {row['times_ours'][name]:5.2f} x ours"
        )


def flags():
    parser = Parser(__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="an AE of width 32 and size XS, two rounds, no memory"
    )
    parser.add_argument("--sizes", nargs="*", choices=HEAD_SIZES, default=["S"], help="[%(default)s]")
    parser.add_argument("--batch", type=count(1, 4096), default=16, help="clips a step [%(default)s]")
    parser.add_argument("--ae_batch", type=count(1, 4096), default=32, help="windows a step [%(default)s]")
    parser.add_argument("--window", type=count(4, FRAMES), default=64, help="frames [%(default)s]")
    parser.add_argument("--width", type=count(8, 4096), default=512, help="of the autoencoder [%(default)s]")
    parser.add_argument("--kind", choices=KINDS, default="continuous", help="of tokens [%(default)s]")
    parser.add_argument("--no_ae", action="store_true", help="stage 2 alone")
    parser.add_argument("--rounds", type=count(1, 1000), default=7, help="after one to warm up [%(default)s]")
    parser.add_argument("--num_workers", type=count(0, 256), default=0, help="of the loader [%(default)s]")
    parser.add_argument(
        "--no_memory", action="store_true", help="leave out the processes that measure memory"
    )
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: time of this process alone, for one thread on a busy machine [%(default)s]",
    )
    parser.add_argument(
        "--peak_tflops", type=number(float, 1, 1e5), help="of the device, for its model FLOP utilisation"
    )
    add_flags(parser, "speed", SpeedConfig)
    machine_flags(parser)
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    if args.quick:
        args.sizes, args.batch, args.ae_batch, args.width, args.rounds = ["XS"], 4, 4, 32, 2
        args.no_memory = True
    rows = []
    for what in [*([] if args.no_ae else ["AE"]), *args.sizes]:
        rows.append(case(what, args))
        report(rows[-1])
    if args.output:
        device = torch.device(args.device)
        write_record(args.output, "benchmarks.bench_train", argv, device, clock=args.clock, cases=rows)


if __name__ == "__main__":
    run(main)
