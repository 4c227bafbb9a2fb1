"""Ways of taking a training step, for bench_train.py: ours, and MARDM's, whole or in part."""

import copy
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import islice

import numpy as np
import torch
from torch.nn.functional import smooth_l1_loss

import train_AE
import train_MARDM
from benchmarks.bench_generate import awake
from benchmarks.training_reference import (
    average_one_by_one,
    embed,
    plain_products,
    repeat_then_gather_loss,
    text_tower,
)
from models.AE import STRIDE, make_ae
from models.counter_rng import Purpose, sample_keys
from models.MARDM import MARDM_models
from utils.config import TrainingConfig
from utils.data.clips import Caption, Clip
from utils.datasets import Batch, Normalizer, TextMotionSet, WindowSet, loader
from utils.distributed import pool_gradients
from utils.flags import speed_up
from utils.randomness import reseed
from utils.training.train_utils import (
    EMA,
    CodeUsage,
    adamw,
    optimizer_step,
    parameters_of,
    warm_up_then_milestones,
)

DIM, FRAMES, SHORTEST, TEXT = 67, 196, 40, 512
KINDS = {"continuous": ("AE_Model", "MARDM"), "FSQ": ("FSQ_AE_High", "FSQ-MARDM")}
ANOMALY = ", anomaly"


def clips(n, batch, shortest):
    """n clips of noise, the first of every batch as long as can be, each with a caption of its own."""
    rng = np.random.default_rng(0)
    frames = rng.integers(shortest, FRAMES + 1, n)
    frames[::batch] = FRAMES
    return [
        Clip(str(i), rng.standard_normal((T, DIM), dtype=np.float32), (Caption(str(i), ()),))
        for i, T in enumerate(frames)
    ]


@dataclass
class Round:
    """What every mode gets: a batch, and its tokens (latents, targets) for the modes that do not encode."""

    batch: Batch
    tokens: tuple = ()


class Bench:
    """A model, its optimizers, and the modes of its training step: name -> function of a Round."""

    def __init__(self, args, module, dataset, batch_size, device):
        self.args, self.dataset, self.batch_size, self.device = args, dataset, batch_size, device
        self.flags = train_AE.flags().parse_args(["--lr", "1e-6", "--batch_size", str(batch_size)])
        ours = adamw(module, self.flags)
        parents = torch.optim.AdamW(module.parameters(), self.flags.lr, betas=(0.9, 0.99))
        self.fast, self.plain = (
            (o, warm_up_then_milestones(o, TrainingConfig(epoch=1, warm_up_iter=1))) for o in (ours, parents)
        )

    def batches(self):
        return islice(
            loader(self.dataset, self.batch_size, num_workers=self.args.num_workers), self.args.rounds
        )

    def rounds(self):
        return map(self.round, self.batches())

    def round(self, batch):
        return Round(batch)

    def gradient_step(self, loss, count):
        """As utils/training/training_loop.py. loss: the sum [] of `count` entries."""
        optimizer, scheduler = self.fast
        loss.backward()
        pool_gradients(parameters_of(optimizer), count)
        optimizer_step(optimizer, scheduler)
        optimizer.zero_grad(set_to_none=True)

    def plain_step(self, loss):
        """As MARDM: backward, step, schedule."""
        optimizer, scheduler = self.plain
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer_step(optimizer, scheduler)


class AutoencoderBench(Bench):
    """Stage 1: windows."""

    def __init__(self, args, device):
        reseed(0)
        self.ae = make_ae(KINDS[args.kind][0], DIM, args.width).to(device)
        motions = clips(args.rounds * args.ae_batch, args.ae_batch, args.window)
        super().__init__(args, self.ae, WindowSet(motions, identity(), args.window), args.ae_batch, device)
        self.usage = CodeUsage(self.ae.codebook_size or 1)
        self.modes = {"ours": self.ours, "reference": self.reference}
        self.modes["reference, anomaly"] = partial(anomalous, self.reference)

    def ours(self, given):
        frames = int(given.batch.m_lens.sum())
        loss, _ = train_AE.train_step(self.ae, given.batch, self.flags, self.usage)
        self.gradient_step(loss * frames, frames)

    def reference(self, given):
        motion = given.batch.motion.to(self.device)
        recons = self.ae.training_pass(motion)[0]
        self.plain_step(smooth_l1_loss(recons, motion) + smooth_l1_loss(recons[..., 4:], motion[..., 4:]))


class GeneratorBench(Bench):
    """Stage 2: whole clips, each with a text."""

    def __init__(self, args, size, device):
        reseed(0)
        ae_name, family = KINDS[args.kind]
        self.ae = make_ae(ae_name, DIM, args.width).to(device).eval()
        mardm = MARDM_models[f"{family}-SiT-{size}"](
            ae_dim=self.ae.latent_dim, target_dim=self.ae.target_dim, text_dim=TEXT
        )
        self.mardm = awake(mardm).to(device).train()
        n = args.rounds * args.batch
        texts = {str(i): row for i, row in enumerate(torch.randn(n, TEXT))}
        motions = TextMotionSet(clips(n, args.batch, SHORTEST), identity(), texts, FRAMES)
        super().__init__(args, self.mardm, motions, args.batch, device)
        self.average = EMA(self.mardm, 0.9999)
        speed_up(self.mardm, args)
        no_text = partial(self.reference, text=False)
        self.modes = {
            "ours": self.ours,
            "ours, tokens given": partial(self.ours, tokens=True),
            "ours, plain products": plain_products()(self.ours),
            "reference": self.reference,
            "reference, anomaly": partial(anomalous, self.reference),
            "no text": no_text,
            "no text, anomaly": partial(anomalous, no_text),
            "latents given": partial(no_text, tokens=True),
        }

    @cached_property
    def tower(self):
        """The text tower and its average: MARDM averages what is frozen, too."""
        tower = text_tower().to(self.device)
        return tower, copy.deepcopy(tower)

    def round(self, batch):
        there = batch.to(self.device)
        with torch.no_grad():
            return Round(batch, self.ae.tokenize(there.motion, there.m_lens))

    def ours(self, given, tokens=False):
        batch, keys = given.batch, sample_keys(given.batch.index, Purpose.TRAINING, 0)
        self.ae.requires_grad_(False)
        ae = Given(self.ae, given.tokens) if tokens else self.ae
        self.gradient_step(*train_MARDM.masked_loss(self.mardm, ae, batch, keys, FRAMES // STRIDE))
        self.average.update(self.mardm, 10**5)

    @plain_products()
    def reference(self, given, text=True, tokens=False):
        batch, averages, modules = given.batch.to(self.device), [self.average.model], [self.mardm]
        keys = sample_keys(given.batch.index, Purpose.TRAINING, 0).to(self.device)
        self.ae.requires_grad_(True)
        latents, targets = given.tokens if tokens else self.ae.tokenize(batch.motion)
        condition = batch.text
        if text:
            tower, its_average = self.tower
            condition = embed(tower, len(batch))
            averages, modules = [*averages, its_average], [*modules, tower]
        m_lens = batch.m_lens // STRIDE
        loss = repeat_then_gather_loss(self.mardm, latents, targets, condition, m_lens, keys)
        self.plain_step(loss)
        average_one_by_one(averages, modules)


class Given:
    """A tokenizer that has done its work already, as a cache of tokens would have."""

    def __init__(self, ae, tokens):
        self.random_replacements, self.tokens = ae.random_replacements, tokens

    def tokenize(self, motion, m_lens):
        return self.tokens


def identity():
    return Normalizer(np.zeros(DIM), np.ones(DIM))


def anomalous(step, *given, **options):
    with torch.autograd.set_detect_anomaly(True):
        step(*given, **options)
