"""How fast and how steadily a run trained: numbers out of its curves.

A curve is (steps [N], values [N], wall times [N] in seconds), as utils.analysis.event_files.read_points gives them.
"""

import numpy as np

WINDOW, MADS = 101, 6  # of a spike: logged points around it, median absolute deviations above their median
FID, TOP3, NORM, RATE = "Test/FID", "Test/top3", "Train/grad_norm", "Train/lr"


def finite(curve):
    """(steps, values) of the points that are numbers."""
    steps, values = curve[:2]
    return steps[np.isfinite(values)], values[np.isfinite(values)]


def first_at(steps, values, threshold, falling=True):
    """The first step whose value is at or beyond the threshold, None if none is. No interpolation."""
    there = values <= threshold if falling else values >= threshold
    return int(steps[np.argmax(there)]) if there.any() else None


def seconds_per_step(steps, wall):
    """Median over neighbouring points: pauses and evaluations take no part. None for a lone point."""
    if len(steps) < 2:
        return None
    return float(np.median(np.diff(wall) / np.diff(steps)))


def running_median(values, window=WINDOW):
    """Median of the `window` points centred on each, fewer at the ends, and their MAD. -> two arrays [N]"""
    half, medians, mads = window // 2, [], []
    for i in range(len(values)):
        near = values[max(i - half, 0) : i + half + 1]
        medians.append(np.median(near))
        mads.append(np.median(np.abs(near - medians[-1])))
    return np.array(medians), np.array(mads)


def spikes(values, window=WINDOW, mads=MADS):
    """bool [N]: points above median + `mads` MAD of their window."""
    median, mad = running_median(values, window)
    return values > median + mads * mad


def variation(values):
    """Coefficient of variation: standard deviation / mean. None for fewer than two points."""
    return float(values.std(ddof=1) / values.mean()) if len(values) > 1 else None


def warm_steps(curves):
    """The step at which the learning rate is first at its highest: warm-up is over. 0 without that curve."""
    if RATE not in curves:
        return 0
    steps, rates = curves[RATE][:2]
    return int(steps[np.argmax(rates)])


def steadiness(curves):
    """Of the gradient norm after warm-up: spikes, and its coefficient of variation as it is and with the
    running median divided out (a norm that falls steadily is no less steady). -> dict, empty without norms
    """
    if NORM not in curves:
        return {}
    steps, norms = curves[NORM][:2]
    kept = norms[(steps > warm_steps(curves)) & np.isfinite(norms)]
    if len(kept) < 2:
        return {}
    return {
        "norm_points": len(kept),
        "spikes": int(spikes(kept).sum()),
        "cv": variation(kept),
        "cv_detrended": variation(kept / running_median(kept)[0]),
    }


def progress(curves, fid_at, top3_at):
    """Steps and seconds to each threshold, best values. -> dict; what was not measured is left out."""
    found, clock = {}, "Train/loss" if "Train/loss" in curves else next(iter(curves))
    root_speed = seconds_per_step(curves[clock][0], curves[clock][2])
    found["steps"] = int(max(curve[0][-1] for curve in curves.values()))
    found["seconds_per_step"] = root_speed
    for key, tag, threshold, falling in (("fid", FID, fid_at, True), ("top3", TOP3, top3_at, False)):
        if tag not in curves:
            continue
        steps, values = finite(curves[tag])
        if not len(steps):
            continue
        best = values.argmin() if falling else values.argmax()
        reached = first_at(steps, values, threshold, falling)
        found[f"best_{key}"], found[f"best_{key}_step"] = float(values[best]), int(steps[best])
        found[f"steps_to_{key}"] = reached
        found[f"seconds_to_{key}"] = None if reached is None or root_speed is None else reached * root_speed
        found["evaluations"] = len(steps)
    return found


def thresholds(runs, fid_at=None, top3_at=None):
    """What counts as there, for all runs alike: 2 x the best FID of any, 0.9 x the best top-3 of any."""
    fids = [fid for curves in runs.values() if FID in curves for fid in finite(curves[FID])[1]]
    top3s = [top3 for curves in runs.values() if TOP3 in curves for top3 in finite(curves[TOP3])[1]]
    if fid_at is None and fids:
        fid_at = 2 * float(min(fids))
    if top3_at is None and top3s:
        top3_at = 0.9 * float(max(top3s))
    return fid_at, top3_at
