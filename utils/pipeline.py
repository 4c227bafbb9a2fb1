"""Text in, motion out, for programs.

    from utils.pipeline import load
    walk, jump = load("Demo/MARDM").generate(["a person walks forward", "a man jumps"], seconds=[4, None])

Scripts build the same parts from their flags with `Pipeline.from_args`.
"""

from argparse import Namespace
from dataclasses import dataclass, replace

import torch

from models.AE import STRIDE
from models.LengthEstimator import LengthEstimator, sample_lengths
from models.MARDM import MARDM, SamplingConfig
from models.TextEncoder import TEXT_ENCODERS
from utils.checkpoints import Run, Tokenizer, load_ae, load_length_estimator, load_mardm
from utils.errors import BadInput
from utils.flags import speed_up
from utils.generation.prompts import MAX_FRAMES
from utils.motion_process import check_finite, recover_from_ric
from utils.safe_load import State, load_state
from utils.text_embeddings import embed_prompts


@dataclass
class Pipeline:
    """A trained generator with all it needs: tokenizer, text encoder, length estimator."""

    tokenizer: Tokenizer
    mardm: MARDM
    text_encoder: str
    device: torch.device
    args: Namespace  # where the run lies

    @classmethod
    def from_args(cls, args, device):
        """args: the flags of `common_flags`, `autoencoder_flags`, `checkpoint_flag`, plus model and
        text_encoder.
        """
        tokenizer = load_ae(args, device)
        mardm, config = load_mardm(args, tokenizer, device)
        speed_up(mardm, args)
        encoder = args.text_encoder or config.get("text_encoder") or tokenizer.spec.text_encoder
        if encoder not in TEXT_ENCODERS:
            raise BadInput(
                f"{args.name} was trained with a text encoder {encoder!r}, which is not known here"
            )
        return cls(tokenizer, mardm, encoder, device, args)

    @property
    def paths(self):
        """The checkpoints in use."""
        return [self.tokenizer.path, Run.of(self.args).choose(self.args.checkpoint)]

    @property
    def spec(self):
        return self.tokenizer.spec

    def embed(self, prompts):
        """N strings -> [N,E] on the device."""
        return embed_prompts(prompts, self.text_encoder, self.device).to(self.device)

    def lengths(self, text, frames, seed):
        """Tokens per motion int64 [N]: frames[i] / 4 where asked for (cut), else drawn from the length
        estimator.
        """
        asked = torch.tensor([(n or 0) // STRIDE for n in frames])
        if (asked > 0).all():
            return asked
        estimator: LengthEstimator = load_length_estimator(self.args, text.shape[1], self.device)
        shortest = -(-self.spec.min_frames // STRIDE)
        return torch.where(asked > 0, asked, sample_lengths(estimator(text), shortest, seed).cpu())

    @torch.no_grad()
    def draw(self, text, lengths, sampling, keys):
        """text [B,E], lengths [B] tokens, keys [B] (see MARDM.generate) -> (features, joints), lists of B
        arrays.

        features [n,dim] in the data set's units, joints [n,J,3].
        """
        lengths = lengths.to(self.device)
        targets = self.mardm.generate(self.tokenizer.ae, text, lengths, sampling, keys)
        return self.decode(targets, lengths * STRIDE, snap=sampling.snap != "off")

    @torch.no_grad()
    def decode(self, targets, m_lens, snap=True):
        """Tokens [B,L,target_dim], frames [B] -> (features, joints), lists of B arrays cut to length."""
        motion = check_finite(
            self.tokenizer.normalizer.inverse(self.tokenizer.ae.detokenize(targets, m_lens, snap))
        )
        joints = recover_from_ric(motion, len(self.spec.skeleton))
        ends = m_lens.tolist()
        return tuple([x[:n] for x, n in zip(rows.cpu().numpy(), ends)] for rows in (motion, joints))

    def generate(self, prompts, seconds=None, seed=3407, cfg=None, **decoding):
        """Motions for a list of prompts -> list of joints [n,J,3], in the skeleton's unit (metres).

        seconds: one per prompt, None = estimated from the text. cfg and the other fields of `Decoding` by
        name. A prompt gives the same motion alone or in any list, at the same place in it.
        """
        sampling = replace(
            SamplingConfig(cfg=self.spec.cfg, seed=seed), **decoding, **({} if cfg is None else {"cfg": cfg})
        )
        frames = [0 if s is None else round(s * self.spec.fps) for s in seconds or [None] * len(prompts)]
        if len(frames) != len(prompts):
            raise BadInput(f"{len(prompts)} prompts but {len(frames)} lengths")
        if any(n and not STRIDE <= n <= MAX_FRAMES for n in frames):
            raise BadInput(f"a motion lasts {STRIDE / self.spec.fps} to {MAX_FRAMES / self.spec.fps} seconds")
        text = self.embed(prompts)
        return self.draw(text, self.lengths(text, frames, seed), sampling, range(len(prompts)))[1]


def load(
    run, checkpoints_dir="./checkpoints", device="cpu", checkpoint="best", precision="fp32", compile=False
):
    """ "<dataset>/<name>" of a trained generator -> Pipeline. Its checkpoint says which autoencoder it
    belongs to.
    """
    dataset_name, _, name = run.partition("/")
    args = Namespace(
        name=name,
        dataset_name=dataset_name,
        dataset_dir="./datasets",
        checkpoints_dir=checkpoints_dir,
        checkpoint=checkpoint,
        text_encoder=None,
        precision=precision,
        compile=compile,
    )
    path = Run.of(args).choose(checkpoint)
    config = State(load_state(path), path).part("config")
    args.ae_name, args.ae_model, args.model = map(config.text, ("ae_name", "ae_model", "model"))
    if not (args.ae_name and args.ae_model and args.model):
        raise BadInput(f"{path} does not say which autoencoder it belongs to: use sample.py with its flags")
    return Pipeline.from_args(args, torch.device(device))
