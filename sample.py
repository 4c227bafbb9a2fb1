"""Text in, motion out: mp4 and npy in generation/<name>_<dataset>/.

python sample.py --name FSQ_MARDM --ae_name AE --ae_model FSQ_AE_High --model FSQ-MARDM-SiT-XL \\
    --text_prompt "a person walks forward" --motion_length 120
python sample.py ... --text_path prompts.txt        # one prompt a line; `prompt#120` sets its frames,
`prompt#NA` none
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from models.AE import STRIDE
from motion.export import FORMATS, Names, export_motion
from utils.cli import (
    Parser,
    autoencoder_flags,
    checkpoint_flag,
    common_flags,
    count,
    decoding,
    run,
    sampling_flags,
    start,
    text_encoder_flag,
)
from utils.errors import BadInput
from utils.pipeline import MAX_FRAMES, Pipeline


@dataclass(frozen=True)
class Prompt:
    text: str
    frames: int  # 0 = let the length estimator decide


def flags():
    parser = Parser(__doc__)
    common_flags(parser, run_name="MARDM")
    autoencoder_flags(parser)
    checkpoint_flag(parser)
    text_encoder_flag(parser)
    parser.add_argument("--model", default="MARDM-SiT-XL", help="an entry of MARDM_models [%(default)s]")
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
        "--output_dir", default="./generation", help="where the folder of results goes [%(default)s]"
    )
    group.add_argument(
        "--export", choices=FORMATS, nargs="+", default=["npy", "mp4"], help="files [%(default)s]"
    )
    group.add_argument(
        "--plain_names", action="store_true", help="file names without characters Windows forbids"
    )
    sampling_flags(parser)
    return parser


def read_prompts(args):
    """--text_prompt, or the lines of --text_path. A line's #frames beats --motion_length. -> [Prompt]"""
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
    jobs.sort(key=lambda job: int(m_lens[job[0]]))  # batches of like length
    with tqdm(total=len(jobs), desc="motions", unit="motion") as bar:
        for first in range(0, len(jobs), args.batch_size):
            batch = jobs[first : first + args.batch_size]
            rows = torch.tensor([i for i, _ in batch])
            keys = [i * 100_003 + r for i, r in batch]  # a repeat is another motion of the same prompt
            features, joints = pipeline.draw(text[rows.to(device)], m_lens[rows], how, keys)
            for (i, r), rows, one in zip(batch, features, joints):
                caption = prompts[i].text
                stem = names.stem(caption, i, r, len(one))
                export_motion(stem, one, caption, spec.fps, spec.skeleton, args.export, rows)
                bar.update()
    print(f"{len(jobs)} motions in {folder}")


if __name__ == "__main__":
    run(main)
