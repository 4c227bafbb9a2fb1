"""Groups of flags that several scripts share; the fields of utils/config.py are their source."""

import argparse
from pathlib import Path

import numpy as np
import torch

from models.sampling import SamplingConfig, resolve_sampling
from utils.cli import refuse_file
from utils.config import (
    EvaluationConfig,
    LoaderConfig,
    MachineConfig,
    RunConfig,
    SamplingFlags,
    SpeedConfig,
    TrainingConfig,
    WeightsConfig,
    add_flags,
    from_flags,
)
from utils.errors import BadInput

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
# released weights in the repository -> the flags that name them
RELEASED = {
    "demo": {"dataset_name": "Demo", "name": "demo_MARDM"},
    "cmu": {"dataset_name": "CMU", "name": "cmu_MARDM"},
}
DEMO = RELEASED["demo"]


def common_flags(parser, run_name=None):
    """Add the flags for a run's folder and its device; --name only if there is a run_name, its default."""
    skip = ("batch_size", "grad_accum") if run_name else ("name", "batch_size", "grad_accum")
    add_flags(parser, "run", RunConfig, MachineConfig, LoaderConfig, skip=skip, name=run_name)


def refuse_ignored(args, config, names, chosen):
    """BadInput for a flag that was set although it has no effect on what was chosen.

    names: flags without effect, fields of the class `config`, which has the defaults. chosen: for the error.
    """
    for name in names:
        if not np.array_equal(getattr(args, name), getattr(config, name)):  # lists here, tuples there
            raise BadInput(f"--{name} has no effect on {chosen}: leave it out")


def parse_training(parser, argv):
    """The flags of a training; BadInput for --milestones or --lr_decay, other than their defaults, beside a
    cosine.
    """
    args = parser.parse_args(argv)
    for name in ("milestones", "lr_decay"):
        changed = not np.array_equal(getattr(args, name), parser.get_default(name))
        if args.schedule == "cosine" and changed:
            raise BadInput(f"--{name} belongs to --schedule milestones: add that, or leave it out")
    return args


def weights_flags(parser, *only, **defaults):
    add_flags(parser, "weights", WeightsConfig, only=only, **defaults)


class UseReleased(argparse.Action):
    """--weights NAME, or --demo: the flags of released weights."""

    def __call__(self, parser, namespace, values, option_string=None):
        for key, value in RELEASED[values or "demo"].items():
            setattr(namespace, key, value)


def generator_flags(parser):
    """Add all flags that choose a trained generator and how to sample from it."""
    common_flags(parser, run_name="MARDM")
    parser.add_argument(
        "--weights",
        action=UseReleased,
        choices=RELEASED,
        help="released weights: demo, few actions, reliable; cmu, many actions, less reliable",
    )
    parser.add_argument("--demo", action=UseReleased, nargs=0, help="the same as --weights demo")
    weights_flags(parser, "model", "ae_name", "ae_model", "checkpoint", "text_encoder")
    add_flags(parser, "sampling", SamplingFlags)
    add_flags(parser, "speed", SpeedConfig)


def output_flags(parser, folder, formats):
    """Add the flags for where motions go and in which formats (names of motion/export.py)."""
    group = parser.add_argument_group("results")
    group.add_argument("--output_dir", default=folder, help="parent of the results' folder [%(default)s]")
    group.add_argument(
        "--export",
        choices=formats,
        nargs="+",
        metavar="FORMAT",
        default=["npy", "mp4"],
        help=f"one or more of {', '.join(formats)} [npy mp4]",
    )
    group.add_argument(
        "--in_place",
        action="store_true",
        help="remove the root's movement over the floor from the joints (not from the feature rows)",
    )
    group.add_argument(
        "--mardm_names", action="store_true", help="MARDM's file names, with `caption:` before the text"
    )


def output_folder(args):
    """The results' folder, which need not exist yet, by the flags of a generator. Raises BadInput."""
    folder = Path(args.output_dir) / f"{args.name}_{args.dataset_name}"
    refuse_file(folder, "--output_dir")
    return folder


def optimizer_flags(parser, speed=True, **defaults):
    """Add the flags of batches, optimizer and schedule; with `speed` those of `speed_up`."""
    add_flags(
        parser,
        "optimisation",
        LoaderConfig,
        TrainingConfig,
        skip=("num_workers",),
        **defaults,
    )
    if speed:
        add_flags(parser, "speed", SpeedConfig)


def speed_up(model, config):
    """Set the precision of a model on its device, and compile it. config: a SpeedConfig, or flags of the
    same names. Raises BadInput.
    """
    model.set_precision(PRECISIONS[config.precision])
    if config.compile:
        try:
            model.compile_parts()
        except ValueError as error:
            raise BadInput(f"--compile: {error}") from None


def evaluation_flags(parser):
    add_flags(parser, "evaluation", EvaluationConfig)


def sampling_config(args, spec, mardm=None):
    """Flags -> SamplingConfig; --cfg defaults to the data set's. With the generator, `mardm`, "auto" and None
    are replaced by what it draws with.
    """
    cfg = spec.cfg if args.cfg is None else args.cfg
    sampling = from_flags(SamplingConfig, args, cfg=cfg)
    return sampling if mardm is None else settled(sampling, mardm)


def settled(sampling, mardm):
    """`models.sampling.resolve_sampling` with BadInput for a sampler that this generator does not have."""
    try:
        return resolve_sampling(sampling, mardm)
    except ValueError as error:
        raise BadInput(str(error)) from None
