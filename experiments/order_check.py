"""Do motions show the actions of their prompts in the order stated? Sequences, judged by geometry.

  python -m experiments.order_check --real                    clips of the embedded demo set: checks the check
  python -m experiments.order_check --name FSQ_MARDM_SiT_XS   a trained generator, on every group of prompts

Groups: orders of two actions that the demo set's training split shows; orders held out of it, it has only
the reverse; pairs held out both ways (their single actions are shown); the same orders said with "after" and
"before"; left and right within a sequence; three parts; counts of a single action. A motion passes where its
pieces show the actions in this order and in no other: motion/synthetic/sequence_check.py. Prints a table with
Wilson's 95% intervals and writes JSON.
"""

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from models.counter_rng import SEED
from motion.files import write_json
from motion.synthetic import sequences
from motion.synthetic.clips import demo_clips
from motion.synthetic.sequence_check import count as times_shown
from motion.synthetic.sequence_check import happens, in_order
from motion.synthetic.text import TIMES
from utils.cli import Parser, command_line, count, run
from utils.config import RunConfig, SamplingFlags, add_flags, from_flags
from utils.pipeline import load
from utils.statistics import wilson

THEN, AFTER, BEFORE = sequences.PAIRS[:1], sequences.PAIRS[7:9], sequences.PAIRS[5:7]
GROUPS = {  # name -> what its row is called
    "seen": "orders seen in training",
    "order": "orders held out, the reverse seen",
    "pair": "pairs held out",
    "after": "seen, said with after",
    "before": "seen, said with before",
    "sides": "left and right of one action, seen",
    "three": "three parts",
    "count": "how many times",
}
COUNTED = (("clap", 2), ("clap", 3), ("clap", 4), ("jump", 1), ("jump", 2), ("squat", 1), ("squat", 2))
COUNTED += (("kick_left", 1), ("kick_left", 2), ("kick_right", 1), ("kick_right", 2))
BATCH = 64  # motions at a time


@dataclass(frozen=True)
class Prompt:
    group: str
    text: str
    labels: tuple[str, ...]  # in the order in which they should happen
    times: int = 0  # of a single action that is counted

    def judge(self, joints):
        """-> (passed, shows the parts in reverse order)"""
        if self.times:
            name, _, side = self.labels[0].partition("_")
            return times_shown(name, joints, side) == self.times, False
        passed = in_order(joints, self.labels)
        return passed, not passed and happens(joints, self.labels[::-1])


def prompts():
    """Every group's prompts, always the same."""
    rng, out = np.random.default_rng(0), []
    orders = {
        kind: [orders[i] for i in rng.permutation(len(orders))] for kind, orders in sequences.ORDERS.items()
    }
    sided = [order for order in orders["seen"] if order[0] not in sequences.PARTS]
    chosen = {kind: orders[kind][:20] for kind in ("seen", "order", "pair")} | {"sides": sided}
    chosen |= {"after": orders["seen"][20:30], "before": orders["seen"][30:40]}
    chosen["three"] = [sequences.draw_triple(rng) for _ in range(12)]
    templates = {"after": AFTER, "before": BEFORE, "three": sequences.TRIPLES}
    for group, these in chosen.items():
        for k, order in enumerate(these):
            labels = sequences.with_sides(order, rng)
            forms = templates.get(group, THEN)
            text = sequences.sentence(forms[k % len(forms)], labels, sequences.fewest(labels), rng)
            out.append(Prompt(group, text, tuple(labels)))
    for label, n in COUNTED:
        out.append(Prompt("count", sequences.sentence("{who} {A}", [label], [n], rng), (label,), n))
    return out


def real_prompts(n_clips, seed):
    """-> (Prompt, joints) of the demo set's sequences, and of its single actions that are counted."""
    for clip in demo_clips(n_clips, seed):
        labels = tuple(clip.label.split("+"))
        if len(labels) > 1:
            group = "three" if len(labels) == 3 else sequences.kind_of(labels)
            yield Prompt(group, clip.captions[0], labels), clip.joints
        elif clip.label in dict(COUNTED):
            times = max(n for n, words in TIMES.items() if words in clip.captions[0])
            yield Prompt("count", clip.captions[0], labels, times), clip.joints


def table(judged):
    """judged: (Prompt, passed, reversed) x N -> lines, rows for JSON."""
    rows, lines = {}, [f"{'':36} {'passed':>9} {'95% interval':>14} {'reversed':>9}"]
    for group, title in GROUPS.items():
        results = [(passed, back) for prompt, passed, back in judged if prompt.group == group]
        if not results:
            continue
        n, (passed, back) = len(results), np.sum(results, axis=0).tolist()
        low, high = wilson(passed, n)
        rows[group] = {"n": n, "passed": passed, "share": passed / n, "wilson": [low, high], "reversed": back}
        share = f"{100 * low:.0f} to {100 * high:.0f}%"
        lines.append(f"{title:36} {passed:4}/{n:<4} {share:>14} {back:>9}")
    return "\n".join(lines), rows


def parse(argv):
    parser = Parser(__doc__)
    parser.add_argument("--real", action="store_true", help="judge the embedded demo set's own clips")
    add_flags(parser, "run", RunConfig, skip=("dataset_dir",), name=None, dataset_name="Demo")
    parser.add_argument("--repeats", type=count(1), default=2, help="motions a prompt [%(default)s]")
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS), help="[all]")
    parser.add_argument("--clips", type=count(2, 10**5), default=800, help="--real: demo clips [%(default)s]")
    parser.add_argument("--seed", type=count(), default=SEED, help="of clips or motions [%(default)s]")
    parser.add_argument(
        "--output", help="JSON file [order_check.json in the run's eval folder, or in results]"
    )
    add_flags(parser, "sampling", SamplingFlags)
    args = parser.parse_args(argv)
    if args.real == bool(args.name):
        parser.error("give either --name or --real")
    return args


def main(argv=None):
    args = parse(argv)
    if args.real:
        pairs, place = real_prompts(args.clips, args.seed), "results/order_check_real.json"
    else:
        run_name = f"{args.dataset_name}/{args.name}"
        pipeline = load(run_name, args.checkpoints_dir)
        asked = [p for p in prompts() if p.group in args.groups for _ in range(args.repeats)]
        pairs, how = [], asdict(from_flags(SamplingFlags, args))
        for first in range(0, len(asked), BATCH):
            some = asked[first : first + BATCH]
            made = pipeline.generate([p.text for p in some], seed=args.seed + first, **how)
            pairs += [(prompt, motion.joints) for prompt, motion in zip(some, made, strict=True)]
        place = Path(args.checkpoints_dir) / run_name / "eval" / "order_check.json"
    judged = [(prompt, *prompt.judge(joints)) for prompt, joints in pairs]
    text, rows = table(judged)
    print(text)
    texts = Counter(prompt.text for prompt, passed, _ in judged if not passed)
    record = {"command": command_line("experiments.order_check", argv), "groups": rows}
    write_json(args.output or place, record | {"failed": dict(texts)})


if __name__ == "__main__":
    run(main)
