"""How well do motions meet waypoints, and what does that cost? Beside motions drawn without any.

  python -m experiments.waypoints --tasks 50
  python -m experiments.waypoints --run BandaiNamco/FSQ_MARDM_SiT_XS --of clips --output waypoints_clips.json

--of gaits: walk or run from rest to rest, 3 to 6 seconds, 1 to 3 waypoints at even times. The way turns by
up to 50 degrees from leg to leg, every third task ends with a heading within 20 degrees of the last leg. A
prompt counts as shown if its motion passes the geometry check of its label; the check's bound on turning is
left out, with waypoints and without.

--of clips: the ways of real test clips that go a metre or more, and their captions; 1 to 3 waypoints at even
times, every third with the clip's last heading. R-precision says whether prompts are still answered.

Prints a table, writes JSON.
"""

import math
import random
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from models.AE import STRIDE
from models.LengthEstimator import MAX_FRAMES
from models.sampling import SamplingConfig
from motion.feet import fix_feet
from motion.files import write_json
from motion.synthetic.geometry_check import describe, shows
from utils.cli import Parser, command_line, count, run
from utils.config import RunConfig
from utils.data.clips import load_clips
from utils.datasets import find_dataset
from utils.errors import BadInput
from utils.evaluation.evaluators import MATCHING, TextMotionEvaluator
from utils.generation.waypoints import Waypoint, draw_along, frames_for, ground_steps
from utils.generation.windows import part_key
from utils.metrics import POOL, draw_pools, foot_skate, r_precision
from utils.pipeline import load

GAITS = {  # label: (prompt, range of metres a second between the ramps)
    "walk": ("a person walks forward", (0.85, 1.2)),
    "run": ("someone runs forward", (1.7, 2.4)),
}
RAMP = 1.0  # seconds from rest to full speed, and back
FAR = 1.0  # metres that a clip must go to become a task
TURNS, FACES = math.radians(50), math.radians(20)


@dataclass(frozen=True)
class Task:
    prompt: str
    points: list  # of Waypoint
    label: str | None = None  # by which geometry judges
    tokens: tuple = ()  # of the caption, by which R-precision judges


def gait_task(number, fps):
    """A random task, the same for the same number."""
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
    return Task(prompt, points, label)


def _way(t, seconds, pace):
    """Metres after t seconds: speed rises over the first RAMP seconds and falls over the last."""
    start, end = min(t, RAMP), max(t - (seconds - RAMP), 0.0)
    return pace * (start**2 / (2 * RAMP) + t - start - end**2 / (2 * RAMP))


def clip_tasks(spec, dataset_dir, n):
    """n tasks, spread over the test clips that go far enough."""
    clips = load_clips(spec, find_dataset(spec.name, dataset_dir, trained_on=spec)[1], "test")
    ways = [ground_steps(clip.motion[:MAX_FRAMES], spec.skeleton.unit_m) for clip in clips]
    far = [k for k, (steps, _) in enumerate(ways) if abs(steps).sum() >= FAR]
    if not far:
        raise BadInput(f"no test clip of {spec.name} goes {FAR:g} m: try --of gaits")
    for number, k in enumerate(far[i] for i in np.linspace(0, len(far) - 1, min(n, len(far))).astype(int)):
        (steps, headings), legs = ways[k], number % 3 + 1
        frames = [len(steps) // STRIDE * STRIDE * (leg + 1) // legs - 1 for leg in range(legs)]
        places = np.cumsum(steps)[np.array(frames) - 1]
        points = [Waypoint(frame, float(at.imag), float(at.real)) for frame, at in zip(frames, places)]
        if number % 3 == 0:
            points[-1] = replace(points[-1], heading=float(headings[frames[-1] - 1]))
        caption = clips[k].captions[0]
        yield Task(caption.text, points, tokens=caption.tokens)


def measure(pipeline, tasks, candidates):
    """Yield a row for every task, and the feature rows without waypoints and with them (or None)."""
    spec, sampling = pipeline.spec, SamplingConfig(cfg=pipeline.spec.cfg)
    for number, task in enumerate(tasks):
        text, frames = pipeline.embed([task.prompt]), frames_for(task.points)
        keys = [part_key(number, k) for k in range(candidates)]
        row = {"task": number, "prompt": task.prompt, "label": task.label}
        row["waypoints"] = [asdict(point) for point in task.points]
        (alone,), (free,) = pipeline.draw(text, torch.tensor([frames // STRIDE]), sampling, keys[:1])
        row["free"] = judge(free, task.label, spec)
        row["free, feet held"] = judge(fix_feet(free, spec.fps, spec.skeleton), task.label, spec)
        began, rows = time.perf_counter(), None
        try:
            rows, led, arrival = draw_along(pipeline, text, task.points, frames, sampling, keys)
            row |= {"led": judge(led, task.label, spec), "arrival": asdict(arrival)}
        except BadInput as error:
            row["refused"] = str(error)
        row["seconds"] = time.perf_counter() - began
        yield row, alone, rows


def judge(joints, label, spec):
    joints = joints * spec.skeleton.unit_m
    found = {"skate": foot_skate([joints], spec.skeleton.feet, spec.fps)}
    return found | ({"shows": shows(label, replace(describe(joints), turn=0.0))} if label else {})


def answered(evaluator, tasks, motions):
    """R-precision top 1 to 3 of motions (feature rows) generated for these tasks' prompts."""
    tokens, texts = [list(task.tokens) for task in tasks], [task.prompt for task in tasks]
    rows = pad_sequence([torch.as_tensor(motion) for motion in motions], batch_first=True)
    m_lens = torch.tensor([len(motion) for motion in motions])
    embedded = evaluator.embed_text(tokens, texts), evaluator.embed_motion(rows, m_lens)
    return r_precision(*embedded, draw_pools(len(tasks))).tolist()


def table(rows, precision):
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
        shown = [one["shows"] for one in judged if "shows" in one]
        shown = f"prompt shown {100 * np.mean(shown):.0f}%, " if shown else ""
        lines.append(f"{kind:16s} {shown}foot skate {np.mean([one['skate'] for one in judged]):.3f}")
    for kind, top in precision.items():
        lines.append(f"{kind:16s} R-precision top 1 to 3: {' '.join(f'{share:.3f}' for share in top)}")
    lines.append(f"seconds a motion: median {np.median([row['seconds'] for row in rows]):.0f}")
    return "\n".join(lines)


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--run", default="Demo/demo_MARDM", help="<dataset>/<name> [%(default)s]")
    parser.add_argument("--checkpoints_dir", default="./checkpoints", help="where it lies [%(default)s]")
    parser.add_argument("--dataset_dir", default="./datasets", help="of the clips [%(default)s]")
    parser.add_argument(
        "--of", choices=("gaits", "clips"), default="gaits", help="what tasks are made of [%(default)s]"
    )
    parser.add_argument("--tasks", type=count(1, 10**4), default=50, help="how many [%(default)s]")
    parser.add_argument(
        "--candidates", type=count(1, 1000), default=64, help="motions to choose from [%(default)s]"
    )
    parser.add_argument("--output", type=Path, default="results/waypoints.json", help="record [%(default)s]")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    pipeline = load(args.run, args.checkpoints_dir)
    spec, precision = pipeline.spec, {}
    if args.of == "clips":
        tasks = list(clip_tasks(spec, args.dataset_dir, args.tasks))
    else:
        tasks = [gait_task(number, spec.fps) for number in range(args.tasks)]
    measured = list(tqdm(measure(pipeline, tasks, args.candidates), total=len(tasks), unit="task"))
    rows = [row for row, _, _ in measured]
    both = [(task, free, led) for task, (_, free, led) in zip(tasks, measured) if led is not None]
    evaluator = None
    if args.of == "clips" and len(both) >= POOL:
        run_config = RunConfig(MATCHING, spec.name, args.dataset_dir, args.checkpoints_dir)
        evaluator = TextMotionEvaluator.load(run_config, spec, pipeline.device)
    if evaluator:
        asked, free, led = zip(*both)
        precision = {"free": answered(evaluator, asked, free), "led": answered(evaluator, asked, led)}
    record = {"command": command_line("experiments.waypoints", argv), "rows": rows, "r_precision": precision}
    write_json(args.output, record)
    print(table(rows, precision))


if __name__ == "__main__":
    run(main)
