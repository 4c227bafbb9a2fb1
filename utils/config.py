"""The settings of every command as dataclasses: made from its flags once, in `main`, and kept in checkpoints.

Nothing below a `main` sees an argparse namespace. A field made by `flag` is a command line flag as well
(`add_flags`): its default and its help are written here alone. How motions are sampled is a
`models.sampling.SamplingConfig`.
"""

from dataclasses import MISSING, asdict, dataclass, field, fields

from models.AE import AE_models
from models.counter_rng import SEED
from models.draws import REVEAL_ORDERS
from models.FSQ import MOST_LEVELS
from models.LengthEstimator import MAX_FRAMES
from models.MARDM import SAMPLERS, MARDM_models
from models.OneStep import OBJECTIVES
from models.options import GeneratorOptions
from models.sampling import ONESTEP_ROUNDS, ROUNDS, SamplingConfig
from models.Softmax import COORDINATES
from models.TextEncoder import TEXT_ENCODERS
from utils.cli import count, number
from utils.cli import name as folder_name

SHARE, WEIGHT = number(float, 0, 1), number(float, 0, 1e3)  # types of flags


def flag(help, default=MISSING, **options):
    """A field of a config that is also a flag. options: argparse's type, choices, nargs."""
    return field(default=default, metadata={"help": help, **options})


def add_flags(parser, title, *configs, only=None, skip=(), **defaults):
    """Add the flags of some configs to the parser, as a group. only, skip: names of fields; defaults: by
    name, in place of the fields' own. A field that is True by default becomes --no_<name>.
    """
    group = parser.add_argument_group(title)
    known = {one.name: one for config in configs for one in fields(config) if one.metadata}
    for key, one in known.items():
        if key in skip or (only and key not in only):
            continue
        options, default = dict(one.metadata), defaults.get(key, one.default)
        if isinstance(default, bool):
            switch, action = (f"--no_{key}", "store_false") if default else (f"--{key}", "store_true")
            group.add_argument(switch, dest=key, action=action, help=options["help"] + " [off]")
            continue
        default = list(default) if isinstance(default, tuple) else default
        text, _, stated = options["help"].partition(" [")
        options["help"] = f"{text} [%(default)s]" if key in defaults or not stated else options["help"]
        group.add_argument(f"--{key}", default=default, **options)
    return group


def from_flags(cls, args, **more):
    """A config of class `cls` from the flags named like its fields; values in `more` take precedence."""
    named = {one.name: getattr(args, one.name) for one in fields(cls) if hasattr(args, one.name)}
    return cls(**named | more)


def as_plain(*configs):
    """The fields of several configs in one dict of plain data, for a checkpoint."""
    merged = {key: value for config in configs for key, value in asdict(config).items()}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in merged.items()}


@dataclass(frozen=True)
class MachineConfig:
    """The device of a command, its precision, and the seed of all its random draws."""

    seed: int = flag("every random draw follows from it", SEED, type=count())
    device: str = flag(
        "where to compute; auto: cuda where there is one, else cpu",
        "auto",
        choices=("auto", "cuda", "cpu", "mps"),
    )
    no_tf32: bool = flag("full float32 products on CUDA, not TF32 as in MARDM", False)
    deterministic: bool = flag("the same bits in every run, slower on CUDA: docs/reproducibility.md", False)


@dataclass(frozen=True)
class RunConfig:
    """The name of a run and the folders of runs and data sets."""

    name: str = flag("name of this run", type=folder_name)
    dataset_name: str = flag("t2m, kit or a set of your own", "t2m", type=folder_name)
    dataset_dir: str = flag("folder of the data sets", "./datasets")
    checkpoints_dir: str = flag("folder of the runs", "./checkpoints")


@dataclass(frozen=True)
class SpeedConfig:
    """Off by default: what it gains depends on the machine (benchmarks/README.md)."""

    precision: str = flag(
        "of large matrix products; bf16 is for GPUs, and for large models on CPUs, that have it",
        "fp32",
        choices=("fp32", "bf16"),
    )
    compile: bool = flag("torch.compile: a minute or more at the start; needs a C++ compiler", False)


@dataclass(frozen=True)
class WeightsConfig(SpeedConfig, RunConfig):
    """Which trained weights to use. None means: as the generator's checkpoint says."""

    checkpoint: str = flag(
        "best: net_best_fid.tar if present, else latest.tar; latest: latest.tar; parent: as MARDM chooses",
        "best",
        choices=("best", "latest", "parent"),
    )
    ae_name: str | None = flag(
        "run of the autoencoder [the one that the generator was trained on]", None, type=folder_name
    )
    ae_model: str | None = flag("the autoencoder's entry in AE_models [as its checkpoint says]", None)
    model: str | None = flag("an entry of MARDM_models [as the checkpoint says]", None)
    text_encoder: str | None = flag(
        "frozen text encoder [as the checkpoint says; for new runs clip-vit-b32 on t2m and kit, else minilm]",
        None,
        choices=tuple(TEXT_ENCODERS),
    )
    sampler_steps: int | None = None  # of a DDPM head, which is respaced when it is loaded
    no_ema: bool = False  # the weights as trained, not their moving average


@dataclass(frozen=True)
class LoaderConfig:
    """How batches are made. A step is one global batch, whatever the number of processes."""

    batch_size: int = flag("clips or windows per step, all processes together", type=count(1, 10**6))
    seed: int = SEED
    num_workers: int = flag("data loading processes of a training", 4, type=count(0, 256))
    grad_accum: int = flag(
        "parts, sorted by length, in which a process computes its share of a batch: less memory and padding, "
        "the same step",
        1,
        type=count(1, 10**4),
    )

    def steps(self, dataset):
        """Steps of one epoch."""
        return -(-len(dataset) // self.batch_size)


@dataclass(frozen=True)
class AutoencoderConfig:
    """The design of an autoencoder; fsq_levels, codebook_size, commitment_cost serve one bottleneck each."""

    model: str = flag(f"one of {', '.join(AE_models)}", "FSQ_AE_Model")
    width: int = flag("channels of the networks", 512, type=count(8, 4096))
    fsq_levels: tuple[int, ...] = flag(
        "levels of each grid dimension of FSQ_AE_Model",
        (8, 5, 5, 5, 5),
        type=count(3, MOST_LEVELS),
        nargs="+",
    )
    codebook_size: int = flag("codes of VQ_AE_Model", 512, type=count(2, 10**6))
    commitment_cost: float = flag(
        "beta of VQ_AE_Model: how strongly the encoder is held to its codes", 0.25, type=WEIGHT
    )
    ema_decay: float = flag("largest decay of the averaged weights; 0: none", 0.999, type=SHARE)


@dataclass(frozen=True)
class ReconstructionLoss:
    """What stage 1 minimises: recons_loss of the rows + aux_loss_joints * recons_loss of the joints alone,
    and errors that rows hide: of the joints' velocities in the world and of the root's path.
    """

    window_size: int = flag("frames of a window", 64, type=count(4, 10**4))
    windows_per_clip: str = flag(
        "equally many, at random, or all, so that long clips count most", "equal", choices=("equal", "all")
    )
    recons_loss: str = flag("reconstruction loss", "l1_smooth", choices=("l1_smooth", "mse"))
    aux_loss_joints: float = flag("weight of the joints' own loss", 1.0, type=WEIGHT)
    root_weight: float = flag("weight of the four root columns", 1.0, type=WEIGHT)
    velocity_weight: float = flag("weight of the joints' velocities in the world", 0.1, type=WEIGHT)
    path_weight: float = flag("weight of the root's place and heading since the start", 0.05, type=WEIGHT)
    path_ramp: int = flag("steps over which path_weight rises to its value", 500, type=count())


@dataclass(frozen=True)
class GeneratorConfig:
    """The design of a generator, and how its texts and targets are treated in training."""

    text_encoder: str
    text_dim: int
    model: str = flag(f"KIND-HEAD-SIZE, one of {', '.join(MARDM_models)}", "MARDM-SiT-XL")
    diffmlps_batch_mul: int = flag(
        "noise draws per token of a diffusion head", GeneratorOptions.diffmlps_batch_mul, type=count(1, 64)
    )
    ddpm_steps: int = flag(
        "steps of a DDPM head's diffusion; more than 50 are respaced to 50 for sampling",
        50,
        type=count(2, 10**4),
    )
    cond_drop_prob: float = flag(
        "share of texts left out, for guidance", GeneratorOptions.cond_drop_prob, type=SHARE
    )
    dropout: float = flag("dropout of the Transformer", GeneratorOptions.dropout, type=number(float, 0, 0.9))
    raw_targets: bool = flag("do not standardise the targets, as MARDM", False)
    attention: str = flag(
        "initialisation: heads at neighbouring tokens by a learned bias for each offset (relative_bias) or "
        "by queries and keys (neighbours), or all tokens alike as in MARDM (flat)",
        "relative_bias",
        choices=("relative_bias", "neighbours", "flat"),
    )
    text_tokens: str = flag(
        "on: the Transformer attends to the words of a text; off: to the pooled vector alone, as MARDM",
        GeneratorOptions.text_tokens,
        choices=("on", "off"),
    )
    head_width: int = flag(
        "width of the head's network; 0: that of its size", GeneratorOptions.head_width, type=count(0, 8192)
    )
    softmax_coordinates: str = flag(
        "Softmax head: the coordinates of a token are drawn independently, or each given those before it",
        GeneratorOptions.softmax_coordinates,
        choices=COORDINATES,
    )
    text_refiner: int = flag(
        "layers applied to the words before the Transformer", GeneratorOptions.text_refiner, type=count(0, 8)
    )
    pooled_drop_prob: float = flag(
        "share of texts whose pooled vector is left out, so that only the words remain",
        GeneratorOptions.pooled_drop_prob,
        type=SHARE,
    )
    noise_replacements: bool = flag(
        "replace hidden continuous latents by noise, as MARDM, not by real tokens", False
    )
    max_motion_length: int = flag("longest motion, in frames", MAX_FRAMES, type=count(4, 10**4))
    unit_length: int = flag("frames per token, always 4", 4, type=count(4, 4))
    ema_decay: float = flag("largest decay of the averaged weights", 0.9999, type=SHARE)
    autoencoder: dict | None = None  # the one whose tokens it learns: see TrainedAutoencoder.tie


@dataclass(frozen=True)
class DistillationConfig:
    """How a one-step head is trained."""

    cfg_range: tuple[float, float]
    objective: str = flag(
        "regression: learn the end of the teacher's path; flow_map: learn the map between any two of its "
        "times, to sample in --sampler_steps evaluations (SiT teachers)",
        "regression",
        choices=tuple(OBJECTIVES),
    )
    draws: int = flag("noise draws per hidden token and step", 4, type=count(1, 8))
    teacher_steps: int = flag(
        "midpoint steps of the teacher; a DDPM teacher takes --sampler_steps", 8, type=count(1, 1000)
    )
    null: bool = flag("the head also reads the unconditional z: two Transformer passes per round", False)
    own_motions: float = flag(
        "share of clips replaced by what the student itself generates for their captions", 0.0, type=SHARE
    )
    ema_decay: float = flag("largest decay of the averaged weights", 0.999, type=SHARE)
    teacher: dict | None = None  # the generator: see Generator.tie


@dataclass(frozen=True)
class TrainingConfig:
    """The loop and the optimizer of a training."""

    epoch: int = flag("passes over the training set", type=count(1))
    lr: float = flag("learning rate", 2e-4, type=number(float, 0, 10))
    weight_decay: float = flag("weight decay of AdamW", 0.0, type=number(float, 0, 10))
    warm_up_iter: int = flag("warm-up steps to the full learning rate", 2000, type=count())
    milestones: tuple[int, ...] = flag(
        "steps at which --schedule milestones multiplies the rate by lr_decay", (), type=count(), nargs="*"
    )
    lr_decay: float = flag("factor at each milestone", 0.1, type=SHARE)
    schedule: str = flag(
        "learning rate after the warm-up: a cosine down to 0, or constant between the milestones",
        "milestones",
        choices=("cosine", "milestones"),
    )
    clip_norm: float = flag("largest norm of the gradients; 0: no limit", 0.0, type=number(float, 0, 1e6))
    max_iters: int = flag("stop after this many steps; 0: after the last epoch", 0, type=count())
    log_every: int = flag("steps between scalars", 50, type=count(1))
    save_every: int = flag("steps between saves", 1000, type=count(1))
    is_continue: bool = flag("resume from latest.tar, exactly", False)


def usual(name):
    """The defaults of a field of SamplingConfig, as the flags' help shows them."""
    return f"[{ONESTEP_ROUNDS[name]} by a one-step head, else {ROUNDS[name]}]"


@dataclass(frozen=True)
class SamplingFlags:
    """How to sample motions; None: as the data set or the head says (sampling_config)."""

    time_steps: int | None = flag(f"unmasking rounds {usual('time_steps')}", None, type=count(1, 1000))
    refine: int | None = flag(
        f"times every token is then drawn anew, by two passes {usual('refine')}", None, type=count(0, 100)
    )
    cfg: float | None = flag(
        "guidance scale, 1 = off [the data set's: 4.5; kit, own sets: 2.5]", None, type=number(float, 0, 100)
    )
    temperature: float = flag(
        "scale of the noise; divides a Softmax head's logits (0: the likeliest class)",
        SamplingConfig.temperature,
        type=number(float, 0, 10),
    )
    snap: str = flag(
        "snap tokens to the grid as each is drawn, once before decoding, or never",
        SamplingConfig.snap,
        choices=("step", "end", "off"),
    )
    sampler: str = flag(
        "onestep: the head that distill_MARDM.py trains; softmax, ddpm: heads of these names; the others: "
        "solvers of the SiT head (dopri5 as in MARDM: a motion then depends on its batch) [onestep if the "
        "run has it, else the head's own, of SiT midpoint]",
        SamplingConfig.sampler,
        choices=("auto", "onestep", *SAMPLERS),
    )
    sampler_steps: int | None = flag(
        "steps of a fixed-step solver [4], of a flow map [1], of a DDPM head, respaced from training's [50]",
        None,
        type=count(1, 1000),
    )
    order: str | None = flag(
        "order in which tokens leave the mask; halton: those of a round are spread evenly " + usual("order"),
        None,
        choices=tuple(REVEAL_ORDERS),
    )
    hard_pseudo_reorder: bool = flag("sort tokens by their unmasking order, as MARDM can", False)


@dataclass(frozen=True)
class EvaluationConfig:
    """The rules of an evaluation."""

    seed: int = SEED
    repeat_times: int = flag("repeats of the evaluation", 20, type=count(1, 10**4))
    split: str = flag("clips to evaluate on; val to choose settings", "test", choices=("test", "val"))
    protocol: str = flag(
        "full: every clip counts, from its first frame; parent: MARDM's random crops, and clips beyond the "
        "last full pool of 32 are left out, different ones in each repeat",
        "full",
        choices=("full", "parent"),
    )
    batch_size: int = flag("clips at a time", 64, type=count(1, 10**5))
    record: str | None = flag(
        "write the figures to eval/RECORD.json, to keep those of several settings of one run "
        "[eval; eval_val for --split val]",
        None,
        type=folder_name,
    )
    baselines: bool = flag("also score clips of the training split, as references", False)
    eval_mean_std: str | None = flag("folder with the evaluator's own Mean.npy and Std.npy [none]", None)
    glove_dir: str = flag("published word vectors", "./glove")
