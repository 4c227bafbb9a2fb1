"""MARDM: a masked autoregressive Transformer over motion tokens, with a diffusion head for each token.

Meng et al., "Rethinking Diffusion for Text-Driven Human Motion Generation", CVPR 2025. FSQ-MARDM ("denoising
to grid") is the same model with grid coordinates as targets. B clips, L tokens, D latent width, H Transformer
width. A text is a tensor as in models/words.py.

Training: hide some tokens, run the Transformer, let the head learn the hidden tokens' targets.
Generation: all tokens start hidden; in every round the head draws those that leave the mask, and their
embedded latents are part of the Transformer's next input. Drawing only these gives the same distribution as
drawing every hidden token: a token that is hidden again before it is an input changes nothing.
"""

from dataclasses import replace
from functools import partial
from itertools import product

import torch
from torch import nn

from models.counter_rng import normal, random_keys, uniform
from models.DiffMLPs import HEADS, make_head
from models.draws import NOISE, TIME, SamplingNoise, TrainingDraws, keyed_masks
from models.layers import Linear
from models.masking import lengths_to_mask, reveal_rounds, tokens_by_round
from models.options import SIZES, GeneratorOptions
from models.precision import InferenceWeights, autocast_to, compile_module
from models.sampling import SamplingConfig, resolve_sampling
from models.Transformer import Block, InputProcess, PositionalEncoding, take
from models.words import TextConditions, TextReader, drop_texts, pooled_text


class MARDM(nn.Module):
    """The generator. kind: that of its autoencoder (`AE.kind`); size: an entry of SIZES; head: of HEADS.

    options: fields of GeneratorOptions.
    """

    precision = torch.float32  # of the Transformer and the head's network: see set_precision

    def __init__(
        self,
        kind="continuous",
        head="SiT",
        size="XL",
        ae_dim=512,
        target_dim=512,
        text_dim=512,
        **options,
    ):
        super().__init__()
        options, shape = GeneratorOptions(**options), SIZES[size]
        self.kind, self.target_dim = kind, target_dim
        self.cond_drop_prob, self.diffmlps_batch_mul = options.cond_drop_prob, options.diffmlps_batch_mul
        self.words, self.pooled_drop_prob = options.text_tokens == "on", options.pooled_drop_prob
        H = shape.latent_dim
        self.mask_latent = nn.Parameter(torch.zeros(1, 1, ae_dim))
        self.input_process = InputProcess(ae_dim, H)
        self.position_enc = PositionalEncoding(H, options.dropout)
        self.MARTransformer = nn.ModuleList(
            Block(H, shape.heads, shape.ff, options.dropout, self.words) for _ in range(shape.layers)
        )
        self.cond_emb = Linear(text_dim, H)
        self.text_reader = None
        if self.words:
            self.text_reader = TextReader(
                text_dim, H, shape.heads, shape.ff, options.text_refiner, options.dropout
            )
        self._initialise(options.attention)
        self.DiffMLPs = make_head(f"{head}-{size}", target_dim, H, options)
        # Statistics of the training targets: a top-level key of the checkpoint, no part of the state_dict.
        self.register_buffer("target_mean", torch.zeros(target_dim), persistent=False)
        self.register_buffer("target_std", torch.ones(target_dim), persistent=False)
        self.onestep = None  # a OneStepHead, which has a file of its own
        self.inference_weights = InferenceWeights()

    def _initialise(self, attention):
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.mask_latent, std=0.02)
        for block in self.MARTransformer:
            nn.init.zeros_(block.adaLN_modulation[1].weight)
            if attention == "neighbours":
                block.attn.init_neighbour_attention()
            elif attention == "relative_bias":
                block.attn.add_relative_bias()
            if block.cross is not None:
                block.cross.zero_init_output()
        if self.text_reader is not None:
            nn.init.normal_(self.text_reader.no_word, std=0.02)
            for layer in self.text_reader.layers:
                layer.attn.init_neighbour_attention()

    @property
    def target_stats(self):
        return {"mean": self.target_mean.cpu(), "std": self.target_std.cpu()}

    def set_target_stats(self, mean, std):
        """Set the statistics [target_dim] that standardise the targets; std is raised to at least 1e-3."""
        self.target_mean.copy_(mean)
        self.target_std.copy_(std.clamp(min=1e-3))

    def set_precision(self, dtype):
        """torch.float32 or bfloat16, for the Transformer and the head's network in training and drawing.

        Weights, their average, times and their embedding, the solver's state and losses stay float32.
        """
        self.precision = dtype
        for head in self._heads():
            head.net.precision = dtype

    def _heads(self):
        return [self.DiffMLPs] + ([self.onestep] if self.onestep else [])

    def compile_parts(self):
        """torch.compile of the Transformer's blocks and the heads' networks; ValueError without a compiler.

        Not as CUDA graphs: each part is compiled on its own, and where one graph's output is another's input
        PyTorch refuses it as overwritten (pytorch/pytorch#152887).
        """
        for part in (*self.MARTransformer, *(head.net for head in self._heads())):
            compile_module(part, dynamic=True)

    def encode_text(self, text):
        """A text (models/words.py) -> TextConditions. A model without text_tokens ignores the words."""
        with autocast_to(self.precision, text):
            pooled = pooled_text(text)
            if self.words and self.pooled_drop_prob >= 1:  # training never showed one
                pooled = torch.zeros_like(pooled)
            c = nn.functional.silu(self.cond_emb(pooled))[:, None]
            blocks = self.MARTransformer
            modulations, words = [block.adaLN_modulation(c) for block in blocks], [None] * len(blocks)
            if self.text_reader is not None:
                states, present = self.text_reader(text[:, 1:])
                words = [(*block.cross.keys_values(states), present) for block in blocks]
            return TextConditions(modulations, words)

    def transformer(self, latents, text, inside, order=None, queries=None):
        """Latents [B,L,D], a text (zeros = unconditional) or its TextConditions, inside bool [B,L] ->
        conditions z [B,L,H].

        order [B,L]: sort the tokens by it before the blocks and put them back after. Attention is equivariant
        to permutations, so this changes rounding only. queries int64 [B,R]: compute only these tokens'
        outputs, which still attend to all -> [B,R,H].
        """
        text = text if isinstance(text, TextConditions) else self.encode_text(text)
        with autocast_to(self.precision, latents):
            x = self.position_enc(self.input_process(latents))
            index = None
            if order is not None:
                index = order.argsort(dim=1)
                x, inside, back = take(x, index), inside.gather(1, index), index.argsort(dim=1)
                queries = back if queries is None else back.gather(1, queries)
            for block, modulation, words in zip(self.MARTransformer, text.modulations, text.words):
                last = block is self.MARTransformer[-1]
                x = block(x, modulation, inside, index, words, queries if last else None)
        return x.to(latents.dtype)

    def forward_loss(self, latents, targets, text, m_lens, **draws):
        """The mean training loss [] over hidden real tokens (see `summed_loss`), 0 where none is hidden."""
        total, count = self.summed_loss(latents, targets, text, m_lens, TrainingDraws(**draws))
        return total / max(count, 1)

    def summed_loss(self, latents, targets, text, m_lens, draws):
        """-> (sum [] of the losses of hidden real tokens, one loss per noise draw; the number of losses).

        latents [B,D,L] and targets [B,L,target_dim] from the tokenizer, a text, m_lens [B] in tokens,
        which may lie on the host; draws: TrainingDraws.
        """
        latents, targets = latents.detach().mT, targets.detach()
        B, L, _ = latents.shape
        keys = random_keys(B).to(m_lens.device) if draws.keys is None else draws.keys
        inside = lengths_to_mask(m_lens, L)
        masks = draws.masks or keyed_masks(inside, keys, draws.room or L)
        on_host = inside, *masks[1:], *masks[0].nonzero(as_tuple=True), keys
        inside, replaced, blank, b, at, keys = (x.to(latents.device, non_blocking=True) for x in on_host)

        replacements = draws.random_replacements
        replacements = torch.randn_like(latents) if replacements is None else replacements.mT
        x = torch.where(replaced[..., None], replacements, latents)
        x = torch.where(blank[..., None], self.mask_latent, x)
        if self.training:
            text = drop_texts(text, keys, self.cond_drop_prob, self.pooled_drop_prob)
        z = self.transformer(x, text, inside)

        # Gather the hidden tokens first, then repeat them, each with its own time and noise.
        mul = self.diffmlps_batch_mul if self.DiffMLPs.noisy else 1
        t, noise = draws.t, draws.noise
        if t is None:
            t = self.DiffMLPs.times(uniform(keys[b], TIME, (mul,), at).mT.flatten())
        if noise is None:
            noise = normal(keys[b], NOISE, (mul, self.target_dim), at).transpose(0, 1).flatten(0, 1)
        rows = (targets[b, at] - self.target_mean) / self.target_std
        rows, z = rows.repeat(mul, 1), z[b, at].repeat(mul, 1)
        t = t.to(rows.dtype) if t.is_floating_point() else t
        return self.DiffMLPs.loss(rows, z, t, noise.to(rows.dtype)).sum(), len(rows)

    @torch.no_grad()
    def generate(self, tokenizer, text, m_lens, sampling=SamplingConfig(), keys=None):
        """Generate motions: a text, m_lens [B] tokens -> targets [B,L,target_dim], zero past each end.

        keys: B integers, which address the motions' noise (0, 1, ... if None); or a SamplingNoise.
        """
        hidden = lengths_to_mask(m_lens, int(m_lens.max()))
        targets = text.new_zeros(*hidden.shape, self.target_dim)
        return self._decode(tokenizer, text, targets, (hidden, hidden), sampling, keys)

    @torch.no_grad()
    def edit(self, tokenizer, text, m_lens, targets, sections, sampling=SamplingConfig(), keys=None):
        """Generate some tokens of a motion and keep the rest as they are, all if no section is given.

        targets [B,L,target_dim] of the source; sections bool [B,L], True = to be drawn. Otherwise as
        `generate`.
        """
        inside = lengths_to_mask(m_lens, targets.shape[1])
        targets = targets * inside[..., None]
        return self._decode(tokenizer, text, targets, (sections & inside, inside), sampling, keys)

    def _noise(self, sampling, keys, B):
        if isinstance(keys, SamplingNoise):
            return keys
        keys = range(B) if keys is None else keys
        return SamplingNoise(sampling.seed, keys, self.mask_latent.device, sampling.order)

    def _decode(self, tokenizer, text, targets, masks, sampling, keys):
        """Draw tokens of targets [B,L,target_dim]. masks: (which to draw, which are real), bool [B,L]."""
        sampling = resolve_sampling(sampling, self)
        noise = self._noise(sampling, keys, len(text))
        net = self.head(sampling).net
        modules = [self.input_process, *self.MARTransformer, self.cond_emb, self.text_reader]
        modules += [module for name, module in net.named_children() if name != "time_embed"]
        with self.inference_weights([module for module in modules if module is not None], self.precision):
            guide = self.head(sampling).guides(sampling)
            text = self.encode_text(torch.cat([text, torch.zeros_like(text)]) if guide else text)
            targets = self._rounds(tokenizer, text, targets, masks, sampling, noise)
            targets = self._refined(tokenizer, text, targets, masks, sampling, noise)
        if sampling.snap == "end":
            targets = torch.where(masks[0][..., None], tokenizer.quantize(targets), targets)
        return targets

    def _refined(self, tokenizer, text, targets, masks, sampling, noise):
        """Draw every other token anew given those between, then these given the former, `sampling.refine`
        times: block Gibbs sampling, but that the tokens of a half are drawn independently. The tokens of an
        early round did not know most of the others.
        """
        (hidden, inside), once = masks, replace(sampling, time_steps=1)
        odd = torch.arange(hidden.shape[1], device=hidden.device) % 2 == 1
        for k in range(2 * sampling.refine):
            anew = hidden & (odd if k % 2 else ~odd)
            targets = self._rounds(tokenizer, text, targets, (anew, inside), once, noise.anew(k + 1))
        return targets

    def head(self, sampling):
        """The head to draw with. sampling: as `resolve_sampling` returns it."""
        return self.onestep if sampling.sampler == "onestep" else self.DiffMLPs

    def _rounds(self, tokenizer, text, targets, masks, sampling, noise):
        """In every round draw the tokens that leave the mask, and make them part of the input. text:
        TextConditions, see `conditions`.
        """
        (hidden, inside), head = masks, self.head(sampling)
        order = noise.order(hidden.shape[1])
        # In which round a token leaves the mask is known beforehand: computed on the host and sent over at
        # once, so that no round waits for the device.
        leaves = reveal_rounds(hidden.cpu(), order, sampling.time_steps)
        places, counts, widths = tokens_by_round(leaves, sampling.time_steps)
        places = places.to(targets.device)

        x = torch.where(hidden[..., None], self.mask_latent.to(targets), tokenizer.embed_codes(targets).mT)
        order = order.argsort().argsort().to(targets.device) if sampling.hard_pseudo_reorder else None
        guide, draw = head.guides(sampling), head.draw_with(sampling)
        at_once = len(head.noise_shape) == 1  # a DDPM head needs noise for every step: gigabytes
        starts = noise.rows(*places[:2], head.noise_shape).split(counts) if at_once else [None] * len(counts)
        for width, start, b, at, slot in zip(widths, starts, *(rows.split(counts) for rows in places)):
            if width == 0:
                continue
            if start is None:
                start = noise.rows(b, at, head.noise_shape)
            queries = at.new_zeros(len(x), width)
            queries[b, slot] = at
            z, z_null = (
                rows if rows is None else rows[b, slot]
                for rows in self.conditions(x, text, inside, order, guide, queries)
            )
            drawn = draw(z, z_null, start.to(x.dtype))
            drawn = drawn * self.target_std + self.target_mean
            if sampling.snap == "step":
                drawn = tokenizer.quantize(drawn[None])[0]
            targets[b, at] = drawn
            x[b, at] = tokenizer.embed_codes(drawn[None])[0].mT
        return targets

    def conditions(self, x, text, inside, order, guide, queries=None):
        """-> conditional and unconditional z [B,L,H], or [B,R,H] of the queries, from one call. Without
        `guide` the second is None.

        text: a TextConditions; with `guide` of 2 B texts, the second half zeros.
        """
        if not guide:
            return self.transformer(x, text, inside, order, queries), None
        order, queries = (None if rows is None else rows.repeat(2, 1) for rows in (order, queries))
        return self.transformer(x.repeat(2, 1, 1), text, inside.repeat(2, 1), order, queries).chunk(2)

    def describe_sampling(self, sampling):
        """Rounds, sampler and network evaluations per draw of a token, as a line of text."""
        sampling = resolve_sampling(sampling, self)
        sampler, guided = self.head(sampling).describe_sampling(sampling), sampling.cfg != 1
        rounds = f"{sampling.time_steps} rounds in {sampling.order} order"
        if sampling.refine:
            rounds += f", then every token {sampling.refine} more time{'s' * (sampling.refine > 1)}"
        return f"{rounds}, sampler {sampler}, {'' if guided else 'not '}guided"


class FSQ_MARDM(MARDM):
    """The recommended preset: SiT head, size XL, on the grid of FSQ_AE_High."""

    def __init__(self, kind="FSQ", target_dim=6, **options):
        super().__init__(kind=kind, target_dim=target_dim, **options)


# family -> the kind of its autoencoder (`AE.kind`)
KINDS = {"MARDM": "continuous", "FSQ-MARDM": "FSQ", "VQ_MARDM": "VQ"}
MARDM_models = {
    f"{family}-{head}-{size}": partial(MARDM, kind=KINDS[family], head=head, size=size)
    for family, head, size in product(KINDS, HEADS, SIZES)
    if head != "Softmax" or KINDS[family] == "FSQ"
}
SAMPLERS = tuple(dict.fromkeys(name for head in HEADS.values() for name in head.samplers))
