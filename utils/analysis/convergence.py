"""Speed and stability of a training, computed from its curves.

A curve is (steps [N], values [N], wall times [N] in seconds), as `event_files.read_points` gives them.
"""

import numpy as np

WINDOW, MADS = 101, 6  # a spike: so many median absolute deviations above the median of so many points
FID, TOP3, NORM, RATE = "Test/FID", "Test/top3", "Train/grad_norm", "Train/lr"


def finite(curve):
    """(steps, values) of the points that are numbers."""
    steps, values = curve[:2]
    return steps[np.isfinite(values)], values[np.isfinite(values)]


def seconds_per_step(steps, wall):
    """Median over neighbouring points, which ignores pauses and evaluations. None for a single point."""
    return float(np.median(np.diff(wall) / np.diff(steps))) if len(steps) > 1 else None


def running_median(values, window=WINDOW):
    """Median of the `window` points centred on each, fewer at the ends, and their MAD. -> two arrays [N]"""
    near = [values[max(i - window // 2, 0) : i + window // 2 + 1] for i in range(len(values))]
    medians = np.array([np.median(part) for part in near])
    return medians, np.array([np.median(np.abs(part - median)) for part, median in zip(near, medians)])


def spikes(values):
    """bool [N]: points above median + 6 MAD of the 101 around them."""
    median, mad = running_median(values)
    return values > median + MADS * mad


def steadiness(curves):
    """Spikes and coefficient of variation of the gradient norm after warm-up; the latter also of the norm
    divided by its running median, since a steady fall is not instability. -> dict, empty without norms

    Warm-up ends where the learning rate first reaches its maximum.
    """
    if NORM not in curves:
        return {}
    steps, norms = curves[NORM][:2]
    warm = curves[RATE][0][np.argmax(curves[RATE][1])] if RATE in curves else 0
    norms = norms[(steps > warm) & np.isfinite(norms)]
    if len(norms) < 2:
        return {}
    cv, detrended = (float(x.std(ddof=1) / x.mean()) for x in (norms, norms / running_median(norms)[0]))
    return {
        "norm_points": len(norms),
        "spikes": int(spikes(norms).sum()),
        "cv": cv,
        "cv_detrended": detrended,
    }


def progress(curves, fid_at, top3_at):
    """Steps and seconds to each threshold, best values. -> dict; what was not measured is left out.

    A threshold is reached at the first evaluation at or beyond it, without interpolation: None if at none.
    """
    clock = curves.get("Train/loss") or next(iter(curves.values()))
    pace = seconds_per_step(clock[0], clock[2])
    result = {"steps": int(max(curve[0][-1] for curve in curves.values())), "seconds_per_step": pace}
    for key, tag, threshold, sign in (("fid", FID, fid_at, 1), ("top3", TOP3, top3_at, -1)):
        steps, values = finite(curves[tag]) if tag in curves else ((), ())
        if not len(steps):
            continue
        best, there = (sign * values).argmin(), sign * values <= sign * threshold
        reached = int(steps[np.argmax(there)]) if there.any() else None
        result[f"best_{key}"], result[f"best_{key}_step"] = float(values[best]), int(steps[best])
        result[f"steps_to_{key}"] = reached
        if reached is None or pace is not None:
            result[f"seconds_to_{key}"] = None if reached is None else reached * pace
        result["evaluations"] = len(steps)
    return result


def thresholds(runs, fid_at=None, top3_at=None):
    """Convergence thresholds shared by all runs: 2 x the best FID of any, 0.9 x the best top-3 of any."""
    fids, top3s = (
        [value for curves in runs.values() if tag in curves for value in finite(curves[tag])[1]]
        for tag in (FID, TOP3)
    )
    if fid_at is None and fids:
        fid_at = 2 * float(min(fids))
    if top3_at is None and top3s:
        top3_at = 0.9 * float(max(top3s))
    return fid_at, top3_at
