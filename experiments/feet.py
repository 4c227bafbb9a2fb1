"""Should standing feet be held by default? Generated motions with and without `--fix_feet`.

  python -m experiments.feet --run Demo/demo_MARDM --repeats 5

The rule, written before the run: yes, if it halves the foot skate, raises the jitter by at most 10% and moves
no joint by more than 3 cm on average over the set. Prints the figures and the verdict.
"""

from dataclasses import dataclass

import numpy as np

from experiments.prompt_check import PROMPTS
from motion.feet import fix_feet
from utils.cli import Parser, count, run
from utils.metrics import foot_skate, jitter_sums, ratio
from utils.pipeline import load


@dataclass(frozen=True)
class Effect:
    """What holding feet changes on a set of motions."""

    skate: tuple[float, float]  # before, after
    jitter: tuple[float, float]
    moved_cm: np.ndarray  # [J] mean displacement of each joint
    farthest_cm: float

    def passes(self):
        """Does it meet the three conditions of the rule?"""
        halved = self.skate[1] <= 0.5 * self.skate[0]
        return halved and self.jitter[1] <= 1.1 * self.jitter[0] and self.moved_cm.max() <= 3

    def __str__(self):
        (skate, held), (jitter, after) = self.skate, self.jitter
        return (
            f"foot skate {skate:.3f} -> {held:.3f} ({held / max(skate, 1e-9) - 1:+.0%}), "
            f"jitter {jitter:.1f} -> {after:.1f} ({after / jitter - 1:+.0%}), "
            f"the joint that moves most {self.moved_cm.max():.2f} cm on average, at most "
            f"{self.farthest_cm:.1f} cm: {'passes' if self.passes() else 'fails'}"
        )


def effect(motions, fps, skeleton):
    """motions: list of joints [T,J,3] in the skeleton's unit -> Effect."""
    plain = [joints * skeleton.unit_m for joints in motions]
    held = [fix_feet(joints, fps, skeleton) * skeleton.unit_m for joints in motions]
    moved = np.concatenate([np.linalg.norm(a - b, axis=-1) for a, b in zip(plain, held)])
    return Effect(
        skate=tuple(foot_skate(clips, skeleton.feet, fps) for clips in (plain, held)),
        jitter=tuple(ratio([jitter_sums(joints, fps) for joints in clips]) for clips in (plain, held)),
        moved_cm=100 * moved.mean(axis=0),
        farthest_cm=float(100 * moved.max()),
    )


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--run", default="Demo/demo_MARDM", help="<dataset>/<name> [%(default)s]")
    parser.add_argument("--checkpoints_dir", default="./checkpoints", help="where it lies [%(default)s]")
    parser.add_argument("--repeats", type=count(1, 1000), default=5, help="motions per prompt [%(default)s]")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    pipeline = load(args.run, args.checkpoints_dir)
    prompts = [prompt for prompt in PROMPTS for _ in range(args.repeats)]
    motions = []
    for first in range(0, len(prompts), 32):
        motions += pipeline.generate(prompts[first : first + 32], seed=first)
    fps, skeleton = pipeline.spec.fps, pipeline.spec.skeleton
    print(f"{len(motions)} motions: {effect([motion.joints for motion in motions], fps, skeleton)}")


if __name__ == "__main__":
    run(main)
