"""Measure the speed of generation, and how far it is from what the machine allows.

  python -m benchmarks.bench_generate --quick                 size S: a minute on 2 cores
  python -m benchmarks.bench_generate --sizes S L XL --batch 1 8 --stages --output results/bench_generate.json
  python -m benchmarks.bench_generate --device cuda --sizes XL --batch 1 64 --modes fp32 bf16 bf16+compile

For each case, of the teacher's solver and of the one-step head: ms per motion and motions per second, head
rows per generated token (counted), how near the floor of the computation is (see Account), and the same from
the reference mode, which draws every hidden token with an adaptive solver as MARDM does, in float32. Weights
are random. Exits with 1 when the counted rows differ from tokens x evaluations x passes (one-step: tokens x
1), or when drawing everything gives other motions.
"""

import itertools
import tempfile
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.machine import CLOCKS, bandwidth, machine_flags, matmul_rate, seconds, write_record
from benchmarks.reference import draw_everything
from benchmarks.training_reference import plain_products
from diffusions.samplers import EVALUATIONS
from models.AE import make_ae
from models.draws import REVEAL_ORDERS
from models.MARDM import MARDM_models
from models.masking import hidden_counts
from models.OneStep import OneStepHead
from models.options import SIZES
from models.sampling import SamplingConfig
from models.TextEncoder import TextEncoder
from motion.render.rendering import render_video
from motion.synthetic.clips import demo_clips
from utils.cli import Parser, count, number, run
from utils.config import SpeedConfig, add_flags, flag, from_flags
from utils.flags import PRECISIONS, speed_up

MODES = [f"{precision}{compiled}" for precision in PRECISIONS for compiled in ("", "+compile")]
KINDS = {"FSQ": ("FSQ_AE_High", "FSQ-MARDM"), "continuous": ("AE_Model", "MARDM")}  # of targets
TIMED_ROUNDS = (4, 12)  # of the reference mode at large sizes: an early and a late one


class Account:
    """Counts what a module does while it runs: head rows, FLOPs, and `floor`, the seconds that its linear and
    convolution layers need at least.

    A round needs the one before, but nothing forces it to read a layer's weights twice: the floor of a layer
    in a round is max(all its FLOPs / rate, weight bytes / bandwidth), in however many calls it is made.
    rate: (FLOPs, bytes) a second; begin: the layer whose call opens a round; dtype: in which the weights of
    linear layers are read. Hooks see only layers that are called one by one: count under `plain_products`.
    """

    def __init__(self, modules, head, rate=(1, 1), begin=None, dtype=torch.float32):
        self.rows = self.calls = self.flops = self.done = 0
        self.rate, self.dtype, self.of_round = rate, dtype, {}
        self.hooks = [head.register_forward_hook(self._head)]
        if begin is not None:
            self.hooks.append(begin.register_forward_pre_hook(lambda *_: self._close_round()))
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
        self.of_round[layer] = self.of_round.get(layer, 0) + flops

    def _close_round(self):
        for layer, flops in self.of_round.items():
            dtype = self.dtype if isinstance(layer, nn.Linear) else layer.weight.dtype
            size = layer.weight.numel() * dtype.itemsize
            self.done += max(flops / self.rate[0], size / self.rate[1])
        self.of_round = {}

    @property
    def floor(self):
        self._close_round()
        return self.done


def awake(module, scale=0.02):
    """Random values for what a new network starts at zero, so that the head does real work."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            if not p.any():
                p.copy_(scale * torch.randn(p.shape, generator=generator))
    return module


def build(size, kind, device, words=0):
    torch.manual_seed(0)
    name, family = KINDS[kind]
    ae = make_ae(name)
    text_tokens = "on" if words else "off"
    mardm = MARDM_models[f"{family}-SiT-{size}"](target_dim=ae.target_dim, text_tokens=text_tokens)
    mardm.onestep = OneStepHead.from_teacher(mardm.DiffMLPs, scales=(0.0, 100.0))
    # frozen, as loaded weights are: those that train are laid out anew for every call
    return tuple(model.to(device).eval().requires_grad_(False) for model in (awake(mardm), ae))


@dataclass(frozen=True)
class Setup:
    """What is generated, and what stands beside it in the table."""

    modes: tuple[str, ...] = flag("of computing", ("fp32",), nargs="+", choices=MODES)
    frames: int = flag("of a motion", 196, type=count(4, 196))
    kind: str = flag("targets", "FSQ", choices=KINDS)
    samplers: tuple[str, ...] = flag(
        "solvers, and the one-step head",
        ("midpoint", "onestep"),
        nargs="+",
        choices=(*EVALUATIONS, "onestep"),
    )
    sampler_steps: int = flag("steps of a solver", 4, type=count(1, 100))
    time_steps: int = flag("unmasking rounds", 18, type=count(1, 1000))
    order: str = flag("in which tokens leave the mask", "random", choices=tuple(REVEAL_ORDERS))
    refine: int = flag("how often every token is drawn anew after the rounds", 0, type=count(0, 100))
    cfg: float = flag("guidance scale", 4.5, type=number(float, 0, 100))
    words: int = flag("word pieces of a text, 0 = its pooled vector alone", 0, type=count(0, 512))
    repeats: int = flag("the best counts", 3, type=count(1, 100))
    clock: str = flag("time on the wall, or of the CPU where it is shared", "wall", choices=CLOCKS)
    stages: bool = flag("time text encoder (minilm), decoder and rendering as well", False)


def cases(size, batch, setup, rates, device):
    """Yield a table row for each sampler and mode, and whether the counted head rows are as expected."""
    mardm, ae = build(size, setup.kind, device, setup.words)
    tokens = setup.frames // 4
    shape = (batch, 1 + setup.words, 512) if setup.words else (batch, 512)
    text = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(device)
    m_lens = torch.full((batch,), tokens, device=device)
    steps = {"onestep": 1}
    sampling = from_flags(SamplingConfig, setup, sampler=setup.samplers[0])
    sampling = replace(sampling, sampler_steps=steps.get(sampling.sampler, setup.sampler_steps))
    # at L and XL two of the reference's rounds are timed, scaled by their share of the hidden tokens
    whole = mardm.DiffMLPs.net.input_proj.out_features <= SIZES["B"].head[1]
    rounds = range(sampling.time_steps) if whole else TIMED_ROUNDS
    clock = CLOCKS[setup.clock]
    others = {"drawing_all": sampling, "reference": replace(sampling, sampler="dopri5", sampler_steps=None)}
    others = {name: timed_reference(mardm, ae, text, m_lens, s, rounds, clock) for name, s in others.items()}
    stages = stage_times(ae, m_lens, device) if setup.stages else {}

    def ours(sampling):
        return ae.detokenize(mardm.generate(ae, text, m_lens, sampling), m_lens * 4)

    for sampler, mode in itertools.product(setup.samplers, setup.modes):
        onestep = sampler == "onestep"
        sampling = replace(sampling, sampler=sampler, sampler_steps=steps.get(sampler, setup.sampler_steps))
        evaluations = 1 if onestep else EVALUATIONS[sampler] * setup.sampler_steps
        expected = batch * tokens * (1 + setup.refine) * evaluations
        expected *= 1 if onestep or setup.cfg == 1 else 2
        precision = mode.split("+")[0]
        mardm, _ = build(size, setup.kind, device, setup.words)  # what was compiled stays so
        mardm.set_precision(PRECISIONS[precision])
        with torch.no_grad():
            head, begin = mardm.head(sampling).net, mardm.input_process.poseEmbedding
            rate = rates[precision], rates["bytes"]
            account = Account([mardm, ae], head, rate, begin, PRECISIONS[precision])
            with plain_products(), account:
                ours(sampling)
            if "compile" in mode:
                speed_up(mardm, SpeedConfig(precision, compile=True))
                for _ in range(3):  # compile, record, settle
                    ours(sampling)
            took = min(seconds(partial(ours, sampling), device, clock) for _ in range(setup.repeats))
        row = {
            "size": size,
            "batch": batch,
            "frames": setup.frames,
            "solver": sampler,
            "evaluations": evaluations,
            "mode": mode,
            "sampling": asdict(sampling),
            "ms_per_motion": 1e3 * took / batch,
            "motions_per_second": batch / took,
            "rows_per_token": account.rows / (batch * tokens),
            "gflop": account.flops / 1e9,
            "share_of_floor": account.floor / took,
            **stages,
        }
        for name, other in others.items():
            row[name] = other | {"ratio": other["ms_per_motion"] / row["ms_per_motion"]}
        yield row, account.rows == expected


def stage_times(ae, m_lens, device):
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


@torch.no_grad()
def timed_reference(mardm, ae, text, m_lens, sampling, rounds, clock):
    """Drawing everything in these rounds, scaled to all of them by their share of the hidden tokens."""
    hidden = hidden_counts(m_lens[:1].cpu(), sampling.time_steps)[0, :-1]
    share = float(hidden[list(rounds)].sum() / hidden.sum())
    with Account([], mardm.DiffMLPs.net) as account:
        took = seconds(lambda: draw_everything(mardm, ae, text, m_lens, sampling, rounds), text.device, clock)
    return {
        "ms_per_motion": 1e3 * took / share / len(m_lens),
        "rows_per_token": account.rows / share / int(m_lens.sum()),
        "calls_per_round": account.calls / len(rounds),
        "rounds_timed": len(rounds),
    }


def modes_agree(device):
    """Drawing only what leaves gives the same motions as drawing everything (float64, mixed lengths)."""
    mardm, ae = build("XS", "FSQ", device)
    mardm, ae = mardm.double(), ae.double()
    text = torch.randn(3, 512, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).to(device)
    m_lens = torch.tensor([1, 13, 6], device=device)
    differences = []
    for sampler, steps in (("midpoint", 2), ("onestep", 1)):
        sampling = SamplingConfig(7, cfg=3.0, sampler=sampler, sampler_steps=steps, snap="off", refine=0)
        drawn = mardm.generate(ae, text, m_lens, sampling)
        differences.append(drawn - draw_everything(mardm, ae, text, m_lens, sampling))
    return float(torch.stack(differences).abs().max()) < 1e-9


def summary(row):
    same, parent = row["drawing_all"], row["reference"]
    return (
        f"{row['size']:>2} batch {row['batch']:<3} {row['solver']} {row['mode']} {row['ms_per_motion']:8.1f} "
        f"ms/motion, {row['rows_per_token']:.0f} head rows a token, the floor is "
        f"{100 * row['share_of_floor']:.0f}% of it; "
        f"{same['ratio']:.1f} x drawing all, {parent['ratio']:.1f} x the reference "
        f"({parent['rows_per_token']:.0f} rows a token)"
    )


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one case: size S, batch 8, two repeats")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["S"], help="[%(default)s]")
    parser.add_argument(
        "--batch", type=count(1, 4096), nargs="+", default=[8], help="motions a call [%(default)s]"
    )
    add_flags(parser, "case", Setup)
    machine_flags(parser)
    args = parser.parse_args(argv)
    setup = from_flags(Setup, args)
    if args.quick:
        args.sizes, args.batch, setup = ["S"], [8], replace(setup, repeats=2)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    precisions = dict.fromkeys(mode.split("+")[0] for mode in ["fp32", *setup.modes])
    rates = {name: matmul_rate(device, PRECISIONS[name], clock=CLOCKS[setup.clock]) for name in precisions}
    rates["bytes"] = bandwidth(device, clock=CLOCKS[setup.clock])
    rows, fine = [], modes_agree(device)
    print(f"the two modes {'agree' if fine else 'DISAGREE'}")
    for size, batch in itertools.product(args.sizes, args.batch):
        for row, counted in cases(size, batch, setup, rates, device):
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
