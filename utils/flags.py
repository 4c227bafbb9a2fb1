"""Flags that several scripts share, in groups."""

import argparse

import torch

from models.MARDM import SamplingConfig
from models.TextEncoder import TEXT_ENCODERS
from utils.cli import count, name, number
from utils.errors import BadInput

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def common_flags(parser, run_name=None):
    group = parser.add_argument_group("run")
    if run_name:
        group.add_argument("--name", type=name, default=run_name, help="name of this run [%(default)s]")
    group.add_argument(
        "--dataset_name", type=name, default="t2m", help="t2m, kit or a set of your own [%(default)s]"
    )
    group.add_argument("--dataset_dir", default="./datasets", help="where the data sets lie [%(default)s]")
    group.add_argument("--checkpoints_dir", default="./checkpoints", help="where runs are kept [%(default)s]")
    group.add_argument(
        "--seed", type=count(), default=3407, help="every random draw follows from it [%(default)s]"
    )
    group.add_argument(
        "--num_workers", type=count(0, 256), default=4, help="data loading processes [%(default)s]"
    )
    group.add_argument(
        "--device",
        choices=("auto", "cuda", "cpu", "mps"),
        default="auto",
        help="where to compute; auto: cuda where there is one, else cpu [%(default)s]",
    )
    group.add_argument(
        "--no_tf32", action="store_true", help="full float32 products on CUDA [TF32, as MARDM]"
    )
    group.add_argument(
        "--deterministic",
        action="store_true",
        help="kernels that give the same bits in every run, slower on CUDA (see docs/reproducibility.md)",
    )


def checkpoint_flag(parser):
    parser.add_argument(
        "--checkpoint",
        choices=("best", "latest", "parent"),
        default="best",
        help="net_best_fid.tar where present, else latest.tar; latest.tar; MARDM's rule [%(default)s]",
    )


def text_encoder_flag(parser):
    parser.add_argument(
        "--text_encoder",
        choices=tuple(TEXT_ENCODERS),
        help="frozen text encoder [clip-vit-b32 for t2m and kit, minilm else; recorded in the checkpoint]",
    )


def autoencoder_flags(parser, ae_name=None):
    group = parser.add_argument_group("autoencoder")
    group.add_argument("--ae_name", type=name, default=ae_name, help=f"its run [{ae_name or BY_CHECKPOINT}]")
    group.add_argument("--ae_model", help="its entry in AE_models [what its checkpoint says]")


BY_CHECKPOINT = "the one that the generator was trained on"
DEMO = {"dataset_name": "Demo", "name": "demo_MARDM"}  # the weights that come with the repository


class UseDemo(argparse.Action):
    """--demo: the flags of the released demo weights."""

    def __call__(self, parser, namespace, values, option_string=None):
        for key, value in DEMO.items():
            setattr(namespace, key, value)


def generator_flags(parser):
    """Everything that names a trained generator and says how to draw from it."""
    common_flags(parser, run_name="MARDM")
    parser.add_argument("--model", help="an entry of MARDM_models [what the checkpoint says]")
    parser.add_argument("--demo", action=UseDemo, nargs=0, help="use the demo weights of the repository")
    autoencoder_flags(parser)
    checkpoint_flag(parser)
    text_encoder_flag(parser)
    sampling_flags(parser)
    speed_flags(parser)


def output_flags(parser, folder, formats):
    """Where motions go and as what. formats: the names that motion/export.py knows."""
    group = parser.add_argument_group("results")
    group.add_argument("--output_dir", default=folder, help="where their folder goes [%(default)s]")
    group.add_argument(
        "--export", choices=formats, nargs="+", default=["npy", "mp4"], help="files [%(default)s]"
    )
    group.add_argument(
        "--mardm_names", action="store_true", help="MARDM's file names, with `caption:` before the text"
    )


def optimizer_flags(parser, *, batch_size, epoch, weight_decay, milestones, log_every, lr=2e-4, warm_up=2000):
    group = parser.add_argument_group("optimisation")
    group.add_argument(
        "--batch_size",
        type=count(1, 10**6),
        default=batch_size,
        help="clips or windows of a step, over all processes and micro-batches [%(default)s]",
    )
    group.add_argument(
        "--grad_accum",
        type=count(1, 10**4),
        default=1,
        help="micro-batches, by length, in which a process takes its share of a batch: less memory, "
        "less padding, the same step [%(default)s]",
    )
    group.add_argument(
        "--epoch", type=count(1), default=epoch, help="passes over the training set [%(default)s]"
    )
    group.add_argument("--max_iters", type=count(), default=0, help="stop after so many steps, 0 = never [0]")
    group.add_argument("--lr", type=number(float, 0, 10), default=lr, help="learning rate [%(default)s]")
    group.add_argument(
        "--weight_decay", type=number(float, 0, 10), default=weight_decay, help="AdamW's [%(default)s]"
    )
    group.add_argument(
        "--warm_up_iter", type=count(), default=warm_up, help="steps up to the full rate [%(default)s]"
    )
    group.add_argument(
        "--milestones", type=count(), nargs="*", default=milestones, help="steps [%(default)s]"
    )
    group.add_argument(
        "--lr_decay", type=number(float, 0, 1), default=0.1, help="factor at each milestone [%(default)s]"
    )
    group.add_argument(
        "--log_every", type=count(1), default=log_every, help="steps between scalars [%(default)s]"
    )
    group.add_argument("--save_every", type=count(1), default=1000, help="steps between saves [%(default)s]")
    group.add_argument("--is_continue", action="store_true", help="go on from latest.tar, exactly")


def speed_flags(parser):
    """Off by default: what they gain depends on the machine (benchmarks/README.md)."""
    group = parser.add_argument_group("speed")
    group.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="fp32",
        help="of the large products; bf16 is for GPUs that have it [%(default)s]",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile of the networks: a minute or more at the start; needs a C++ compiler",
    )


def speed_up(model, config):
    """Precision and compilation of a model that is on its device. config has both; raises BadInput."""
    model.set_precision(PRECISIONS[config.precision])
    if config.compile:
        try:
            model.compile_parts()
        except ValueError as error:
            raise BadInput(f"--compile: {error}") from None


def sampling_flags(parser):
    group = parser.add_argument_group("sampling")
    group.add_argument("--time_steps", type=count(1, 1000), default=18, help="unmasking rounds [%(default)s]")
    group.add_argument(
        "--cfg",
        type=number(float, 0, 100),
        help="guidance scale, 1 = off [the data set's: 4.5; kit and own sets 2.5]",
    )
    group.add_argument(
        "--temperature", type=number(float, 0, 10), default=1.0, help="scale of the noise [%(default)s]"
    )
    group.add_argument(
        "--snap",
        choices=("step", "end", "off"),
        default="step",
        help="snap tokens to the grid as each is drawn, once before decoding, or never [%(default)s]",
    )
    group.add_argument(
        "--sampler",
        choices=("midpoint", "heun", "euler", "dopri5"),
        default="midpoint",
        help="of the SiT head; with dopri5, as MARDM, a motion depends on its batch [%(default)s]",
    )
    group.add_argument(
        "--sampler_steps",
        type=count(1, 1000),
        help="steps of a fixed-step solver [4]; of a DDPM head, respaced from those of its training [50]",
    )
    group.add_argument(
        "--hard_pseudo_reorder",
        action="store_true",
        help="sort tokens by their unmasking order, as MARDM can",
    )


def evaluation_flags(parser):
    group = parser.add_argument_group("evaluation")
    group.add_argument("--repeat_times", type=count(1, 10**4), default=20, help="repeats [%(default)s]")
    group.add_argument(
        "--split", choices=("test", "val"), default="test", help="val: to choose settings on [%(default)s]"
    )
    group.add_argument(
        "--protocol",
        choices=("full", "parent"),
        default="full",
        help="full: every clip counts, from its first frame; parent: random crops, and the clips beyond the "
        "last pool of 32 are left out, others at each repeat [%(default)s]",
    )
    group.add_argument("--batch_size", type=count(1, 10**5), default=64, help="clips at a time [%(default)s]")
    group.add_argument(
        "--record",
        type=name,
        help="figures go to eval/RECORD.json, so that several settings of one run stand side by side "
        "[eval; eval_val for --split val]",
    )
    group.add_argument("--baselines", action="store_true", help="rows of clips drawn from the training split")
    evaluator_flags(group)


def evaluator_flags(parser):
    parser.add_argument("--eval_mean_std", help="folder with the evaluator's own Mean.npy and Std.npy")
    parser.add_argument("--glove_dir", default="./glove", help="published word vectors [%(default)s]")


def sampling_config(args, spec):
    """The sampling flags as a value; --cfg defaults to what suits the data set."""
    return SamplingConfig(
        time_steps=args.time_steps,
        cfg=spec.cfg if args.cfg is None else args.cfg,
        temperature=args.temperature,
        snap=args.snap,
        sampler=args.sampler,
        sampler_steps=args.sampler_steps or SamplingConfig.sampler_steps,
        hard_pseudo_reorder=args.hard_pseudo_reorder,
        seed=args.seed,
    )
