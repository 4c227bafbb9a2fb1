"""Train a data set's evaluators, which measure FID, R-precision, Matching, Diversity and CLIP score.

python train_Evaluators.py --dataset_name Demo
writes checkpoints/<dataset>/text_mot_match/model/finest.tar and text_mot_match_clip/model/finest.tar.
For t2m and kit only the published evaluators give figures comparable with the literature: docs/training.md.
--text minilm uses a pretrained text encoder, for small sets with captions that people wrote.
"""

import utils.environment  # noqa: F401  # isort: skip
from dataclasses import replace

import torch

from models.TextEncoder import TEXT_ENCODERS
from utils import distributed, metrics
from utils.cli import Parser, count, run, start
from utils.config import LoaderConfig, MachineConfig, RunConfig, TrainingConfig, as_plain, from_flags
from utils.data.clips import load_clips
from utils.datasets import DATASETS, Normalizer, TextMotionSet, find_dataset
from utils.errors import BadInput
from utils.evaluation.evaluator_training import (
    LOSSES,
    Contrast,
    Matching,
    WordStates,
    mean_r_precision,
    reachable,
    validate,
)
from utils.evaluation.evaluators import CONTRAST, MATCHING
from utils.evaluation.glove import word_vectors
from utils.flags import common_flags, optimizer_flags, parse_training
from utils.randomness import reseed
from utils.runs import Run, save_state
from utils.safe_load import load_state
from utils.text_embeddings import embed_captions
from utils.training.train_utils import learning_rate
from utils.training.training_loop import Best, TrainingLoop

BLOCKS = 2  # of the motion tower that goes with a pretrained text encoder
EMBEDDING_WIDTHS = (32, 64, 128, 256, 512)


def flags():
    parser = Parser(__doc__)
    common_flags(parser)
    group = parser.add_argument_group("evaluators")
    group.add_argument(
        "--which",
        choices=("matching", "contrast", "both"),
        default="both",
        help="which to train [%(default)s]",
    )
    group.add_argument(
        "--dim",
        type=count(0, 4096),
        default=0,
        help="width of the embedding that FID works on [512 for t2m and kit; else the largest of 32 .. 512 "
        "of which the test split has 5 times as many clips]",
    )
    group.add_argument(
        "--text",
        choices=("vectors", *TEXT_ENCODERS),
        default="vectors",
        help="how matching networks read captions: word vectors, as published, or word states of a frozen "
        "encoder [%(default)s]",
    )
    group.add_argument(
        "--hidden",
        type=count(8, 4096),
        nargs=3,
        metavar=("MOVEMENT", "TEXT", "MOTION"),
        help="hidden widths [512 512 1024, the published sizes, for t2m and kit; else 128 128 128; with "
        "--text of an encoder the first counts, 256]",
    )
    group.add_argument(
        "--loss",
        choices=LOSSES,
        default="infonce",
        help="loss of the matching networks; margin: that of Guo et al. [%(default)s]",
    )
    group.add_argument(
        "--glove_dir", default="./glove", help="published word vectors, where present [%(default)s]"
    )
    optimizer_flags(
        parser,
        speed=False,
        batch_size=64,
        epoch=24,
        weight_decay=1e-2,
        log_every=50,
        lr=1e-3,
        warm_up_iter=50,
        schedule="cosine",
        clip_norm=1.0,
    )
    return parser


def embedding_width(n_test):
    """The largest width for which a FID of n_test clips is well conditioned (n >= 5 D)."""
    return max([width for width in EMBEDDING_WIDTHS if 5 * width <= n_test], default=EMBEDDING_WIDTHS[0])


def train(model, run_config, training, loading, device, sets, constants):
    """Train on sets[0], validate on sets[1] after each epoch, keep the best. model: an `Evaluator`."""
    train_set, val_set, _ = sets
    epochs = max(int(training.epoch * model.epoch_share), 1)
    steps = loading.steps(train_set)
    training = replace(training, epoch=epochs)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, training.lr, weight_decay=training.weight_decay)
    scheduler = learning_rate(optimizer, training, steps)
    loop = TrainingLoop(
        training,
        loading,
        Run.of(run_config),
        device,
        parts={**model.parts, **model.training_parts, "optimizer": optimizer, "scheduler": scheduler},
        constants=constants | model.constants,
        best=Best(tuple(model.parts), "finest.tar", "score", highest=True),
    )
    size = sum(p.numel() for p in trained)
    steps = min(epochs * steps, training.max_iters or epochs * steps)
    print(f"{run_config.name}: {size:,} parameters, {steps} steps")
    for _ in loop.epochs():
        for micro_batches in loop.batches(train_set):
            for batch in micro_batches:
                loop.backward(model.loss(batch.to(device)), 1)
            loop.optimizer_step(optimizer)
            model.after_step(loop.progress.total_it)
        metrics = validate(model, val_set, loading.batch_size, loading.seed, device)
        metrics["score"] = metrics.get("top1", 0) + metrics.get("top3", 0) - 1e-3 * metrics["loss"]
        loop.finish_epoch(metrics, group="Val")
    return loop


def test(model, loop, test_set, device):
    """Measure the best epoch on the test split, store the result, and say if it is good enough."""
    path, name, n = loop.run.finest, loop.run.root.name, len(test_set)
    state = load_state(path)
    model.load(state)
    top = mean_r_precision(model, test_set, loop.loading.batch_size, loop.loading.seed, device, repeats=5)
    if top is None:
        print(f"{name}: {n} test clips are too few to tell whether it counts ({metrics.POOL} needed)")
        return
    reach = reachable(test_set, loop.loading.seed, repeats=5)
    ranks = {f"top{k}": float(value) for k, value in enumerate(top, start=1)}
    save_state(path, state | {"test": ranks | {"reach": reach}})
    shown = " / ".join(f"{value:.3f}" for value in top)
    print(f"{name}: R-precision 1/2/3 of real test motion {shown} (n={n}, epoch {state['best']['ep']})")
    bar = metrics.EVALUATOR_BAR * reach
    if top[2] < bar:
        print(f"{name}: IT DOES NOT COUNT, top-3 is below {bar:.3f}: train it longer, or try --text minilm")


def main(argv=None):
    args = parse_training(flags(), argv)
    if args.loss == "margin" and args.text != "vectors":
        raise BadInput("--loss margin is of word vectors: leave it or --text out")
    distributed.refuse_several("train_Evaluators.py")  # a batch's clips are each other's negatives
    if args.grad_accum > 1:
        raise BadInput("--grad_accum: an evaluator learns from whole batches; leave it at 1")
    machine, training = from_flags(MachineConfig, args), from_flags(TrainingConfig, args)
    loading, device = from_flags(LoaderConfig, args), start(machine)
    spec, root = find_dataset(args.dataset_name, args.dataset_dir)
    normalizer = Normalizer.load(root, spec.dim)
    clips = [load_clips(spec, root, split) for split in ("train", "val", "test")]
    if len(clips[0]) < 2:
        raise BadInput(f"{root}/train.txt: an evaluator needs at least 2 clips to tell apart")
    texts, text_width = None, 0
    if args.text != "vectors":
        texts, text_width = embed_captions(clips, args.text, root, device, words=True)
    sets = [TextMotionSet(part, normalizer, texts, crop=part is clips[0], seed=args.seed) for part in clips]

    published = args.dataset_name in DATASETS
    dim = args.dim or (512 if published else embedding_width(len(clips[2])))
    hidden = args.hidden or ([512, 512, 1024] if published else [256] * 3 if texts else [128] * 3)
    captions = [caption for clip in clips[0] for caption in clip.captions]
    vectors = word_vectors(args.glove_dir, {t.rpartition("/")[0] for c in captions for t in c.tokens})
    sizes = dict(zip(("movement", "text", "motion"), hidden)) | {"embedding": dim}

    source = f"{vectors.source} word vectors" if texts is None else f"word states of {args.text}"
    print(f"embedding {dim} wide, {source}, {len(sets[0]):,} training clips")

    def matching():
        if texts is None:
            return Matching(spec.dim, sizes, vectors, args.loss)
        read = {"dim": spec.dim, "width": text_width, "hidden": hidden[0], "embedding": dim, "blocks": BLOCKS}
        return WordStates(read, args.text)

    makers = {
        MATCHING: matching,
        CONTRAST: lambda: Contrast(spec.dim, [c.text for c in captions]),
    }
    wanted = {"matching": [MATCHING], "contrast": [CONTRAST], "both": [MATCHING, CONTRAST]}[args.which]
    runs = {name: from_flags(RunConfig, args, name=name) for name in wanted}
    begun = [name for name in wanted if Run.of(runs[name]).latest.is_file()] or wanted
    for name, run_config in runs.items():
        reseed(args.seed)
        model = makers[name]().to(device)
        config = as_plain(run_config, machine, training, loading) | model.config
        config |= {"dim": dim, "hidden": hidden, "loss": args.loss, "dataset": spec.as_dict()}
        constants = {"mean": normalizer.mean, "std": normalizer.std, "config": config}
        own = replace(training, is_continue=training.is_continue and name in begun)
        loop = train(model, run_config, own, loading, device, sets, constants)
        test(model, loop, sets[2], device)


if __name__ == "__main__":
    run(main)
