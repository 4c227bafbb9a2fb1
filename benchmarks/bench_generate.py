"""How fast is generation, and how far from what the machine allows?

  python benchmarks/bench_generate.py --quick                 size S: under 40 s on 2 cores
  python benchmarks/bench_generate.py --sizes S L XL --batch 1 8 --output results/bench_generate.json

For each case: ms per motion, head rows per generated token (counted), the floor and the share of it reached,
and the same from the reference mode, which draws every hidden token with an adaptive solver as the parent
project does. The floor of a layer's call is max(FLOPs / measured matmul rate, weight bytes / measured
bandwidth). Exits with 1 when the counted rows differ from tokens x evaluations x passes, or when drawing
everything gives other motions.
"""

import json
import platform
import shlex
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # run as a file: the packages lie one folder up

from benchmarks.reference import draw_everything  # noqa: E402
from diffusions.samplers import EVALUATIONS  # noqa: E402
from models.AE import make_ae  # noqa: E402
from models.DiffMLPs import HEAD_SIZES  # noqa: E402
from models.MARDM import Decoding, MARDM_models  # noqa: E402
from models.masking import hidden_counts  # noqa: E402
from utils.cli import Parser, count, number, run, write_text  # noqa: E402

TIMED_ROUNDS = (4, 12)  # of the reference mode at large sizes: an early and a late one


def matmul_rate(device, n=2048):
    """FLOP/s of float32 n^3 products, best of five."""
    a, b = torch.randn(n, n, device=device), torch.randn(n, n, device=device)
    return 2 * n**3 / min(seconds(lambda: a @ b, device) for _ in range(6))


def bandwidth(device, megabytes=256):
    """Bytes/s of reading a large tensor once, best of five."""
    x = torch.ones(megabytes * 2**18, device=device)
    return 4 * x.numel() / min(seconds(lambda: x.sum(), device) for _ in range(6))


def seconds(work, device):
    synchronise(device)
    begun = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - begun


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


class Account:
    """Counts what a module does while it runs: head rows, FLOPs, and the floor of each linear or convolution
    call.
    """

    def __init__(self, modules, head, rate, bytes_per_second):
        self.rows = self.calls = self.flops = self.floor = 0
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
        self.floor += max(flops / self.rate, size / self.bytes_per_second)


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


def case(size, batch, args, machine, device):
    """One row of the table."""
    mardm, ae = build(size, args.kind, device)
    tokens = args.frames // 4
    text = torch.randn(batch, 512, generator=torch.Generator().manual_seed(1)).to(device)
    m_lens = torch.full((batch,), tokens, device=device)
    how = Decoding(cfg=args.cfg, sampler=args.sampler, sampler_steps=args.sampler_steps)

    def ours():
        targets = mardm.generate(ae, text, m_lens, how)
        ae.detokenize(targets, m_lens * 4)

    with torch.no_grad():
        with Account([mardm, ae], mardm.DiffMLPs.net, *machine) as account:
            ours()
        took = min(seconds(ours, device) for _ in range(args.repeats))
        expected = (
            batch * tokens * EVALUATIONS[args.sampler] * args.sampler_steps * (2 if args.cfg != 1 else 1)
        )
        row = {
            "size": size,
            "batch": batch,
            "frames": args.frames,
            "how": asdict(how),
            "ms_per_motion": 1e3 * took / batch,
            "motions_per_second": batch / took,
            "rows_per_token": account.rows / (batch * tokens),
            "gflop": account.flops / 1e9,
            "share_of_floor": account.floor / took,
        }
        same = timed_reference(mardm, ae, text, m_lens, how, args, device)
        parent = timed_reference(mardm, ae, text, m_lens, replace(how, sampler="dopri5"), args, device)
    row["drawing_all_same_solver"] = same | {"ratio": same["ms_per_motion"] / row["ms_per_motion"]}
    row["reference"] = parent | {"ratio": parent["ms_per_motion"] / row["ms_per_motion"]}
    return row, account.rows == expected


def timed_reference(mardm, ae, text, m_lens, how, args, device):
    """Drawing everything; at L and XL two of the rounds are timed and scaled by their share of the hidden
    tokens.
    """
    whole = args.whole_reference or mardm.DiffMLPs.net.input_proj.out_features <= HEAD_SIZES["B"][1]
    hidden = hidden_counts(m_lens[:1].cpu(), how.time_steps)[0, :-1]
    rounds = range(how.time_steps) if whole else TIMED_ROUNDS
    share = float(hidden[list(rounds)].sum() / hidden.sum())
    with Account([], mardm.DiffMLPs.net, 1, 1) as account:
        took = seconds(lambda: draw_everything(mardm, ae, text, m_lens, how, rounds), device) / share
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
    how = Decoding(time_steps=7, cfg=3.0, sampler_steps=2, snap="off")
    difference = mardm.generate(ae, text, m_lens, how) - draw_everything(mardm, ae, text, m_lens, how)
    return float(difference.abs().max()) < 1e-9


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one case: size S, batch 8")
    parser.add_argument("--sizes", nargs="+", choices=HEAD_SIZES, default=["S"], help="[%(default)s]")
    parser.add_argument(
        "--batch", type=count(1, 4096), nargs="+", default=[8], help="motions a call [%(default)s]"
    )
    parser.add_argument("--frames", type=count(4, 196), default=196, help="[%(default)s]")
    parser.add_argument("--kind", choices=("FSQ", "continuous"), default="FSQ", help="targets [%(default)s]")
    parser.add_argument("--sampler", choices=EVALUATIONS, default="heun", help="[%(default)s]")
    parser.add_argument("--sampler_steps", type=count(1, 100), default=4, help="[%(default)s]")
    parser.add_argument("--cfg", type=number(float, 0, 100), default=4.5, help="[%(default)s]")
    parser.add_argument("--repeats", type=count(1, 100), default=3, help="the best counts [%(default)s]")
    parser.add_argument(
        "--threads", type=count(0, 256), default=0, help="of the CPU, 0 = PyTorch's choice [0]"
    )
    parser.add_argument("--whole_reference", action="store_true", help="time all rounds of L and XL too")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="[%(default)s]")
    parser.add_argument("--output", help="JSON file [printed only]")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    if args.quick:
        args.sizes, args.batch, args.repeats = ["S"], [8], 2
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    machine = matmul_rate(device), bandwidth(device)
    rows, fine = [], modes_agree(device)
    print(f"the two modes {'agree' if fine else 'DISAGREE'}")
    for size in args.sizes:
        for batch in args.batch:
            row, counted = case(size, batch, args, machine, device)
            fine &= counted
            rows.append(row)
            print(
                f"{size:>2} batch {batch:<3} {row['ms_per_motion']:8.0f} ms/motion, "
                f"{row['rows_per_token']:.0f} head rows a token{'' if counted else ' (NOT as expected)'}, "
                f"{100 * row['share_of_floor']:.0f}% of the floor; "
                f"{row['drawing_all_same_solver']['ratio']:.1f} x drawing all, "
                f"{row['reference']['ratio']:.1f} x the reference "
                f"({row['reference']['rows_per_token']:.0f} rows a token)"
            )
    record = {
        "command": shlex.join(
            ["python", "benchmarks/bench_generate.py", *(sys.argv[1:] if argv is None else argv)]
        ),
        "machine": torch.cuda.get_device_name() if args.device == "cuda" else platform.processor(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "matmul_gflops": machine[0] / 1e9,
        "bandwidth_gb_per_s": machine[1] / 1e9,
        "cases": rows,
    }
    rates = f"matmul {machine[0] / 1e9:.0f} GFLOP/s, reading {machine[1] / 1e9:.1f} GB/s"
    print(f"{rates}, {record['threads']} threads")
    if args.output:
        write_text(args.output, json.dumps(record, indent=1) + "\n")
    return 0 if fine else 1


if __name__ == "__main__":
    run(main)
