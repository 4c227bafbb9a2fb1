"""The project's hypotheses against the record, by fixed rules.

Every claim of a hypothesis is a number per seed and a limit: yes if the 95% interval over seeds (Student's t)
lies on the claimed side of the limit, no if on the other, else open; open with fewer than three seeds too. A
hypothesis is supported if every claim is a yes, not supported if any is a no, undecided otherwise.
"""

import math

from utils.analysis.output import plus_minus
from utils.statistics import student

PAIRS = (("FSQ_888", "VQ_512"), ("FSQ_75555", "VQ_4096"), ("FSQ_AE_High", "VQ_16384"))
ENOUGH = 3  # seeds
NEARLY = 0.1  # of the train/test reference FID: what FSQ may lose against the continuous autoencoder
PLAN_FID, PLAN_RATIO = 0.1, 0.3 / 0.12  # the plan's target; VQ-MARDM > 0.3 against FSQ-MARDM < 0.12
NO_VOTE = " (no vote)"  # a claim that is reported but decides nothing
SAME_SETTINGS = ("split", "no_ema", "cfg", "temperature", "sampler", "time_steps")
SMALL = 0.5  # of a random swap: what counts as a small step


def seeds_of(record, variant):
    """seed -> run, of those that have the variant."""
    return {run["seed"]: run for run in record["runs"].values() if run["variant"] == variant}


def measured(record, variant, metric="fid", evaluation="eval"):
    """seed -> mean of a measure in a variant's evaluation: of its generated or reconstructed clips."""
    values = {}
    for seed, run in seeds_of(record, variant).items():
        rows = run["evaluations"].get(evaluation, {}).get("rows", {})
        row = rows.get("generated" if run["kind"] == "generator" else "reconstruction", {})
        if metric in row:
            values[seed] = row[metric]["mean"]
    return values


def difference(a, b):
    """seed -> a - b, where both were measured."""
    return {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys(), key=str)}


def reference_fid(record):
    """FID of training clips of the test clips' contents against these, None if it was not measured."""
    fids = (run["evaluations"].get("eval", {}).get("reference_fid") for run in record["runs"].values())
    return next((fid for fid in fids if fid is not None), None)


def claim(text, values, limit=0.0, above=False, digits=3):
    """values: seed -> number that is to be below the limit, or above. -> dict(claim, answer, figure, n)"""
    numbers = list(values.values())
    text = f"{text} {'>' if above else '<'} {limit:.3g}"
    if not numbers:
        return {"claim": text, "answer": "not run", "figure": "-", "n": 0}
    mean, half = student(numbers)
    distance = (mean - limit) * (1 if above else -1)  # to the claimed side
    answer = "open"
    if len(numbers) >= ENOUGH and abs(distance) > half:
        answer = "yes" if distance > 0 else "no"
    return {"claim": text, "answer": answer, "figure": plus_minus(mean, half, digits), "n": len(numbers)}


def verdict(claims):
    answers = {one["answer"] for one in claims if not one["answer"].endswith(NO_VOTE)}
    return "not supported" if "no" in answers else "supported" if answers == {"yes"} else "undecided"


def hypotheses(record):
    """-> list of dict(name, text, claims, verdict)"""
    result = []
    for name, (text, rule) in RULES.items():
        claims = rule(record)
        result.append({"name": name, "text": text, "claims": claims, "verdict": verdict(claims)})
    return result


def h1(record):
    high, plain = measured(record, "FSQ_AE_High"), measured(record, "AE_Model")
    reference = reference_fid(record)
    near = {} if reference is None else difference(high, plain)
    text = "FID of High - FID of the AE, limit 10% of the train/test reference:"
    return [claim(text, near, NEARLY * (reference or 0))] + [
        claim(f"FID of {fsq} - FID of {vq}", difference(measured(record, fsq), measured(record, vq)))
        for fsq, vq in PAIRS
    ]


def h2(record):
    training = record["training"] or {"runs": {}, "fid_at": None, "top3_at": None}
    fsq, plain = (
        {one["seed"]: one for one in training["runs"].values() if one["group"] == group}
        for group in ("FSQ_MARDM", "MARDM")
    )
    both = sorted(fsq.keys() & plain.keys(), key=str)
    claims = []
    for key, title in (("fid", "FID"), ("top3", "top-3")):
        steps = {seed: sooner(fsq[seed], plain[seed], f"steps_to_{key}") for seed in both}
        steps = {seed: value for seed, value in steps.items() if value is not None}
        at = "" if training[f"{key}_at"] is None else f" {training[f'{key}_at']:.3g}"
        claims.append(claim(f"steps to {title}{at} of FSQ-MARDM - those of MARDM", steps, digits=0))
    for key, text in (("cv", "CV"), ("cv_detrended", "CV, running median divided out,")):
        cv = [{seed: group[seed][key] for seed in both if key in group[seed]} for group in (fsq, plain)]
        claims.append(claim(f"{text} of the gradient norm of FSQ-MARDM - that of MARDM", difference(*cv)))
    claims[-1]["answer"] += NO_VOTE
    return claims


def sooner(a, b, key="steps_to_fid"):
    """Steps to the threshold of a - those of b; a run that never got there counts with its last step, which
    makes the difference a bound. None if neither did.
    """
    reached = a.get(key), b.get(key)
    return None if reached == (None, None) else (reached[0] or a["steps"]) - (reached[1] or b["steps"])


def h3(record):
    vq, fsq, plain = (measured(record, name) for name in ("VQ_MARDM", "FSQ_MARDM", "MARDM"))
    logs = [{seed: math.log(value) for seed, value in fids.items()} for fids in (vq, fsq)]
    text = "log(FID of VQ-MARDM / FID of FSQ-MARDM), limit log 2.5:"
    return [
        claim("FID of VQ-MARDM - FID of FSQ-MARDM", difference(vq, fsq), above=True),
        claim("FID of VQ-MARDM - FID of MARDM", difference(vq, plain), above=True),
        claim(text, difference(*logs), math.log(PLAN_RATIO), above=True),
    ]


def h4(record):
    variants = ("FSQ_AE_High", "FSQ_AE_Medium")
    high, medium = (measured(record, variant) for variant in variants)
    peaks = [
        {
            seed: run["best"]["step"]
            for seed, run in seeds_of(record, variant).items()
            if "best" in run and run.get("judged", 0) > 1
        }
        for variant in variants
    ]
    return [
        claim("FID of Medium, 5,000 codes, misses the plan's target:", medium, PLAN_FID, above=True),
        claim("FID of High, 64,000 codes, meets it:", high, PLAN_FID),
        claim("FID of High - FID of Medium", difference(high, medium)),
        claim("step of High's best validation FID - that of Medium's", difference(*peaks), digits=0),
    ]


def solver_fids(record):
    """(snap, solver steps) -> seed -> FID of FSQ_MARDM with all other settings as in its eval.json."""
    result = {}
    for seed, run in seeds_of(record, "FSQ_MARDM").items():
        usual = run["evaluations"].get("eval")
        for one in [usual, *run["evaluations"].values()] if usual else []:
            flags, row = one["flags"], one["rows"].get("generated")
            if row and all(flags.get(key) == usual["flags"].get(key) for key in SAME_SETTINGS):
                fids = result.setdefault((flags["snap"], flags["sampler_steps"] or 4), {})
                fids.setdefault(seed, row["fid"]["mean"])  # that of eval.json comes first
    return result


def h5(record):
    fids = solver_fids(record)
    steps = sorted({n for snap, n in fids if snap == "step"} & {n for snap, n in fids if snap == "off"})
    text = "FID lost by fewer solver steps, with snapping - without"
    if len(steps) < 2:
        return [claim(text, {})]
    few, many = steps[0], steps[-1]
    lost = [difference(fids[snap, few], fids[snap, many]) for snap in ("step", "off")]
    return [claim(f"{text} ({few} against {many} steps)", difference(*lost))]


def shares(record, group, move):
    """seed -> displacement of a move / that of a random swap."""
    result = {}
    for one in (record["topology"] or {"autoencoders": {}})["autoencoders"].values():
        moved = {x["move"]: x["field_mm"] for x in one["moves"]}
        if one["group"] == group and move in moved:
            result[one["seed"]] = moved[move] / moved["random token"]
    return result


def h6(record):
    claims = []
    for fsq, vq in PAIRS:
        step, swap = shares(record, fsq, "1 step"), shares(record, vq, "nearest code")
        claims.append(claim(f"{fsq}, one grid step / random swap: small,", step, SMALL))
        claims.append(claim(f"that - {vq}, nearest code / random swap", difference(step, swap)))
        claims.append(claim(f"{vq}, nearest code / random swap: not small,", swap, SMALL, above=True))
    return claims


RULES = {
    "H1": ("FSQ reconstructs nearly as well as the continuous AE and better than VQ", h1),
    "H2": (
        "diffusion over FSQ coordinates converges faster and more stably than over continuous latents",
        h2,
    ),
    "H3": ("diffusion over VQ codes is poor", h3),
    "H4": ("capacity decides: 5k codes miss FID 0.1, 64k meet it, High peaks sooner than Medium", h4),
    "H5": ("snapping lets FSQ use fewer solver steps", h5),
    "H6": ("a step on the grid is a small step in motion space, a code swap is not", h6),
}
