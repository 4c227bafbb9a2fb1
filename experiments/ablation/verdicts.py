"""The project's hypotheses against the record, by fixed rules.

Every claim of a hypothesis is a number per seed and a limit: yes if the 95% interval over seeds (Student's t)
lies on the claimed side of the limit, no if on the other, else open; open with fewer than three seeds too. A
hypothesis is supported if every claim is a yes, not supported if any is a no, undecided otherwise.
"""

import math

from utils.statistics import student

PAIRS = (("FSQ_888", "VQ_512"), ("FSQ_75555", "VQ_4096"), ("FSQ_AE_High", "VQ_16384"))
ENOUGH = 3  # seeds
NEARLY = 0.1  # of the FID floor: what FSQ may lose against the continuous autoencoder
PLAN_FID, PLAN_RATIO = 0.1, 0.3 / 0.12  # the plan's target; VQ-MARDM > 0.3 against FSQ-MARDM < 0.12
NO_VOTE = " (no vote)"  # a claim that stands there for information
ALIKE = ("split", "no_ema", "cfg", "temperature", "sampler", "time_steps")
SMALL = 0.5  # of a random swap: what counts as a small step


def seeds_of(record, variant):
    """seed -> run, of those that have the variant."""
    return {run["seed"]: run for run in record["runs"].values() if run["variant"] == variant}


def measured(record, variant, metric="fid", evaluation="eval"):
    """seed -> mean of a measure of a variant's evaluation; the row is that of its product."""
    found = {}
    for seed, run in seeds_of(record, variant).items():
        rows = run["evaluations"].get(evaluation, {}).get("rows", {})
        row = rows.get("generated" if run["kind"] == "generator" else "reconstruction", {})
        if metric in row:
            found[seed] = row[metric]["mean"]
    return found


def difference(a, b):
    """seed -> a - b, where both were measured."""
    return {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys(), key=str)}


def reference_fid(record):
    """FID of as many training clips of the test's contents: of any evaluation that measured it, or None."""
    for run in record["runs"].values():
        found = run["evaluations"].get("eval", {}).get("reference_fid")
        if found is not None:
            return found
    return None


def claim(text, values, limit=0.0, above=False, digits=3):
    """values: seed -> number that is to be below the limit, or above. -> dict(claim, answer, figure, n)"""
    numbers, side = list(values.values()), ">" if above else "<"
    text = f"{text} {side} {limit:.3g}"
    if not numbers:
        return {"claim": text, "answer": "not run", "figure": "-", "n": 0}
    mean, half = student(numbers)
    answer = "open"
    if len(numbers) >= ENOUGH:
        low, high = mean - half - limit, mean + half - limit
        below, beyond = ("no", "yes") if above else ("yes", "no")
        answer = below if high < 0 else beyond if low > 0 else "open"
    figure = f"{mean:.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")
    return {"claim": text, "answer": answer, "figure": figure, "n": len(numbers)}


def verdict(claims):
    answers = {one["answer"] for one in claims if not one["answer"].endswith(NO_VOTE)}
    return "not supported" if "no" in answers else "supported" if answers == {"yes"} else "undecided"


def hypotheses(record):
    """-> list of dict(name, text, claims, verdict)"""
    found = []
    for name, (text, rule) in RULES.items():
        claims = rule(record)
        found.append({"name": name, "text": text, "claims": claims, "verdict": verdict(claims)})
    return found


def h1(record):
    high, plain, least = measured(record, "FSQ_AE_High"), measured(record, "AE_Model"), reference_fid(record)
    margin = NEARLY * (least or 0)
    near = {} if least is None else difference(high, plain)
    claims = [claim("FID of High - FID of the AE, limit 10% of the floor:", near, margin)]
    return claims + [
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
    title = "of the gradient norm of FSQ-MARDM - that of MARDM"
    for key, text in (("cv", "CV"), ("cv_detrended", "CV, running median divided out,")):
        cv = {s: fsq[s][key] - plain[s][key] for s in both if key in fsq[s] and key in plain[s]}
        claims.append(claim(f"{text} {title}", cv))
    claims[-1]["answer"] += NO_VOTE
    return claims


def sooner(a, b, key="steps_to_fid"):
    """Steps to the threshold of a - those of b; a run that never got there counts with its last step, which
    makes the difference a bound. None if neither did.
    """
    reached = a.get(key), b.get(key)
    if reached == (None, None):
        return None
    return (reached[0] or a["steps"]) - (reached[1] or b["steps"])


def h3(record):
    vq, fsq, plain = (measured(record, name) for name in ("VQ_MARDM", "FSQ_MARDM", "MARDM"))
    ratio = {seed: math.log(vq[seed] / fsq[seed]) for seed in sorted(vq.keys() & fsq.keys(), key=str)}
    return [
        claim("FID of VQ-MARDM - FID of FSQ-MARDM", difference(vq, fsq), above=True),
        claim("FID of VQ-MARDM - FID of MARDM", difference(vq, plain), above=True),
        claim(
            "log(FID of VQ-MARDM / FID of FSQ-MARDM), limit log 2.5:", ratio, math.log(PLAN_RATIO), above=True
        ),
    ]


def h4(record):
    medium, high = measured(record, "FSQ_AE_Medium"), measured(record, "FSQ_AE_High")
    peaks = []
    for variant in ("FSQ_AE_High", "FSQ_AE_Medium"):
        runs = seeds_of(record, variant).items()
        peaks.append(
            {seed: run["best"]["step"] for seed, run in runs if "best" in run and run.get("judged", 0) > 1}
        )
    return [
        claim("FID of Medium, 5,000 codes, misses the plan's target:", medium, PLAN_FID, above=True),
        claim("FID of High, 64,000 codes, meets it:", high, PLAN_FID),
        claim("FID of High - FID of Medium", difference(high, medium)),
        claim("step of High's best validation FID - that of Medium's", difference(*peaks), digits=0),
    ]


def solver_fids(record):
    """(snap, solver steps) -> seed -> FID, of what FSQ_MARDM drew otherwise as for its eval.json."""
    found = {}
    for seed, run in seeds_of(record, "FSQ_MARDM").items():
        usual = run["evaluations"].get("eval")
        for one in [usual, *run["evaluations"].values()] if usual else []:
            flags, row = one["flags"], one["rows"].get("generated")
            if row and all(flags.get(key) == usual["flags"].get(key) for key in ALIKE):
                drawn = found.setdefault((flags["snap"], flags["sampler_steps"] or 4), {})
                drawn.setdefault(seed, row["fid"]["mean"])  # that of eval.json comes first
    return found


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
    found = {}
    for one in (record["topology"] or {"autoencoders": {}})["autoencoders"].values():
        made = {x["move"]: x["field_mm"] for x in one["moves"]}
        if one["group"] == group and move in made:
            found[one["seed"]] = made[move] / made["random token"]
    return found


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
