"""Does a motion show what its prompt says? 20 prompts, several motions each, checked by geometry alone.

  python -m experiments.prompt_check --real               clips of the embedded demo set: checks the check
  python -m experiments.prompt_check --autoencoder Demo/AE  the same clips as an autoencoder reproduces them
  python -m experiments.prompt_check --run Demo/MARDM     a trained generator, 5 motions a prompt

The predicates are in motion/synthetic/geometry_check.py. A motion that shows its prompt's mirror image (left
for right) counts as failed, and as a swap. Prints a table and writes JSON.
"""

from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

import torch

from models.counter_rng import SEED
from motion.files import write_json
from motion.synthetic.clips import demo_clips
from motion.synthetic.geometry_check import describe, shows, split_label, swapped
from utils.checkpoints import load_ae
from utils.cli import Parser, command_line, count, run
from utils.config import SamplingFlags, WeightsConfig, add_flags, from_flags
from utils.generation.edit_source import model_rows
from utils.motion_process import joints_to_features, recover_from_ric
from utils.pipeline import load

PROMPTS = {
    "a person walks forward": "walk",
    "someone runs forward": "run",
    "a man walks backwards": "backward",
    "a person walks in a curve to the left": "walk_curve_left",
    "a woman sidesteps to the left": "side_left",
    "a person steps sideways to the right": "side_right",
    "a man turns to the left on the spot": "turn_left",
    "a person turns to the right on the spot": "turn_right",
    "a person jumps up": "jump",
    "a man hops on his left foot three times": "hop_left",
    "a person squats down and stands up": "squat",
    "someone sits down on a chair": "sit",
    "a woman bows": "bow",
    "a person waves with their left hand": "wave_left",
    "a woman waves with her right hand": "wave_right",
    "a person kicks with their left leg": "kick_left",
    "a man kicks with his right leg": "kick_right",
    "someone punches with their right hand": "punch_right",
    "a person raises both arms": "raise_both",
    "a person walks forward and then waves with their left hand": "walk_wave_left",
}


def check(generate, repeats=5):
    """generate(prompts) -> joints [T,22,3] for each; called once, with every prompt `repeats` times."""
    asked = [prompt for prompt in PROMPTS for _ in range(repeats)]
    motions = defaultdict(list)
    for prompt, joints in zip(asked, generate(asked), strict=True):
        motions[prompt].append(joints)
    return check_motions(motions)


def check_motions(motions):
    """motions: prompt -> list of joints [T,22,3]. Returns a row for each prompt, in the order of PROMPTS."""
    rows = []
    for prompt, label in PROMPTS.items():
        moves = [describe(joints) for joints in motions.get(prompt, ())]
        passed, swaps = (sum(test(label, m) for m in moves) for test in (shows, swapped))
        rows.append({"prompt": prompt, "label": label, "n": len(moves), "passed": passed, "swaps": swaps})
    return rows


def totals(rows):
    """Over all prompts; swaps are shares of the motions whose prompt names a side."""
    n, passed, swaps = (sum(row[key] for row in rows) for key in ("n", "passed", "swaps"))
    sided = sum(row["n"] for row in rows if split_label(row["label"])[1])
    return {"n": n, "passed": passed, "share": passed / max(n, 1), "sided": sided, "swaps": swaps}


def table(rows):
    lines = [f"{'prompt':60s} {'passed':>9s} {'swaps':>6s}"]
    for row in rows:
        swaps = row["swaps"] if split_label(row["label"])[1] else "-"
        lines.append(f"{row['prompt']:60s} {row['passed']:4d}/{row['n']:<4d} {swaps:>6}")
    total = totals(rows)
    lines.append(
        f"{'all':60s} {total['passed']:4d}/{total['n']:<4d} {total['swaps']:>6}   "
        f"{100 * total['share']:.1f}% pass; {total['swaps']} of {total['sided']} sided ones swapped"
    )
    return "\n".join(lines)


def real_motions(n_clips, seed, reproduced=lambda joints: joints):
    """Demo clips by the prompt of their label, each passed through reproduced, [T,22,3] -> [t,22,3]."""
    prompt_of = {label: prompt for prompt, label in PROMPTS.items()}
    motions = defaultdict(list)
    for clip in demo_clips(n_clips, seed):
        label = clip.label.replace("+", "_")  # walk+wave_left
        if label in prompt_of:
            motions[prompt_of[label]].append(reproduced(clip.joints))
    return motions


def autoencoder(run, checkpoints_dir):
    """ "<dataset>/<name>" -> function of joints [T,22,3]: their reconstruction [t,22,3], t whole tokens."""
    dataset_name, _, name = run.partition("/")
    source = WeightsConfig(name=name, dataset_name=dataset_name, checkpoints_dir=checkpoints_dir)
    autoencoder = load_ae(source, torch.device("cpu"), name)

    @torch.no_grad()
    def reproduced(joints):
        spec = autoencoder.spec
        rows = joints_to_features(joints, spec.skeleton, spec.facing)[:, : spec.dim]
        _, tokens = autoencoder.ae.tokenize(model_rows(autoencoder, rows))
        motion = autoencoder.normalizer.inverse(autoencoder.ae.detokenize(tokens))[0]
        return recover_from_ric(motion, len(spec.skeleton)).numpy()

    return reproduced


def parse(argv):
    parser = Parser(__doc__)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--real", action="store_true", help="check the embedded demo set's own clips")
    source.add_argument("--autoencoder", metavar="DATASET/NAME", help="check what it makes of these clips")
    source.add_argument("--run", metavar="DATASET/NAME", help="check what this trained generator draws")
    parser.add_argument("--checkpoints_dir", default="./checkpoints", help="where the run lies [%(default)s]")
    parser.add_argument("--repeats", type=count(1), default=5, help="--run: motions a prompt [%(default)s]")
    parser.add_argument(
        "--clips", type=count(42, 10**5), default=1500, help="demo clips to check [%(default)s]"
    )
    parser.add_argument("--seed", type=count(), default=SEED, help="of clips or motions [%(default)s]")
    parser.add_argument(
        "--output",
        help="JSON file [prompt_check.json in the run's eval folder; results/prompt_check_real.json]",
    )
    add_flags(parser, "sampling of --run", SamplingFlags)
    return parser.parse_args(argv)


def main(argv=None):
    args = parse(argv)
    if args.real:
        rows, place = check_motions(real_motions(args.clips, args.seed)), "results/prompt_check_real.json"
    elif args.autoencoder:
        again = autoencoder(args.autoencoder, args.checkpoints_dir)
        rows = check_motions(real_motions(args.clips, args.seed, again))
        place = Path(args.checkpoints_dir) / args.autoencoder / "eval" / "prompt_check.json"
    else:
        pipeline = load(args.run, args.checkpoints_dir)

        how = asdict(from_flags(SamplingFlags, args))

        def generate(asked):
            return [motion.joints for motion in pipeline.generate(asked, seed=args.seed, **how)]

        rows = check(generate, args.repeats)
        place = Path(args.checkpoints_dir) / args.run / "eval" / "prompt_check.json"
    print(table(rows))
    record = {"command": command_line("experiments.prompt_check", argv), "total": totals(rows)}
    write_json(args.output or place, record | {"prompts": rows})


if __name__ == "__main__":
    run(main)
