"""Load models from the checkpoints of a run, opened safely, as modules ready to use.

A generator is tied to the autoencoder whose tokens it learned: `config["autoencoder"]` names that run and
file and holds a hash of its weights. The tie is followed when the generator is loaded; a mismatch is refused.
In the same way a one-step head, model/onestep.tar beside its generator, holds a hash of the weights that it
was distilled from (`config["teacher"]`); with any other weights it is ignored.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import torch

from models.AE import AE_models, make_ae
from models.LengthEstimator import LengthEstimator
from models.MARDM import MARDM, MARDM_models
from models.OneStep import OBJECTIVES
from utils.config import AutoencoderConfig
from utils.datasets import DATASETS, DatasetSpec, Normalizer, find_dataset
from utils.errors import BadInput
from utils.runs import Run, file_and_hash, weights_hash
from utils.safe_load import State, check_weights, load_state, misfit

DDPM_STEPS = 50  # of MARDM's diffusion
FALLBACK_STATISTICS = Path(__file__).parent / "eval_mean_std"


def load_into(module, state, path, remedy="it is damaged, or of other code: name another checkpoint"):
    """Strict load_state_dict; BadInput names the first difference and the remedy."""
    try:
        module.load_state_dict(check_weights(state, path), strict=True)
    except (RuntimeError, AttributeError, TypeError):
        raise BadInput(f"{path} does not fit the model: {misfit(module, state)}: {remedy}") from None


def check_name(model, registry, flag):
    if model not in registry:
        raise BadInput(f"{flag} {model}: not one of {', '.join(registry)}")


@dataclass
class TrainedAutoencoder:
    """A trained autoencoder with what belongs to it: data set, statistics, config."""

    ae: torch.nn.Module
    model: str  # its entry in AE_models
    spec: DatasetSpec
    normalizer: Normalizer
    config: dict
    path: Path
    step: int

    def tie(self):
        """The reference to it that a generator trained on its tokens keeps in its checkpoint."""
        return file_and_hash(self, self.ae.state_dict()) | {"step": self.step}


def load_ae(source, device, name=None, model=None):
    """The autoencoder of run `name`, on `device`, frozen, in eval mode. -> TrainedAutoencoder

    source: a WeightsConfig; its ae_name and ae_model hold where `name` and `model` are None. If ae_model is
    None too, the checkpoint says the model.
    """
    run = Run.of(source, name or source.ae_name)
    published = DATASETS.get(source.dataset_name, DatasetSpec)  # a set of the user's own may be absent
    path = run.choose(source.checkpoint, mardm=published.mardm_ae)
    return _open_ae(State(load_state(path), path), source, device, model or source.ae_model)


def _open_ae(state, source, device, model):
    config, path = state.part("config"), state.path
    stored = config.text("model")
    weights = state.weights("ae", "an autoencoder")
    model = model or stored or "AE_Model"
    check_name(model, AE_models, "autoencoder")
    if stored not in (None, model):
        raise BadInput(f"{path} holds a {stored}, not a {model}: leave its flag out, or name another run")
    spec, options = _spec(source, config), AE_models[model].func.options
    ae = make_ae(
        model,
        dim=spec.dim,
        width=config.whole("width", 1, 4096, 512),
        mask_padding="format" in state.fields,
        **{one.name: config.flagged(one) for one in fields(AutoencoderConfig) if one.name in options},
    )
    load_into(ae, weights, path, *() if stored else ("pass the model that it holds",))
    print(f"autoencoder: {model} from {path}")
    return TrainedAutoencoder(
        ae=ae.to(device).eval().requires_grad_(False),
        model=model,
        spec=spec,
        normalizer=normalizer_of(source, spec, state),
        config=config.fields,
        path=path,
        step=state.whole("total_it", 0, 10**12, 0),
    )


def _own_ae(config, source, device):
    """The autoencoder whose hash a generator's checkpoint holds. If it was trained further, these weights may
    be in another of its files, so each is tried. Raises BadInput where none matches.
    """
    tie = config.part("autoencoder")
    if tie.text("sha256") is None:  # MARDM's checkpoints, and early ones of ours
        ae_name = source.ae_name or config.text("ae_name", "AE")
        return load_ae(source, device, ae_name, source.ae_model or config.text("ae_model"))
    run = Run.of(source, source.ae_name or tie.text("name"))
    files = dict.fromkeys(
        [run.model / (tie.text("file") or "latest.tar"), run.best, run.latest, run.previous]
    )
    present = [file for file in files if file.is_file()]
    for file in present:
        state = State(load_state(file), file)
        if weights_hash(state.weights("ae", "an autoencoder")) == tie.text("sha256"):
            return _open_ae(state, source, device, source.ae_model)
    own = f"{tie.text('name')} ({tie.text('file')}, step {tie.whole('step', 0, 10**12, 0)})"
    raise BadInput(
        f"{tie.path} was trained on the tokens of autoencoder {own}, and {run.model} "
        + ("holds other weights" if present else "is not there")
        + ": give it back its own, or train the generator anew"
    )


@dataclass
class Generator:
    """A trained generator, with the autoencoder that it belongs to."""

    mardm: MARDM
    model: str  # its entry in MARDM_models
    autoencoder: TrainedAutoencoder
    config: State  # the config in its checkpoint
    path: Path
    estimator: dict | None  # weights of the length estimator that released generators carry
    captions: State  # of training, in released generators: see utils.generation.known_captions; or empty

    def tie(self):
        """The reference that a one-step head distilled from it keeps in its checkpoint."""
        weights = {k: v for k, v in self.mardm.state_dict().items() if not k.startswith("onestep.")}
        return file_and_hash(self, weights)


def load_generator(source, device, autoencoder=None):
    """The generator that `source` (a WeightsConfig) names, with its own autoencoder, both in eval mode.

    autoencoder: given if the caller has it already.
    """
    path = Run.of(source).choose(source.checkpoint)
    state = State(load_state(path), path)
    config = state.part("config")
    model = source.model or config.text("model") or "MARDM-SiT-XL"  # MARDM's files do not say what they hold
    weights = state.weights("mardm" if source.no_ema else "ema_mardm", "a generator")
    check_name(model, MARDM_models, "--model")
    held = config.text("model", model)
    if held != model:
        raise BadInput(f"{path} holds a {held}, not a {model}: leave --model out, or pass --model {held}")
    config.text("text_encoder")  # checked here, read by others later

    autoencoder = autoencoder or _own_ae(config, source, device)
    mardm = make_mardm(
        model,
        autoencoder.ae,
        config.whole("text_dim", 1, 10**5, 512),
        ddpm_steps=config.whole("ddpm_steps", 2, 10**4, DDPM_STEPS),
        sample_steps=source.sampler_steps,
        attention=config.text("attention", "flat"),
        text_tokens=config.text("text_tokens", "off"),
        text_refiner=config.whole("text_refiner", 0, 8, 1),
        pooled_drop_prob=config.number("pooled_drop_prob", 0.0),
        head_width=config.whole("head_width", 0, 8192, 0),
        softmax_coordinates=config.text("softmax_coordinates", "sequential"),
    )
    width = tuple(weights.get("DiffMLPs.net.input_proj.weight", torch.empty(0, 0)).shape)[1:]
    if width and width != (mardm.DiffMLPs.net.input_proj.in_features,):
        raise BadInput(
            f"{path} was trained on {width[0]}-d targets, {autoencoder.path} has {mardm.target_dim}: "
            "pass its own --ae_name"
        )
    load_into(mardm, weights, path, *() if config.text("model") else ("pass the --model that it holds",))
    statistics, dim = state.part("target_stats"), mardm.target_dim
    if statistics.fields:
        mardm.set_target_stats(statistics.row("mean", dim), statistics.row("std", dim, positive=True))
    print(f"generator: {model} from {path}")
    mardm = mardm.to(device).eval().requires_grad_(False)
    mardm.onestep = _load_onestep(Run.of(source).onestep, mardm)
    return Generator(
        mardm, model, autoencoder, config, path, state.fields.get("estimator"), state.part("captions")
    )


def _load_onestep(path, mardm):
    """The one-step head in file `path`; None without one, or if it was distilled from other weights."""
    if not path.is_file():
        return None
    state = State(load_state(path), path)
    config = state.part("config")
    if config.part("teacher").text("sha256") != weights_hash(mardm.state_dict()):
        print(f"{path} was distilled from other weights and is left aside; distill_MARDM.py makes another")
        return None
    scales = config.list_of("cfg_range", float, lambda scale: 0 <= scale <= 1000)
    if scales is None or len(scales) != 2:
        raise BadInput(f"{path}: cfg_range is not two numbers: it is damaged")
    objective = config.text("objective", "regression")
    check_name(objective, OBJECTIVES, f"{path}: objective")
    head = OBJECTIVES[objective].from_teacher(
        mardm.DiffMLPs, tuple(scales), bool(config.whole("null", 0, 1, 0))
    )
    load_into(head, state.weights("ema_onestep", "a one-step head"), path)
    print(f"one-step head: {path}")
    return head.to(next(mardm.parameters()).device).eval().requires_grad_(False)


def make_mardm(model, ae, text_dim, ddpm_steps=DDPM_STEPS, sample_steps=None, **options):
    """A generator that fits this autoencoder's latents and targets. Raises BadInput where the two do not
    belong together.

    ddpm_steps, sample_steps: for a DDPM head, the steps of its diffusion and of sampling (None: at most 50).
    """
    check_name(model, MARDM_models, "--model")
    family = MARDM_models[model].keywords["kind"]
    if family != ae.kind:
        raise BadInput(f"--model {model} needs a {family} autoencoder, --ae_name holds a {ae.kind} one")
    options |= {"ae_dim": ae.latent_dim, "target_dim": ae.target_dim, "levels": ae.fsq_levels}
    mardm = MARDM_models[model](text_dim=text_dim, **options)
    try:
        mardm.DiffMLPs.reschedule(ddpm_steps, sample_steps or min(ddpm_steps, DDPM_STEPS))
    except ValueError as error:
        raise BadInput(f"sampler_steps: {error}") from None
    return mardm


def load_length_estimator(source, text_encoder, text_dim, device, bundled=None):
    """The length estimator, in eval mode: of `bundled` weights, if any, else of <dataset>/length_estimator.

    BadInput if that was trained on another text encoder's vectors; published ones do not say.
    """
    path, weights = Run.of(source).best, bundled
    if weights is None:
        path = Run.of(source, "length_estimator").finest
        if not path.is_file():
            raise BadInput(f"no {path}: train_LengthEstimator.py makes it; or pass --motion_length")
        state = load_state(path)
        weights, known = state.get("estimator", {}), State(state, path).part("config").text("text_encoder")
        if known not in (None, text_encoder):
            raise BadInput(
                f"{path} was trained with the text encoder {known}, the generator with {text_encoder}: run "
                f"train_LengthEstimator.py --text_encoder {text_encoder}, or pass --motion_length"
            )
    estimator = LengthEstimator(text_dim)
    load_into(estimator, weights, path, "pass --motion_length, or run train_LengthEstimator.py anew")
    return estimator.to(device).eval().requires_grad_(False)


def _spec(source, config):
    described = config.part("dataset")
    if described.fields:
        try:
            return DatasetSpec.from_dict(described.fields)
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(f"{config.path}: its data set is not described well ({error!r})") from None
    return DATASETS.get(source.dataset_name) or find_dataset(source.dataset_name, source.dataset_dir)[0]


def normalizer_of(source, spec, state):
    """The statistics in the checkpoint; for MARDM's, which has none, those of the data set."""
    if "mean" in state.fields:
        return Normalizer(state.row("mean", spec.dim), state.row("std", spec.dim, positive=True))
    return statistics_of(source, spec)


def statistics_of(source, spec):
    """The data set's Mean and Std; if absent, those in FALLBACK_STATISTICS, for published weights."""
    own, kept = Path(source.dataset_dir) / spec.folder, FALLBACK_STATISTICS / spec.name
    for folder in (own, kept):
        if (folder / "Mean.npy").is_file() or (folder / "eval_mean.npy").is_file():
            return Normalizer.load(folder, spec.dim)
    raise BadInput(
        f"no Mean.npy and Std.npy in {own} or {kept}, and none in the checkpoint: see {kept.parent}/README.md"
    )
