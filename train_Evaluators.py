"""Train a data set's evaluators, with which FID, R-precision, Matching, Diversity and CLIP score are measured.

python train_Evaluators.py --dataset_name Demo
writes checkpoints/<dataset>/text_mot_match/model/finest.tar and text_mot_match_clip/model/finest.tar.
For t2m and kit only the published evaluators give figures that compare with the literature: README.
"""

import math

import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from utils import metrics
from utils.checkpoints import FORMAT, Run, load_state, save_state
from utils.cli import Parser, count, number, record, run, start
from utils.data.clips import load_clips
from utils.datasets import DATASETS, Normalizer, TextMotionSet, find_dataset, loader
from utils.errors import BadInput
from utils.evaluation.evaluator_training import LOSSES, Contrast, Matching, r_precision, validate
from utils.evaluation.evaluators import CONTRAST, MATCHING
from utils.evaluation.glove import word_vectors
from utils.flags import common_flags
from utils.training.train_utils import RunningMean, gradient_step, reseed

MAX_NORM = 1.0
EMBEDDING_WIDTHS = (32, 64, 128, 256, 512)


def flags():
    parser = Parser(__doc__)
    common_flags(parser)
    group = parser.add_argument_group("evaluators")
    group.add_argument(
        "--which", choices=("matching", "contrast", "both"), default="both", help="[%(default)s]"
    )
    group.add_argument(
        "--dim",
        type=count(0, 4096),
        default=0,
        help="width of the embedding that FID works on [512 for t2m and kit; else the largest of 32 .. 512 "
        "of which the test split has 5 times as many clips]",
    )
    group.add_argument(
        "--hidden",
        type=count(8, 4096),
        nargs=3,
        metavar=("MOVEMENT", "TEXT", "MOTION"),
        help="hidden widths [512 512 1024, the published sizes, for t2m and kit; else 128 128 128]",
    )
    group.add_argument(
        "--loss",
        choices=LOSSES,
        default="infonce",
        help="of the matching networks; margin: Guo et al. [%(default)s]",
    )
    group.add_argument(
        "--glove_dir", default="./glove", help="published word vectors, where present [%(default)s]"
    )
    group = parser.add_argument_group("optimisation")
    group.add_argument("--batch_size", type=count(2, 10**5), default=64, help="[%(default)s]")
    group.add_argument(
        "--epoch",
        type=count(1),
        default=24,
        help="passes over the training set; the contrast model makes half of them [%(default)s]",
    )
    group.add_argument("--max_iters", type=count(), default=0, help="stop after so many steps, 0 = never [0]")
    group.add_argument(
        "--lr", type=number(float, 0, 10), default=1e-3, help="peak rate of a cosine [%(default)s]"
    )
    group.add_argument(
        "--weight_decay", type=number(float, 0, 10), default=1e-2, help="AdamW's [%(default)s]"
    )
    group.add_argument("--warm_up_iter", type=count(), default=50, help="steps to the peak [%(default)s]")
    return parser


def embedding_width(n_test):
    """The largest width for which a FID of n_test clips is well conditioned (n >= 5 D)."""
    return max([width for width in EMBEDDING_WIDTHS if 5 * width <= n_test], default=EMBEDDING_WIDTHS[0])


def cosine(optimizer, warm_up, steps):
    """Linear warm-up, then half a cosine down to 0."""

    def factor(step):
        return min(1, (step + 1) / max(warm_up, 1)) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1)))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


class Training:
    """One kind of judge, its optimizer and where it is kept: finest.tar is the best epoch on val."""

    def __init__(self, model, args, folder, constants, train_set, device):
        self.model, self.args, self.folder, self.device = model, args, folder, device
        self.train_set, self.constants = train_set, constants | {"format": FORMAT}
        self.per_epoch = -(-len(train_set) // args.batch_size)
        steps = max(int(args.epoch * model.share), 1) * self.per_epoch
        self.steps = min(steps, args.max_iters or steps)
        self.optimizer = torch.optim.AdamW(model.parameters(), args.lr, weight_decay=args.weight_decay)
        self.scheduler = cosine(self.optimizer, args.warm_up_iter, self.steps)
        self.step, self.best = 0, None

    def run(self, val_set):
        """Every epoch: train, validate, keep the best."""
        name, args = self.folder.root.name, self.args
        print(f"{name}: {sum(p.numel() for p in self.model.parameters()):,} parameters, {self.steps} steps")
        with SummaryWriter(self.folder.model) as writer, tqdm(total=self.steps, desc=name, unit="it") as bar:
            for epoch in range(-(-self.steps // self.per_epoch)):
                trained = self.one_epoch(epoch, bar)
                found = validate(self.model, val_set, args.batch_size, args.seed, self.device)
                scalars = {f"Train/{key}": value for key, value in trained.items()}
                scalars |= {f"Val/{key}": value for key, value in found.items()}
                for key, value in scalars.items():
                    writer.add_scalar(key, value, self.step)
                bar.set_postfix({key: f"{value:.3g}" for key, value in scalars.items()})
                score = found.get("top1", 0) + found.get("top3", 0) - 1e-3 * found["loss"]
                if self.best is None or score >= self.best["score"]:
                    self.best = {"score": score, "ep": epoch + 1, "total_it": self.step} | found
                    self.save()

    def one_epoch(self, epoch, bar):
        means, args = RunningMean(), self.args
        reseed(args.seed, epoch)
        for batch in loader(
            self.train_set, args.batch_size, args.seed, epoch, shuffle=True, num_workers=args.num_workers
        ):
            if self.step == self.steps:
                break
            loss = self.model.loss(batch.to(self.device))
            norm = gradient_step(loss, self.optimizer, self.scheduler, MAX_NORM)
            means.add(loss=loss, grad_norm=norm, lr=self.scheduler.get_last_lr()[0])
            self.step += 1
            bar.update()
        trained = means.pop()
        if not math.isfinite(trained["loss"]):
            raise BadInput(f"the loss is {trained['loss']} at step {self.step}: try a lower --lr")
        return trained

    def save(self, **more):
        best = {"best": self.best, "ep": self.best["ep"], "total_it": self.best["total_it"]}
        save_state(self.folder.model / "finest.tar", self.model.state() | self.constants | best | more)

    def examine(self, test_set):
        """The best epoch on the test split: does this evaluator count?"""
        state = load_state(self.folder.model / "finest.tar")
        self.model.load(state)
        name, n, args = self.folder.root.name, len(test_set), self.args
        top = r_precision(self.model, test_set, args.batch_size, args.seed, self.device, repeats=5)
        if top is None:
            print(f"{name}: {n} test clips are too few to tell whether it counts ({metrics.POOL} needed)")
            return
        self.save(test={f"top{k}": float(value) for k, value in enumerate(top, start=1)})
        counts = top[2] >= metrics.EVALUATOR_BAR
        top = " / ".join(f"{value:.3f}" for value in top)
        print(f"{name}: R-precision 1/2/3 of real test motion {top} (n={n}, epoch {self.best['ep']})")
        if not counts:
            print(f"{name}: IT DOES NOT COUNT, top-3 is below {metrics.EVALUATOR_BAR}: train it longer")


def main(argv=None):
    args = flags().parse_args(argv)
    device = start(args)
    spec, root = find_dataset(args.dataset_name, args.dataset_dir)
    normalizer = Normalizer.load(root, spec.dim)
    clips = [load_clips(spec, root, split) for split in ("train", "val", "test")]
    if len(clips[0]) < 2:
        raise BadInput(f"{root}/train.txt: an evaluator needs at least 2 clips to tell apart")
    sets = [TextMotionSet(part, normalizer, crop=part is clips[0], seed=args.seed) for part in clips]

    published = args.dataset_name in DATASETS
    args.dim = args.dim or (512 if published else embedding_width(len(clips[2])))
    args.hidden = args.hidden or ([512, 512, 1024] if published else [128, 128, 128])
    captions = [caption for clip in clips[0] for caption in clip.captions]
    words = word_vectors(args.glove_dir, {t.rpartition("/")[0] for c in captions for t in c.tokens})
    sizes = dict(zip(("movement", "text", "motion"), args.hidden)) | {"embedding": args.dim}
    config = vars(args) | {"dataset": spec.as_dict()}

    print(f"embedding {args.dim} wide, {words.source} word vectors, {len(sets[0]):,} training clips")
    models = {}
    if args.which != "contrast":
        models[MATCHING] = Matching(spec.dim, sizes, words, args.loss)
    if args.which != "matching":
        models[CONTRAST] = Contrast(spec.dim, [c.text for c in captions])
    for name, model in models.items():
        folder = Run.of(args, name)
        record(args, folder.root)
        constants = {"mean": normalizer.mean, "std": normalizer.std, "config": config | model.config}
        training = Training(model.to(device), args, folder, constants, sets[0], device)
        training.run(sets[1])
        training.examine(sets[2])


if __name__ == "__main__":
    run(main)
