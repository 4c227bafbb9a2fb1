"""Train the network that tells how long the motion of a text is, for prompts that come without a length.

python train_LengthEstimator.py --dataset_name Demo
writes checkpoints/<dataset>/length_estimator/model/finest.tar, which sample.py and app.py read.
"""

import torch
from torch.nn.functional import cross_entropy
from torch.utils.tensorboard import SummaryWriter
from tqdm import trange

from models.LengthEstimator import MAX_TOKENS, LengthEstimator, length_distribution
from utils.checkpoints import FORMAT, Run, save_state
from utils.cli import Parser, count, number, record, run, start
from utils.data.clips import UNIT, load_clips
from utils.datasets import find_dataset
from utils.flags import common_flags, text_encoder_flag
from utils.text_embeddings import embed_captions
from utils.training.train_utils import RunningMean, gradient_step, inference, reseed, warm_up_then_milestones

WITHIN = 2  # tokens; 0.4 s at 20 fps


def flags():
    parser = Parser(__doc__)
    common_flags(parser)
    text_encoder_flag(parser)
    group = parser.add_argument_group("optimisation")
    group.add_argument("--batch_size", type=count(1, 10**6), default=64, help="captions [%(default)s]")
    group.add_argument("--epoch", type=count(1), default=40, help="passes over the captions [%(default)s]")
    group.add_argument("--max_iters", type=count(), default=0, help="stop after so many steps, 0 = never [0]")
    group.add_argument("--lr", type=number(float, 0, 10), default=3e-4, help="learning rate [%(default)s]")
    group.add_argument(
        "--weight_decay", type=number(float, 0, 10), default=1e-2, help="AdamW's [%(default)s]"
    )
    group.add_argument(
        "--warm_up_iter", type=count(), default=100, help="steps to the full rate [%(default)s]"
    )
    group.add_argument("--milestones", type=count(), nargs="*", default=[], help="steps [none]")
    group.add_argument(
        "--lr_decay", type=number(float, 0, 1), default=0.1, help="factor at each milestone [%(default)s]"
    )
    return parser


def pairs(clips, embeddings, device):
    """One row for each caption of each clip. -> text [N,E], lengths in tokens int64 [N]"""
    rows = [
        (embeddings[c.text], min(len(clip.motion) // UNIT, MAX_TOKENS))
        for clip in clips
        for c in clip.captions
    ]
    text, lengths = zip(*rows)
    return torch.stack(text).to(device), torch.tensor(lengths, device=device)


def errors(predicted, lengths):
    """How far off predictions [N] are from the lengths [N], both in tokens. -> dict"""
    off = (predicted - lengths).abs()
    return {
        "top1": (off == 0).double().mean().item(),
        f"within_{WITHIN}": (off <= WITHIN).double().mean().item(),
        "mae_tokens": off.double().mean().item(),
    }


def validate(estimator, text, lengths, min_tokens):
    """Cross-entropy of the raw classes, and how far off the likeliest legal length is. -> dict"""
    with inference(estimator):
        logits = estimator(text)
        likeliest = length_distribution(logits, min_tokens).argmax(dim=1)
        return {"loss": cross_entropy(logits, lengths).item()} | errors(likeliest, lengths.cpu())


def train_epoch(estimator, text, lengths, optimizer, scheduler, args):
    """One pass over the captions in a new order, or what --max_iters leaves of it. -> mean loss"""
    means = RunningMean()
    for rows in torch.randperm(len(lengths)).to(text.device).split(args.batch_size):
        loss = cross_entropy(estimator(text[rows]), lengths[rows])
        gradient_step(loss, optimizer, scheduler)
        means.add(loss=loss)
        if scheduler.last_epoch == args.max_iters:  # counts steps
            break
    return means.pop()["loss"]


def show(values):
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def main(argv=None):
    args = flags().parse_args(argv)
    device = start(args)
    spec, root = find_dataset(args.dataset_name, args.dataset_dir)
    clip_sets = [load_clips(spec, root, split) for split in ("train", "val")]
    args.text_encoder = args.text_encoder or spec.text_encoder
    embeddings, text_dim = embed_captions(clip_sets, args.text_encoder, root, device)
    (text, lengths), val = (pairs(clips, embeddings, device) for clips in clip_sets)
    min_tokens = -(-spec.min_frames // UNIT)

    estimator = LengthEstimator(text_dim).to(device)
    optimizer = torch.optim.AdamW(estimator.parameters(), args.lr, weight_decay=args.weight_decay)
    scheduler = warm_up_then_milestones(optimizer, args.warm_up_iter, args.milestones, args.lr_decay)
    folder = Run.of(args, "length_estimator")
    record(args, folder.root)
    config = vars(args) | {"text_dim": text_dim, "dataset": spec.as_dict()}
    print(f"{len(lengths):,} captions to train on, {len(val[1]):,} to validate")

    best = None
    with (
        SummaryWriter(folder.model) as writer,
        trange(args.epoch, desc="length estimator", unit="epoch") as bar,
    ):
        for epoch in bar:
            reseed(args.seed, epoch)
            loss = train_epoch(estimator, text, lengths, optimizer, scheduler, args)
            found, step = validate(estimator, *val, min_tokens), scheduler.last_epoch
            writer.add_scalar("Train/loss", loss, step)
            writer.add_scalar("Train/lr", scheduler.get_last_lr()[0], step)
            for name, value in found.items():
                writer.add_scalar(f"Val/{name}", value, step)
            bar.set_postfix_str(show(found))
            if best is None or found["loss"] < best["loss"]:
                best = found | {"ep": epoch + 1, "total_it": step}
                state = {
                    "estimator": estimator.state_dict(),
                    "best": best,
                    "config": config,
                    "format": FORMAT,
                }
                save_state(folder.model / "finest.tar", state | {"ep": epoch + 1, "total_it": step})
            if step == args.max_iters:
                break

    constant = lengths.median().expand_as(val[1])
    print(f"best epoch, on the validation captions: {show(best)}")
    print(f"always {constant[0]} tokens, the training median:  {show(errors(constant, val[1]))}")
    print(f"wrote {folder.model / 'finest.tar'}")


if __name__ == "__main__":
    run(main)
