"""Means with intervals, rank correlation, seeds in run names."""

import math
import re

import numpy as np
import scipy.stats


def mean_ci95(values):
    """(mean, half width of its 95% confidence interval by Student's t); NaN half for one value."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float(values.mean()), math.nan
    half = scipy.stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return float(values.mean()), float(half)


def wilson(hits, n):
    """Wilson's 95% interval (low, high) of a share; n at least 1."""
    interval = scipy.stats.binomtest(hits, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def spearman(x, y):
    """Rank correlation of x [N] and y [N], ties at their mean rank; None where one of them is constant."""
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    return float(scipy.stats.spearmanr(x, y).statistic)


def split_seed(name):
    """FSQ_MARDM_2 -> ("FSQ_MARDM", 2): runs that differ in a trailing _<number> are seeds of one group."""
    match = re.fullmatch(r"(.+)_(\d+)", name)
    return (match[1], int(match[2])) if match else (name, None)
