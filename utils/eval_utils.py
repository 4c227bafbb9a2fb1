"""Evaluation: embeddings and joints of a set of motions, in dataset order, and the `Metrics` of two sets.

Draws do not depend on batch size and order (models/counter_rng.py): the caption of a clip and the noise of a
generated motion follow from (seed, repeat, clip), pools and pairs from (seed, repeat).
B batch, T frames, J joints, N clips of the set, D the evaluator's embedding width.
"""

from dataclasses import asdict, dataclass, field, fields, replace

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch.nn import functional as F
from tqdm import tqdm

from models import counter_rng
from models.AE import STRIDE
from models.counter_rng import Purpose
from models.LengthEstimator import MAX_FRAMES
from utils import distributed, metrics
from utils.config import EvaluationConfig
from utils.data.batches import collate
from utils.datasets import DatasetSpec, TextMotionSet
from utils.evaluation.evaluators import TextMotionEvaluator
from utils.evaluation.motions import Motions, kinematics
from utils.evaluation.physical import energy_distance, path_distances
from utils.motion_process import check_finite, recover_from_ric
from utils.statistics import mean_ci95

MM_CLIPS, MM_REPEATS, MM_PAIRS = 3 * metrics.POOL, 30, 10  # MultiModality: three batches, 30 draws, 10 pairs
NEIGHBOURS = 5  # k of precision, recall, density, coverage (Naeem et al. 2020)
CLUSTER = 25  # clips per cluster of captions, on average
OVER_REPEATS = {"diversity", "multimodality"}  # their intervals are over repeats, all others over clips
SHARES = {"precision", "recall", "coverage"}
SHARES |= {f"{prefix}top{k}" for prefix in ("", "label_") for k in (1, 2, 3)}


@dataclass(frozen=True)
class Metrics:
    """The measures of one evaluation; None: not measured. MPJPE in mm, else m, degrees, m/s, m/s^3."""

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
    precision: float | None = None  # the next four: see `metrics.neighbourhoods`
    recall: float | None = None
    density: float | None = None
    coverage: float | None = None
    fid_content: float | None = None  # mean FID within contents
    physical: float | None = None  # energy distance of physical features within contents
    path_displacement: float | None = None  # m: Wasserstein distance of root paths within contents
    path_turning: float | None = None  # degrees: as above
    path_speed: float | None = None  # m/s: of root speeds, over clips that walk
    n_real: int | None = None
    n_pred: int | None = None

    def as_dict(self):
        return asdict(self)


@dataclass
class EvaluationRun:
    """Evaluates motions made for the captions of a set of clips, against the set's real motions.

    labels: (content, style) per clip, or None. Protocol "parent": random crops, and clips beyond the last
    whole pool are left out, different ones in each repeat.
    """

    evaluator: TextMotionEvaluator | None
    dataset: TextMotionSet
    spec: DatasetSpec
    device: torch.device
    config: EvaluationConfig = EvaluationConfig()
    labels: list | None = None
    _real: tuple = field(default=(None, None), init=False, repr=False)  # (repeat, its Motions)
    _groups: np.ndarray | None = field(default=None, init=False, repr=False)

    def motions(self, produce, repeat=0, desc=None):
        """Motions of all clips, made by `produce(batch, rows)` -> z-normalised motion [B,T,dim]; rows: the
        clips' indices. Clips of similar length share a batch. Each of several processes makes its share of
        the batches, and all processes get all motions.
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
        sums, features = kinematics(joints, self.spec)
        if self.evaluator is None:
            return Motions(torch.zeros(len(motion), 0), None, joints, features, sums)
        embeddings = self.evaluator.embed_motion(rows, m_lens)
        contrast = self.evaluator.contrast_motion(rows, m_lens)
        return Motions(embeddings, contrast, joints, features, sums)

    def real(self, repeat=0):
        """The set's own Motions, kept between calls: only random crops make another repeat differ."""
        repeat = repeat if self.dataset.crop else 0
        if self._real[0] != repeat:
            self._real = repeat, self.motions(lambda batch, rows: batch.motion, repeat)
        return self._real[1]

    def reconstructed(self, ae, repeat=0):
        """Each clip through the autoencoder and back. -> Motions

        Protocol "parent": padded to 196 frames, since without mask_padding, as in MARDM, padding changes a
        clip's reconstruction.
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
        """The captions of this repeat -> their tokens, their texts."""
        chosen = [self.dataset.caption(repeat, i) for i in range(len(self.dataset))]
        return [caption.tokens for caption in chosen], [caption.text for caption in chosen]

    def compare(self, real, pred, repeat=0, paired=False, multimodality=None):
        """Metrics of the Motions `pred` for the captions of `real`. paired: pred[i] reconstructs real[i]
        (adds MPJPE). For the real set itself (pred is real) distances mean nothing and are left out.
        """
        rows, rng = self._rows(repeat)
        values = ratios(self._kinematics(real, pred, paired), rows)
        if pred is not real:
            values |= self._distances(real, pred)(rows)
        fixed = Metrics(**values, multimodality=multimodality, n_real=len(rows), n_pred=len(rows))
        return replace(fixed, **self._repeat_measures(pred, rows, repeat, rng))

    def repeats(self, produce, n, paired=False):
        """Metrics of `produce(repeat)` -> Motions in each of n repeats. -> Scores

        `produce` must not be random except for crops: without crops it is called once, and only what depends
        on the captions, pools and pairs is measured anew in each repeat.
        """
        pred = produce(0)
        first = self.compare(self.real(), pred, paired=paired)
        halves = self.halves(self.real(), pred, paired)
        column = [first]
        for repeat in range(1, n):
            if self.dataset.crop:
                column.append(self.compare(self.real(repeat), produce(repeat), repeat, paired))
            else:
                rows, rng = self._rows(repeat)
                column.append(replace(first, **self._repeat_measures(pred, rows, repeat, rng)))
        return Scores(column, halves)

    def halves(self, real, pred, paired=False):
        """What `compare` measures in repeat 0, without OVER_REPEATS, on random halves of the clips.
        -> {name: values}, the same halves in every evaluation of these clips by this seed

        R-precision has its own pools here. A clip and its mirror image are drawn together.
        """
        kept, rng = self._rows(0)
        if len(kept) < 4:  # too few to halve: the interval over clips is unknown
            return {one.name: () for one in fields(Metrics) if one.name not in OVER_REPEATS}
        sums = self._kinematics(real, pred, paired) | self._caption_matching(pred, kept, 0, rng)
        distances = (lambda rows: {}) if pred is real else self._distances(real, pred)

        def measure(half):
            return ratios(sums, kept[half]) | distances(kept[half])

        rng = counter_rng.rng(Purpose.HALVES, self.config.seed)
        return metrics.over_halves(measure, twins([clip.name for clip in self.dataset.clips])[kept], rng)

    def multimodality(self, mardm, ae, sampling, repeat=0):
        """Spread of 30 motions of one caption, over 96 captions."""
        rng = counter_rng.rng(Purpose.MULTIMODALITY, self.config.seed, repeat)
        n = len(self.dataset)
        chosen = np.sort(rng.permutation(n)[:MM_CLIPS])
        parts = np.split(chosen, range(self.config.batch_size, len(chosen), self.config.batch_size))
        batches = [collate([self.dataset[(repeat, int(i))] for i in part]).to(self.device) for part in parts]

        def embedded(part, batch, draw):
            # keys beyond those of `generated`, whatever the number of repeats
            keys = [(10**6 + repeat * MM_REPEATS + draw) * n + int(i) for i in part]
            motion = generate(mardm, ae, batch.text, batch.m_lens, sampling, keys)
            return self.evaluator.embed_motion(self.dataset.normalizer.inverse(motion), batch.m_lens)

        draws = tqdm(range(MM_REPEATS), desc="multimodality", unit="draw", leave=False)
        embeddings = [torch.cat([embedded(*one, draw) for one in zip(parts, batches)]) for draw in draws]
        pairs = metrics.draw_pairs(MM_REPEATS, MM_PAIRS, rng)
        return metrics.multimodality(torch.stack(embeddings, dim=1), *pairs)

    def _rows(self, repeat):
        """-> indices of the clips that count (protocol "parent": not all), this repeat's random generator."""
        rng, n = counter_rng.rng(Purpose.EVALUATION, self.config.seed, repeat), len(self.dataset)
        kept = n - n % metrics.POOL if self.config.protocol == "parent" else n
        return (np.arange(n) if kept == n else np.sort(rng.permutation(n)[:kept])), rng

    def _kinematics(self, real, pred, paired):
        """Per-clip (numerator, denominator) [N,2] of the measures that need no evaluator."""
        sums = dict(pred.sums)
        if paired:
            for name, root in (("mpjpe", 0), ("mpjpe_global", None)):
                pairs = zip(pred.joints, real.joints, strict=True)
                errors = np.array([metrics.pose_error_sums(p, r, root) for p, r in pairs])
                sums[name] = errors * [1000, 1]  # mm
        return sums

    def _distances(self, real, pred):
        """-> a function of rows that gives the distances between real[rows] and pred[rows] -> dict."""
        x, y = real.embeddings, pred.embeddings
        apart = [metrics.distances(*pair) for pair in ((x, y), (x, x), (y, y))]
        large = metrics.large_groups(self.groups())

        def of_rows(rows):
            groups, n = self.groups()[rows], len(rows)
            values = path_distances(real.features[rows], pred.features[rows], groups)
            values["physical"] = energy_distance(real.features[rows], pred.features[rows], groups)
            if self.evaluator is None or n < 2:
                return values
            values |= {"fid": metrics.fid(x[rows], y[rows]), "kid": metrics.kid(x[rows], y[rows])}
            if n > NEIGHBOURS:
                values |= metrics.neighbourhoods(*(d[rows][:, rows] for d in apart), NEIGHBOURS)
            if self.labels is not None:
                values["fid_content"] = metrics.fid_within(x[rows], y[rows], groups, large)
            return values

        return of_rows

    def groups(self):
        """Group of each clip [N]: its content; without labels a cluster of captions of repeat 0.

        Not content and style: takes of one session are so alike (on BandaiNamco 8 mm at the ankles) that
        another session with the same labels would count as a defect.
        """
        if self._groups is None:
            if self.labels is not None:
                contents = [content for content, _ in self.labels]
                self._groups = np.unique(contents, return_inverse=True)[1]
            elif self.evaluator is not None:
                text = np.float64(self.evaluator.embed_text(*self.captions()))
                clusters = min(max(len(text) // CLUSTER, 1), len(np.unique(text, axis=0)))
                self._groups = kmeans2(text, clusters, minit="++", seed=self.config.seed)[1]
            else:
                self._groups = np.zeros(len(self.dataset), dtype=int)
        return self._groups

    def _repeat_measures(self, pred, rows, repeat, rng):
        """The measures that depend on the captions, pools and pairs of a repeat."""
        values, n = {}, len(rows)
        if self.evaluator is not None and n > 1:
            pairs = metrics.draw_pairs(n, metrics.diversity_pairs(n), rng)
            values["diversity"] = metrics.diversity(pred.embeddings[rows], *pairs)
        return values | ratios(self._caption_matching(pred, rows, repeat, rng), rows)

    def _caption_matching(self, pred, rows, repeat, rng):
        """Per-clip (numerator, denominator) [N,2] of how well each motion matches its caption. -> dict"""
        if self.evaluator is None:
            return {}
        tokens, texts = self.captions(repeat)
        text, contrast = self.evaluator.embed_text(tokens, texts), self.evaluator.contrast_text(texts)
        values = {"matching": metrics.matching(text, pred.embeddings)}
        if contrast is not None:
            values["clip_score"] = (contrast * pred.contrast).sum(dim=1).numpy()
        if len(rows) >= metrics.POOL:
            pools = metrics.draw_pools(len(rows), rng, self.config.protocol)
            pools = [(rows[indices], n_scored) for indices, n_scored in pools]
            values |= columns("top", metrics.retrieval_hits(text, pred.embeddings, pools))
            if self.labels is not None:
                labels = ["/".join(label) for label in self.labels]
                hits = metrics.retrieval_hits(text, pred.embeddings, pools, labels)
                values |= columns("label_top", hits)
        return {name: np.stack([x, np.ones(len(x))], axis=1) for name, x in values.items()}


def twins(names):
    """A number for each clip [N]; a mirror image (M<name>) has that of its original, if both are there."""
    number = {name: i for i, name in enumerate(names)}
    originals = (name[1:] if name.startswith("M") and name[1:] in number else name for name in names)
    return np.array([number[name] for name in originals])


def ratios(sums, rows):
    """{name: per-clip (numerator, denominator) [N,2]} -> {name: ratio of the totals over `rows`}"""
    return {name: metrics.ratio(x[rows]) for name, x in sums.items()}


def columns(prefix, hits):
    """[N,k] -> {prefix1: [N], ...}"""
    return {f"{prefix}{k}": column for k, column in enumerate(hits.T, start=1)}


def generate(mardm, ae, text, m_lens, sampling, keys):
    """A text (models/words.py), m_lens [B] frames, keys [B] -> z-normalised motion [B,T,dim]."""
    targets = mardm.generate(ae, text, m_lens // STRIDE, sampling, keys)
    return ae.detokenize(targets, m_lens, snap=sampling.snap != "off")


@dataclass
class Scores:
    """The Metrics of each repeat, and those of the first on halves of the clips."""

    repeats: list  # of Metrics
    halves: dict = field(default_factory=dict)  # name -> values

    def interval(self):
        """{name: (mean, half width)}; half widths over clips if known, else over repeats. NaN for a single
        repeat, and for a share below 1 whose halves are all alike: they don't tell how uncertain it is.
        """
        result = {}
        for name, (mean, half) in interval(self.repeats).items():
            half = metrics.half_width(self.halves[name]) if name in self.halves else half
            silent = name in SHARES and half == 0 and 0 < mean < 1
            result[name] = mean, np.nan if silent else half
        return result


def interval(repeats):
    """List of Metrics -> {name: (mean, half width of its 95% interval by Student's t; NaN for one repeat)}.

    What no repeat measured is left out.
    """
    values = {
        name: [getattr(one, name) for one in repeats if getattr(one, name) is not None]
        for name in (entry.name for entry in fields(Metrics))
    }
    return {name: mean_ci95(measured) for name, measured in values.items() if measured}
