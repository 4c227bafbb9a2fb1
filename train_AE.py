"""Stage 1: train an autoencoder that turns motion into tokens and back.

python train_AE.py --name AE --dataset_name t2m --model FSQ_AE_High
python train_AE.py --name AE --dataset_name t2m --model AE_Model --recipe mardm
python train_AE.py --name AE --dataset_name Demo --model FSQ_AE_High --width 128 --batch_size 32 \\
    --max_iters 2000
"""

import utils.environment  # noqa: F401  # isort: skip
import math
from itertools import chain

from models.AE import STRIDE, AE_models, make_ae, open_options
from models.FSQ import MOST_CODES
from models.masking import lengths_to_mask
from utils import distributed
from utils.checkpoints import check_name
from utils.cli import Parser, run, start
from utils.config import (
    AutoencoderConfig,
    LoaderConfig,
    MachineConfig,
    ReconstructionLoss,
    RunConfig,
    TrainingConfig,
    add_flags,
    as_plain,
    from_flags,
)
from utils.data.batches import shared_loader
from utils.data.clips import load_clips
from utils.datasets import Normalizer, TextMotionSet, WindowSet, find_dataset
from utils.errors import BadInput
from utils.eval_utils import EvaluationRun
from utils.evaluation.evaluators import TextMotionEvaluator
from utils.flags import common_flags, optimizer_flags, parse_training, refuse_ignored, speed_up
from utils.randomness import reseed
from utils.runs import Run
from utils.training.reconstruction import Reconstruction
from utils.training.train_utils import (
    EMA,
    CodeUsage,
    RunningMean,
    adamw,
    format_scalars,
    inference,
    learning_rate,
    parameter_count,
)
from utils.training.training_loop import Best, TrainingLoop

RECIPES = {
    "mardm": {
        "windows_per_clip": "all",
        "velocity_weight": 0.0,
        "path_weight": 0.0,
        "schedule": "milestones",
        "clip_norm": 0.0,
        "ema_decay": 0.0,
    }
}


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--recipe", choices=tuple(RECIPES), help="other defaults; mardm: MARDM's training")
    common_flags(parser, run_name="AE")
    add_flags(parser, "model", AutoencoderConfig)
    add_flags(parser, "loss", ReconstructionLoss)
    optimizer_flags(
        parser,
        batch_size=256,
        epoch=50,
        milestones=[150000, 250000],
        log_every=10,
        schedule="cosine",
        clip_norm=1.0,
    )
    return parser


def parse(argv):
    """The flags, over the defaults of their --recipe; BadInput for one that the autoencoder does not use, or
    a grid of too many codes.
    """
    parser = flags()
    recipe = parser.parse_args(argv).recipe
    parser.set_defaults(**RECIPES.get(recipe, {}))
    args = parse_training(parser, argv)
    check_name(args.model, AE_models, "--model")
    of_others = set(chain(*map(open_options, AE_models))).difference(open_options(args.model))
    refuse_ignored(args, AutoencoderConfig, sorted(of_others), args.model)
    codes = math.prod(args.fsq_levels)
    if codes > MOST_CODES:
        raise BadInput(
            f"--fsq_levels: {codes:,} codes, more than {MOST_CODES:,}: take fewer or smaller levels"
        )
    return args


def train_step(ae, batch, objective, usage, step=None):
    """-> (training loss, the same without the bottleneck's own loss), both means [] over real frames.

    batch: on the host, so that its lengths tell without waiting if there is padding. objective: a
    Reconstruction.
    """
    on_device = batch.to(next(ae.parameters()).device)
    recons, bottleneck_loss, codes = ae.training_pass(on_device.motion, batch.m_lens)
    if codes is not None:
        usage.add(codes, lengths_to_mask(on_device.m_lens // STRIDE, codes.shape[1]))  # real tokens only
    loss = objective(on_device.motion, recons, on_device.m_lens, step)
    return loss + bottleneck_loss, loss


def validate(ae, val_set, objective, loading, device):
    """Loss and code usage over the whole validation clips. -> dict"""
    means, usage = RunningMean(), CodeUsage(ae.codebook_size or 1, device)
    with inference(ae):
        for batch in chain.from_iterable(shared_loader(val_set, loading, device)):
            frames = int(batch.m_lens.sum())
            means.add(frames, loss=train_step(ae, batch, objective, usage)[1] * frames)
    return means.pop() | (usage.report() if ae.codebook_size else {})


def main(argv=None):
    args = parse(argv)
    run_config, machine = from_flags(RunConfig, args), from_flags(MachineConfig, args)
    training, loading = from_flags(TrainingConfig, args), from_flags(LoaderConfig, args)
    design, weights = from_flags(AutoencoderConfig, args), from_flags(ReconstructionLoss, args)
    device = distributed.init_distributed(start(machine))

    spec, root = find_dataset(args.dataset_name, args.dataset_dir)
    normalizer = Normalizer.load(root, spec.dim)
    with distributed.main_first():
        train_clips = load_clips(spec, root, "train", texts=False)
        equal = weights.windows_per_clip == "equal"
        train_set = WindowSet(train_clips, normalizer, weights.window_size, equal, args.seed)
        val_set = WindowSet(load_clips(spec, root, "val", texts=False), normalizer, window=10**9)
        evaluator = TextMotionEvaluator.load(run_config, spec, device)
        if evaluator:
            evaluated_set = TextMotionSet(load_clips(spec, root, "val"), normalizer)
            evaluation = EvaluationRun(evaluator, evaluated_set, spec, device)

    objective = Reconstruction(weights, normalizer, spec)
    reseed(args.seed)  # so that an evaluator, if one was built, changes nothing
    ae = make_ae(dim=spec.dim, **vars(design)).to(device)
    ema = EMA(ae, design.ema_decay)  # at decay 0 equal to `ae` at every step; stays float32
    speed_up(ae, args)
    optimizer = adamw(ae, training)
    scheduler = learning_rate(optimizer, training, loading.steps(train_set))
    config = as_plain(run_config, machine, training, loading, design, weights)
    config |= {"dataset": spec.as_dict()} | {key: getattr(ae, key) for key in ae.options}
    loop = TrainingLoop(
        training,
        loading,
        Run.of(run_config),
        device,
        parts={"ae": ema.model, "trained_ae": ae, "opt_ae": optimizer, "scheduler": scheduler},
        constants={"config": config, "mean": normalizer.mean, "std": normalizer.std},
        best=Best(parts=("ae",)),
    )
    size = parameter_count(ae)
    print(f"{args.model}: {size:,} parameters, {ae.codebook_size or 'no'} codes; {len(train_set):,} windows")

    for epoch in loop.epochs():
        usage = CodeUsage(ae.codebook_size or 1, device)
        for micro_batches in loop.batches(train_set):
            for batch in micro_batches:
                frames = int(batch.m_lens.sum())
                total, recons = train_step(ae, batch, objective, usage, loop.progress.total_it)
                loop.backward(total * frames, frames, recons=recons * frames)
            loop.optimizer_step(optimizer)
            ae.finish_step(optimizer, distributed.all_reduce_sum, distributed.broadcast)
            ema.update(ae, loop.progress.total_it)
            ae.copy_restarts(ema.model)
        trained = usage.report() if ae.codebook_size else {"tokens": 0}
        if trained["tokens"]:  # a run that was finished before sees none
            loop.scalars("Train", trained)
        loop.scalars("Val", validate(ema.model, val_set, objective, loading, device))
        metrics = None
        if evaluator:
            with inference(ema.model):
                pred = evaluation.reconstructed(ema.model)
            metrics = evaluation.compare(evaluation.real(), pred, paired=True).as_dict()
            print(f"epoch {epoch}: {format_scalars(metrics)}")
        loop.finish_epoch(metrics)


if __name__ == "__main__":
    run(main)
