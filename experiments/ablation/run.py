"""Run the ablation's jobs: finished ones are kept, interrupted ones resumed. Several processes can share.

python -m experiments.ablation.run --size reduced            # all; --list prints the commands instead
python -m experiments.ablation.run --size reduced --only "fsq_*/*" "FSQ_16_*/*"
"""

import fcntl
import fnmatch
import shlex
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from experiments.ablation.plan import SIZES, Plan
from motion.files import write_text
from utils.cli import Parser, run
from utils.errors import BadInput

WAIT = 20  # seconds between looks at what another process is doing


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--size", choices=SIZES, default="reduced", help="[%(default)s]")
    parser.add_argument("--folder", type=Path, help="of the runs [checkpoints/ablation_<size>]")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="source [%(default)s]")
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of jobs, run/record [all]")
    parser.add_argument("--list", action="store_true", help="print the commands and run none")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    folder = args.folder or Path("checkpoints") / f"ablation_{args.size}"
    plans = [Plan(args.size, name, folder, args.data) for name in SIZES[args.size].sets]
    jobs = [(plan, job) for plan in plans for job in plan.jobs() if wanted(job, args.only)]
    if args.list:
        for _, job in jobs:
            print(job.name, shlex.join(job.command))
        return
    work(jobs)


def wanted(job, patterns):
    return any(fnmatch.fnmatch(job.name, pattern) for pattern in patterns)


def work(jobs):
    """Run jobs in turn, always the first whose needs are done and that no other process has begun."""
    while left := [(plan, job) for plan, job in jobs if not marker(plan, job.name).is_file()]:
        ready = [(plan, job) for plan, job in left if all(marker(plan, n).is_file() for n in plan.needs(job))]
        if not ready:
            waiting = ", ".join(job.name for _, job in left[:3])
            raise BadInput(f"{len(left)} jobs wait for others that --only leaves out: {waiting}")
        if not any(started(plan, job) for plan, job in ready):  # `any` stops at the first that was run
            time.sleep(WAIT)


def marker(plan, name):
    """The file that marks a job as done; it holds its command."""
    return plan.runs / "done" / name.replace("/", "--")


@contextmanager
def claim(path):
    """Yield whether this process has locked the job; the lock ends with the block, or with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def started(plan, job):
    """Run a job unless it is done or another process has it -> whether it was run; BadInput if it fails."""
    file = marker(plan, job.name)
    with claim(file.with_name(file.name + ".lock")) as free:
        if not free or file.is_file():
            return False
        command = [sys.executable, *plan.command(job)]
        folders = {"train": job.run, "distill": f"{job.run}/onestep", "evaluator": "text_mot_match"}
        trained = folders.get(job.record)  # None: an evaluation, or the data
        if trained and (plan.runs / trained / "model" / "latest.tar").is_file():
            command.append("--is_continue")
        print("+", shlex.join(command), flush=True)
        begun, log = time.time(), plan.runs / "logs" / f"{file.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with open(log, "a", encoding="utf-8") as stream:
            code = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            raise BadInput(f"{job.name} ended with {code}: see {log}; run again to go on")
        write_text(file, shlex.join(["python", *command[1:]]) + f"\n# {time.time() - begun:.0f} s\n")
        return True


if __name__ == "__main__":
    run(main)
