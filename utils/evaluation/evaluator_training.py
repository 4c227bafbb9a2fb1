"""Training of evaluators: two losses that pull a caption to its motion, and three kinds of evaluator.

Each kind has `embed(batch) -> text [B,D], motion [B,D]` and `loss(batch) -> []`. Batches hold z-normalised
motion, zero past each end.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models import counter_rng
from models.counter_rng import Purpose
from utils import metrics
from utils.data.batches import loader
from utils.evaluation.evaluator_networks import MotionCLIP, matching_networks
from utils.evaluation.evaluators import embed_rows
from utils.evaluation.glove import WordTokens, split_words
from utils.evaluation.word_networks import WordMatching
from utils.training.train_utils import EMA, RunningMean, inference

MARGIN = 10.0  # Guo et al., CVPR 2022
EMA_DECAY = 0.99
SAME_MEANING = 0.8  # cosine of captions above which clips are not each other's negatives (as TMR)


def contrastive_margin(distance, same):
    """Own pairs to distance 0, negatives beyond the margin m: d^2 + mean of (m - d)^2 over those with d < m.

    distance [B,B] of captions (rows) to motions; same bool [B,B]: pairs that are no negatives. Guo et al.
    draw one negative per pair; here every other clip of the batch is one, and negatives beyond the margin do
    not count in the mean.
    """
    shortfall = F.relu(MARGIN - distance[~same]).square()
    return distance.diagonal().square().mean() + shortfall.sum() / (shortfall > 0).sum().clamp(min=1)


def info_nce(distance, same):
    """Symmetric cross entropy of softmax(-distance) (van den Oord et al. 2018); arguments as above."""
    own = torch.arange(len(distance), device=distance.device)
    others = same & ~torch.eye(len(distance), dtype=torch.bool, device=distance.device)
    logits = (-distance).masked_fill(others, -torch.inf)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


LOSSES = {"infonce": info_nce, "margin": contrastive_margin}


def same_caption(captions, device):
    """bool [B,B]: True where two clips of a batch have the same caption."""
    index = {caption: i for i, caption in enumerate(dict.fromkeys(captions))}
    ids = torch.tensor([index[caption] for caption in captions], device=device)
    return ids[:, None] == ids


class Evaluator(nn.Module):
    """Base class. `parts`: name in the checkpoint -> module; `training_parts`: further ones for training
    only; `constants`: what the checkpoint holds besides weights.
    """

    training_parts = {}

    def after_step(self, step):
        pass

    def load(self, state):
        for name, part in self.parts.items():
            part.load_state_dict(state[name])


class Matching(Evaluator):
    """The three networks of Guo et al. whose embeddings give FID, R-precision, Matching and Diversity."""

    epoch_share = 1.0  # share of --epoch to train for

    def __init__(self, dim, sizes, words, loss):
        super().__init__()
        self.networks = nn.ModuleDict(matching_networks(dim, sizes))
        self.words, self.distance_loss = words, LOSSES[loss]
        self.config, self.parts = {"word_vectors": words.source}, dict(self.networks.items())
        self.constants = {} if words.source == "glove" else {"vocabulary": words.vocabulary}

    def embed(self, batch):
        device = batch.motion.device
        words, pos, lengths = self.words(batch.tokens)
        text = self.networks["text_encoder"](words.to(device), pos.to(device), lengths)
        return text, embed_rows(self.networks, batch.motion, batch.m_lens)

    def loss(self, batch):
        text, motion = self.embed(batch)
        # by differences: the gradient of |a|^2 + |b|^2 - 2ab is noise where a is close to b
        distance = torch.cdist(text, motion, compute_mode="donot_use_mm_for_euclid_dist")
        return self.distance_loss(distance, same_caption(batch.captions, distance.device))


class WordStates(Evaluator):
    """The networks of `word_networks`, which read a frozen encoder's word states from `batch.text`."""

    epoch_share = 1.0

    def __init__(self, sizes, text_encoder):
        super().__init__()
        self.model = WordMatching(sizes)
        self.ema = EMA(self.model, EMA_DECAY)
        self.averaged = self.ema.model  # evaluated: a small val split picks single epochs by chance
        self.config = {"sizes": sizes, "text_encoder": text_encoder}
        self.parts, self.constants = {"word_matching": self.averaged}, {}
        self.training_parts = {"trained": self.model}

    def after_step(self, step):
        self.ema.update(self.model, step)

    def embed(self, batch):
        model = self.model if self.training else self.averaged
        return model.embed_text(batch.text), model.embed_motion(batch.motion, batch.m_lens)

    def loss(self, batch):
        text, motion = self.embed(batch)
        pooled = F.normalize(batch.text[:, 0], dim=-1)
        return info_nce(-self.model.scale() * text @ motion.T, pooled @ pooled.T > SAME_MEANING)


class Contrast(Evaluator):
    """The CLIP of motion and text, for the CLIP score; its vocabulary are the words of `captions`."""

    epoch_share = 0.5  # its steps are expensive and it converges faster

    def __init__(self, dim, captions, d_model=64, layers=2, heads=4):
        super().__init__()
        words = [split_words(caption) for caption in captions]
        vocabulary = sorted({word for caption in words for word in caption})
        self.tokenize = WordTokens(vocabulary, context=min(max(map(len, words)) + 1, 77))
        self.model = MotionCLIP(
            in_dim=dim,
            d_model=d_model,
            layers=layers,
            heads=heads,
            vocabulary_size=self.tokenize.size,
            context=self.tokenize.context,
            out=d_model,
        )
        self.config, self.parts = {"contrast_heads": heads}, {"contrast_model": self.model}
        self.constants = {"vocabulary": vocabulary}

    def embed(self, batch):
        tokens = self.tokenize(batch.captions).to(batch.motion.device)
        return self.model.encode_text(tokens), self.model.encode_motion(batch.motion, batch.m_lens)

    def loss(self, batch):
        text, motion = self.embed(batch)
        # info_nce takes distances: the negative of a CLIP's logits
        distance = -self.model.logit_scale.exp() * text @ motion.T
        return info_nce(distance, same_caption(batch.captions, distance.device))


def mean_r_precision(model, dataset, batch_size, seed, device, repeats):
    """R-precision of real motion, mean over `repeats` draws of captions -> [TOP_K]; None below 32 clips."""
    if len(dataset) < metrics.POOL:
        return None
    tops = []
    with inference(model):
        for repeat in range(repeats):
            pairs = [model.embed(batch.to(device)) for batch in loader(dataset, batch_size, epoch=repeat)]
            text, motion = (torch.cat(side) for side in zip(*pairs))
            pools = metrics.draw_pools(len(dataset), counter_rng.rng(Purpose.EVALUATION, seed, repeat))
            tops.append(metrics.r_precision(text, motion, pools))
    return np.mean(tops, axis=0)


def reachable(dataset, seed, repeats):
    """R-precision top-3 of a perfect evaluator, which cannot tell apart the clips of a pool that share the
    drawn caption. Same captions and pools as `mean_r_precision`. -> float
    """
    said, hits = [{caption.text for caption in clip.captions} for clip in dataset.clips], []
    for repeat in range(repeats):
        drawn = [dataset.caption(repeat, i).text for i in range(len(dataset))]
        pools = metrics.draw_pools(len(dataset), counter_rng.rng(Purpose.EVALUATION, seed, repeat))
        for indices, scored in pools:
            alike = [sum(drawn[i] in said[j] for j in indices) for i in indices[:scored]]
            hits += [min(1, metrics.TOP_K / n) for n in alike]
    return float(np.mean(hits))


def validate(model, dataset, batch_size, seed, device):
    """Loss and, from 32 clips on, R-precision of real motion. -> dict"""
    means = RunningMean()
    with inference(model):
        for batch in loader(dataset, batch_size):
            means.add(loss=model.loss(batch.to(device)))
    repeats = 10 if len(dataset) < 500 else 1  # a small set has noisy figures
    top = mean_r_precision(model, dataset, batch_size, seed, device, repeats)
    tops = {} if top is None else {f"top{k}": float(value) for k, value in enumerate(top, start=1)}
    return means.pop() | tops
