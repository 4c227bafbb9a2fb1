"""Stage 3: distill a trained generator's diffusion head into one that draws a token in one evaluation.

python distill_MARDM.py --name FSQ_MARDM --need_evaluation

The trained head (the teacher) solves an equation from noise to a token. The student learns the end of the
solution (--objective flow_map: the map between any two of its times, to sample in 1, 2 or 4 evaluations) for
all guidance scales in --cfg_range; Transformer and autoencoder are frozen. The student closest to the teacher
on val becomes checkpoints/<dataset>/<name>/model/onestep.tar, which all sampling from that run
then uses. The distillation run itself is in checkpoints/<dataset>/<name>/onestep/.
"""

import utils.environment  # noqa: F401  # isort: skip
from dataclasses import replace
from itertools import chain

from models.counter_rng import Purpose, rng, sample_keys, uniform
from models.DiffMLPs import DiffMLPs_DDPM
from models.draws import CONDITION
from models.LengthEstimator import MAX_FRAMES
from models.OneStep import OBJECTIVES, hidden_inputs
from models.sampling import SamplingConfig
from utils import distributed
from utils.checkpoints import load_generator
from utils.cli import Parser, count, number, run, start
from utils.config import (
    DistillationConfig,
    EvaluationConfig,
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
from utils.errors import BadInput
from utils.eval_utils import EvaluationRun
from utils.evaluation.evaluators import TextMotionEvaluator
from utils.flags import common_flags, optimizer_flags, parse_training, refuse_ignored, speed_up, weights_flags
from utils.randomness import reseed
from utils.runs import Run
from utils.text_embeddings import captioned_sets, check_width
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

# how the student draws motions to train on: spelt out, so that a resumed run does not follow another default
OWN_MOTIONS = SamplingConfig(sampler="onestep", time_steps=9, order="halton", refine=0)


def flags():
    parser = Parser(__doc__)
    common_flags(parser, run_name="MARDM")
    weights_flags(parser, "model", "ae_name", "ae_model", "checkpoint", "text_encoder")
    group = add_flags(parser, "distillation", DistillationConfig)
    group.add_argument(
        "--cfg_range",
        type=number(float, 0, 100),
        nargs=2,
        metavar=("LOWEST", "HIGHEST"),
        help="guidance scales to learn [1 to 2 x the data set's scale - 1: 8 on t2m, else 4]",
    )
    group.add_argument("--sampler_steps", type=count(2, 1000), help="steps of a DDPM teacher [50]")
    optimizer_flags(parser, batch_size=64, epoch=100, lr=1e-3, warm_up_iter=100, schedule="cosine")
    group = parser.add_argument_group("evaluation")
    group.add_argument("--need_evaluation", action="store_true", help="also measure the student's FID on val")
    group.add_argument(
        "--eval_every", type=count(1), default=10, help="epochs between validations [%(default)s]"
    )
    return parser


def own_motions(mardm, ae, tokens, keys, share, sampling):
    """`tokens` with a share of the clips replaced by motions that the student generates for their texts."""
    latents, text, m_lens = tokens
    (chosen,) = (uniform(keys, CONDITION, (1,))[:, 0] < share).nonzero(as_tuple=True)
    if not len(chosen):
        return tokens
    own_keys, own_lens = keys[chosen].tolist(), m_lens[chosen].to(latents.device, non_blocking=True)
    chosen = chosen.to(latents.device, non_blocking=True)
    drawn = ae.embed_codes(mardm.generate(ae, text[chosen], own_lens, sampling, own_keys))
    latents = latents.clone()
    latents[chosen, :, : drawn.shape[-1]] = drawn
    return latents, text, m_lens


def distance(student, mardm, ae, rows, steps):
    """Distance of student and teacher for the same rows -> sums over all draws, the number of draws.

    loss: mean squared error; other_grid_point: share of quantized coordinates that differ.
    """
    end = mardm.DiffMLPs.ode_end(rows, steps)
    drawn = student(rows.noise, rows.z, rows.w, rows.z_null)
    sums = {"loss": (drawn - end).square().mean(dim=-1).sum()}
    if ae.kind != "continuous":
        codes = [ae.quantize(x.detach() * mardm.target_std + mardm.target_mean) for x in (drawn, end)]
        sums["other_grid_point"] = (codes[0] - codes[1]).abs().gt(1e-4).float().mean(dim=-1).sum()
    return sums, end[..., 0].numel()


def validate(student, mardm, ae, val_set, loading, options):
    """Root mean squared error of the student to its teacher, in standard deviations of the targets, and the
    means of `distance`, on the validation clips; the same masks, guidance scales and noise at every call.
    """
    means, device = RunningMean(), mardm.target_mean.device
    with inference(student):
        for batch in chain.from_iterable(shared_loader(val_set, loading, device)):
            keys = sample_keys(batch.index, Purpose.VALIDATION, loading.seed)
            latents, _, text, m_lens = tokenized(ae, batch, device)
            tokens = latents, text, m_lens
            rows = hidden_inputs(mardm, tokens, keys, val_set.longest, options.draws, options.cfg_range)
            sums, n = distance(student, mardm, ae, rows, options.teacher_steps)
            means.add(n, **sums)
    values = means.pop()
    return {"rmse": values.pop("loss") ** 0.5} | values


def main(argv=None):
    args = parse_training(flags(), argv)
    source, machine = from_flags(WeightsConfig, args), from_flags(MachineConfig, args)
    training, loading = from_flags(TrainingConfig, args), from_flags(LoaderConfig, args)
    device = distributed.init_distributed(start(machine))

    teacher = load_generator(source, device)
    if not teacher.mardm.DiffMLPs.noisy:
        raise BadInput(f"{source.name}: a {teacher.model} draws a token in one evaluation already")
    if args.objective == "flow_map" and not hasattr(teacher.mardm.DiffMLPs, "velocity"):
        raise BadInput(f"--objective flow_map: {teacher.model} has no velocity to follow; take regression")
    if isinstance(teacher.mardm.DiffMLPs, DiffMLPs_DDPM):
        refuse_ignored(args, DistillationConfig, ["teacher_steps"], f"{teacher.model}, but --sampler_steps")
    elif args.sampler_steps:
        raise BadInput(f"--sampler_steps has no effect on {teacher.model}, but --teacher_steps")
    mardm, ae, spec = teacher.mardm, teacher.autoencoder.ae, teacher.autoencoder.spec
    root = find_dataset(args.dataset_name, args.dataset_dir, trained_on=spec)[1]
    encoder = args.text_encoder or teacher.config.text("text_encoder") or spec.text_encoder
    frames = teacher.config.whole("max_motion_length", 4, 10**4, MAX_FRAMES)
    train_set, val_set, width = captioned_sets(
        teacher.autoencoder, root, encoder, device, mardm.words, frames, args.seed
    )
    check_width(encoder, width, mardm.cond_emb.in_features, source.name)
    evaluator = None
    if args.need_evaluation:
        evaluator = TextMotionEvaluator.load(source, spec, device, required=True)
    evaluation = EvaluationRun(evaluator, val_set, spec, device, EvaluationConfig(seed=args.seed))

    scales = sorted(map(float, args.cfg_range or (1, max(2 * spec.cfg - 1, 1))))
    if args.need_evaluation and not scales[0] <= spec.cfg <= scales[1]:
        raise BadInput(f"--need_evaluation draws with guidance {spec.cfg:g}: extend --cfg_range to it")
    options = from_flags(DistillationConfig, args, cfg_range=scales, teacher=teacher.tie())
    reseed(args.seed)
    student = OBJECTIVES[options.objective].from_teacher(mardm.DiffMLPs, scales, options.null).to(device)
    mardm.onestep = student
    speed_up(mardm, args)  # the student too, so before its average is copied from it
    ema = EMA(student, options.ema_decay)
    mardm.onestep = ema.model
    optimizer = adamw(student, training)
    scheduler = learning_rate(optimizer, training, loading.steps(train_set))
    config = as_plain(source, machine, training, loading, options) | {"null": int(options.null)}
    loop = TrainingLoop(
        training,
        loading,
        Run.of(source).distillation,
        device,
        parts={
            "onestep": student,
            "ema_onestep": ema.model,
            "opt_onestep": optimizer,
            "scheduler": scheduler,
        },
        constants={"config": config | {"dataset": spec.as_dict(), "model": teacher.model}},
        best=Best(parts=("ema_onestep",), file=Run.of(source).onestep.resolve(), metric="rmse"),
    )
    print(f"one-step head: {parameter_count(student):,} parameters")

    for epoch in loop.epochs():
        for micro_batches in loop.batches(train_set):
            for batch in micro_batches:
                step = loop.progress.total_it
                keys = sample_keys(batch.index, Purpose.DISTILLATION, args.seed, step)
                latents, _, text, m_lens = tokenized(ae, batch, device)
                tokens = latents, text, m_lens
                if options.own_motions:
                    scale = rng(Purpose.OWN_MOTIONS, args.seed, step).uniform(*scales)
                    sampling = replace(OWN_MOTIONS, cfg=float(scale), seed=args.seed)
                    tokens = own_motions(mardm, ae, tokens, keys, options.own_motions, sampling)
                rows = hidden_inputs(mardm, tokens, keys, train_set.longest, options.draws, scales)
                losses = student.loss(mardm.DiffMLPs, rows, options.teacher_steps)
                loop.backward(losses.sum(), losses.numel())
            loop.optimizer_step(optimizer)
            ema.update(student, loop.progress.total_it)
        metrics = None
        if epoch % args.eval_every == 0 or loop.last:
            metrics = validate(ema.model, mardm, ae, val_set, loading, options)
            if evaluator:
                loop.save()  # before minutes of evaluation, as in train_MARDM.py
                sampling = SamplingConfig(cfg=spec.cfg, sampler="onestep", seed=args.seed)
                pred = evaluation.generated(mardm, ae, sampling)
                metrics |= evaluation.compare(evaluation.real(), pred).as_dict()
            print(f"epoch {epoch}: {format_scalars(metrics)}")
        loop.finish_epoch(metrics)


if __name__ == "__main__":
    run(main)
