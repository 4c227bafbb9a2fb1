"""Checkpoints: written whole or not at all, opened safely, and turned into ready modules by name.

Layout and keys follow MARDM (`ae` or `mardm`, `ema_mardm`; `opt_*`, `scheduler`, `ep`,
`total_it`), plus `config`, `format`, `best`, `mean`, `std`, `target_stats`. A file without `format` is the
parent's: its padding, no target statistics, and `ep` counted from 0.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from models.AE import AE_models, make_ae
from models.LengthEstimator import LengthEstimator
from models.MARDM import MARDM_models
from motion.files import whole_file
from utils.datasets import DATASETS, DatasetSpec, Normalizer, find_dataset
from utils.errors import BadInput
from utils.safe_load import State, check_weights, load_state

FORMAT = 1
DDPM_STEPS = 50  # of MARDM's diffusion
FALLBACK_STATISTICS = Path(__file__).parent / "eval_mean_std"


@dataclass(frozen=True)
class Run:
    """The folder of one run: checkpoints/<dataset>/<name>/."""

    root: Path

    @classmethod
    def of(cls, args, name=None):
        return cls(Path(args.checkpoints_dir) / args.dataset_name / (name or args.name))

    model = property(lambda self: self.root / "model")
    eval = property(lambda self: self.root / "eval")
    latest = property(lambda self: self.model / "latest.tar")
    previous = property(lambda self: self.model / "latest.prev.tar")
    best = property(lambda self: self.model / "net_best_fid.tar")

    def choose(self, which, parent="latest"):
        """The file that --checkpoint {best,latest,parent} means. Raises BadInput where there is none."""
        if which == "parent":
            which = {"latest": "latest", "net_best_fid": "best"}[parent]
        order = [self.best, self.latest] if which == "best" else [getattr(self, which)]
        if which == "best" or order[0].is_file():
            for file in order:
                if file.is_file():
                    return file
        raise BadInput(
            f"no checkpoint {order[-1]}: train that run first, or name another with --name / --ae_name"
        )


def save_state(path, state):
    """torch.save, whole or not at all."""
    with whole_file(path) as part, open(part, "wb") as file:
        torch.save(state, file)


def load_into(module, state, path):
    """Strict: the first difference is named."""
    try:
        module.load_state_dict(check_weights(state, path), strict=True)
    except (RuntimeError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise BadInput(f"{path} does not fit the model that was asked for: {reason}") from None


def check_name(model, registry, flag):
    if model not in registry:
        raise BadInput(f"{flag} {model}: not one of {', '.join(registry)}")


@dataclass
class Tokenizer:
    """A trained autoencoder with what belongs to it: data set, statistics, how it was configured."""

    ae: torch.nn.Module
    spec: DatasetSpec
    normalizer: Normalizer
    config: dict
    path: Path


def load_ae(args, device, name=None, model=None):
    """The autoencoder of run `name` [args.ae_name], on `device`, frozen, in eval mode. -> Tokenizer"""
    name, model = name or args.ae_name, model or args.ae_model
    check_name(model, AE_models, "--ae_model")
    published = DATASETS.get(args.dataset_name, DatasetSpec)  # a set of one's own need not be there
    path = Run.of(args, name).choose(args.checkpoint, parent=published.mardm_ae)
    state = State(load_state(path), path)
    config = state.part("config")
    if config.text("model", model) != model:
        raise BadInput(
            f"{path} holds a {config.text('model')}, not a {model}: pass the one or the other --ae_name"
        )
    weights = state.weights("ae", "an autoencoder")
    spec = _spec(args, config)
    ae = make_ae(
        model,
        dim=spec.dim,
        width=config.whole("width", 1, 4096, 512),
        mask_padding="format" in state.fields,
        fsq_levels=config.list_of("fsq_levels", int, lambda level: 3 <= level <= 10**4),
        codebook_size=config.whole("codebook_size", 2, 10**6),
    )
    load_into(ae, weights, path)
    print(f"autoencoder: {model} from {path}")
    return Tokenizer(
        ae.to(device).eval().requires_grad_(False), spec, _normalizer(args, spec, state), config.fields, path
    )


def load_mardm(args, tokenizer, device):
    """The generator of run args.name, averaged unless args.no_ema. -> (MARDM in eval mode, config)"""
    check_name(args.model, MARDM_models, "--model")
    path = Run.of(args).choose(args.checkpoint)
    state = State(load_state(path), path)
    config = state.part("config")
    if config.text("model", args.model) != args.model:
        kind = config.text("model")
        raise BadInput(f"{path} holds a {kind}, not a {args.model}: pass --model {kind}")
    config.text("text_encoder")  # whoever reads it later finds a name
    weights = state.weights("mardm" if getattr(args, "no_ema", False) else "ema_mardm", "a generator")
    mardm = make_mardm(
        args.model,
        tokenizer.ae,
        config.whole("text_dim", 1, 10**5, 512),
        args.name,
        ddpm_steps=config.whole("ddpm_steps", 2, 10**4, DDPM_STEPS),
        sample_steps=getattr(args, "sampler_steps", None),
    )
    found = tuple(weights.get("DiffMLPs.net.input_proj.weight", torch.empty(0, 0)).shape)[1:]
    if found and found != (mardm.target_dim,):
        raise BadInput(
            f"{path} was trained on {found[0]}-d targets, {tokenizer.path} has {mardm.target_dim}: "
            "pass its own --ae_name"
        )
    load_into(mardm, weights, path)
    statistics = state.part("target_stats")
    if statistics.fields:
        dim = mardm.target_dim
        mardm.set_target_stats(statistics.row("mean", dim), statistics.row("std", dim, positive=True))
    print(f"generator: {args.model} from {path}")
    return mardm.to(device).eval().requires_grad_(False), config.fields


def make_mardm(model, ae, text_dim, name, ddpm_steps=DDPM_STEPS, sample_steps=None, **options):
    """A generator that fits this autoencoder's latents and targets. Raises BadInput where the two do not
    belong.

    ddpm_steps, sample_steps: a DDPM head's diffusion, and how many of its steps are sampled [at most 50].
    """
    check_name(model, MARDM_models, "--model")
    family = MARDM_models[model].keywords["kind"]
    if family != ae.kind:
        raise BadInput(f"--model {model} needs a {family} autoencoder, --ae_name holds a {ae.kind} one")
    mardm = MARDM_models[model](ae_dim=ae.latent_dim, target_dim=ae.target_dim, text_dim=text_dim, **options)
    try:
        mardm.DiffMLPs.reschedule(ddpm_steps, sample_steps or min(ddpm_steps, DDPM_STEPS))
    except ValueError as error:
        raise BadInput(f"--sampler_steps: {error}") from None
    return mardm


def load_length_estimator(args, text_dim, device):
    """That of the released generator, else <ds>/length_estimator/model/finest.tar. In eval mode."""
    path = Run.of(args).best
    state = load_state(path) if path.is_file() else {}
    if "estimator" not in state:
        path = Run.of(args, "length_estimator").model / "finest.tar"
        if not path.is_file():
            raise BadInput(
                f"{path} does not exist: train_LengthEstimator.py makes it; or pass --motion_length"
            )
        state = load_state(path)
    estimator = LengthEstimator(text_dim, 50)
    load_into(estimator, state.get("estimator", {}), path)
    return estimator.to(device).eval().requires_grad_(False)


def finished_epochs(state):
    """`ep` as we count it: epochs that are done. MARDM stores the index of the last one."""
    return state["ep"] + (0 if "format" in state else 1)


def _spec(args, config):
    described = config.part("dataset")
    if described.fields:
        try:
            return DatasetSpec.from_dict(described.fields)
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{config.path}: its data set is not described well ({error!r})") from None
    if args.dataset_name in DATASETS:
        return DATASETS[args.dataset_name]
    return find_dataset(args.dataset_name, args.dataset_dir)[0]


def _normalizer(args, spec, state):
    """Statistics travel in the checkpoint; MARDM's do not."""
    if "mean" in state.fields:
        return Normalizer(state.row("mean", spec.dim), state.row("std", spec.dim, positive=True))
    return statistics_of(args, spec)


def statistics_of(args, spec):
    """The data set's Mean and Std; where it is absent, those that the user keeps for published weights."""
    own, kept = Path(args.dataset_dir) / spec.folder, FALLBACK_STATISTICS / spec.name
    for folder in (own, kept):
        if (folder / "Mean.npy").is_file() or (folder / "eval_mean.npy").is_file():
            return Normalizer.load(folder, spec.dim)
    raise BadInput(
        f"no Mean.npy and Std.npy in {own} or {kept}, and none in the checkpoint: see {kept.parent}/README.md"
    )
