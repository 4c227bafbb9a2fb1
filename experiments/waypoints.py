"""How well do motions meet random waypoints, and what does that cost? Beside motions drawn without any.

  python -m experiments.waypoints --tasks 50

A task: walk or run from rest to rest, 3 to 6 seconds, 1 to 3 waypoints at even times. The way turns by up to
50 degrees from leg to leg, every third task ends with a heading within 20 degrees of the last leg. A prompt
counts as shown if its motion passes the geometry check of its label, without its bound on turning for both
kinds. Prints a table, writes JSON.
"""

import json
import math
import random
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from models.AE import STRIDE
from models.MARDM import SamplingConfig
from motion.feet import fix_feet
from motion.synthetic.geometry_check import describe, shows
from utils.cli import Parser, count, run, write_text
from utils.errors import BadInput
from utils.generation.waypoints import Waypoint, draw_along, frames_for
from utils.generation.windows import part_key
from utils.metrics import foot_skate
from utils.pipeline import load

GAITS = {  # prompt, label, metres a second between the ramps
    "walk": ("a person walks forward", (0.85, 1.2)),
    "run": ("someone runs forward", (1.7, 2.4)),
}
RAMP = 1.0  # seconds from rest to full speed, and back
TURNS, FACES = math.radians(50), math.radians(20)


def draw_task(number, fps):
    """-> (label, prompt, list of Waypoint); the same for the same number."""
    dice = random.Random(number)
    label = "walk" if dice.random() < 0.6 else "run"
    prompt, paces = GAITS[label]
    seconds, legs, pace = dice.uniform(3, 6), dice.randint(1, 3), dice.uniform(*paces)
    direction, place, points = dice.uniform(-math.pi, math.pi), 0j, []
    frames = [round(seconds * fps * (leg + 1) / legs) for leg in range(legs)]
    ways = np.diff([0.0] + [_way(frame / fps, seconds, pace) for frame in frames])
    for frame, way in zip(frames, ways):
        place += way * np.exp(1j * direction)
        points.append(Waypoint(frame, float(place.imag), float(place.real)))
        last, direction = direction, direction + dice.uniform(-TURNS, TURNS)
    if number % 3 == 0:
        points[-1] = replace(points[-1], heading=last + dice.uniform(-FACES, FACES))
    return label, prompt, points


def _way(t, seconds, pace):
    """Metres after t seconds: speed up over RAMP, slow down over RAMP."""
    start, end = min(t, RAMP), max(t - (seconds - RAMP), 0.0)
    return pace * (start**2 / (2 * RAMP) + t - start - end**2 / (2 * RAMP))


def measure(pipeline, tasks, candidates):
    """Yield a row for every task."""
    spec, sampling = pipeline.spec, SamplingConfig(cfg=pipeline.spec.cfg)
    for number in range(tasks):
        label, prompt, points = draw_task(number, spec.fps)
        text, frames = pipeline.embed([prompt]), frames_for(points)
        keys = [part_key(number, k) for k in range(candidates)]
        row = {"task": number, "label": label, "waypoints": [asdict(point) for point in points]}
        _, (free,) = pipeline.draw(text, torch.tensor([frames // STRIDE]), sampling, keys[:1])
        row["free"] = judge(free, label, spec)
        row["free, feet held"] = judge(fix_feet(free, spec.fps, spec.skeleton), label, spec)
        began = time.perf_counter()
        try:
            _, led, arrival = draw_along(pipeline, text, points, frames, sampling, keys)
            row |= {"led": judge(led, label, spec), "arrival": asdict(arrival)}
        except BadInput as error:
            row["refused"] = str(error)
        row["seconds"] = time.perf_counter() - began
        yield row


def judge(joints, label, spec):
    moves = describe(joints * spec.skeleton.unit_m)
    skate = foot_skate([joints * spec.skeleton.unit_m], spec.skeleton.feet, spec.fps)
    return {"shows": shows(label, replace(moves, turn=0.0)), "skate": skate}


def table(rows):
    done = [row for row in rows if "led" in row]
    arrivals = [row["arrival"] for row in done]
    lines = [f"{len(rows)} tasks, {len(rows) - len(done)} refused"]
    for name in ("drawn_m", "mean_m", "worst_m", "heading_degrees", "speed_change"):
        values = [arrival[name] for arrival in arrivals]
        lines.append(
            f"{name:16s} mean {np.mean(values):.3f}, 95th percentile {np.percentile(values, 95):.3f}"
        )
    near = sum(arrival["worst_m"] <= 0.05 for arrival in arrivals)
    lines.append(f"all waypoints within 5 cm: {near} of {len(rows)}")
    for kind in ("free", "free, feet held", "led"):
        judged = [row[kind] for row in rows if kind in row]
        shown, skate = (np.mean([one[key] for one in judged]) for key in ("shows", "skate"))
        lines.append(f"{kind:16s} prompt shown {100 * shown:.0f}%, foot skate {skate:.3f}")
    lines.append(f"seconds a motion: median {np.median([row['seconds'] for row in rows]):.0f}")
    return "\n".join(lines)


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--run", default="Demo/demo_MARDM", help="<dataset>/<name> [%(default)s]")
    parser.add_argument("--tasks", type=count(1, 10**4), default=50, help="[%(default)s]")
    parser.add_argument("--candidates", type=count(1, 1000), default=64, help="[%(default)s]")
    parser.add_argument("--output", default="results/waypoints.json", help="[%(default)s]")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    rows = []
    for row in measure(load(args.run), args.tasks, args.candidates):
        rows.append(row)
        write_text(Path(args.output), json.dumps(rows, indent=1) + "\n")
    print(table(rows))


if __name__ == "__main__":
    run(main)
