"""Text in, motion out: mp4 and npy in generation/<name>_<dataset>/.

python sample.py --name FSQ_MARDM --ae_name AE --ae_model FSQ_AE_High --model FSQ-MARDM-SiT-XL \\
    --text_prompt "a person walks forward" --motion_length 120
python sample.py ... --text_path prompts.txt        # one prompt a line; `prompt#120` sets its frames,
`prompt#NA` none
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from models.AE import STRIDE
from motion.export import FORMATS, Names, export_motion
from motion.feet import fix_feet
from utils.cli import (
    Parser,
    count,
    decoding,
    generator_flags,
    output_flags,
    run,
    start,
    write_text,
)
from utils.errors import BadInput
from utils.metrics import foot_skate
from utils.pipeline import MAX_FRAMES, Pipeline


@dataclass(frozen=True)
class Prompt:
    text: str
    frames: int  # 0 = let the length estimator decide


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
    output_flags(parser, "./generation", FORMATS)
    return parser


def read_prompts(args):
    """--text_prompt, or the lines of --text_path. A line's #frames beats --motion_length. -> [Prompt]"""
    if 0 < args.motion_length < STRIDE:
        raise BadInput(f"--motion_length {args.motion_length}: a motion has {STRIDE} to {MAX_FRAMES} frames")
    if args.text_path is None:
        return [parse_prompt(args.text_prompt, args.motion_length, "--text_prompt")]
    try:
        lines = Path(args.text_path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"--text_path {args.text_path} cannot be read as UTF-8 text: {error}") from None
    prompts = [
        parse_prompt(line, args.motion_length, f"{args.text_path}:{number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not prompts:
        raise BadInput(f"--text_path {args.text_path} holds no prompt: write one a line")
    return prompts


def parse_prompt(line, default_frames, where):
    text, frames = line.strip(), default_frames
    head, hash_sign, tail = text.rpartition("#")
    tail = tail.strip()
    if hash_sign and where != "--text_prompt" and (tail == "NA" or tail.lstrip("-").isdecimal()):
        text, frames = head.strip(), 0 if tail == "NA" else int(tail)
        if tail != "NA" and not STRIDE <= frames <= MAX_FRAMES:
            raise BadInput(f"{where}: {frames} frames; a motion has {STRIDE} to {MAX_FRAMES}")
    if not text:
        raise BadInput(f"{where}: the prompt is empty")
    return Prompt(text, frames)


def skate(joints, spec):
    return foot_skate([joints * spec.skeleton.unit_m], spec.skeleton.feet, spec.fps)


def record_of(args, pipeline, how):
    """What it takes to draw these motions again. The motions themselves join as they are written."""
    return {
        "flags": vars(args),
        "decoding": asdict(how),
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
        calls = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        calls = []
    except ValueError:
        print(f"{path} was not readable and is begun anew")
        calls = []
    write_text(path, json.dumps([*calls, record], indent=1, ensure_ascii=False) + "\n")


def main(argv=None):
    args = flags().parse_args(argv)
    prompts = read_prompts(args)
    device = start(args)

    pipeline = Pipeline.from_args(args, device)
    spec = pipeline.spec
    how = decoding(args, spec)
    text = pipeline.embed([prompt.text for prompt in prompts])
    m_lens = pipeline.lengths(text, [prompt.frames for prompt in prompts], args.seed)

    folder = Path(args.output_dir) / f"{args.name}_{args.dataset_name}"
    folder.mkdir(parents=True, exist_ok=True)
    names = Names(folder, plain=args.plain_names)
    jobs = [(i, r) for i in range(len(prompts)) for r in range(args.repeat_times)]
    record, skates = record_of(args, pipeline, how), []
    jobs.sort(key=lambda job: int(m_lens[job[0]]))  # batches of like length
    with tqdm(total=len(jobs), desc="motions", unit="motion") as bar:
        for first in range(0, len(jobs), args.batch_size):
            batch = jobs[first : first + args.batch_size]
            rows = torch.tensor([i for i, _ in batch])
            keys = [i * 100_003 + r for i, r in batch]  # a repeat is another motion of the same prompt
            features, joints = pipeline.draw(text[rows.to(device)], m_lens[rows], how, keys)
            for (i, r), rows, one in zip(batch, features, joints):
                caption = prompts[i].text
                if args.fix_feet:
                    drawn, one = one, fix_feet(one, spec.fps, spec.skeleton)
                    skates.append([skate(joints, spec) for joints in (drawn, one)])
                stem = names.stem(caption, i, r, len(one))
                files = export_motion(stem, one, caption, spec.fps, spec.skeleton, args.export, rows)
                made = {"prompt": caption, "sample": i, "repeat": r, "frames": len(one)}
                record["motions"].append(made | {"files": [path.name for path in files.values()]})
                bar.update()
    append_record(folder / "samples.json", record)
    if skates:
        before, after = np.mean(skates, axis=0)
        print(f"foot skate {before:.3f}, after --fix_feet {after:.3f} (mean of {len(skates)} motions)")
    print(f"{len(jobs)} motions in {folder}")


if __name__ == "__main__":
    run(main)
