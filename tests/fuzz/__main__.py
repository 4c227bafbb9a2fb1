"""Runs the cases and prints what came of them: see tests/fuzz/__init__.py."""

import os
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from tests.fuzz import files, flags, weights
from tests.fuzz.contract import attempt, attempt_as_process
from tests.fuzz.home import build
from utils.cli import Parser, run, write_text

MASK_RATIO = {"flags": 1}  # of a kind's cases in the sample: one of ...


def all_cases():
    return [*flags.cases(), *files.cases(), *weights.cases()]


def sample(cases, share=18):
    """Every `share`-th case of each kind; the first of each is among them."""
    seen = Counter()
    for case in cases:
        if seen[case.kind] % MASK_RATIO.get(case.kind, share) == 0:
            yield case
        seen[case.kind] += 1


def thirty(cases):
    """That many, from all over the list, of those that get beyond the parser."""
    cases = [case for case in cases if case.own_folder]
    return cases[:: max(1, len(cases) // 30)][:30]


def attempts(cases, home, scratch, how=attempt):
    for number, case in enumerate(cases):
        with tempfile.TemporaryDirectory(dir=scratch, prefix=f"case{number}_") as folder:
            yield how(case, home, Path(folder) / "home")


def table(outcomes):
    """A line a kind, in Markdown: how many, how they ended."""
    rows = [["kind", "cases", "success", "refused", "broken", "slowest (s of CPU)"]]
    kinds = list(dict.fromkeys(one.case.kind for one in outcomes))
    for kind in [*kinds, "all"]:
        own = [one for one in outcomes if kind in (one.case.kind, "all")]
        broken = sum(bool(one.problems) for one in own)
        codes = Counter(one.code for one in own if not one.problems)
        rows.append([kind, len(own), codes[0], codes[2], broken, f"{max(one.seconds for one in own):.1f}"])
    rows.insert(1, ["---", *["---:"] * 5])
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)


def parse(argv):
    parser = Parser(sys.modules["tests.fuzz"].__doc__)
    parser.add_argument("--kinds", nargs="+", help="kinds that begin with these words [all]")
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument("--sample", action="store_true", help="what run_tests.sh takes")
    parser.add_argument("--processes", action="store_true", help="thirty of them as real processes too")
    parser.add_argument("--list", action="store_true", help="name the cases and stop")
    parser.add_argument("--output", help="file for the table")
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    cases = all_cases()
    if args.sample:
        cases = list(sample(cases))
    if args.kinds:
        cases = [case for case in cases if case.kind.startswith(tuple(args.kinds))]
    if args.only:
        cases = [case for case in cases if args.only in str(case)]
    if args.list:
        print(*cases, sep="\n")
        return 0
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    with tempfile.TemporaryDirectory(prefix="fsq_mardm_fuzz_") as scratch:
        home = Path(scratch) / "home"
        home.mkdir()
        build(home)
        outcomes = []
        for outcome in tqdm(attempts(cases, home, scratch), total=len(cases), unit="case"):
            outcomes.append(outcome)
            if outcome.problems:
                tqdm.write(f"BROKEN {outcome}")
        if args.processes:
            begun = [replace(one, kind="processes") for one in thirty(cases)]
            for outcome in tqdm(attempts(begun, home, scratch, attempt_as_process), total=len(begun)):
                outcomes.append(outcome)
                if outcome.problems:
                    tqdm.write(f"BROKEN {outcome}")
    shown = table(outcomes)
    print(shown)
    if args.output:
        write_text(args.output, shown + "\n")
    return 1 if any(outcome.problems for outcome in outcomes) else 0


if __name__ == "__main__":
    run(main)
