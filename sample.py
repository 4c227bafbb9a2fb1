"""Text in, motion out: mp4 and npy in generation/<name>_<dataset>/.

python sample.py --name FSQ_MARDM --ae_name AE --ae_model FSQ_AE_High --model FSQ-MARDM-SiT-XL \\
    --text_prompt "a person walks forward" --motion_length 120
python sample.py ... --text_path prompts.txt        # one a line; prompt#120 sets its frames, prompt#NA none
python sample.py ... --text_path story.txt --stitch # its prompts become one long motion
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.AE import STRIDE
from motion.export import FORMATS, Names, export_motion
from motion.feet import fix_feet
from utils.cli import Parser, count, run, start, write_text
from utils.errors import BadInput
from utils.flags import decoding, generator_flags, output_flags
from utils.generation.prompts import MAX_FRAMES, read_prompts, warn_of_unknown_letters
from utils.generation.stitch import draw_story, part_key
from utils.metrics import foot_skate
from utils.pipeline import Pipeline
from utils.plain import parse_json


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    group = parser.add_argument_group("what to generate")
    source = group.add_mutually_exclusive_group(required=True)
    source.add_argument("--text_prompt", help="one prompt")
    source.add_argument("--text_path", help="a file of prompts, one a line, split at the last #")
    group.add_argument(
        "--motion_length",
        type=count(0, MAX_FRAMES),
        default=0,
        help="frames, cut to a multiple of 4 [0 = estimate]",
    )
    group.add_argument(
        "--repeat_times", type=count(1, 10**4), default=1, help="motions per prompt [%(default)s]"
    )
    group.add_argument(
        "--batch_size", type=count(1, 10**4), default=32, help="motions at a time [%(default)s]"
    )
    group.add_argument(
        "--fix_feet", action="store_true", help="hold standing feet in place (joints, not features)"
    )
    group.add_argument(
        "--stitch", action="store_true", help="the prompts of --text_path become one motion of any length"
    )
    group.add_argument(
        "--transition",
        type=count(STRIDE, MAX_FRAMES // 2),
        default=32,
        help="frames that are drawn anew at every join of --stitch [%(default)s]",
    )
    output_flags(parser, "./generation", FORMATS)
    return parser


def skate(joints, spec):
    return foot_skate([joints * spec.skeleton.unit_m], spec.skeleton.feet, spec.fps)


def record_of(args, pipeline, sampling):
    """What it takes to draw these motions again. The motions themselves join as they are written."""
    return {
        "flags": vars(args),
        "decoding": asdict(sampling),
        "text_encoder": pipeline.text_encoder,
        "sha256": {str(path): sha256(path) for path in pipeline.paths},
        "motions": [],
    }


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def append_record(path, record):
    """samples.json is a list with an entry per call of this script."""
    try:
        calls = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        calls = []
    except ValueError:
        print(f"{path} was not readable and is begun anew")
        calls = []
    write_text(path, json.dumps([*calls, record], indent=1, ensure_ascii=False) + "\n")


def draw_each(pipeline, prompts, text, m_lens, sampling, args):
    """Every prompt and repeat, batches of like length -> (entry of samples.json, feature rows, joints)."""
    jobs = [(i, r) for i in range(len(prompts)) for r in range(args.repeat_times)]
    jobs.sort(key=lambda job: int(m_lens[job[0]]))
    for first in range(0, len(jobs), args.batch_size):
        batch = jobs[first : first + args.batch_size]
        rows = torch.tensor([i for i, _ in batch])
        keys = [part_key(i, r) for i, r in batch]  # a repeat is another motion of the same prompt
        features, joints = pipeline.draw(text[rows.to(text.device)], m_lens[rows], sampling, keys)
        for (i, r), rows, one in zip(batch, features, joints):
            yield {"prompt": prompts[i].text, "sample": i, "repeat": r}, rows, one


def draw_stories(pipeline, prompts, text, m_lens, sampling, args):
    """As draw_each, but every repeat is one motion of all prompts."""
    parts = [{"prompt": p.text, "frames": STRIDE * int(n)} for p, n in zip(prompts, m_lens)]
    for r in range(args.repeat_times):
        rows, one = draw_story(pipeline, text, m_lens, sampling, args.transition // STRIDE, r)
        yield {"prompt": "story", "prompts": parts, "sample": 0, "repeat": r}, rows, one


def main(argv=None):
    args = flags().parse_args(argv)
    prompts = read_prompts(args)
    if args.stitch and len(prompts) < 2:
        raise BadInput("--stitch joins prompts: give two or more in --text_path")
    device = start(args)

    pipeline = Pipeline.from_args(args, device)
    spec = pipeline.spec
    sampling = decoding(args, spec)
    print(pipeline.mardm.cost(sampling))
    texts = [prompt.text for prompt in prompts]
    warn_of_unknown_letters(texts, pipeline.text_encoder)
    text = pipeline.embed(texts)
    m_lens = pipeline.lengths(text, [prompt.frames for prompt in prompts], args.seed)

    folder = Path(args.output_dir) / f"{args.name}_{args.dataset_name}"
    folder.mkdir(parents=True, exist_ok=True)
    names = Names(folder, plain=args.plain_names)
    draw = draw_stories if args.stitch else draw_each
    total = args.repeat_times * (1 if args.stitch else len(prompts))
    record, skates = record_of(args, pipeline, sampling), []
    drawn = draw(pipeline, prompts, text, m_lens, sampling, args)
    for made, rows, one in tqdm(drawn, desc="motions", unit="motion", total=total):
        if args.fix_feet:
            as_drawn, one = one, fix_feet(one, spec.fps, spec.skeleton)
            skates.append([skate(joints, spec) for joints in (as_drawn, one)])
        stem = names.stem(made["prompt"], made["sample"], made["repeat"], len(one))
        caption = " → ".join(part["prompt"] for part in made.get("prompts", [made]))
        files = export_motion(stem, one, caption, spec.fps, spec.skeleton, args.export, rows)
        made |= {"frames": len(one), "files": [path.name for path in files.values()]}
        record["motions"].append(made)
    append_record(folder / "samples.json", record)
    if skates:
        before, after = np.mean(skates, axis=0)
        print(f"foot skate {before:.3f}, after --fix_feet {after:.3f} (mean of {len(skates)} motions)")
    print(f"{total} motions in {folder}")


if __name__ == "__main__":
    run(main)
