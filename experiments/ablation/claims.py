"""The hypotheses of RULES.md as numbers: intervals over seeds and clips, answers, power.

A record is what `collect` reads below checkpoints/<ablation>: run -> its evaluations. A claim is a number per
autoencoder seed (its generators' mean) and a limit.
"""

import json
import math
import re
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.stats

from analyze_training import examine
from experiments.ablation.plan import FULL_WIDTH, NARROWED, REFERENCE, run_of
from utils.analysis.event_files import read_points
from utils.analysis.output import plus_minus
from utils.statistics import mean_ci95

ENOUGH = 3  # seeds
SMALL = 0.5  # share of a random swap's displacement
UNTESTABLE = "not testable here"


def collect(plan):
    """-> dict: runs (run -> record -> what its evaluation says), training, topology, reference."""
    runs = {}
    for file in sorted(plan.runs.glob("*/eval/*.json")):
        found = json.loads(file.read_text(encoding="utf-8"))
        if "rows" in found:  # without the single repeats
            found["rows"] = {name: row["interval"] for name, row in found["rows"].items()}
        runs.setdefault(file.parent.parent.name, {})[file.stem] = found
    curves = {
        f"{arm}_{a}{g}": read_points(plan.runs / run_of(arm, (a, g)) / "model")
        for arm in plan.arms
        for a, g in plan.seeds
        if "test_latest" in runs.get(run_of(arm, (a, g)), {})
    }
    topology, done = plan.runs / "topology.json", sorted((plan.runs / "done").glob("*"))
    jobs = [file.read_text(encoding="utf-8") for file in done if file.suffix != ".lock"]
    rows = runs.get(REFERENCE, {}).get("test", {}).get("rows", {})
    return {
        "dataset": plan.dataset,
        "arms": plan.arms,
        "variants": plan.variants,
        "codes": [k for k in plan.size.codes if plan.main],
        "widths": list(plan.size.widths),
        "runs": runs,
        "jobs": jobs,
        "training": examine(curves) if curves else None,
        "topology": json.loads(topology.read_text(encoding="utf-8")) if topology.is_file() else None,
        "reference": rows.get("nearest length", rows.get("retrieval", {})),
        "references": rows,
    }


@dataclass(frozen=True)
class Numbers:
    """Autoencoder seed -> number, and the 95% half width that the choice of test clips gives each of them."""

    seeds: dict
    clips: float = 0.0

    def __sub__(self, other):
        both = sorted(self.seeds.keys() & other.seeds.keys())
        return Numbers({a: self.seeds[a] - other.seeds[a] for a in both}, math.hypot(self.clips, other.clips))

    def interval(self):
        """(mean, half width of its 95% interval over seeds and clips; NaN for one seed)."""
        mean, half = mean_ci95(list(self.seeds.values()))
        return mean, math.hypot(half, self.clips)


def measured(record, name, metric="fid", evaluation="test_latest"):
    """A metric of an autoencoder's reconstructions (one evaluation) or a generator's motions. -> Numbers"""
    own = name in record["variants"]
    row, evaluation = ("reconstruction", "test") if own else ("generated", evaluation)
    found, halves = {}, []
    for run, evaluations in record["runs"].items():
        match = re.fullmatch(rf"{name}_(\d+)" + ("" if own else r"_\d+"), run)
        value = evaluations.get(evaluation, {}).get("rows", {}).get(row, {}).get(metric) if match else None
        if value:
            found.setdefault(int(match[1]), []).append(value["mean"])
            halves.append(value.get("half_clips") or 0.0)
    clips = math.sqrt(np.mean(np.square(halves))) if halves else 0.0
    return Numbers({a: float(np.mean(values)) for a, values in found.items()}, clips)


def story_growth(record, arm, snap="step", metric="fid", quarter=-1):
    """How much larger the error is in this quarter of a story than in its first. -> Numbers"""
    found, halves = {}, [0.0]
    for run, evaluations in record["runs"].items():
        match = re.fullmatch(rf"{arm}_(\d+)_\d+", run)
        if match and f"stories_{snap}" in evaluations:
            first, other = (evaluations[f"stories_{snap}"]["quarters"][i] for i in (0, quarter))
            found.setdefault(int(match[1]), []).append(other[metric] - first[metric])
            halves.append(math.hypot(first["half_clips"][metric], other["half_clips"][metric]))
    clips = max(halves) if quarter else 0.0
    return Numbers({a: float(np.mean(values)) for a, values in found.items()}, clips)


def noticed(error, n, clips):
    """The true difference that `claim` detects with a power of 80%.

    error: standard error over n seeds; clips: 95% half width. The spread over seeds is itself estimated: each
    of its quantiles gives a half width. Without clips that is the noncentral t.
    """
    free, chances = n - 1, (np.arange(4000) + 0.5) / 4000
    spreads = np.sqrt(scipy.stats.chi2.ppf(chances, free) / free)
    halves = np.hypot(scipy.stats.t.ppf(0.975, free) * error * spreads, clips)
    sd = math.hypot(error, clips / scipy.stats.norm.ppf(0.975))
    if sd == 0:
        return 0.0

    def lacking(difference):
        return scipy.stats.norm.cdf((difference - halves) / sd).mean() - 0.8

    return scipy.optimize.brentq(lacking, 0, halves.max() + sd)  # its end is noticed with 84%


def claim(text, numbers, limit=0.0, above=False, digits=3):
    """-> dict: claim, answer (yes, no, open, not run), figure, n, power."""
    n, text = len(numbers.seeds), f"{text} {'>' if above else '<'} {limit:.3g}"
    if n == 0:
        return {"claim": text, "answer": "not run", "figure": "-", "n": 0, "power": "-"}
    mean, half = numbers.interval()
    distance, answer, power = (mean - limit) * (1 if above else -1), "open", "-"
    if n >= ENOUGH:
        error = np.std(list(numbers.seeds.values()), ddof=1) / math.sqrt(n)
        power = f"{noticed(error, n, numbers.clips):.{digits}f}"
        if abs(distance) > half:
            answer = "yes" if distance > 0 else "no"
    return {"claim": text, "answer": answer, "figure": plus_minus(mean, half, digits), "n": n, "power": power}


def untestable(text):
    return {"claim": text, "answer": UNTESTABLE, "figure": "-", "n": 0, "power": "-"}


def spread(record):
    """FSQ's spread over seeds against VQ's, all code books of 2^14 and more together, by an F test."""
    text, groups = "ratio of the FID's variances, VQ / FSQ", []
    for kind in ("VQ", "FSQ"):
        sets = [measured(record, f"{kind}_{k}").seeds for k in record["codes"] if k >= 14]
        sets = [list(one.values()) for one in sets if len(one) > 1]
        if not sets:
            return claim(text, Numbers({}), 1.0, above=True)
        free = sum(len(one) - 1 for one in sets)
        groups.append((sum(np.var(one, ddof=1) * (len(one) - 1) for one in sets) / free, free))
    (vq, m), (fsq, n) = groups
    low, high = vq / fsq / scipy.stats.f.ppf((0.975, 0.025), m, n)
    answer = "yes" if low > 1 else "no" if high < 1 else "open"
    figure = f"{vq / fsq:.2f} ({low:.2f} to {high:.2f})"
    # a true ratio r is noticed if r F(m, n) exceeds the 97.5% quantile
    power = f"{scipy.stats.f.ppf(0.975, m, n) / scipy.stats.f.ppf(0.2, m, n):.1f}"
    return {"claim": f"{text} > 1", "answer": answer, "figure": figure, "n": m + n, "power": power}


def verdict(claims):
    """One no: not supported; all yes: supported; else undecided. What cannot be tested here has no vote."""
    answers = {one["answer"] for one in claims} - {UNTESTABLE}
    return "not supported" if "no" in answers else "supported" if answers == {"yes"} else "undecided"


def hypotheses(record):
    """-> list of dict(name, text, claims, verdict)"""
    limit = record["reference"].get("fid", {}).get("mean", 0.0)
    result = []
    for name, (text, rule) in RULES.items():
        claims = rule(record, limit)
        result.append({"name": name, "text": text, "claims": claims, "verdict": verdict(claims)})
    return result


def h1(record, limit):
    ae, narrow, fsq, vq = (measured(record, name) for name in ("AE", "Narrow", "FSQ_16", "VQ_14"))
    return [
        claim("FID of FSQ - FID of continuous", fsq - ae, limit),
        claim("FID of FSQ - FID of 6-d without rounding", fsq - narrow, limit),
        claim("FID of FSQ - FID of VQ", fsq - vq),
    ]


def by_seed(record, arm, key):
    """A figure of this arm's training curves. -> autoencoder seed -> its generators' values"""
    values = {}
    for run in (record["training"] or {"runs": {}})["runs"].values():
        if run["group"] == arm and key in run:
            values.setdefault(int(str(run["seed"])[0]), []).append(run[key])
    return values


def steps_to_fid(record, other):
    """The claim on steps to the common FID; open where a run never reached it, whose steps are unknown."""
    sides, never = [], []
    for arm in ("fsq", other):
        found, ends = (by_seed(record, arm, key) for key in ("steps_to_fid", "steps"))
        sides.append(
            Numbers({a: float(np.mean([x or end for x, end in zip(found[a], ends[a])])) for a in found})
        )
        if any(None in values for values in found.values()):
            never.append(arm)
    difference = sides[0] - sides[1]
    result = claim(f"steps to the common FID, fsq - {other}", difference, digits=0)
    if never and difference.seeds:
        figure = f"not reached by {', '.join(never)}"
        if len(never) == 1:  # the other side is known
            figure = f"{'>' if never == ['fsq'] else '<'} {difference.interval()[0]:.0f}: {figure}"
        result |= {"answer": "open", "figure": figure, "power": "-"}
    return result


def h2(record, limit):
    cvs = (by_seed(record, arm, "cv") for arm in ("fsq", "continuous"))
    fsq, plain = (Numbers({a: float(np.mean(one)) for a, one in values.items()}) for values in cvs)
    steps = [steps_to_fid(record, other) for other in ("continuous", "narrow")]
    return [*steps, claim("CV of the gradient norm, fsq - continuous", fsq - plain)]


def h3(record, limit):
    vq, fsq, plain = (measured(record, arm) for arm in ("vq", "fsq", "continuous"))
    return [
        claim("FID of vq - FID of fsq", vq - fsq, limit, above=True),
        claim("FID of vq - FID of continuous", vq - plain, limit, above=True),
        untestable("FID above 0.3 against 0.12 on HumanML3D"),
    ]


def h4(record, limit):
    few, many = measured(record, "FSQ_9"), measured(record, "FSQ_16")
    return [
        claim("reconstruction FID of 2^16 codes - of 2^9", many - few),
        untestable("5,000 codes miss FID 0.1 on HumanML3D, 64,000 meet it"),
    ]


def lost(record, arm, evaluation, base="test_latest"):
    """FID lost by sampling as in `evaluation` rather than as in `base`. -> Numbers"""
    return measured(record, arm, evaluation=evaluation) - measured(record, arm, evaluation=base)


def h5(record, limit):
    fsq = lost(record, "fsq", "snap_step_1")
    text = "FID lost by 1 solver step against 4,"
    return [
        claim(f"{text} snapped - never snapped", fsq - lost(record, "fsq", "snap_off_1", "snap_off_4")),
        claim(f"{text} fsq - continuous", fsq - lost(record, "continuous", "snap_step_1")),
    ]


def shares(record, group, move):
    """Displacement of a move / that of a random swap. -> Numbers"""
    result = {}
    for one in (record["topology"] or {"autoencoders": {}})["autoencoders"].values():
        moved = {x["move"]: x["field_mm"] for x in one["moves"]}
        if one["group"] == group and move in moved:
            result[one["seed"]] = moved[move] / moved["random token"]
    return Numbers(result)


def h6(record, limit):
    claims = []
    for k in record["codes"]:
        step, near = shares(record, f"FSQ_{k}", "1 step"), shares(record, f"VQ_{k}", "nearest code")
        claims.append(claim(f"2^{k}: a grid step / a random swap", step, SMALL))
        claims.append(claim(f"2^{k}: that - VQ's nearest code / a random swap", step - near))
    return claims


def h7(record, limit):
    fsq, narrow, plain = (lost(record, arm, "onestep") for arm in ("fsq", "narrow", "continuous"))
    return [
        claim("FID lost by one evaluation, fsq", fsq, limit),
        claim("FID lost, continuous - fsq", plain - fsq, above=True),
        claim("FID lost, narrow - fsq", narrow - fsq, above=True),
    ]


def h8(record, limit):
    top = max(record["codes"], default=18)
    fsq, vq = (measured(record, f"{kind}_{top}") for kind in ("FSQ", "VQ"))
    return [
        claim(f"FID of VQ - FID of FSQ, 2^{top} codes", vq - fsq, above=True),
        claim(f"FID of FSQ, 2^{top} codes - 2^9", fsq - measured(record, "FSQ_9")),
        spread(record),
    ]


def h9(record, limit):
    narrowest = min(record["widths"], default=32)
    less = {arm: measured(record, f"{arm}_w{narrowest}") - measured(record, arm) for arm in NARROWED}
    text = f"FID lost by a head of width {narrowest} against {FULL_WIDTH}, fsq -"
    return [claim(f"{text} {arm}", less["fsq"] - less[arm]) for arm in ("continuous", "narrow", "vq")]


def h10(record, limit):
    on, off = (story_growth(record, "fsq", snap) for snap in ("step", "off"))
    plain = story_growth(record, "continuous")
    return [
        claim("FID of a story's last quarter - of its first, fsq", on, limit),
        claim("that of fsq never snapped - that of fsq", off - on, above=True),
        claim("that of continuous - that of fsq", plain - on, above=True),
    ]


def h11(record, limit):
    coarse, fine = measured(record, "FSQ_16"), measured(record, "FSQ_24")
    fsq, finer, plain = (measured(record, arm) for arm in ("fsq", "finer", "continuous"))
    return [
        claim("reconstruction FID of 2^24 codes - of 2^16", fine - coarse),
        claim("FID of finer - FID of fsq", finer - fsq),
        claim("FID of finer - FID of continuous", finer - plain, limit),
    ]


def controls(record, limit):
    fsq, others = measured(record, "fsq"), ("narrow", "softmax", "independent", "continuous")
    return [claim(f"FID of fsq - FID of {arm}", fsq - measured(record, arm)) for arm in others]


RULES = {
    "H1": ("FSQ reconstructs nearly as well as continuous latents, and better than VQ of equal usage", h1),
    "H2": ("diffusion on the grid converges faster and more steadily than on continuous latents", h2),
    "H3": ("diffusion over VQ codes is poor", h3),
    "H4": ("capacity decides", h4),
    "H5": ("snapping lets the grid use fewer solver steps", h5),
    "H6": (
        "a step on the grid is a small step in motion, smaller than a swap of a VQ code for its nearest",
        h6,
    ),
    "H7": ("one evaluation a token is exact enough on the grid, not for wide continuous latents", h7),
    "H8": ("FSQ scales in codes without tuning, VQ does not", h8),
    "H9": ("on the grid a narrow head suffices", h9),
    "H10": ("snapping keeps errors from growing along a story", h10),
    "H11": ("a finer grid closes the gap to continuous latents", h11),
    "Controls": (
        "diffusion on the grid beats 6-d without rounding, classification, continuous latents",
        controls,
    ),
}
