"""One evaluation: motions go past the evaluator once, every clip counts -> `Metrics`; the interval over repeats.

Draws have addresses. The caption of a clip follows from (seed, repeat, clip), pools and pairs from (seed,
repeat), a generated motion's noise from (seed, repeat, clip): batch size and order change nothing.
B batch, T frames, J joints, N clips of the set, D the evaluator's embedding width.
"""

from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
from torch.nn import functional as F
from tqdm import tqdm

from utils import distributed, metrics
from utils.data.clips import UNIT
from utils.datasets import DatasetSpec, Normalizer, TextMotionSet, collate
from utils.evaluation.evaluators import MAX_FRAMES, TextMotionEvaluator
from utils.motion_process import check_finite, recover_from_ric
from utils.statistics import student

MM_CLIPS, MM_REPEATS, MM_PAIRS = 3 * metrics.POOL, 30, 10  # MultiModality: three batches, 30 draws, 10 pairs
KID_BELOW = 5  # FID is biased where n < 5 D: read KID beside it


@dataclass(frozen=True)
class Metrics:
    """What one evaluation found; None where it was not measured. Lengths in mm, jitter in m/s^3."""

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
    root_speed: float | None = None  # m/s
    label_top1: float | None = None  # a motion of the same label counts as found
    label_top2: float | None = None
    label_top3: float | None = None
    n_real: int | None = None
    n_pred: int | None = None

    def as_dict(self):
        return asdict(self)


@dataclass
class Motions:
    """A set of motions as the evaluator and the ruler see them, in the order of the data set."""

    embeddings: torch.Tensor  # [N,D]
    contrast: torch.Tensor | None  # [N,512]
    joints: list  # N of [n,J,3] metres

    def take(self, rows):
        """The motions of these rows."""
        contrast = None if self.contrast is None else self.contrast[rows]
        return Motions(self.embeddings[rows], contrast, [self.joints[row] for row in rows])


@dataclass
class EvaluationRun:
    """An evaluator, the set it examines on, and the rules.

    labels: one per clip, or None. protocol "parent": clips beyond the last whole pool are left out, others
    at each repeat.
    """

    evaluator: TextMotionEvaluator | None
    dataset: TextMotionSet
    normalizer: Normalizer  # the one that `dataset` was normalised with
    spec: DatasetSpec
    device: torch.device
    labels: list | None = None
    protocol: str = "full"
    seed: int = 3407
    batch_size: int = 64

    def motions(self, produce, repeat=0, desc=None):
        """What `produce(batch, rows)` -> z-normalised motion [B,T,dim] makes of every clip. -> Motions

        Clips of like length share a batch. Of several processes each makes its share of the batches, and all
        get all motions.
        """
        samples = [self.dataset[(repeat, i)] for i in range(len(self.dataset))]
        order = np.argsort([len(sample[0]) for sample in samples], kind="stable")
        batches = np.split(order, range(self.batch_size, len(order), self.batch_size))[distributed.shard()]
        micro_batches, quiet = [], desc is None or distributed.rank() > 0
        with tqdm(total=sum(map(len, batches)), desc=desc, unit="clip", leave=False, disable=quiet) as bar:
            for rows in batches:
                batch = collate([samples[i] for i in rows]).to(self.device)
                micro_batches.append((rows, self.seen(produce(batch, rows), batch.m_lens)))
                bar.update(len(rows))
        places, micro_batches = zip(*distributed.all_gather(micro_batches))
        return joined(micro_batches).take(np.argsort(np.concatenate(places)))

    def seen(self, motion, m_lens):
        """z-normalised motion [B,T,dim], m_lens [B] -> Motions."""
        rows = check_finite(self.normalizer.inverse(motion))
        joints = recover_from_ric(rows, len(self.spec.skeleton)) * self.spec.skeleton.unit_m
        joints = [one[:n] for one, n in zip(joints.cpu().numpy(), m_lens.tolist())]
        if self.evaluator is None:
            return Motions(torch.zeros(len(motion), 0), None, joints)
        embeddings = self.evaluator.embed_motion(rows, m_lens)
        return Motions(embeddings, self.evaluator.contrast_motion(rows, m_lens), joints)

    def real(self, repeat=0):
        """The set's own motions."""
        return self.motions(lambda batch, rows: batch.motion, repeat)

    def reconstructed(self, ae, repeat=0):
        """Each clip through the autoencoder and back.

        protocol "parent": padded to 196 frames, as MARDM does it. An autoencoder that pads as the
        parent's lets a clip's padding change it.
        """

        def produce(batch, rows):
            frames = batch.motion.shape[1]
            room = max(MAX_FRAMES - frames, 0) if self.protocol == "parent" else 0
            return ae(F.pad(batch.motion, (0, 0, 0, room)), batch.m_lens)[:, :frames]

        return self.motions(produce, repeat, desc="reconstruct")

    def generated(self, mardm, ae, sampling, repeat=0):
        """A motion for each caption of this repeat, of the real clip's length."""
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

    def compare(self, real, pred, repeat=0, paired=False, against_itself=False, multimodality=None):
        """Metrics of the Motions `pred` against `real`. paired: pred[i] is to be real[i] (MPJPE).

        against_itself: pred is the real set, so its FID and KID would say nothing.
        """
        rng = np.random.default_rng((self.seed, repeat, 1))
        rows = self._kept(rng)
        real, pred = real.take(rows), pred.take(rows)
        found = self._kinematics(real, pred, paired)
        if self.evaluator is not None:
            found |= self._distances(real.embeddings, pred.embeddings, rng, against_itself)
            found |= self._retrieval(pred, rows, repeat, rng)
        return Metrics(**found, multimodality=multimodality, n_real=len(rows), n_pred=len(rows))

    def multimodality(self, mardm, ae, sampling, repeat=0):
        """Spread of 30 motions of one caption, over 96 captions."""
        rng = np.random.default_rng((self.seed, repeat, 2))
        n = len(self.dataset)
        chosen = np.sort(rng.permutation(n)[:MM_CLIPS])
        batch = collate([self.dataset[(repeat, int(i))] for i in chosen]).to(self.device)
        draws = []
        for draw in tqdm(range(MM_REPEATS), desc="multimodality", unit="draw", leave=False):
            # keys beyond those of `generated`, whatever the number of repeats
            keys = [(10**6 + repeat * MM_REPEATS + draw) * n + int(i) for i in chosen]
            motion = generate(mardm, ae, batch.text, batch.m_lens, sampling, keys)
            draws.append(self.evaluator.embed_motion(self.normalizer.inverse(motion), batch.m_lens))
        return metrics.multimodality(
            torch.stack(draws, dim=1), *metrics.draw_pairs(MM_REPEATS, MM_PAIRS, rng)
        )

    def _kept(self, rng):
        """The rows that count, all of them but under MARDM's protocol."""
        n = len(self.dataset)
        kept = n - n % metrics.POOL if self.protocol == "parent" else n
        return np.arange(n) if kept == n else np.sort(rng.permutation(n)[:kept])

    def _kinematics(self, real, pred, paired):
        """What needs no evaluator: joints [n,J,3] in metres."""
        skeleton, fps = self.spec.skeleton, self.spec.fps
        found = {
            "foot_skate": metrics.foot_skate(pred.joints, skeleton.feet, fps),
            "jitter": metrics.jitter(pred.joints, fps),
            "root_speed": metrics.root_speed(pred.joints, fps),
        }
        if paired:
            found["mpjpe"] = 1000 * metrics.mpjpe(pred.joints, real.joints)
            found["mpjpe_global"] = 1000 * metrics.mpjpe(pred.joints, real.joints, root=None)
        return found

    def _distances(self, real, pred, rng, against_itself):
        found, n = {}, len(pred)
        if n > 1 and not against_itself:
            found["fid"] = metrics.fid(real, pred)
            if n < KID_BELOW * self.evaluator.width:
                found["kid"] = metrics.kid(real, pred)
        if n > 1:
            pairs = metrics.draw_pairs(n, metrics.diversity_pairs(n), rng)
            found["diversity"] = metrics.diversity(pred, *pairs)
        return found

    def _retrieval(self, pred, rows, repeat, rng):
        text, contrast = (x if x is None else x[rows] for x in self.captions(repeat))
        found = {"matching": metrics.matching_score(text, pred.embeddings)}
        if contrast is not None:
            found["clip_score"] = float((contrast * pred.contrast).sum(dim=1).mean())
        if len(rows) >= metrics.POOL:
            pools = metrics.draw_pools(len(rows), rng, self.protocol)
            found |= named("top", metrics.r_precision(text, pred.embeddings, pools))
            if self.labels is not None:
                labels = [self.labels[row] for row in rows]
                found |= named("label_top", metrics.r_precision(text, pred.embeddings, pools, labels))
        return found


def generate(mardm, ae, text, m_lens, sampling, keys):
    """text [B,E], m_lens [B] frames -> z-normalised motion [B,T,dim]."""
    targets = mardm.generate(ae, text, m_lens // UNIT, sampling, keys)
    return ae.detokenize(targets, m_lens, snap=sampling.snap != "off")


def named(prefix, values):
    return {f"{prefix}{k}": float(value) for k, value in enumerate(values, start=1)}


def joined(micro_batches):
    contrast = (
        None if micro_batches[0].contrast is None else torch.cat([piece.contrast for piece in micro_batches])
    )
    joints = [one for piece in micro_batches for one in piece.joints]
    return Motions(torch.cat([piece.embeddings for piece in micro_batches]), contrast, joints)


def evaluate_reconstruction(ae, evaluator, dataset, normalizer, spec, device, repeat=0):
    """One pass of an autoencoder over a TextMotionSet. The modules are in eval mode. -> Metrics"""
    evaluation = EvaluationRun(evaluator, dataset, normalizer, spec, device)
    return evaluation.compare(
        evaluation.real(repeat), evaluation.reconstructed(ae, repeat), repeat, paired=True
    )


def evaluate_generation(mardm, ae, evaluator, dataset, normalizer, spec, sampling, device, repeat=0):
    """A motion per clip of a TextMotionSet with embeddings, against the real ones. -> Metrics"""
    evaluation = EvaluationRun(evaluator, dataset, normalizer, spec, device, seed=sampling.seed)
    return evaluation.compare(
        evaluation.real(repeat), evaluation.generated(mardm, ae, sampling, repeat), repeat
    )


def interval(repeats):
    """list of Metrics -> name -> (mean, half width of the 95% interval of the mean; NaN for one repeat).

    Student's t. What no repeat measured is left out.
    """
    found = {}
    for name in (field.name for field in fields(Metrics)):
        values = [x for x in (getattr(one, name) for one in repeats) if x is not None]
        if values:
            found[name] = student(values)
    return found
