"""Timers, compute rates and the name of the machine that benchmarks run on."""

import os
import platform
import time
from pathlib import Path

import torch

from models import onednn
from motion.files import write_json
from utils.cli import command_line, count


def processor():
    """What the kernel calls the CPU, and how many of them there are."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{os.cpu_count()} x {(names or [platform.processor() or platform.machine()])[0]}"


def machine(device="cpu"):
    """CPU, GPU and version of PyTorch, in words."""
    gpu = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else "no GPU"
    return f"{processor()}, {gpu}, torch {torch.__version__}"


def machine_flags(parser):
    parser.add_argument(
        "--threads", type=count(0, 256), default=0, help="of the CPU, 0 = PyTorch's choice [%(default)s]"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="[%(default)s]")
    parser.add_argument("--output", help="JSON file [printed only]")


def write_record(path, module, argv, device, **results):
    """The results of `python -m <module> <argv>` with what they were measured on, as JSON."""
    record = {
        "command": command_line(module, argv),
        "machine": machine(device),
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg(),
    }
    write_json(path, record | results)


def synchronise(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work, device, clock=time.perf_counter):
    """Seconds that work() takes, by the wall or another clock."""
    synchronise(device)
    begun = clock()
    work()
    synchronise(device)
    return clock() - begun


CLOCKS = {
    "wall": time.perf_counter,
    "cpu": time.process_time,
}  # cpu: that of all threads


def matmul_rate(device, dtype=torch.float32, n=2048, clock=time.perf_counter):
    """FLOP/s of [n,n] @ [n,n], best of six; on a CPU also in oneDNN's weight layout, as drawing has it."""
    n = n if device.type == "cpu" else 4 * n
    a, b = (torch.randn(n, n, device=device).to(dtype) for _ in range(2))
    products = [lambda: a @ b]
    if device.type == "cpu" and onednn.available(dtype):
        laid_out = onednn.pack(b)
        products.append(lambda: onednn.product(a, laid_out, None))
    return 2 * n**3 / min(seconds(product, device, clock) for product in products for _ in range(6))


def bandwidth(device, megabytes=256, clock=time.perf_counter):
    """Bytes/s of reading a large tensor once, best of six."""
    x = torch.ones(megabytes * 2**18, device=device)
    return 4 * x.numel() / min(seconds(lambda: x.sum(), device, clock) for _ in range(6))
