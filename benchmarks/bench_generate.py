"""Measure the speed of generation, and how far it is from what the machine allows.

  python -m benchmarks.bench_generate --quick                 size S: under 40 s on 2 cores
  python -m benchmarks.bench_generate --sizes S L XL --batch 1 8 --stages --output results/bench_generate.json
  python -m benchmarks.bench_generate --device cuda --sizes XL --batch 1 64 --modes fp32 bf16 bf16+compile

For each case: ms per motion and motions per second, head rows per generated token (counted), share of the
roofline, and the same from the reference mode, which draws every hidden token with an adaptive solver as
MARDM does, in float32. The roofline of a layer's call is max(FLOPs / measured matmul rate, weight bytes /
measured bandwidth), summed over the calls that are made: a bound for this sequence of calls, not for the
computation. Exits with 1 when the counted rows differ from tokens x evaluations x passes, or when drawing
everything gives other motions.
"""

import argparse
import itertools
import tempfile
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.machine import bandwidth, machine_flags, matmul_rate, seconds, write_record
from benchmarks.reference import draw_everything
from diffusions.samplers import EVALUATIONS
from models.AE import make_ae
from models.DiffMLPs import HEAD_SIZES
from models.MARDM import MARDM_models, SamplingConfig
from models.masking import hidden_counts
from models.TextEncoder import TextEncoder
from motion.render.rendering import render_video
from motion.synthetic.clips import demo_clips
from utils.cli import Parser, count, number, run
from utils.flags import PRECISIONS, speed_up

MODES = [f"{precision}{compiled}" for precision in PRECISIONS for compiled in ("", "+compile")]
TIMED_ROUNDS = (4, 12)  # of the reference mode at large sizes: an early and a late one


class Account:
    """Counts what a module does while it runs: head rows, FLOPs, and the roofline time of each linear or
    convolution call.
    """

    def __init__(self, modules, head, rate, bytes_per_second):
        self.rows = self.calls = self.flops = self.roofline = 0
        self.rate, self.bytes_per_second = rate, bytes_per_second
        self.hooks = [head.register_forward_hook(self._head)]
        layers = [m for module in modules for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv1d))]
        self.hooks += [layer.register_forward_hook(self._layer) for layer in layers]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()

    def _head(self, net, given, out):
        self.rows += len(out)
        self.calls += 1

    def _layer(self, layer, given, out):
        outputs = out.numel() // (layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)
        flops = 2 * outputs * layer.weight.numel()
        self.flops += flops
        size = layer.weight.numel() * layer.weight.element_size()
        self.roofline += max(flops / self.rate, size / self.bytes_per_second)


def awake(module, scale=0.02):
    """Random values for what a new network starts at zero, so that the head does real work."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            if not p.any():
                p.copy_(scale * torch.randn(p.shape, generator=generator))
    return module


def build(size, kind, device):
    torch.manual_seed(0)
    ae = make_ae({"FSQ": "FSQ_AE_High", "continuous": "AE_Model"}[kind])
    family = {"FSQ": "FSQ-MARDM", "continuous": "MARDM"}[kind]
    mardm = MARDM_models[f"{family}-SiT-{size}"](target_dim=ae.target_dim)
    return awake(mardm).to(device).eval(), ae.to(device).eval()


def cases(size, batch, args, rates, device):
    """A row of the table for each mode, and whether the rows were as they should be."""
    mardm, ae = build(size, args.kind, device)
    tokens = args.frames // 4
    text = torch.randn(batch, 512, generator=torch.Generator().manual_seed(1)).to(device)
    m_lens = torch.full((batch,), tokens, device=device)
    sampling = SamplingConfig(cfg=args.cfg, sampler=args.sampler, sampler_steps=args.sampler_steps)
    evaluations = EVALUATIONS[args.sampler] * args.sampler_steps
    expected = batch * tokens * evaluations * (2 if args.cfg != 1 else 1)
    with torch.no_grad():
        same = timed_reference(mardm, ae, text, m_lens, sampling, args, device)
        parent = timed_reference(mardm, ae, text, m_lens, replace(sampling, sampler="dopri5"), args, device)
    stages = beside(ae, m_lens, args, device) if args.stages else {}

    def ours():
        return ae.detokenize(mardm.generate(ae, text, m_lens, sampling), m_lens * 4)

    for mode in args.modes:
        precision = mode.split("+")[0]
        mardm, _ = build(size, args.kind, device)  # what was compiled stays so
        mardm.set_precision(PRECISIONS[precision])
        with torch.no_grad():
            with Account([mardm, ae], mardm.DiffMLPs.net, rates[precision], rates["bytes"]) as account:
                ours()
            if "compile" in mode:
                speed_up(mardm, argparse.Namespace(precision=precision, compile=True))
                for _ in range(3):  # compile, record, settle
                    ours()
            took = min(seconds(ours, device) for _ in range(args.repeats))
        row = {
            "size": size,
            "batch": batch,
            "frames": args.frames,
            "solver": args.sampler,
            "evaluations": evaluations,
            "mode": mode,
            "sampling": asdict(sampling),
            "ms_per_motion": 1e3 * took / batch,
            "motions_per_second": batch / took,
            "rows_per_token": account.rows / (batch * tokens),
            "gflop": account.flops / 1e9,
            "share_of_roofline": account.roofline / took,
            **stages,
        }
        for name, other in (("drawing_all_same_solver", same), ("reference", parent)):
            row[name] = other | {"ratio": other["ms_per_motion"] / row["ms_per_motion"]}
        yield row, account.rows == expected


def beside(ae, m_lens, args, device):
    """ms per motion of what stands around the generator: text encoder, decoder, rendering to mp4."""
    targets = torch.zeros(len(m_lens), int(m_lens.max()), ae.target_dim, device=device)
    result = {}
    with torch.no_grad():
        ae.detokenize(targets, m_lens * 4)
        result["ms_decode"] = 1e3 * seconds(lambda: ae.detokenize(targets, m_lens * 4), device) / len(m_lens)
    encoder = TextEncoder("minilm", device)
    prompts = [f"a person walks {n} steps forward and then turns left" for n in range(len(m_lens))]
    encoder.encode(prompts[:1])
    result["ms_text_encoder"] = 1e3 * seconds(lambda: encoder.encode(prompts), device) / len(prompts)
    clip = next(iter(demo_clips(1, 0)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        took = seconds(lambda: render_video(file, clip.joints), torch.device("cpu"))
    return result | {"ms_render_per_frame": 1e3 * took / len(clip.joints)}


def timed_reference(mardm, ae, text, m_lens, sampling, args, device):
    """Drawing everything; at L and XL and with --quick two of the rounds are timed, scaled by their share of
    the hidden tokens.
    """
    small = mardm.DiffMLPs.net.input_proj.out_features <= HEAD_SIZES["B"][1]
    whole = args.whole_reference or (small and not args.quick)
    hidden = hidden_counts(m_lens[:1].cpu(), sampling.time_steps)[0, :-1]
    rounds = range(sampling.time_steps) if whole else TIMED_ROUNDS
    share = float(hidden[list(rounds)].sum() / hidden.sum())
    with Account([], mardm.DiffMLPs.net, 1, 1) as account:
        took = seconds(lambda: draw_everything(mardm, ae, text, m_lens, sampling, rounds), device) / share
    tokens = int(m_lens.sum())
    return {
        "ms_per_motion": 1e3 * took / len(m_lens),
        "rows_per_token": account.rows / share / tokens,
        "calls_per_round": account.calls / len(rounds),
        "rounds_timed": len(rounds),
    }


def modes_agree(device):
    """Drawing only what leaves gives the same motions as drawing everything (float64, mixed lengths)."""
    mardm, ae = build("XS", "FSQ", device)
    mardm, ae = mardm.double(), ae.double()
    text = torch.randn(3, 512, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(device)
    m_lens = torch.tensor([1, 13, 6], device=device)
    sampling = SamplingConfig(time_steps=7, cfg=3.0, sampler_steps=2, snap="off")
    difference = mardm.generate(ae, text, m_lens, sampling) - draw_everything(
        mardm, ae, text, m_lens, sampling
    )
    return float(difference.abs().max()) < 1e-9


def summary(row):
    same, parent = row["drawing_all_same_solver"], row["reference"]
    return (
        f"{row['size']:>2} batch {row['batch']:<3} {row['mode']:12s} {row['ms_per_motion']:8.1f} ms/motion, "
        f"{row['rows_per_token']:.0f} head rows a token, {100 * row['share_of_roofline']:.0f}% of roofline; "
        f"{same['ratio']:.1f} x drawing all, {parent['ratio']:.1f} x the reference "
        f"({parent['rows_per_token']:.0f} rows a token)"
    )


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one case: size S, batch 8, reference in part")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=["fp32"], help="[%(default)s]")
    parser.add_argument(
        "--stages", action="store_true", help="time text encoder (minilm), decoder and rendering as well"
    )
    parser.add_argument("--sizes", nargs="+", choices=HEAD_SIZES, default=["S"], help="[%(default)s]")
    parser.add_argument(
        "--batch", type=count(1, 4096), nargs="+", default=[8], help="motions a call [%(default)s]"
    )
    parser.add_argument("--frames", type=count(4, 196), default=196, help="[%(default)s]")
    parser.add_argument("--kind", choices=("FSQ", "continuous"), default="FSQ", help="targets [%(default)s]")
    parser.add_argument("--sampler", choices=EVALUATIONS, default="midpoint", help="[%(default)s]")
    parser.add_argument("--sampler_steps", type=count(1, 100), default=4, help="[%(default)s]")
    parser.add_argument("--cfg", type=number(float, 0, 100), default=4.5, help="[%(default)s]")
    parser.add_argument("--repeats", type=count(1, 100), default=3, help="the best counts [%(default)s]")
    parser.add_argument("--whole_reference", action="store_true", help="time all rounds of L and XL too")
    machine_flags(parser)
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    if args.quick:
        args.sizes, args.batch, args.repeats = ["S"], [8], 2
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    precisions = dict.fromkeys(mode.split("+")[0] for mode in ["fp32", *args.modes])
    rates = {name: matmul_rate(device, PRECISIONS[name]) for name in precisions}
    rates["bytes"] = bandwidth(device)
    rows, fine = [], modes_agree(device)
    print(f"the two modes {'agree' if fine else 'DISAGREE'}")
    for size, batch in itertools.product(args.sizes, args.batch):
        for row, counted in cases(size, batch, args, rates, device):
            fine &= counted
            rows.append(row)
            print(summary(row) + ("" if counted else " (rows NOT as expected)"), flush=True)
    results = {
        "matmul_gflops": {name: rates[name] / 1e9 for name in precisions},
        "bandwidth_gb_per_s": rates["bytes"] / 1e9,
        "cases": rows,
    }
    products = ", ".join(f"{name} {rate:.0f} GFLOP/s" for name, rate in results["matmul_gflops"].items())
    print(f"matmul {products}, reading {rates['bytes'] / 1e9:.1f} GB/s, {torch.get_num_threads()} threads")
    if args.output:
        write_record(args.output, "benchmarks.bench_generate", argv, device, **results)
    return 0 if fine else 1


if __name__ == "__main__":
    run(main)
