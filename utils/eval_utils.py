"""Evaluator embeddings and joint positions of a set, in dataset order, and the `Metrics` of two sets.

Randomness is addressed. The caption of a clip follows from (seed, repeat, clip), pools and pairs from (seed,
repeat), a generated motion's noise from (seed, repeat, clip): batch size and order change nothing.
B batch, T frames, J joints, N clips of the set, D the evaluator's embedding width.
"""

from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from utils import distributed, metrics
from utils.config import EvaluationConfig
from utils.data.clips import UNIT
from utils.datasets import DatasetSpec, TextMotionSet, collate
from utils.evaluation.evaluators import MAX_FRAMES, TextMotionEvaluator
from utils.motion_process import check_finite, recover_from_ric
from utils.statistics import student

MM_CLIPS, MM_REPEATS, MM_PAIRS = 3 * metrics.POOL, 30, 10  # MultiModality: three batches, 30 draws, 10 pairs
KID_BELOW = 5  # FID is biased where n < 5 D: read KID beside it


@dataclass(frozen=True)
class Metrics:
    """The measures of one evaluation; None: not measured. Lengths in mm, jitter in m/s^3, speed in m/s."""

    fid: float | None = None
    kid: float | None = None
    top1: float | None = None
    top2: float | None = None
    top3: float | None = None
    matching: float | None = None
    diversity: float | None = None
    multimodality: float | None = None
    clip_score: float | None = None
    mpjpe: float | None = None
    mpjpe_global: float | None = None
    foot_skate: float | None = None
    jitter: float | None = None
    root_speed: float | None = None
    label_top1: float | None = None  # a hit is any motion of the caption's own label
    label_top2: float | None = None
    label_top3: float | None = None
    n_real: int | None = None
    n_pred: int | None = None

    def as_dict(self):
        return asdict(self)


@dataclass
class Motions:
    """A set of motions, in the order of the data set."""

    embeddings: torch.Tensor  # [N,D]
    contrast: torch.Tensor | None  # [N,512]
    joints: list  # N of [n,J,3] metres

    def take(self, rows):
        """The motions of these rows."""
        contrast = None if self.contrast is None else self.contrast[rows]
        return Motions(self.embeddings[rows], contrast, [self.joints[row] for row in rows])

    @classmethod
    def concatenate(cls, parts):
        contrast = None if parts[0].contrast is None else torch.cat([part.contrast for part in parts])
        joints = [clip for part in parts for clip in part.joints]
        return cls(torch.cat([part.embeddings for part in parts]), contrast, joints)


@dataclass
class EvaluationRun:
    """An evaluator, the set of clips that are asked for, and the rules.

    labels: (content, style) per clip, or None. Protocol "parent": random crops, and clips beyond the last
    whole pool are left out, others at each repeat.
    """

    evaluator: TextMotionEvaluator | None
    dataset: TextMotionSet
    spec: DatasetSpec
    device: torch.device
    config: EvaluationConfig = EvaluationConfig()
    labels: list | None = None
    _real: tuple = field(default=(None, None), repr=False)  # (repeat, its Motions)

    def motions(self, produce, repeat=0, desc=None):
        """What `produce(batch, rows)` -> z-normalised motion [B,T,dim] makes of every clip. -> Motions

        Clips of like length share a batch. Of several processes each makes its share of the batches, and all
        get all motions.
        """
        samples = [self.dataset[(repeat, i)] for i in range(len(self.dataset))]
        order = np.argsort([len(sample[0]) for sample in samples], kind="stable")
        size = self.config.batch_size
        batches = np.split(order, range(size, len(order), size))[distributed.shard()]
        made, hidden = [], desc is None or distributed.rank() > 0
        with tqdm(total=sum(map(len, batches)), desc=desc, unit="clip", leave=False, disable=hidden) as bar:
            for rows in batches:
                batch = collate([samples[i] for i in rows]).to(self.device)
                made.append((rows, self.to_motions(produce(batch, rows), batch.m_lens)))
                bar.update(len(rows))
        rows, made = zip(*distributed.all_gather(made))
        return Motions.concatenate(made).take(np.argsort(np.concatenate(rows)))

    def to_motions(self, motion, m_lens):
        """z-normalised motion [B,T,dim], m_lens [B] -> Motions."""
        rows = check_finite(self.dataset.normalizer.inverse(motion))
        joints = recover_from_ric(rows, len(self.spec.skeleton)) * self.spec.skeleton.unit_m
        joints = [one[:n] for one, n in zip(joints.cpu().numpy(), m_lens.tolist())]
        if self.evaluator is None:
            return Motions(torch.zeros(len(motion), 0), None, joints)
        embeddings = self.evaluator.embed_motion(rows, m_lens)
        return Motions(embeddings, self.evaluator.contrast_motion(rows, m_lens), joints)

    def real(self, repeat=0):
        """The set's own motions, embedded once: only random crops make another repeat differ. -> Motions"""
        repeat = repeat if self.dataset.crop else 0
        if self._real[0] != repeat:
            self._real = repeat, self.motions(lambda batch, rows: batch.motion, repeat)
        return self._real[1]

    def reconstructed(self, ae, repeat=0):
        """Each clip through the autoencoder and back. -> Motions

        Protocol "parent": padded to 196 frames, since an autoencoder that pads as MARDM's lets a clip's
        padding change it.
        """

        def produce(batch, rows):
            frames = batch.motion.shape[1]
            room = max(MAX_FRAMES - frames, 0) if self.config.protocol == "parent" else 0
            return ae(F.pad(batch.motion, (0, 0, 0, room)), batch.m_lens)[:, :frames]

        return self.motions(produce, repeat, desc="reconstruct")

    def generated(self, mardm, ae, sampling, repeat=0):
        """A motion for each caption of this repeat, of the real clip's length. -> Motions"""
        n = len(self.dataset)

        def produce(batch, rows):
            keys = [repeat * n + int(row) for row in rows]
            return generate(mardm, ae, batch.text, batch.m_lens, sampling, keys)

        return self.motions(produce, repeat, desc=f"generate {repeat + 1}")

    def captions(self, repeat=0):
        """The captions of this repeat as the evaluator reads them -> [N,D], [N,512] or None."""
        chosen = [self.dataset[(repeat, i)][2] for i in range(len(self.dataset))]
        tokens, texts = [caption.tokens for caption in chosen], [caption.text for caption in chosen]
        return self.evaluator.embed_text(tokens), self.evaluator.contrast_text(texts)

    def compare(self, real, pred, repeat=0, paired=False, multimodality=None):
        """Metrics of the Motions `pred` in answer to the captions of `real`. paired: pred[i] is to equal
        real[i] (MPJPE). Of the real set itself (pred is real) FID and KID would say nothing and are left out.
        """
        rows, rng = self._rows(repeat)
        values = self._kinematics(real.take(rows), pred.take(rows), paired)
        if self.evaluator is not None and pred is not real:
            values |= self._distances(real.embeddings[rows], pred.embeddings[rows])
        fixed = Metrics(**values, multimodality=multimodality, n_real=len(rows), n_pred=len(rows))
        return replace(fixed, **self._drawn(pred.take(rows), rows, repeat, rng))

    def repeats(self, produce, n, paired=False):
        """Metrics of n repeats of `produce(repeat)` -> Motions, which draws nothing but crops.

        What depends on the motions alone is computed once where there are no crops; captions, pools and pairs
        are drawn at each repeat.
        """
        pred = produce(0)
        first = self.compare(self.real(), pred, paired=paired)
        column = [first]
        for repeat in range(1, n):
            if self.dataset.crop:
                column.append(self.compare(self.real(repeat), produce(repeat), repeat, paired))
            else:
                rows, rng = self._rows(repeat)
                column.append(replace(first, **self._drawn(pred.take(rows), rows, repeat, rng)))
        return column

    def multimodality(self, mardm, ae, sampling, repeat=0):
        """Spread of 30 motions of one caption, over 96 captions."""
        rng = np.random.default_rng((self.config.seed, repeat, 2))
        n = len(self.dataset)
        chosen = np.sort(rng.permutation(n)[:MM_CLIPS])
        batch = collate([self.dataset[(repeat, int(i))] for i in chosen]).to(self.device)
        embeddings = []
        for draw in tqdm(range(MM_REPEATS), desc="multimodality", unit="draw", leave=False):
            # keys beyond those of `generated`, whatever the number of repeats
            keys = [(10**6 + repeat * MM_REPEATS + draw) * n + int(i) for i in chosen]
            motion = generate(mardm, ae, batch.text, batch.m_lens, sampling, keys)
            rows = self.dataset.normalizer.inverse(motion)
            embeddings.append(self.evaluator.embed_motion(rows, batch.m_lens))
        pairs = metrics.draw_pairs(MM_REPEATS, MM_PAIRS, rng)
        return metrics.multimodality(torch.stack(embeddings, dim=1), *pairs)

    def _rows(self, repeat):
        """The rows that count, all of them but under MARDM's protocol, and this repeat's generator."""
        rng, n = np.random.default_rng((self.config.seed, repeat, 1)), len(self.dataset)
        kept = n - n % metrics.POOL if self.config.protocol == "parent" else n
        return (np.arange(n) if kept == n else np.sort(rng.permutation(n)[:kept])), rng

    def _kinematics(self, real, pred, paired):
        """What needs no evaluator: joints [n,J,3] in metres."""
        skeleton, fps = self.spec.skeleton, self.spec.fps
        values = {
            "foot_skate": metrics.foot_skate(pred.joints, skeleton.feet, fps),
            "jitter": metrics.jitter(pred.joints, fps),
            "root_speed": metrics.root_speed(pred.joints, fps),
        }
        if paired:
            values["mpjpe"] = 1000 * metrics.mpjpe(pred.joints, real.joints)
            values["mpjpe_global"] = 1000 * metrics.mpjpe(pred.joints, real.joints, root=None)
        return values

    def _distances(self, real, pred):
        """Of embeddings [N,D]."""
        if len(pred) < 2:
            return {}
        values = {"fid": metrics.fid(real, pred)}
        if len(pred) < KID_BELOW * self.evaluator.width:
            values["kid"] = metrics.kid(real, pred)
        return values

    def _drawn(self, pred, rows, repeat, rng):
        """What depends on the captions, pools and pairs of a repeat."""
        values, n = {}, len(rows)
        if self.evaluator is None:
            return values
        if n > 1:
            pairs = metrics.draw_pairs(n, metrics.diversity_pairs(n), rng)
            values["diversity"] = metrics.diversity(pred.embeddings, *pairs)
        text, contrast = (x if x is None else x[rows] for x in self.captions(repeat))
        values["matching"] = metrics.matching_score(text, pred.embeddings)
        if contrast is not None:
            values["clip_score"] = float((contrast * pred.contrast).sum(dim=1).mean())
        if n >= metrics.POOL:
            pools = metrics.draw_pools(n, rng, self.config.protocol)
            values |= metrics.named("top", metrics.r_precision(text, pred.embeddings, pools))
            if self.labels is not None:
                labels = ["/".join(self.labels[row]) for row in rows]
                values |= metrics.named(
                    "label_top", metrics.r_precision(text, pred.embeddings, pools, labels)
                )
        return values


def generate(mardm, ae, text, m_lens, sampling, keys):
    """text [B,E], m_lens [B] frames -> z-normalised motion [B,T,dim]."""
    targets = mardm.generate(ae, text, m_lens // UNIT, sampling, keys)
    return ae.detokenize(targets, m_lens, snap=sampling.snap != "off")


def interval(repeats):
    """list of Metrics -> name -> (mean, half width of the 95% interval of the mean; NaN for one repeat).

    Student's t. What no repeat measured is left out.
    """
    intervals = {}
    for name in (entry.name for entry in fields(Metrics)):
        values = [x for x in (getattr(one, name) for one in repeats) if x is not None]
        if values:
            intervals[name] = student(values)
    return intervals
