"""Motion-generation metrics as pure functions of arrays.

Embeddings are rows [N,D], joints [T,J,3]. All sums are computed in float64 on the CPU. Random choices come
from a `numpy.random.Generator`, or as indices, that the caller passes.
"""

import math
from itertools import chain

import numpy as np
import torch

POOL = 32  # captions are ranked among 32 motions (Guo et al., CVPR 2022)
TOP_K = 3
# An evaluator is good enough if real test motion reaches this share of the best possible R-precision top-3,
# which is below 1 if several clips of a pool have the same caption (made from labels, say). Chance: 3/32.
EVALUATOR_BAR = 0.75


def _rows(x):
    return torch.as_tensor(x).detach().cpu().to(torch.float64)


def fid(real, pred):
    """Frechet distance between two Gaussians fitted to real [N1,D] and pred [N2,D] (Heusel et al. 2017).

    |mu1 - mu2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2). With C = A^T A, A = (X - mu) / sqrt(N - 1), the last
    trace is the nuclear norm of A1 A2^T: real and finite also for N < D, and there is no matrix root to take.
    """
    means, factors, traces = [], [], []
    for x in (_rows(real), _rows(pred)):
        if len(x) < 2:
            raise ValueError(f"FID needs at least 2 rows, got {len(x)}")
        centred = (x - x.mean(dim=0)) / (len(x) - 1) ** 0.5
        means.append(x.mean(dim=0))
        traces.append(centred.square().sum())
        factors.append(torch.linalg.qr(centred).R)  # A = Q R: Q changes no singular value; [min(N,D),D]
    cross = torch.linalg.svdvals(factors[0] @ factors[1].T).sum()
    return float((means[0] - means[1]).square().sum() + traces[0] + traces[1] - 2 * cross)


def kid(real, pred):
    """Unbiased squared MMD with the kernel (x y / D + 1)^3 (Binkowski et al. 2018), over all rows.

    Its expectation does not depend on N, while that of FID does: use it where N < 5 D. Unbiased, so it may be
    negative. If both sets have the same size (paired by caption), the i = j terms between them are left out
    as well (Gretton et al. 2012, eq. 4).
    """
    x, y = _rows(real), _rows(pred)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"KID needs at least 2 rows a side, got {len(x)} and {len(y)}")

    def kernel(a, b):
        return (a @ b.T / a.shape[1] + 1) ** 3

    def mean_off_diagonal(k):
        return (k.sum() - k.trace()) / (len(k) * (len(k) - 1))

    within = mean_off_diagonal(kernel(x, x)) + mean_off_diagonal(kernel(y, y))
    between = mean_off_diagonal(kernel(x, y)) if len(x) == len(y) else kernel(x, y).mean()
    return float(within - 2 * between)


def neighbourhoods(between, within_real, within_pred, k=5):
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020). -> dict

    between: `distances` of N real rows to M predicted ones [N,M]; within_real [N,N], within_pred [M,M]; N and
    M > k. The ball around a row is open and reaches to its k-th nearest neighbour in its own set, as in
    Naeem's program (Kynkaanniemi's is closed, which differs where more than k rows are equal).
    precision: share of pred in some real ball; recall: share of real in some predicted ball; density: mean
    number of real balls that hold a pred, over k (may exceed 1); coverage: share of real balls that hold one.
    """
    inside_real = between < _radius(within_real, k)[:, None]  # [N,M]
    inside_pred = between < _radius(within_pred, k)[None]
    return {
        "precision": float(inside_real.any(dim=0).double().mean()),
        "recall": float(inside_pred.any(dim=1).double().mean()),
        "density": float(inside_real.sum(dim=0).double().mean() / k),
        "coverage": float(inside_real.any(dim=1).double().mean()),
    }


def _radius(within, k):
    return within.kthvalue(k + 1, dim=1).values  # the first is the row itself


def large_groups(groups, least=20):
    """The groups with at least `least` rows, in order; groups [N]: the group of each row."""
    names, counts = np.unique(groups, return_counts=True)
    return names[counts >= least]


def fid_within(real, pred, groups, chosen):
    """Mean FID within groups, weighted by their clips; None without a group, or if one has a single clip.

    groups [N]: the group of each row; chosen: the groups to measure, chosen on the whole set for halves too.
    """
    members = [np.flatnonzero(groups == name) for name in chosen]
    if not members or min(map(len, members)) < 2:
        return None
    return float(np.average([fid(real[m], pred[m]) for m in members], weights=[len(m) for m in members]))


def over_halves(measure, units, rng, draws=40):
    """Each measure on random halves of the clips -> {name: float64 [draws]}; NaN where a half cannot tell.

    measure(rows) -> dict of numbers; None for what these rows cannot measure (of a small group, say).
    units [N]: clips with the same number are drawn together (a clip and its mirror image are not two
    observations). Equal units and rng give equal halves: so two evaluations can be compared half by half.
    """
    names = np.unique(units)
    halves = (rng.permutation(names)[: len(names) // 2] for _ in range(draws))
    values = [measure(np.flatnonzero(np.isin(units, half))) for half in halves]
    measures = dict.fromkeys(chain(*values))
    return {name: np.array([x.get(name) for x in values], dtype=float) for name in measures}


def half_width(values):
    """95% half width over clips of a measure, from its values on halves of them; NaN if one is missing.

    1.96 standard deviations: for a measure close to a mean, halves drawn without replacement vary as much as
    new samples of N (delete-half jackknife, Shao & Wu 1989). FID, KID and the energy distance of similar sets
    are quadratic: their halves vary up to twice as much, so the interval is too wide, not too narrow. A
    bootstrap's duplicates would inflate FID and shrink the distances to neighbours.
    """
    return 1.96 * float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def distances(a, b):
    """Euclidean distances [N,M] of rows a [N,D], b [M,D], by differences: |a|^2 + |b|^2 - 2ab can be < 0."""
    return torch.cdist(_rows(a), _rows(b), compute_mode="donot_use_mm_for_euclid_dist")


def draw_pools(n, rng=None, protocol="full"):
    """Pools for R-precision: list of (indices [32], how many of them, from the front, are scored).

    The order is shuffled by rng (None: as it is). Every pool is full: the last one is filled up with clips
    that are scored in another. Protocol "parent" drops the remainder instead.
    """
    if n < POOL:
        raise ValueError(f"R-precision ranks among {POOL} clips, there are {n}")
    order = np.arange(n) if rng is None else rng.permutation(n)
    whole = n - n % POOL
    pools = [(order[start : start + POOL], POOL) for start in range(0, whole, POOL)]
    rest = order[whole:]
    if len(rest) and protocol == "full":
        others = order[:whole] if rng is None else rng.permutation(order[:whole])
        pools.append((np.concatenate([rest, others[: POOL - len(rest)]]), len(rest)))
    return pools


def r_precision(text, motion, pools, labels=None):
    """Share of captions whose motion is among the k nearest of its pool -> [TOP_K]; see `retrieval_hits`."""
    return np.nanmean(retrieval_hits(text, motion, pools, labels), axis=0)


def retrieval_hits(text, motion, pools, labels=None):
    """Is a caption's motion among the k nearest of its pool? -> [N,TOP_K], NaN for captions in no pool.

    text, motion [N,D] paired. With labels [N] any motion with the caption's label is a hit. Ties count by
    their expectation over random orders, so collapsed embeddings score at chance level.
    """
    labels = np.arange(len(text)) if labels is None else np.unique(np.asarray(labels), return_inverse=True)[1]
    labels = torch.as_tensor(labels)
    hits = torch.full((len(text), TOP_K), torch.nan, dtype=torch.float64)
    for indices, n_scored in pools:
        indices = torch.as_tensor(indices)
        asked = indices[:n_scored]
        wanted = labels[asked, None] == labels[indices]
        hits[asked] = _hits(distances(text[asked], motion[indices]), wanted)
    return hits.numpy()


def _hits(distance, wanted):
    """distance, wanted [Q,P] -> [Q,TOP_K]: probability that a wanted one is among the k nearest."""
    nearest = distance.masked_fill(~wanted, torch.inf).min(dim=1, keepdim=True).values
    nearer = (distance < nearest).sum(dim=1)  # all of them unwanted
    tied = (distance == nearest).sum(dim=1)
    unwanted = ((distance == nearest) & ~wanted).sum(dim=1)
    miss = torch.ones(len(distance), dtype=torch.float64)
    hits = []
    for rank in range(TOP_K):  # tied ones, drawn without replacement, all miss: (u/t) ((u-1)/(t-1)) ...
        drawn = rank - nearer
        missed_again = (unwanted - drawn).clamp(min=0) / (tied - drawn).clamp(min=1)
        miss = torch.where(drawn < 0, miss, miss * missed_again)
        hits.append(1 - miss)
    return torch.stack(hits, dim=1)


def label_ceiling(labels, pools):
    """R-precision of an oracle that knows only the labels: the most that captions made of labels allow."""
    one_hot = torch.eye(len(set(labels)), dtype=torch.float64)[np.unique(labels, return_inverse=True)[1]]
    return r_precision(one_hot, one_hot, pools)


def matching(text, motion):
    """Distance of each caption to its own motion [N]; text, motion [N,D] paired."""
    return (_rows(text) - _rows(motion)).norm(dim=1).numpy()


def diversity_pairs(n):
    """How many pairs diversity draws from n clips: 300 where n > 300, else min(100, n - 1)."""
    return 300 if n > 300 else min(100, n - 1)


def draw_pairs(n, count, rng):
    """(first [count], second [count]): first without repetition, second any other row, never the same one."""
    if count > n or n < 2:
        raise ValueError(f"cannot draw {count} pairs from {n} rows")
    first = rng.choice(n, count, replace=False)
    return first, (first + rng.integers(1, n, count)) % n


def diversity(x, first, second):
    """Mean distance of the rows x[first] to x[second]; x [N,D]."""
    x = _rows(x)
    return float((x[first] - x[second]).norm(dim=1).mean())


def multimodality(x, first, second):
    """Mean distance between repeats of one caption; x [captions, repeats, D], the pairs index the repeats."""
    x = _rows(x)
    return float((x[:, first] - x[:, second]).norm(dim=2).mean())


def pose_errors(pred, real, root=0):
    """Mean joint distance per frame [T]; pred, real [T,J,3]. Aligned at joint `root`; None: global."""
    pred, real = _rows(pred), _rows(real)
    if root is not None:
        pred, real = pred - pred[:, root : root + 1], real - real[:, root : root + 1]
    return (pred - real).norm(dim=-1).mean(dim=-1)


def ratio(sums):
    """Ratio of the totals of [N,2] per-clip (numerator, denominator); 0 where nothing was counted."""
    numerator, denominator = np.sum(sums, axis=0)
    return float(numerator / denominator) if denominator else 0.0


def pose_error_sums(pred, real, root=0):
    """Of one clip: (sum of its pose errors, frames); their ratio is MPJPE. root = None: global."""
    errors = pose_errors(pred, real, root)
    return float(errors.sum()), len(errors)


def foot_skate(clips, feet, fps):
    """Of all foot-joint frames under 5 cm, the share that moves horizontally faster than 0.5 m/s.

    Speed is measured to the next frame. clips: joints [T,J,3] in metres, y up, floor at 0. 0 if none is low.
    """
    return ratio([skate_sums(joints, feet, fps) for joints in clips])


def skate_sums(joints, feet, fps, height=0.05, speed=0.5):
    """Of one clip: the numbers of (sliding, low) foot-joint frames."""
    foot = _rows(joints)[:, list(feet)]
    moved = (foot[1:] - foot[:-1])[..., [0, 2]].norm(dim=-1) * fps  # [T-1,4], m/s
    low = foot[:-1, :, 1] < height
    return int((low & (moved > speed)).sum()), int(low.sum())


def root_travel_sums(joints, fps):
    """Of one clip [T,J,3] in metres, y up: (sum, how many) of the root's horizontal speeds between frames one
    second apart (m/s). Walking on the spot and swaying do not count.
    """
    second, root = max(round(fps), 1), _rows(joints)[:, 0]
    ways = (root[second:] - root[:-second])[:, [0, 2]].norm(dim=-1) * fps / second
    return float(ways.sum()), len(ways)


def jitter_sums(joints, fps):
    """Of one clip [T,J,3] in metres: (sum, how many) of the norms of the third difference x fps^3 (m/s^3)."""
    norms = torch.diff(_rows(joints), n=3, dim=0).norm(dim=-1) * fps**3
    return float(norms.sum()), norms.numel()
