"""The autoencoders: motion [B,T,dim] <-> one token per four frames. Four bottlenecks share one interface.

The interface is tokenize, embed_codes, quantize, detokenize: see `AE`. B batch, T frames, L = T/4 tokens,
D latent width, d grid dimensions. Names of modules follow the published checkpoints of MARDM (CVPR 2025),
which load strictly.
"""

from functools import partial

import torch
from torch import nn

from models.counter_rng import integers, normal
from models.draws import REPLACEMENT
from models.FSQ import FSQ
from models.masking import lengths_to_mask, zero_past
from models.precision import autocast_to, compile_module
from models.VQ import VectorQuantizer

STRIDE = 4  # frames per token: two halvings


class AE(nn.Module):
    """The continuous autoencoder, and base class of the others; its latent is the target of diffusion.

    mask_padding: activations past a clip's end are zeroed before every convolution, so that a clip in a
    padded batch is encoded as if it were alone. MARDM's weights were trained without it (its checkpoints
    load with False).
    """

    kind = "continuous"  # one of models.MARDM.KINDS
    options = ()  # the flags of this bottleneck: fields of utils.config.AutoencoderConfig
    codebook_size = None
    fsq_levels = None  # levels per grid dimension
    precision = torch.float32  # of the encoder and the decoder; the bottleneck stays float32
    real_tokens = None  # [N,D] to draw random replacements from; None: standard normal noise, as MARDM

    def __init__(self, dim=67, width=512, mask_padding=True):
        super().__init__()
        self.dim, self.width, self.latent_dim, self.target_dim = dim, width, width, width
        self.mask_padding = mask_padding
        self.encoder = Encoder(dim, width)
        self.decoder = Decoder(dim, width)

    # the methods of MARDM's autoencoder

    def encode(self, motion, m_lens=None):
        """[B,T,dim] -> latents as the decoder gets them [B,D,L]."""
        return self.embed_codes(self._targets(motion, m_lens))

    def decode(self, latents, m_lens=None):
        """Latents [B,D,L] -> motion [B,4L,dim]; m_lens [B] in frames, cut to whole tokens."""
        frames = latents.shape[-1] * STRIDE
        m_lens = None if m_lens is None else m_lens // STRIDE * STRIDE
        with autocast_to(self.precision, latents):
            motion = self.decoder(latents, self._ends(m_lens, frames, latents.device)).mT
        return motion.to(latents.dtype)

    def forward(self, motion, m_lens=None):
        """Reconstruction [B,T,dim]."""
        return self.training_pass(motion, m_lens)[0]

    # what stage 1 trains

    def training_pass(self, motion, m_lens=None):
        """-> (reconstruction [B,T,dim], the bottleneck's own loss [], code indices [B,L] or None)."""
        targets = self._targets(motion, m_lens)
        return self.decode(self.embed_codes(targets), m_lens), motion.new_zeros(()), self.indices(targets)

    def set_precision(self, dtype):
        """torch.float32 or bfloat16, for the convolutions."""
        self.precision = dtype

    def compile_parts(self):
        """torch.compile of the encoder and the decoder; ValueError without a compiler."""
        for part in (self.encoder, self.decoder):
            compile_module(part)

    def finish_step(self, optimizer, all_reduce_sum, broadcast):
        """What the bottleneck does after an optimizer's step: see VectorQuantizer.finish_step."""

    def copy_restarts(self, average):
        """What the moving average takes over as it is: see VectorQuantizer.copy_restarts."""

    # the interface for the generator

    def tokenize(self, motion, m_lens=None):
        """[B,T,dim], frames [B] -> latents [B,D,L] for the Transformer, targets [B,L,target_dim] for the
        head.
        """
        targets = self._targets(motion, m_lens)
        return self.embed_codes(targets), targets

    def embed_codes(self, targets):
        """[B,L,target_dim] -> [B,D,L]."""
        return targets.mT

    def quantize(self, targets):
        """Nearest valid target; every continuous latent is one."""
        return targets

    def detokenize(self, targets, m_lens=None, snap=True):
        """[B,L,target_dim], frames [B] -> motion [B,4L,dim], zero past each end."""
        motion = self.decode(self.embed_codes(self.quantize(targets) if snap else targets), m_lens)
        return motion if m_lens is None else zero_past(motion, m_lens.to(motion.device))

    def random_replacements(self, latents, keys):
        """Random latents [B,D,L] to replace `latents` by, for BERT's 10% random tokens.

        keys [B]: see models/counter_rng.py. Without a code book they are drawn from `real_tokens`, a fixed
        pool, so that a clip's replacements do not depend on the rest of its batch.
        """
        _, D, L = latents.shape
        keys = keys.to(latents.device, non_blocking=True)
        if self.real_tokens is None:
            return normal(keys, REPLACEMENT, (L, D)).mT.to(latents.dtype)
        return self.real_tokens[integers(keys, REPLACEMENT, (L,), len(self.real_tokens))].mT.to(latents.dtype)

    def keep_real_tokens(self, motion, m_lens):
        """Make the tokens of these clips [B,T,dim], frames [B], the pool of `random_replacements`."""
        latents = self.tokenize(motion, m_lens)[0].detach().mT
        self.real_tokens = latents[lengths_to_mask((m_lens // STRIDE).to(latents.device), latents.shape[1])]

    def _random_codes(self, latents, keys):
        """Indices [B,L] into the code book."""
        keys = keys.to(latents.device, non_blocking=True)
        return integers(keys, REPLACEMENT, latents.shape[2:], self.codebook_size)

    def indices(self, targets):
        """Code indices [B,L] of targets, None where there is no code book."""
        return None

    def _targets(self, motion, m_lens):
        return self._latents(motion, m_lens).mT

    def _latents(self, motion, m_lens):
        with autocast_to(self.precision, motion):
            latents = self.encoder(motion.mT, self._ends(m_lens, motion.shape[1], motion.device))
        return latents.to(motion.dtype)

    def _ends(self, m_lens, frames, device):
        """-> (lengths [B] on the device, frames), by which `Chain` zeroes padding; None if there is none.

        Only lengths on the host are compared with `frames`: for others the host would have to wait.
        """
        if m_lens is None or not self.mask_padding:
            return None
        if m_lens.device.type == "cpu" and bool((m_lens >= frames).all()):
            return None
        return m_lens.to(device, non_blocking=True), frames


class NarrowAE(AE):
    """Encoder -> Linear to d -> Linear back -> decoder. Targets are the d numbers between.

    `FSQ_AE` without the rounding, as a control: does the grid matter, or only the low dimension?
    """

    def __init__(self, dim=67, width=512, target_dim=6, mask_padding=True):
        super().__init__(dim, width, mask_padding)
        self.target_dim = target_dim
        self.pre_fsq = nn.Linear(width, target_dim)
        self.post_fsq = nn.Linear(target_dim, width)

    def embed_codes(self, targets):
        return self.post_fsq(targets).mT

    def _targets(self, motion, m_lens):
        return self.pre_fsq(self._latents(motion, m_lens).mT)


class FSQ_AE(NarrowAE):
    """Encoder -> Linear to d -> FSQ -> Linear back -> decoder. Targets are the d grid coordinates."""

    kind = "FSQ"
    options = ("fsq_levels",)

    def __init__(self, dim=67, width=512, fsq_levels=(8, 5, 5, 5, 5), mask_padding=True):
        super().__init__(dim, width, len(fsq_levels), mask_padding)
        self.fsq = FSQ(fsq_levels)
        self.fsq_levels, self.fsq_dim = self.fsq.levels, self.fsq.dim
        self.codebook_size = self.fsq.codebook_size

    def encode_with_fsq_output(self, motion, m_lens=None):
        """[B,T,dim] -> grid coordinates [B,T/4,d]."""
        return self._targets(motion, m_lens)

    def decode_from_fsq(self, coords, m_lens=None):
        """Coordinates [B,L,d] -> motion [B,4L,dim]; never snaps."""
        return self.decode(self.embed_codes(coords), m_lens)

    def quantize(self, targets):
        return self.fsq.snap(targets)

    def random_replacements(self, latents, keys):
        """Random grid points, embedded."""
        index = self._random_codes(latents, keys)
        return self.embed_codes(self.fsq.indices_to_codes(index).to(latents.dtype))

    def indices(self, targets):
        return self.fsq.codes_to_indices(targets.detach())

    def _targets(self, motion, m_lens):
        return self.fsq(super()._targets(motion, m_lens))


class VQ_AE(AE):
    """Encoder -> nearest code of a learned code book -> decoder. Targets are code vectors."""

    kind = "VQ"
    options = ("codebook_size", "commitment_cost")

    def __init__(self, dim=67, width=512, codebook_size=512, commitment_cost=0.25, mask_padding=True):
        super().__init__(dim, width, mask_padding)
        self.vq = VectorQuantizer(codebook_size, width, commitment_cost)
        self.codebook_size, self.commitment_cost = codebook_size, commitment_cost

    def training_pass(self, motion, m_lens=None):
        z = self._latents(motion, m_lens).mT
        inside = None
        if m_lens is not None:
            inside = lengths_to_mask((m_lens // STRIDE).to(z.device, non_blocking=True), z.shape[1])
        z_q, index, loss = self.vq(z, inside)
        return self.decode(self.embed_codes(z_q), m_lens), loss, index

    def finish_step(self, optimizer, all_reduce_sum, broadcast):
        self.vq.finish_step(optimizer, all_reduce_sum, broadcast)

    def copy_restarts(self, average):
        self.vq.copy_restarts(average.vq)

    def quantize(self, targets):
        damage = 0 * targets.sum(dim=-1, keepdim=True)  # NaN stays NaN, not a code
        return self.vq.lookup(self.vq.nearest(targets)).to(targets.dtype) + damage

    def random_replacements(self, latents, keys):
        """Random codes."""
        index = self._random_codes(latents, keys)
        return self.embed_codes(self.vq.lookup(index).to(latents.dtype))

    def indices(self, targets):
        return self.vq.nearest(targets)

    def _targets(self, motion, m_lens):
        return self.quantize(self._latents(motion, m_lens).mT)


class Chain(nn.Sequential):
    """nn.Sequential that zeroes padding before each convolution. ends: (lengths [B], T) of the motion, in
    frames; or None.
    """

    def forward(self, x, ends=None):
        for module in self:
            if isinstance(module, (Chain, ResBlock, ResNet)):
                x = module(x, ends)
            else:
                x = module(cut(x, ends) if isinstance(module, nn.Conv1d) else x)
        return x


def cut(x, ends):
    """Zero x [B,C,t] past each clip's end. A position of x covers 1, 2 or 4 of the T frames, so a clip of n
    frames has n, n // 2 or n // 4 positions; T / t tells which, also where T is not a multiple of 4.
    """
    if ends is None:
        return x
    m_lens, frames = ends
    per_position = 4 if frames >= 4 * x.shape[-1] else 2 if frames >= 2 * x.shape[-1] else 1
    return zero_past(x, m_lens // per_position, dim=2)


class ResBlock(nn.Module):
    """x + conv2(relu(conv1(relu(x)))): conv1 has kernel size 3 and is dilated, conv2 has kernel size 1."""

    def __init__(self, width, dilation):
        super().__init__()
        self.conv1 = nn.Conv1d(width, width, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(width, width, 1)

    def forward(self, x, ends=None):
        h = self.conv1(cut(torch.relu(x), ends))
        return x + self.conv2(torch.relu(h))


class Wrapped(nn.Module):
    """Holds a Chain as `model`, so that parameter names match the published checkpoints."""

    def __init__(self, *modules):
        super().__init__()
        self.model = Chain(*modules)

    def forward(self, x, ends=None):
        return self.model(x, ends)


class ResNet(Wrapped):
    """Three residual blocks, the widest dilation first."""

    def __init__(self, width):
        super().__init__(*(ResBlock(width, dilation) for dilation in (9, 3, 1)))


class Encoder(Wrapped):
    """[B,dim,T] -> [B,D,floor(T/4)]."""

    def __init__(self, dim, width):
        super().__init__(
            nn.Conv1d(dim, width, 3, padding=1),
            nn.ReLU(),
            *(Chain(nn.Conv1d(width, width, 4, stride=2, padding=1), ResNet(width)) for _ in range(2)),
            nn.Conv1d(width, width, 3, padding=1),
        )


class Decoder(Wrapped):
    """[B,D,L] -> [B,dim,4L]."""

    def __init__(self, dim, width):
        super().__init__(
            nn.Conv1d(width, width, 3, padding=1),
            nn.ReLU(),
            *(
                Chain(ResNet(width), nn.Upsample(scale_factor=2), nn.Conv1d(width, width, 3, padding=1))
                for _ in range(2)
            ),
            nn.Conv1d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(width, dim, 3, padding=1),
        )


FSQ_LEVELS = {
    "FSQ_AE_Small": (5, 5, 5, 5, 5),  #               3,125 codes
    "FSQ_AE_Medium": (8, 5, 5, 5, 5),  #              5,000
    "FSQ_AE_Large": (8, 6, 6, 5, 5, 5),  #           36,000
    "FSQ_AE_High": (8, 8, 8, 5, 5, 5),  #            64,000, recommended
    "FSQ_AE_XLarge": (8, 8, 8, 6, 5, 5),  #          76,800
    "FSQ_AE_Ultra": (8, 8, 8, 8, 5, 5),  #          102,400
    "FSQ_AE_Mega": (8, 8, 8, 8, 8, 5),  #           163,840
    "FSQ_AE_HighDim7": (7, 5, 5, 5, 5, 5, 5),  #    109,375
    "FSQ_AE_HighDim8": (5, 5, 5, 5, 5, 5, 5, 5),  # 390,625
}
AE_models = {
    "AE_Model": partial(AE),
    "Narrow_AE_Model": partial(NarrowAE, target_dim=6),
    "FSQ_AE_Model": partial(FSQ_AE),
    "VQ_AE_Model": partial(VQ_AE),
}
AE_models |= {name: partial(FSQ_AE, fsq_levels=levels) for name, levels in FSQ_LEVELS.items()}


def open_options(model):
    """Names of the bottleneck flags that an entry of AE_models does not fix."""
    entry = AE_models[model]
    return [name for name in entry.func.options if name not in entry.keywords]


def make_ae(model, dim=67, width=512, mask_padding=True, **flags):
    """Build an entry of AE_models. Of `flags` only those in `open_options` are used."""
    own = {key: flags[key] for key in open_options(model) if flags.get(key) is not None}
    return AE_models[model](dim=dim, width=width, mask_padding=mask_padding, **own)
