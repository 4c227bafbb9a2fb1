"""What a command was asked for, as values: made once from its flags, checked once, kept in checkpoints.

A script's `main` turns its flags into these and hands them on; nothing below a `main` sees an argparse
namespace. How motions are drawn is `models.MARDM.SamplingConfig`.
"""

from dataclasses import asdict, dataclass, fields


def from_flags(cls, args, **more):
    """A config of class `cls` from the flags that bear its fields' names; `more` goes before them."""
    named = {field.name: getattr(args, field.name) for field in fields(cls) if hasattr(args, field.name)}
    return cls(**named | more)


@dataclass(frozen=True)
class MachineConfig:
    """Where a command computes, and the seed of all that it draws."""

    seed: int = 3407
    device: str = "auto"
    no_tf32: bool = False
    deterministic: bool = False


@dataclass(frozen=True)
class RunConfig:
    """Where a run and its data lie."""

    name: str
    dataset_name: str
    dataset_dir: str = "./datasets"
    checkpoints_dir: str = "./checkpoints"


@dataclass(frozen=True)
class WeightsConfig(RunConfig):
    """Which trained weights are meant. What is None is what the generator's checkpoint says."""

    checkpoint: str = "best"  # net_best_fid.tar where present, else latest.tar
    ae_name: str | None = None
    ae_model: str | None = None
    model: str | None = None  # of a generator: an entry of MARDM_models
    text_encoder: str | None = None
    sampler_steps: int | None = None  # of a DDPM head, which is respaced when it is loaded
    no_ema: bool = False  # the weights as trained, not their moving average
    precision: str = "fp32"
    compile: bool = False


@dataclass(frozen=True)
class LoaderConfig:
    """How batches are made. A step is one global batch, whatever the number of processes."""

    batch_size: int
    seed: int
    num_workers: int = 0
    grad_accum: int = 1  # micro-batches in which a process takes its share of a batch


@dataclass(frozen=True)
class AutoencoderConfig:
    """What an autoencoder is. The last three matter to the bottleneck that has them."""

    model: str  # an entry of AE_models
    width: int = 512  # channels of the networks
    fsq_levels: tuple[int, ...] = (8, 5, 5, 5, 5)
    codebook_size: int = 512
    commitment_cost: float = 0.25  # beta of VQ: how strongly the encoder is held to its codes


@dataclass(frozen=True)
class ReconstructionLoss:
    """What stage 1 minimises, over windows of `window_size` frames."""

    window_size: int = 64
    recons_loss: str = "l1_smooth"
    aux_loss_joints: float = 1.0  # weight of the joints' own loss
    root_weight: float = 1.0  # weight of the four root columns


@dataclass(frozen=True)
class GeneratorConfig:
    """What a generator is, and how its conditions and targets are trained."""

    model: str  # an entry of MARDM_models
    text_encoder: str
    text_dim: int
    ddpm_steps: int = 50  # of a DDPM head's diffusion
    cond_drop_prob: float = 0.1  # share of texts left out in training
    diffmlps_batch_mul: int = 4  # noise draws per hidden token and step
    dropout: float = 0.2  # of the Transformer
    attention: str = "neighbours"  # how it begins: see models.MARDM.TrainingOptions
    noise_replacements: bool = False  # MARDM's random replacement tokens: see models.AE
    raw_targets: bool = False  # targets are not standardised (ablation)
    max_motion_length: int = 196  # frames
    ema_decay: float = 0.9999  # at most
    autoencoder: dict | None = None  # the one whose tokens it learns: see utils.checkpoints.Tokenizer.tie


@dataclass(frozen=True)
class TrainingConfig:
    """The loop and the optimizer of a training."""

    epoch: int
    lr: float = 2e-4
    weight_decay: float = 0.0
    warm_up_iter: int = 2000
    milestones: tuple[int, ...] = ()
    lr_decay: float = 0.1
    max_iters: int = 0  # stop after so many steps, 0 = never
    log_every: int = 50  # steps between scalars
    save_every: int = 1000  # steps between saves
    is_continue: bool = False  # go on from latest.tar


@dataclass(frozen=True)
class EvaluationConfig:
    """The rules of an evaluation."""

    seed: int = 3407
    repeat_times: int = 20
    split: str = "test"
    protocol: str = "full"  # "parent": MARDM's random crops; clips beyond the last pool are left out
    batch_size: int = 64
    baselines: bool = False  # rows of clips drawn from the training split
    record: str | None = None  # figures go to eval/<record>.json
    eval_mean_std: str | None = None  # folder with the evaluator's own Mean.npy and Std.npy
    glove_dir: str = "./glove"  # published word vectors


def as_plain(*configs):
    """The fields of several configs in one dict of plain data, for a checkpoint."""
    merged = {}
    for config in configs:
        merged |= asdict(config)
    return {key: list(value) if isinstance(value, tuple) else value for key, value in merged.items()}
