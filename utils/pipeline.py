"""Text in, motion out: the Python interface.

    from utils.pipeline import load
    walk, jump = load("Demo/demo_MARDM").generate(["a person walks", "a man jumps"], seconds=[4, None])
    walk.save("walk.bvh")

Scripts open the same pipeline with `Pipeline.open(from_flags(WeightsConfig, args), device)`.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real

import torch

from models.AE import STRIDE
from models.counter_rng import SEED
from models.LengthEstimator import MAX_FRAMES, LengthEstimator, sample_lengths
from models.MARDM import MARDM
from models.sampling import SamplingConfig
from models.TextEncoder import TEXT_ENCODERS
from models.words import pooled_text
from motion.captions import clean_text
from motion.export import Motion
from utils.checkpoints import TrainedAutoencoder, load_generator, load_length_estimator
from utils.config import MachineConfig, SamplingFlags, WeightsConfig
from utils.errors import BadInput
from utils.flags import settled, speed_up
from utils.generation.known_captions import KnownCaptions
from utils.generation.prompts import unknown_letters
from utils.motion_process import check_finite, recover_from_ric
from utils.runs import Run
from utils.text_embeddings import check_width, embed_prompts, truncated_texts

BATCH = 32  # motions at a time


@dataclass
class Pipeline:
    """A trained generator with all it needs: autoencoder, text encoder, length estimator. Files are read
    once; several threads may share a pipeline.
    """

    autoencoder: TrainedAutoencoder
    mardm: MARDM
    model: str  # the generator's entry in MARDM_models
    text_encoder: str
    text_dim: int
    device: torch.device
    source: WeightsConfig  # where the weights lie
    paths: list  # of the checkpoints in use: autoencoder, generator, its one-step head where it has one
    bundled: dict | None = None  # weights of the length estimator that the generator carries
    captions: KnownCaptions | None = None  # what released generators were trained on
    estimator: LengthEstimator | None = None  # made when the first length is asked for

    def __post_init__(self):
        self.lock = threading.Lock()

    def __repr__(self):  # short: a notebook shows it, and the weights would be pages
        run = f"{self.source.dataset_name}/{self.source.name}"
        return f"<Pipeline {run}: {self.model}, {self.text_encoder}, {self.device}>"

    @classmethod
    def open(cls, source, device):
        """Load what `source`, a WeightsConfig, names. BadInput names what is missing or does not fit."""
        generator = load_generator(source, device)
        speed_up(generator.mardm, source)
        autoencoder, config, onestep = generator.autoencoder, generator.config, generator.mardm.onestep
        text_dim = config.whole("text_dim", 1, 10**5, 512)
        encoder = source.text_encoder or config.text("text_encoder") or autoencoder.spec.text_encoder
        if encoder not in TEXT_ENCODERS:
            raise BadInput(
                f"{source.name} was trained with a text encoder {encoder!r}, which is not known here"
            )
        return cls(
            autoencoder=autoencoder,
            mardm=generator.mardm,
            model=generator.model,
            text_encoder=encoder,
            text_dim=text_dim,
            device=device,
            source=source,
            paths=[autoencoder.path, generator.path, *([Run.of(source).onestep] if onestep else [])],
            bundled=generator.estimator,
            captions=KnownCaptions.from_state(generator.captions, text_dim),
        )

    @property
    def spec(self):
        return self.autoencoder.spec

    def embed(self, prompts):
        """N strings -> [N,E] on the device, or [N,1+W,E] for a generator conditioned on word states."""
        words = self.mardm.words
        text = embed_prompts(prompts, self.text_encoder, self.device, words).to(self.device)
        self.check_text(text.shape[-1])
        return text

    def check_text(self, width):
        """BadInput if the text encoder's vectors have another width than those of the training."""
        check_width(self.text_encoder, width, self.text_dim, self.source.name)

    def warnings(self, prompts, text):
        """Lines for the user about prompts that the model will not understand; text: their `embed`."""
        if unknown := unknown_letters(prompts):
            yield f"the text encoder learned from English, it does not know this script: {_short(unknown)}"
        if cut := truncated_texts(prompts, self.text_encoder, self.device):
            yield f"longer than the text encoder reads, the end is ignored: {_short(cut)}"
        if self.captions:
            yield from self.captions.warnings(prompts, text, self.text_encoder)

    def lengths(self, text, frames, seed):
        """Tokens per motion int64 [N]: frames[i] // 4 if that is not 0, else drawn from the length
        estimator.
        """
        asked = torch.tensor([(n or 0) // STRIDE for n in frames])
        if (asked > 0).all():
            return asked
        with self.lock:
            if self.estimator is None:
                self.estimator = load_length_estimator(
                    self.source, self.text_encoder, text.shape[-1], self.device, self.bundled
                )
        shortest = -(-self.spec.min_frames // STRIDE)
        estimated = sample_lengths(self.estimator(pooled_text(text)), shortest, seed)
        return torch.where(asked > 0, asked, estimated)

    @torch.no_grad()
    def draw(self, text, lengths, sampling, keys):
        """text, lengths [B] tokens, keys [B] (see MARDM.generate) -> (features, joints), lists of B arrays.

        features [n,dim] in the data set's units, joints [n,J,3].
        """
        lengths, sampling = lengths.to(self.device), settled(sampling, self.mardm)
        targets = self.mardm.generate(self.autoencoder.ae, text, lengths, sampling, keys)
        return self.decode(targets, lengths * STRIDE, snap=sampling.snap != "off")

    @torch.no_grad()
    def decode(self, targets, m_lens, snap=True):
        """Targets [B,L,target_dim], frames [B] -> (features, joints), lists of B arrays cut to length."""
        motion = check_finite(
            self.autoencoder.normalizer.inverse(self.autoencoder.ae.detokenize(targets, m_lens, snap))
        )
        joints = recover_from_ric(motion, len(self.spec.skeleton))
        ends = m_lens.tolist()
        return tuple([x[:n] for x, n in zip(rows.cpu().numpy(), ends)] for rows in (motion, joints))

    def generate(self, prompts, seconds=None, seed=SEED, cfg=None, **settings):
        """Motions for a list of prompts -> list of `motion.export.Motion`: .joints [n,J,3] in the skeleton's
        unit (metres), .features [n,D], .save("walk.bvh"), .show() in a notebook.

        seconds: one for all or one per prompt; None = estimated from the text. cfg and the other fields of
        `SamplingConfig` by name. A prompt gives the same motion alone or in any list, at its place in it.
        """
        if isinstance(prompts, str):
            raise BadInput(f"prompts is one string: pass a list, [{prompts[:40]!r}]")
        prompts = list(prompts) if isinstance(prompts, Iterable) else []
        prompts = [clean_text(prompt) if isinstance(prompt, str) else "" for prompt in prompts]
        if not prompts or not all(prompts):
            raise BadInput("prompts needs to be a list of texts, none of them empty")
        frames = self._frames(seconds, len(prompts))
        sampling = self._sampling(settings | {"seed": seed} | ({} if cfg is None else {"cfg": cfg}))
        text = self.embed(prompts)
        lengths, drawn = self.lengths(text, frames, seed), []
        for rows in torch.arange(len(prompts)).split(BATCH):
            drawn += zip(*self.draw(text[rows], lengths[rows], sampling, rows.tolist()))
        features, joints = zip(*drawn)
        fps, skeleton = self.spec.fps, self.spec.skeleton
        return [Motion(j, prompt, fps, skeleton, f) for prompt, j, f in zip(prompts, joints, features)]

    def _frames(self, seconds, n):
        """seconds as given -> frames per prompt, 0 = to be estimated."""
        fps = self.spec.fps
        each = list(seconds) if isinstance(seconds, (list, tuple)) else [seconds] * n
        if len(each) != n:
            raise BadInput(f"{n} prompts but {len(each)} lengths")
        if not all(s is None or (isinstance(s, Real) and not isinstance(s, bool)) for s in each):
            raise BadInput(f"seconds is {seconds!r}: a number, a list of numbers, or None")
        if any(s is not None and not STRIDE / fps <= s <= MAX_FRAMES / fps for s in each):
            raise BadInput(f"a motion lasts {STRIDE / fps:g} to {MAX_FRAMES / fps:g} seconds")
        return [0 if s is None else round(s * fps) for s in each]

    def _sampling(self, settings):
        """Settings by name -> SamplingConfig; BadInput for a name or a value that it does not know."""
        known = {field.name for field in fields(SamplingConfig)}
        unknown = [name for name in settings if name not in known]
        if unknown:
            raise BadInput(f"{', '.join(unknown)}: no such setting; there are {', '.join(sorted(known))}")
        for one in (*fields(SamplingFlags), *fields(MachineConfig)):  # as the command line checks them
            if settings.get(one.name, one.default) is one.default:
                continue
            value, allowed, kind = settings[one.name], one.metadata.get("choices"), one.metadata.get("type")
            if allowed and value not in allowed:
                raise BadInput(f"{one.name} is {value!r}, not one of {', '.join(allowed)}")
            if not kind:
                continue
            wanted, whole = (Integral, "whole ") if kind.kind is int else (Real, "")
            if not (isinstance(value, wanted) and kind.low <= value <= kind.high):
                raise BadInput(f"{one.name} is {value!r}, not a {whole}number from {kind.low} to {kind.high}")
        return replace(SamplingConfig(cfg=self.spec.cfg), **settings)


def _short(texts):
    """The first of some texts, shortened, and how many more there are."""
    first = texts[0] if len(texts[0]) <= 40 else texts[0][:40] + "…"
    return repr(first) + (f" and {len(texts) - 1} more" if len(texts) > 1 else "")


def load(
    run,
    checkpoints_dir="./checkpoints",
    device="cpu",
    checkpoint="best",
    precision="fp32",
    compile=False,
    sampler_steps=None,
):
    """ "<dataset>/<name>" of a trained generator -> Pipeline. Its checkpoint names its
    autoencoder. device: "auto" takes a CUDA device if there is one. sampler_steps: for a DDPM head alone,
    the steps in which it samples (None: at most 50).
    """
    dataset_name, _, name = str(run).partition("/")
    if not name:
        raise BadInput(f"{run!r}: name a run as <dataset>/<name>, e.g. Demo/demo_MARDM")
    source = WeightsConfig(
        name=name,
        dataset_name=dataset_name,
        checkpoints_dir=str(checkpoints_dir),
        checkpoint=checkpoint,
        precision=precision,
        compile=compile,
        sampler_steps=sampler_steps,
    )
    for one in fields(source):
        value, allowed = getattr(source, one.name), one.metadata.get("choices")
        if allowed and value not in (*allowed, one.default):
            raise BadInput(f"{one.name} is {value!r}, not one of {', '.join(allowed)}")
    pipeline = Pipeline.open(source, _device(device))
    if sampler_steps and "ddpm" not in pipeline.mardm.DiffMLPs.samplers:
        raise BadInput("sampler_steps is chosen here for a DDPM head alone: pass it to generate()")
    return pipeline


def _device(wanted):
    """A device as a program names it -> torch.device; BadInput if it is not available."""
    gpus = torch.cuda.device_count()
    try:
        device = torch.device(("cuda" if gpus else "cpu") if wanted == "auto" else wanted)
    except (RuntimeError, TypeError):
        raise BadInput(f"device is {wanted!r}, not one of auto, cpu, cuda, cuda:1, mps") from None
    missing = {
        "cpu": False,
        "cuda": (device.index or 0) >= gpus,
        "mps": not torch.backends.mps.is_available(),
    }
    if missing.get(device.type, True):
        raise BadInput(f"device is {wanted!r}: not available here; pass 'cpu' or 'auto'")
    return device
