"""Stage 2: train the masked Transformer and its diffusion head on the tokens of a trained autoencoder.

python train_MARDM.py --name FSQ_MARDM --ae_name AE --ae_model FSQ_AE_High --model FSQ-MARDM-SiT-XL \\
    --need_evaluation
"""

import utils.environment  # noqa: F401  # isort: skip
from itertools import chain

from models.counter_rng import Purpose, sample_keys
from models.draws import TrainingDraws
from models.MARDM import MARDM_models
from models.options import GeneratorOptions
from models.sampling import SamplingConfig
from utils import distributed
from utils.checkpoints import check_name, load_ae, make_mardm
from utils.cli import Parser, count, run, start
from utils.config import (
    EvaluationConfig,
    GeneratorConfig,
    LoaderConfig,
    MachineConfig,
    TrainingConfig,
    WeightsConfig,
    add_flags,
    as_plain,
    from_flags,
)
from utils.data.batches import shared_loader
from utils.datasets import find_dataset
from utils.eval_utils import EvaluationRun, Metrics, interval
from utils.evaluation.evaluators import TextMotionEvaluator
from utils.flags import common_flags, optimizer_flags, parse_training, refuse_ignored, speed_up, weights_flags
from utils.randomness import reseed
from utils.runs import Run
from utils.text_embeddings import captioned_sets
from utils.training.monitoring import neighbour_attention
from utils.training.token_statistics import keep_real_tokens, measure_targets
from utils.training.train_utils import (
    EMA,
    RunningMean,
    adamw,
    format_scalars,
    inference,
    learning_rate,
    parameter_count,
    tokenized,
)
from utils.training.training_loop import Best, TrainingLoop


def flags():
    parser = Parser(__doc__)
    common_flags(parser, run_name="MARDM")
    weights_flags(parser, "ae_name", "ae_model", "checkpoint", "text_encoder", ae_name="AE")
    add_flags(parser, "model", GeneratorConfig)
    optimizer_flags(parser, batch_size=64, epoch=500, weight_decay=1e-5, milestones=[50000])
    group = parser.add_argument_group("evaluation")
    group.add_argument(
        "--need_evaluation",
        action="store_true",
        help="generate and evaluate every --eval_every epochs, keep the best weights",
    )
    group.add_argument(
        "--eval_every", type=count(1), default=1, help="epochs between evaluations [%(default)s]"
    )
    group.add_argument(
        "--eval_repeats",
        type=count(1, 1000),
        default=1,
        help="drawings of the val set, each with captions and noise of its own, over which an evaluation is "
        "averaged; a few of them where the set is small [%(default)s]",
    )
    return parser


def parse(argv):
    """The flags; BadInput for one of another head or kind of tokens, or of words without --text_tokens on."""
    args = parse_training(flags(), argv)
    check_name(args.model, MARDM_models, "--model")
    used = {
        "ddpm_steps": "-DDPM-" in args.model,
        "softmax_coordinates": "-Softmax-" in args.model,
        "raw_targets": "-Softmax-" not in args.model,
        "diffmlps_batch_mul": "-Softmax-" not in args.model,
        "noise_replacements": args.model.startswith("MARDM-"),
        "text_refiner": args.text_tokens == "on",
        "pooled_drop_prob": args.text_tokens == "on",
    }
    chosen = f"{args.model} with --text_tokens {args.text_tokens}"
    refuse_ignored(args, GeneratorConfig, [name for name in used if not used[name]], chosen)
    return args


def masked_loss(mardm, ae, tokens, keys, room):
    """-> (sum [] of the loss over hidden tokens, how many). keys: on the host (see summed_loss)."""
    draws = TrainingDraws(keys, room, random_replacements=ae.random_replacements(tokens[0], keys))
    return mardm.summed_loss(*tokens, draws)


def validate(mardm, ae, val_set, loading, device):
    """The training loss on the validation clips, with the same draws at every call, and the attention of
    hidden tokens to their neighbours.
    """
    means = RunningMean()
    with inference(mardm):
        for batch in chain.from_iterable(shared_loader(val_set, loading, device)):
            keys = sample_keys(batch.index, Purpose.VALIDATION, loading.seed)
            latents, targets, text, m_lens = tokens = tokenized(ae, batch, device)
            loss, count = masked_loss(mardm, ae, tokens, keys, val_set.longest)
            means.add(count, loss=loss)
            near = neighbour_attention(mardm, latents, text, m_lens)
            means.add(len(batch), neighbour_attention=near * len(batch))
    return means.pop()


def judge(evaluation, mardm, ae, sampling):
    """The measures of a generator, mean over evaluation.config.repeat_times repeats. -> dict

    None: measured in no repeat. Repeats differ in captions and noise; repeat r draws the same in every call.
    """
    repeats = []
    for repeat in range(evaluation.config.repeat_times):
        pred = evaluation.generated(mardm, ae, sampling, repeat)
        repeats.append(evaluation.compare(evaluation.real(repeat), pred, repeat))
    return Metrics().as_dict() | {name: mean for name, (mean, _) in interval(repeats).items()}


def kept_weights(progress):
    """A line that says which step's weights other scripts use, and how to use the last ones instead."""
    last, best = progress.total_it, progress.best
    if best is None:
        return f"kept: the last weights, of step {last}; no evaluation chose others"
    chosen = f"kept: the weights of step {best['total_it']}, of the lowest FID on val ({best['fid']:.4g})"
    return f"{chosen}; --checkpoint latest uses the last ones, of step {last}"


def main(argv=None):
    args = parse(argv)
    source, machine = from_flags(WeightsConfig, args), from_flags(MachineConfig, args)
    training, loading = from_flags(TrainingConfig, args), from_flags(LoaderConfig, args)
    device = distributed.init_distributed(start(machine))

    autoencoder = load_ae(source, device)
    ae, spec = autoencoder.ae, autoencoder.spec
    root = find_dataset(args.dataset_name, args.dataset_dir, trained_on=spec)[1]
    encoder, words = args.text_encoder or spec.text_encoder, args.text_tokens == "on"
    train_set, val_set, text_dim = captioned_sets(
        autoencoder, root, encoder, device, words, args.max_motion_length, args.seed
    )
    evaluator = None
    if args.need_evaluation:
        evaluator = TextMotionEvaluator.load(source, spec, device, required=True)
    rules = EvaluationConfig(seed=args.seed, repeat_times=args.eval_repeats)
    evaluation = EvaluationRun(evaluator, val_set, spec, device, rules)

    design = from_flags(
        GeneratorConfig, args, text_encoder=encoder, text_dim=text_dim, autoencoder=autoencoder.tie()
    )
    reseed(args.seed)  # so that an evaluator, if one was built, changes nothing
    options = vars(from_flags(GeneratorOptions, args))
    mardm = make_mardm(design.model, ae, text_dim, design.ddpm_steps, **options).to(device)
    measured = mardm.DiffMLPs.noisy and not design.raw_targets
    if measured and not training.is_continue:  # a pass over all clips; a resumed run keeps its own
        mardm.set_target_stats(*measure_targets(ae, train_set, loading, device))
    if not design.noise_replacements:
        keep_real_tokens(ae, train_set, device)
    ema = EMA(mardm, design.ema_decay)  # evaluated in float32, as evaluation_MARDM.py does
    speed_up(mardm, args)
    optimizer = adamw(mardm, training)
    scheduler = learning_rate(optimizer, training, loading.steps(train_set))
    config = as_plain(source, machine, training, loading, design) | {"eval_repeats": args.eval_repeats}
    config |= {"dataset": spec.as_dict(), "ae_model": autoencoder.model}
    loop = TrainingLoop(
        training,
        loading,
        Run.of(source),
        device,
        parts={"mardm": mardm, "ema_mardm": ema.model, "opt_mardm": optimizer, "scheduler": scheduler},
        constants={"config": config, "target_stats": mardm.target_stats},
        best=Best(parts=("mardm", "ema_mardm")),
    )
    for model in (mardm, ema.model):  # a resumed run keeps the statistics it began with
        model.set_target_stats(**loop.constants["target_stats"])
    size = parameter_count(mardm)
    print(f"{args.model}: {size:,} parameters, {ae.target_dim}-d targets; {len(train_set):,} clips")

    for epoch in loop.epochs():
        for micro_batches in loop.batches(train_set):
            for batch in micro_batches:
                keys = sample_keys(batch.index, Purpose.TRAINING, args.seed, loop.progress.total_it)
                tokens = tokenized(ae, batch, device)
                loop.backward(*masked_loss(mardm, ae, tokens, keys, train_set.longest))
            loop.optimizer_step(optimizer)
            ema.update(mardm, loop.progress.total_it)
        metrics = None
        loop.scalars("Val", validate(ema.model, ae, val_set, loading, device))
        if evaluator and (epoch % args.eval_every == 0 or loop.last):
            loop.save()  # evaluation takes minutes and ignores signals
            sampling = SamplingConfig(cfg=spec.cfg, seed=args.seed)
            metrics = judge(evaluation, ema.model, ae, sampling)
            print(f"epoch {epoch}: {format_scalars(metrics)}")
        loop.finish_epoch(metrics)
    print(kept_weights(loop.progress))


if __name__ == "__main__":
    run(main)
