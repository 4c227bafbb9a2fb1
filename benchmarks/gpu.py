"""Check and measure what only a GPU can tell.

  bash benchmarks/gpu.sh                 all of it; writes results/gpu.md and results/gpu.json
  bash benchmarks/gpu.sh --minutes 5     the checks, and the timings that begin within 5 minutes

Parity: every network and a whole generation on the GPU against the CPU, in float32 (without TF32) and
float64: the largest difference relative to the largest value. NCCL: the collectives of a training. Timings,
random weights: generation of XL with decoding, by its diffusion head and by a one-step head; training steps
of S and XL; bf16 and torch.compile on and off; peak memory. Exits with 1 where one of them fails, with 0
without a GPU.
"""

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import torch
import torch.distributed as dist

from benchmarks.bench_generate import awake, build
from benchmarks.bench_train import GeneratorBench, Setup
from benchmarks.machine import machine, seconds, write_record
from models.AE import FSQ_LEVELS, STRIDE, make_ae
from models.counter_rng import Purpose, sample_keys
from models.DiffMLPs import HEADS
from models.FSQ import FSQ
from models.LengthEstimator import LengthEstimator
from models.MARDM import MARDM_models
from models.masking import lengths_to_mask
from models.sampling import SamplingConfig
from motion.files import write_text
from utils.analysis.output import markdown
from utils.cli import Parser, number, run
from utils.config import SpeedConfig
from utils.distributed import all_gather, all_reduce_max, all_reduce_sum, broadcast
from utils.evaluation import evaluator_networks as evaluators
from utils.flags import PRECISIONS, speed_up

ROOT = Path(__file__).resolve().parents[1]
LIMITS = {torch.float32: 1e-3, torch.float64: 1e-8}  # of a relative difference
MODES = list(itertools.product(PRECISIONS, (False, True)))  # precision, compiled
TRAINED, GENERATED, BATCH, TOKENS = ("S", "XL"), "XL", 64, 49


def outputs(device, dtype):
    """Every network on fixed weights and inputs. -> name -> output, on the CPU"""
    generator = torch.Generator().manual_seed(0)
    m_lens = torch.tensor([64, 40, 12])

    def draw(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(device, dtype)

    def ready(make, *given, **options):
        torch.manual_seed(1)
        return awake(make(*given, **options)).to(device, dtype).eval()

    motion, text, lengths, results = draw(3, 64, 67), draw(3, 512), (m_lens // 4).to(device), {}
    for name in ("AE_Model", "FSQ_AE_High", "VQ_AE_Model"):
        ae = ready(make_ae, name, width=64)
        results[f"{name}, encoder"] = ae.encoder(motion.mT)
        results[f"{name}, decoder"] = ae.decode(draw(3, 64, 16), m_lens.to(device))
    for head in HEADS:
        shape = {"ae_dim": 64, "target_dim": 6, "levels": FSQ_LEVELS["FSQ_AE_High"]}
        mardm = ready(MARDM_models[f"FSQ-MARDM-{head}-XS"], **shape, dropout=0.0)
        latents, targets = draw(3, 64, 16), FSQ(shape["levels"]).to(device).snap(draw(3, 16, 6))
        z = mardm.transformer(latents.mT, text, lengths_to_mask(lengths, 16))
        noise = draw(48, *mardm.DiffMLPs.noise_shape)
        sampling = SamplingConfig(cfg=1, sampler="midpoint", sampler_steps=4)
        drawn = mardm.DiffMLPs.sample(z.flatten(0, 1), None, noise, sampling)
        results |= {"Transformer": z, f"{head} head, sample": drawn}
        mardm.train()  # without dropout; texts are dropped by key
        keys = sample_keys(torch.arange(3), Purpose.TRAINING, 0)
        with torch.enable_grad():
            loss = mardm.forward_loss(latents, targets, text, m_lens // 4, keys=keys)
            loss.backward()
        results[f"{head} head, loss"] = loss
        results[f"{head}, gradients"] = torch.cat([p.grad.flatten() for p in mardm.parameters()])
    results["length estimator"] = ready(LengthEstimator, 512)(text)
    results["evaluator, movement"] = ready(evaluators.MovementConvEncoder, 63)(motion[..., :63])
    results["evaluator, motion"] = ready(evaluators.MotionEncoderBiGRUCo)(draw(3, 16, 512), m_lens // 4)
    words = draw(3, 16, 300), draw(3, 16, 15), m_lens // 4
    results["evaluator, text"] = ready(evaluators.TextEncoderBiGRUCo)(*words)
    clip = ready(evaluators.MotionCLIP, 67, layers=2)
    results["evaluator, CLIP motion"] = clip.motion_encoder(motion, m_lens.to(device))
    # float32 decides between neighbouring grid points by its last bits, so it draws without snapping
    ae = ready(make_ae, "FSQ_AE_High", width=64)
    mardm = ready(MARDM_models["FSQ-MARDM-SiT-XS"], ae_dim=64, target_dim=6)
    snap = "step" if dtype == torch.float64 else "off"
    codes = mardm.generate(ae, text, lengths, SamplingConfig(cfg=2.5, snap=snap))
    results["whole generation"] = ae.detokenize(codes, m_lens.to(device), snap=snap == "step")
    return {name: x.detach().cpu() for name, x in results.items()}


def compare(ours, reference, dtype):
    """Rows of the parity table for two results of `outputs`. NaN and another shape fail."""
    rows = []
    for name, expected in reference.items():
        difference = float("nan")
        if ours[name].shape == expected.shape:
            difference = float((ours[name] - expected).abs().max() / expected.abs().max())
        row = {"what": name, "dtype": str(dtype).removeprefix("torch."), "difference": difference}
        rows.append(row | {"limit": LIMITS[dtype], "ok": difference <= LIMITS[dtype]})
    return rows


def parity(device):
    """The device against the CPU, without TF32 -> rows of the parity table."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    rows = []
    with torch.no_grad():
        for dtype in LIMITS:
            rows += compare(outputs(device, dtype), outputs(torch.device("cpu"), dtype), dtype)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # the scripts' default
    return rows


def check_collectives(kind):
    """The collectives that a training needs, in the processes that torchrun started."""
    backend, device = "gloo", torch.device(kind)
    if kind == "cuda":
        backend, device = "cuda:nccl,cpu:gloo", torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group(backend)
    rank, n = dist.get_rank(), dist.get_world_size()
    total, first = torch.full((3,), rank + 1.0, device=device), torch.full((3,), float(rank), device=device)
    dist.all_reduce(total)  # utils.distributed passes over its collectives where one process runs alone
    dist.broadcast(first, src=0)
    assert total.tolist() == [n * (n + 1) / 2] * 3 and first.tolist() == [0.0] * 3
    broadcast([first])
    assert all_reduce_sum(first + 1).tolist() == [float(n)] * 3
    assert all_reduce_max(rank) == n - 1 and sorted(all_gather([rank])) == list(range(n))
    dist.destroy_process_group()


def collectives(kind="cuda", processes=1):
    """`check_collectives` under torchrun -> row."""
    line = f"torch.distributed.run --standalone --nproc_per_node={processes} -m benchmarks.gpu --collectives"
    command = [sys.executable, "-m", *line.split(), kind]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        ok, error = done.returncode == 0, done.stderr[-2000:]
    except subprocess.TimeoutExpired:
        ok, error = False, "not done after 300 s"
    return {"processes": processes, "ok": ok, "error": error}


def timed(work, device, warm_up=3):
    """-> dict of the median seconds of three calls and the peak memory in GiB, after warming up."""
    for _ in range(warm_up):
        work()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    took = [seconds(work, device) for _ in range(3)]
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return {"seconds": median(took), "peak_gib": peak / 2**30}


def generation(device, size, batch, precision, compiled, onestep=False):
    """Timing of a batch of motions, decoded. onestep: by an untrained one-step head."""
    mardm, ae = build(size, "FSQ", device)
    speed_up(mardm, SpeedConfig(precision=precision, compile=compiled))
    sampling = SamplingConfig(cfg=2.5, sampler="onestep" if onestep else "midpoint")
    text, m_lens = torch.randn(batch, 512, device=device), torch.full((batch,), TOKENS, device=device)
    with torch.no_grad():
        return timed(
            lambda: ae.detokenize(mardm.generate(ae, text, m_lens, sampling), STRIDE * m_lens), device
        )


def training(device, size, batch, precision, compiled):
    """Timing of a training step of the generator, the tokens of its motions included."""
    bench = GeneratorBench(Setup(precision, compiled, batch=batch, kind="FSQ", rounds=3), size, device)
    rounds = list(bench.rounds())
    result = timed(lambda: [bench.ours(one) for one in rounds], device)
    return result | {"seconds": result["seconds"] / len(rounds)}


def timings(device, size=GENERATED, trained=TRAINED, batches=(1, BATCH)):
    """Yields the rows of the timings one by one; what fails is a row with its error."""
    for precision, compiled in MODES:
        jobs = [
            (
                f"generation, {size}{', one-step head' * onestep}",
                batch,
                generation,
                size,
                {"onestep": onestep},
            )
            for batch in batches
            for onestep in (False, True)
        ] + [(f"training step, {name}", batches[-1], training, name, {}) for name in trained]
        for what, batch, job, name, options in jobs:
            row = {"what": what, "batch": batch, "mode": precision + "+compile" * compiled, "ok": True}
            try:
                row |= job(device, name, batch, precision, compiled, **options)
            except Exception as error:  # such as out of memory: the other rows are worth having
                row |= {"ok": False, "error": f"{type(error).__name__}: {str(error)[:1000]}"}
            torch._dynamo.reset()  # else the models compiled so far count against its limit
            yield row


def in_ms(row):
    return f"{1e3 * row['seconds']:.1f}" if row["ok"] else "**FAILED**"


def page(checks, nccl, times, words):
    """results/gpu.md"""
    verdict = {True: "ok", False: "**FAILED**"}
    speed = [[*list(t.values())[:3], in_ms(t), f"{t.get('peak_gib', 0):.2f}"] for t in times]
    rows = [[c["what"], c["dtype"], f"{c['difference']:.1e}", c["limit"], verdict[c["ok"]]] for c in checks]
    parts = [
        "# GPU: speed and parity",
        f"{words}. Made by `bash benchmarks/gpu.sh`; its `--help` explains it.",
    ]
    parts += ["## Speed", markdown(["", "batch", "mode", "ms", "peak GiB"], speed)]
    parts += ["## NCCL", markdown(["processes", ""], [[x["processes"], verdict[x["ok"]]] for x in nccl])]
    parts += ["## Parity with the CPU", markdown(["", "dtype", "relative difference", "limit", ""], rows)]
    return "\n\n".join(parts) + "\n"


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument(
        "--minutes", type=number(float, 0), default=22, help="timings may begin [%(default)s]"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "results/gpu", help=".md, .json [results/gpu]")
    parser.add_argument("--collectives", choices=("cpu", "cuda"), help="what torchrun runs for the NCCL part")
    args = parser.parse_args(argv)
    if args.collectives:
        return check_collectives(args.collectives)
    if not torch.cuda.is_available():
        return print("benchmarks/gpu.sh: no GPU here, nothing was measured")
    device, end = torch.device("cuda"), time.monotonic() + 60 * args.minutes
    checks = parity(device)
    nccl = [collectives("cuda", n) for n in (1, 2) if n <= torch.cuda.device_count()]
    times, jobs = [], timings(device)
    while time.monotonic() < end and (row := next(jobs, None)):
        times.append(row)
        print(f"{row['what']}, batch {row['batch']}, {row['mode']}: {in_ms(row)} ms", flush=True)
    results = {"parity": checks, "nccl": nccl, "timings": times}
    write_record(args.output.with_suffix(".json"), "benchmarks.gpu", argv, device, **results)
    write_text(args.output.with_suffix(".md"), page(checks, nccl, times, machine(device)))
    done = checks + nccl + times
    failed = [row for row in done if not row["ok"]]
    for row in failed:
        print(f"FAILED: {row}", file=sys.stderr)
    print(f"{len(done) - len(failed)} of {len(done)} checks and timings went well: {args.output}.md")
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)
