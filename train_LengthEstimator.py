"""Train the length estimator, which predicts a motion's length from its text, for prompts without one.

python train_LengthEstimator.py --dataset_name Demo
writes checkpoints/<dataset>/length_estimator/model/finest.tar, which sample.py and app.py read.
"""

import utils.environment  # noqa: F401  # isort: skip
import torch
from torch.nn.functional import cross_entropy

from models.AE import STRIDE
from models.LengthEstimator import MAX_FRAMES, LengthEstimator, length_distribution
from utils import distributed
from utils.cli import Parser, run, start
from utils.config import LoaderConfig, MachineConfig, RunConfig, TrainingConfig, as_plain, from_flags
from utils.data.clips import Clip, load_clips
from utils.datasets import Normalizer, TextMotionSet, find_dataset
from utils.flags import common_flags, optimizer_flags, weights_flags
from utils.randomness import reseed
from utils.runs import Run
from utils.text_embeddings import embed_captions
from utils.training.train_utils import adamw, format_scalars, inference, learning_rate
from utils.training.training_loop import Best, TrainingLoop

WITHIN = 2  # tokens; 0.4 s at 20 fps


def flags():
    parser = Parser(__doc__)
    common_flags(parser)
    weights_flags(parser, "text_encoder")
    optimizer_flags(
        parser,
        speed=False,
        batch_size=64,
        epoch=15,
        weight_decay=1e-2,
        log_every=50,
        lr=3e-4,
        warm_up_iter=100,
    )
    return parser


def caption_lengths(clips, embeddings):
    """A TextMotionSet with an entry for each caption of each clip: lengths alone, without features."""
    entries = [
        Clip(f"{clip.name}#{k}", clip.motion[:, :0], (caption,))
        for clip in clips
        for k, caption in enumerate(clip.captions)
    ]
    return TextMotionSet(entries, Normalizer([], []), embeddings, MAX_FRAMES)


def errors(predicted, lengths):
    """Errors of predicted [N] against true lengths [N], both in tokens. -> dict"""
    off = (predicted - lengths).abs().cpu().double()  # on the host: not every device has float64
    return {
        "top1": (off == 0).double().mean().item(),
        f"within_{WITHIN}": (off <= WITHIN).double().mean().item(),
        "mae_tokens": off.mean().item(),
    }


def validate(estimator, text, lengths, min_tokens):
    """Cross-entropy of all classes, and `errors` of the likeliest valid length. -> dict"""
    with inference(estimator):
        logits = estimator(text)
        likeliest = length_distribution(logits, min_tokens).argmax(dim=1).to(lengths.device)
        return {"loss": cross_entropy(logits, lengths).item()} | errors(likeliest, lengths)


def main(argv=None):
    args = flags().parse_args(argv)
    run_config = from_flags(RunConfig, args, name="length_estimator")
    machine = from_flags(MachineConfig, args)
    training, loading = from_flags(TrainingConfig, args), from_flags(LoaderConfig, args)
    device = distributed.init_distributed(start(machine))
    spec, root = find_dataset(args.dataset_name, args.dataset_dir)
    encoder = args.text_encoder or spec.text_encoder
    with distributed.main_first():
        clip_sets = [load_clips(spec, root, split) for split in ("train", "val")]
        embeddings, text_dim = embed_captions(clip_sets, encoder, root, device)
    train_set, val_set = (caption_lengths(clips, embeddings) for clips in clip_sets)
    val_text = torch.stack([embeddings[clip.captions[0].text] for clip in val_set.clips]).to(device)
    val_lengths = torch.from_numpy(val_set.lengths // STRIDE).to(device)
    min_tokens = -(-spec.min_frames // STRIDE)

    reseed(args.seed)
    estimator = LengthEstimator(text_dim).to(device)
    optimizer = adamw(estimator, training)
    scheduler = learning_rate(optimizer, training, loading.steps(train_set))
    config = as_plain(run_config, machine, training, loading)
    config |= {"text_encoder": encoder, "text_dim": text_dim, "dataset": spec.as_dict()}
    loop = TrainingLoop(
        training,
        loading,
        Run.of(run_config),
        device,
        parts={"estimator": estimator, "opt_estimator": optimizer, "scheduler": scheduler},
        constants={"config": config},
        best=Best(("estimator",), "finest.tar", "loss"),
    )
    print(f"{len(train_set):,} captions to train on, {len(val_set):,} to validate")

    for _ in loop.epochs():
        for micro_batches in loop.batches(train_set):
            for batch in micro_batches:
                batch = batch.to(device)
                loss = cross_entropy(estimator(batch.text), batch.m_lens // STRIDE, reduction="sum")
                loop.backward(loss, len(batch))
            loop.optimizer_step(optimizer)
        loop.finish_epoch(validate(estimator, val_text, val_lengths, min_tokens), group="Val")

    constant = torch.from_numpy(train_set.lengths // STRIDE).median().to(device).expand_as(val_lengths)
    print(f"best epoch, on the validation captions: {format_scalars(loop.progress.best)}")
    print(
        f"always {constant[0]} tokens, the training median:  {format_scalars(errors(constant, val_lengths))}"
    )
    print(f"wrote {loop.run.finest}")


if __name__ == "__main__":
    run(main)
