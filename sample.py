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
from models.LengthEstimator import sample_lengths
from motion.export import FORMATS, Names, export_motion
from utils.captions import embed_prompts
from utils.checkpoints import load_ae, load_length_estimator, load_mardm
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
from utils.motion_process import recover_from_ric

MAX_FRAMES = 196


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


def token_lengths(prompts, text, args, spec, device):
    """Tokens per motion: as asked for, else drawn from the length estimator. text [N,E] -> int64 [N]"""
    asked = torch.tensor([prompt.frames // STRIDE for prompt in prompts])
    if (asked > 0).all():
        return asked
    estimator = load_length_estimator(args, text.shape[1], device)
    estimated = sample_lengths(estimator(text), -(-spec.min_frames // STRIDE), args.seed)
    return torch.where(asked > 0, asked, estimated.cpu())


def main(argv=None):
    args = flags().parse_args(argv)
    prompts = read_prompts(args)
    device = start(args)

    tokenizer = load_ae(args, device)
    ae, spec = tokenizer.ae, tokenizer.spec
    mardm, config = load_mardm(args, tokenizer, device)
    how = decoding(args, spec)
    encoder = args.text_encoder or config.get("text_encoder", spec.text_encoder)
    text = embed_prompts([prompt.text for prompt in prompts], encoder, device).to(device)
    m_lens = token_lengths(prompts, text, args, spec, device)

    folder = Path(args.output_dir) / f"{args.name}_{args.dataset_name}"
    folder.mkdir(parents=True, exist_ok=True)
    names = Names(folder, plain=args.plain_names)
    jobs = [(i, r) for i in range(len(prompts)) for r in range(args.repeat_times)]
    jobs.sort(key=lambda job: int(m_lens[job[0]]))  # batches of like length
    with tqdm(total=len(jobs), desc="motions", unit="motion") as bar:
        for first in range(0, len(jobs), args.batch_size):
            batch = jobs[first : first + args.batch_size]
            rows = torch.tensor([i for i, _ in batch])
            lengths = m_lens[rows].to(device)
            keys = [i * 100_003 + r for i, r in batch]
            targets = mardm.generate(ae, text[rows.to(device)], lengths, how, keys)
            motion = tokenizer.normalizer.inverse(
                ae.detokenize(targets, lengths * STRIDE, snap=how.snap != "off")
            )
            joints = recover_from_ric(motion, len(spec.skeleton)).cpu().numpy()
            for (i, r), one, features, n in zip(
                batch, joints, motion.cpu().numpy(), (lengths * STRIDE).tolist()
            ):
                stem = names.stem(prompts[i].text, i, r, n)
                caption = prompts[i].text
                export_motion(stem, one[:n], caption, spec.fps, spec.skeleton, args.export, features[:n])
                bar.update()
    print(f"{len(jobs)} motions in {folder}")


if __name__ == "__main__":
    run(main)
