"""A dress rehearsal of full-scale training, with as many synthetic clips as HumanML3D has.

  python -m benchmarks.rehearsal --folder /data/rehearsal --output results/rehearsal.json
  python -m benchmarks.rehearsal --folder /data/rehearsal --quick          400 clips, small models

Writes 29,228 clips in HumanML3D's layout (split as published, 263 columns, three captions each: about 5 GB),
starts the real training commands with their official flags, first without the packed cache (cold), then with
it (warm), and notes when the first step begins, how much memory the process then holds, and how long its
first steps take. The clips are stretched and disturbed copies of a few hundred procedural ones, the text
embeddings random, the autoencoder untrained: no figure here is about quality.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.machine import machine_flags, write_record
from models.AE import make_ae
from utils.checkpoints import FORMAT, save_state
from utils.cli import Parser, count, run
from utils.data.cal_mean_std import mean_std
from utils.data.clips import SPLITS
from utils.data.dataset_writer import demo_set
from utils.data.validation import PUBLISHED
from utils.datasets import DATASETS
from utils.errors import BadInput
from utils.motion_process import joints_to_features

ROOT = Path(__file__).resolve().parents[1]

T2M = DATASETS["t2m"]
CONTACTS = 4  # the last columns of a row: 0 or 1, not to be disturbed
READY = "parameters"  # the line that both training scripts print when the first epoch begins
STEPS = re.compile(r"(\d+)/(\d+) \[")  # of the progress bar: done, in an epoch


def make_set(root, sizes, n_bases, seed=0):
    """Clips, texts, splits and statistics in HumanML3D's layout; the embeddings of the texts, random."""
    rng = np.random.default_rng(seed)
    bases = list(demo_set(n_bases, seed))
    rows = [joints_to_features(base.joints, T2M.skeleton) for base in tqdm(bases, desc="features")]
    noise = 1e-3 * rng.standard_normal((2**16, rows[0].shape[1] - CONTACTS), dtype=np.float32)
    for folder in ("new_joint_vecs", "texts"):
        (root / folder).mkdir(parents=True)
    captions, number = [], 0
    for split, size in zip(SPLITS, sizes):
        ids = [f"{number + i:06d}" for i in range(size)]
        for name in tqdm(ids, desc=split):
            base = int(rng.integers(len(bases)))
            motion = stretched(rows[base], rng, noise)
            np.save(root / "new_joint_vecs" / f"{name}.npy", motion)
            texts = [f"{text} take {name}" for text in (bases[base].captions * 3)[:3]]
            tokens = [f"{' '.join(words)} take/NOUN {name}/NUM" for words in (bases[base].tokens * 3)[:3]]
            texts = [f"{text} {i}" for i, text in enumerate(texts)]  # no two alike, as in the real set
            # a twentieth of the captions describes a part of its clip, of two seconds or more
            ends = ["1.0#3.5" if i == 2 and int(name) % 7 == 0 else "0.0#0.0" for i in range(3)]
            lines = [f"{text}#{words}#{end}\n" for text, words, end in zip(texts, tokens, ends)]
            (root / "texts" / f"{name}.txt").write_text("".join(lines), encoding="utf-8")
            captions += texts
        (root / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
        number += size
    for file, values in zip(("Mean.npy", "Std.npy"), mean_std(rows, len(T2M.skeleton))):
        np.save(root / file, values)
    embeddings = torch.randn(len(captions), 512, generator=torch.Generator().manual_seed(seed)) / 2
    cache = {T2M.text_encoder: {"captions": captions, "rows": embeddings}}
    save_state(root / "cache" / f"text_{T2M.text_encoder}.pt", cache)


def stretched(rows, rng, noise):
    """A disturbed copy of rows [T,263], 40 to 199 frames long and 141 on average, as in HumanML3D."""
    frames = int(rng.triangular(40, 184, 199))
    motion = rows[np.linspace(0, len(rows) - 1, frames).round().astype(int)]
    start = int(rng.integers(len(noise) - frames))
    motion[:, :-CONTACTS] += noise[start : start + frames]
    return motion


def make_autoencoder(folder, width):
    """An untrained autoencoder where train_MARDM.py looks for one."""
    torch.manual_seed(0)
    ae = make_ae("FSQ_AE_High", T2M.dim, width)
    state = {"ae": ae.state_dict(), "ep": 0, "total_it": 0, "format": FORMAT}
    for key in ("mean", "std"):
        state[key] = torch.from_numpy(np.load(folder / T2M.folder / f"{key.title()}.npy"))[: T2M.dim]
    state["config"] = {"model": "FSQ_AE_High", "width": width, "dataset": T2M.as_dict()}
    save_state(folder / "checkpoints/t2m/AE/model/latest.tar", state)


def rehearse(line, folder, steps, limit):
    """Start a training script, watch it until its first step begins and `steps` are done, and end it.

    -> its command, seconds until the first step begins, memory then and at the end, seconds of each step.
    """
    command = [*shlex.split(line), "--name", "rehearsal", "--dataset_name", "t2m"]
    command += ["--dataset_dir", str(folder), "--checkpoints_dir", str(folder / "checkpoints")]
    shutil.rmtree(folder / "checkpoints/t2m/rehearsal", ignore_errors=True)
    begun = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-u", *command],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    try:
        result = watch(process, begun, steps, limit)
    finally:
        process.kill()
        process.wait()
    shown = [part.replace(str(folder), "FOLDER") for part in command]
    return {"command": shlex.join(["python", *shown])} | result


def watch(process, begun, steps, seconds):
    os.set_blocking(process.stdout.fileno(), False)
    said, marks, batches, at_start = "", [], 0, None
    while len(marks) <= steps and time.perf_counter() - begun < seconds:
        time.sleep(0.05)
        said += (process.stdout.read() or b"").decode(errors="replace")
        if process.poll() is not None:
            raise BadInput(f"the training ended by itself: {said.strip().splitlines()[-1][-300:]}")
        now = time.perf_counter() - begun, cpu_seconds(process.pid)
        if not marks and READY in said:
            marks, at_start = [now], status(process.pid)
        bar = [tuple(map(int, pair)) for pair in STEPS.findall(said.partition(READY)[2])]
        done, batches = max(bar, default=(0, 0))
        marks += [now] * (done + 1 - len(marks)) if marks else []
    if not marks:
        raise BadInput(f"no step within {seconds} s: {said[-300:]}")
    walls, cpus = zip(*marks)
    return {
        "start_seconds": walls[0],
        "start_cpu_seconds": cpus[0],
        "memory_at_start_gib": at_start,
        "memory_gib": status(process.pid),
        "steps_per_epoch": batches,
        "step_seconds": np.diff(walls)[:steps].tolist(),
        "step_cpu_seconds": np.diff(cpus)[:steps].tolist(),
    }


def cpu_seconds(pid):
    """Spent by all threads of a process, its workers not counted."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def status(pid):
    """Memory of a process in GiB: its own (anonymous), with the mapped files it has read, and its peak."""
    fields = dict(
        re.findall(r"^(RssAnon|VmRSS|VmHWM):\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.M)
    )
    names = {"own": "RssAnon", "resident": "VmRSS", "peak": "VmHWM"}
    return {name: int(fields[field]) / 2**20 for name, field in names.items() if field in fields}


def forget_cache(root):
    """The next start is a cold one: no packed cache, no file of the set in memory. Text embeddings stay."""
    for file in (root / "cache").glob("*.npy"):
        file.unlink()
    os.sync()
    for file in tqdm([*root.glob("*/*.npy"), *root.glob("*/*.txt")], desc="out of the page cache"):
        with open(file, "rb") as handle:
            os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("--folder", type=Path, required=True, help="where to write; 6 GB are needed")
    parser.add_argument("--quick", action="store_true", help="400 clips, width 32, size XS")
    parser.add_argument("--steps", type=count(1, 100), default=2, help="steps of each run [%(default)s]")
    parser.add_argument("--seconds", type=count(1), default=1800, help="wait at most so long [%(default)s]")
    parser.add_argument("--extra", default="", help="further flags of both scripts, e.g. '--precision bf16'")
    machine_flags(parser)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads or torch.get_num_threads())
    root, sizes, bases, width, size = args.folder / T2M.folder, PUBLISHED["t2m"], 300, 512, "XL"
    if args.quick:
        sizes, bases, width, size = (320, 16, 64), 20, 32, "XS"
    if not (root / "Std.npy").is_file():
        make_set(root, sizes, bases)
    make_autoencoder(args.folder, width)
    common = f"--device {args.device} {args.extra}"
    ae = f"train_AE.py --model FSQ_AE_High --epoch 50 --batch_size 256 --width {width} {common}"
    mardm = f"train_MARDM.py --ae_name AE --ae_model FSQ_AE_High --model FSQ-MARDM-SiT-{size} {common}"
    rows = []
    for line, epochs in ((ae, 50), (f"{mardm} --epoch 500 --batch_size 64", 500)):
        forget_cache(root)
        for start, steps in (("cold", 0), ("warm", args.steps)):
            row = rehearse(line, args.folder, steps, args.seconds)
            said = f"{line.split()[0]}, {start}: starts in {row['start_seconds']:.1f} s"
            if row["step_seconds"]:
                hours = np.median(row["step_seconds"]) * row["steps_per_epoch"] * epochs / 3600
                row["projected_hours"] = float(hours)
                said += f"; {np.median(row['step_seconds']):.1f} s a step, {hours:,.0f} h in all"
            print(f"{said}; {row['memory_gib']['own']:.2f} GiB of its own", flush=True)
            rows.append({"what": f"{line.split()[0]}, {start}", "epochs": epochs} | row)
    if args.output:
        results = {"clips": sum(sizes), "rows": rows}
        write_record(args.output, "benchmarks.rehearsal", argv, torch.device(args.device), **results)


if __name__ == "__main__":
    run(main)
