"""results/sampling.md and .png from the records of sampling_study.py: tables, rule for the default, figure.

Means and 95% intervals (Student's t) are over all repeats of all seeds of a family. The difference to dopri5
is taken repeat by repeat (same weights, captions and noise), which leaves out what the seeds differ by.
"""

import json
import math
from pathlib import Path

import matplotlib
import numpy as np
import scipy.stats

from diffusions.samplers import EVALUATIONS
from motion.files import whole_file
from utils.cli import write_text
from utils.errors import BadInput

matplotlib.use("Agg")
import matplotlib.pyplot as plt

MEASURES = {"fid": "FID", "top1": "top 1", "top3": "top 3", "foot_skate": "foot skate"}
BETTER = {"fid": -1, "top1": 1, "top3": 1, "foot_skate": -1}
FEWEST = 8  # evaluations that a default may have
ENOUGH = 15  # repeats of dopri5 to compare with: five of three seeds
NEAR = 0.05  # of dopri5's FID: as far as it got
FAMILIES = {"FSQ": "FSQ", "continuous": "continuous latent", "VQ": "VQ"}
SNAPS = {"step": "snapped as drawn", "end": "snapped once, before decoding", "off": "never snapped"}
COLOURS = {"euler": "tab:orange", "midpoint": "tab:green", "heun": "tab:blue"}


def mean_half(values):
    """[n] -> mean, half width of its 95% interval (NaN for one)."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    half = scipy.stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n) if n > 1 else math.nan
    return float(values.mean()), float(half)


def shown(pair, digits=3, sign=""):
    mean, half = pair
    return f"{mean:{sign}.{digits}f}" + ("" if math.isnan(half) else f" ± {half:.{digits}f}")


class Family:
    """The records of one kind of targets, a run per seed."""

    def __init__(self, records):
        self.records = records
        self.cells = dict.fromkeys(cell for record in records for cell in record["cells"])

    def values(self, cell, measure):
        """(run, repeat) -> value."""
        return {
            (record["run"], number): figures[measure]
            for record in self.records
            for number, figures in record["cells"].get(cell, {"repeats": {}})["repeats"].items()
            if measure in figures
        }

    def summary(self, cell, measure):
        values = self.values(cell, measure)
        return mean_half(list(values.values())) if values else None

    def against(self, cell, other, measure="fid"):
        """Difference of two cells over the repeats that both have, or None."""
        ours, theirs = self.values(cell, measure), self.values(other, measure)
        both = sorted(ours.keys() & theirs.keys())
        return mean_half([ours[key] - theirs[key] for key in both]) if both else None

    def landing(self, solver, measure):
        values = [record["landing"][solver].get(measure) for record in self.records if record["landing"]]
        return mean_half(values) if values and None not in values else None

    def solvers(self, snap):
        """name -> counted evaluations a token, dopri5 last."""
        ends = f"/{snap}"
        found = {
            cell.removesuffix(ends): self.summary(cell, "evaluations")[0]
            for cell in self.cells
            if cell.endswith(ends) and self.values(cell, "evaluations")
        }
        return dict(sorted(found.items(), key=lambda item: (item[0] == "dopri5", item[1], item[0])))

    def as_good(self, cell, reference):
        """No measure is worse than the worse end of the reference's 95% interval; None where either lacks."""
        for measure, sign in BETTER.items():
            ours, theirs = self.summary(cell, measure), self.summary(reference, measure)
            if ours is None or len(self.values(reference, measure)) < ENOUGH:
                return None
            if sign * ours[0] < sign * theirs[0] - theirs[1]:
                return False
        return True

    def converged(self, solver, snap="step"):
        """The fewest evaluations from which on a solver's FID is within NEAR of dopri5's, or None."""
        reference, found = self.summary(f"dopri5/{snap}", "fid"), None
        if reference is None:
            return None
        for name, evaluations in self.solvers(snap).items():
            if name.split("-")[0] == solver:
                away = self.against(f"{name}/{snap}", f"dopri5/{snap}")[0]
                found = None if abs(away) > NEAR * reference[0] else found or evaluations
        return found

    def cheapest(self, fewest, snap="step"):
        """The fewest evaluations (at least `fewest`) that are as good as dopri5; of equals the lower FID."""
        fine = [
            (evaluations, self.summary(f"{name}/{snap}", "fid")[0], name)
            for name, evaluations in self.solvers(snap).items()
            if name != "dopri5"
            and evaluations > fewest - 0.5
            and self.as_good(f"{name}/{snap}", f"dopri5/{snap}")
        ]
        return min(fine)[2] if fine else None


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def head(*titles):
    return [row(*titles), row(*["---"] * len(titles))]


def solver_table(family, snap):
    solved = snap == "step" and any(record["landing"] for record in family.records)
    grid = family.landing("dopri5", "share") is not None
    titles = ["solver", "evaluations", *MEASURES.values(), "FID less dopri5's", "as good", "n", "s a repeat"]
    lines = head(*titles, *(["other grid point" if grid else "error / std"] if solved else []))
    for name, evaluations in family.solvers(snap).items():
        cell, against = f"{name}/{snap}", f"dopri5/{snap}"
        paired = None if name == "dopri5" else family.against(cell, against)
        good = None if name == "dopri5" else family.as_good(cell, against)
        cells = [name.split("-")[0], f"{evaluations:.3g}"]
        cells += [shown(family.summary(cell, measure)) for measure in MEASURES]
        cells += [
            "-" if paired is None else shown(paired, sign="+"),
            {None: "-", True: "yes", False: "no"}[good],
        ]
        cells += [str(len(family.values(cell, "fid"))), f"{family.summary(cell, 'seconds')[0]:.0f}"]
        if solved:
            share, rms = (family.landing(name, measure) for measure in ("share", "rms"))
            cells.append(f"{100 * share[0]:.2f}%" if grid else f"{rms[0]:.2e}")
        lines.append(row(*cells))
    return lines


def option_table(family):
    default = family.records[0]["default"]
    base = f"{default['sampler']}-{EVALUATIONS[default['sampler']] * default['sampler_steps']}/step"
    names = [cell for cell in family.cells if cell.startswith("default/") and family.values(cell, "fid")]
    lines = head("setting", "evaluations", *MEASURES.values(), "FID less the first row's", "n")
    for cell in [base, *names] if family.values(base, "fid") else names:
        title = (
            f"{base.removesuffix('/step')}, cfg={default['cfg']}"
            if cell == base
            else cell.removeprefix("default/")
        )
        paired = None if cell == base else family.against(cell, base)
        lines.append(
            row(
                title,
                f"{family.summary(cell, 'evaluations')[0]:.3g}",
                *(shown(family.summary(cell, measure)) for measure in MEASURES),
                "-" if paired is None else shown(paired, sign="+"),
                str(len(family.values(cell, "fid"))),
            )
        )
    return lines if len(lines) > 2 else []


def verdict(family):
    """What the rule for the default says, in words."""
    if len(family.values("dopri5/step", "fid")) < ENOUGH:
        return f"The rule for the default needs {ENOUGH} or more repeats of dopri5/step."
    chosen, least = family.cheapest(FEWEST), family.cheapest(0)
    none = "no setting measured"
    return (
        f"Rule for the default (at least {FEWEST} evaluations, no measure worse than the worse end of "
        f"dopri5's interval): **{chosen or none}**. Without the lower limit: {least or none}."
    )


def convergence_table(families):
    """Does a grid need fewer evaluations than a continuous latent?"""
    lines = head("targets", *COLOURS, "n")
    for kind, family in families.items():
        for snap in SNAPS:
            if family.solvers(snap):
                title = FAMILIES[kind] + (f", {SNAPS[snap]}" if kind != "continuous" else "")
                needed = (family.converged(solver, snap) for solver in COLOURS)
                cells = [f"{n:.3g}" if n else "more than measured" for n in needed]
                lines.append(row(title, *cells, str(len(family.values(f"dopri5/{snap}", "fid")))))
    return lines


def section(kind, family):
    first = family.records[0]
    runs = ", ".join(record["run"] for record in family.records)
    lines = [f"## {FAMILIES[kind]}", ""]
    lines += [
        f"{first['model']} on {first['dataset']}, {first['split']} split, {first['clips']} clips; "
        f"runs {runs}; cfg {first['default']['cfg']}, batches of {first['batch_size']}, "
        f"{first['threads']} thread(s).",
        "",
        verdict(family),
        "",
    ]
    for snap, words in SNAPS.items():
        if family.solvers(snap):
            title = words[0].upper() + words[1:] if kind != "continuous" else "No grid to snap to"
            lines += [f"### {title}", "", *solver_table(family, snap), ""]
    table = option_table(family)
    return lines + (["### Other options", "", *table, ""] if table else [])


def figure(families, path):
    """FID (left) and the distance to the tight solution (right) over evaluations, a row per family.

    The bars are of the difference to dopri5, which leaves out what the seeds differ by; the band: dopri5.
    """
    fig, axes = plt.subplots(len(families), 2, figsize=(9, 3.2 * len(families)), squeeze=False)
    for (kind, family), (left, right) in zip(families.items(), axes):
        share = family.landing("dopri5", "share") is not None
        for solver, colour in COLOURS.items():
            names = {n: e for n, e in family.solvers("step").items() if n.split("-")[0] == solver}
            points = [family.summary(f"{name}/step", "fid") for name in names]
            look = {"label": solver, "color": colour, "marker": "o", "ms": 4}
            pairs = [family.against(f"{name}/step", "dopri5/step") for name in names]
            half = [0 if pair is None or math.isnan(pair[1]) else pair[1] for pair in pairs]
            left.errorbar(list(names.values()), [mean for mean, _ in points], half, capsize=3, **look)
            landed = {e: family.landing(n, "share" if share else "rms") for n, e in names.items()}
            landed = {e: pair[0] for e, pair in landed.items() if pair is not None}
            right.plot(list(landed), [100 * y if share else y for y in landed.values()], **look)
        reference = family.summary("dopri5/step", "fid")
        if reference is not None:
            mean, half = reference
            left.axhline(mean, color="grey", ls="--", label="dopri5")
            if not math.isnan(half):
                left.axhspan(mean - half, mean + half, color="grey", alpha=0.2)
        left.set(title=f"{FAMILIES[kind]}: FID", yscale="log")
        right.set_title("on another grid point, %" if share else "RMS error / std of the targets")
        if any(record["landing"] for record in family.records):
            right.set_yscale("log")
        left.legend(fontsize=8)
    for axis in axes.flat:
        axis.set_xscale("log", base=2)
        axis.set_xlabel("evaluations a token")
        for side in (axis.xaxis, *([axis.yaxis] if axis in axes[:, 0] else [])):
            side.set_major_formatter("{x:g}")
            side.set_minor_formatter("{x:.2g}")
    fig.tight_layout()
    with whole_file(path) as place:
        fig.savefig(place, dpi=110, format="png")
    plt.close(fig)


def write_report(record_dir, output):
    records = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(record_dir).glob("*.json"))
    ]
    if not records:
        raise BadInput(f"{record_dir} holds no records: run sampling_study.py with --runs first")
    kinds = [kind for kind in FAMILIES if any(record["family"] == kind for record in records)]
    families = {kind: Family([r for r in records if r["family"] == kind]) for kind in kinds}
    output = Path(output)
    picture = output.with_suffix(".png")
    figure(families, picture)
    lines = [
        "# Solvers, evaluations, snapping",
        "",
        "Written by `python -m experiments.sampling.study --report`; measured by the same program, whose",
        "help says how. ± is the 95% interval of the mean over all repeats (n) of all seeds. *FID less",
        "dopri5's*: taken repeat by repeat, with the same weights, captions and noise. *Evaluations* are",
        "counted, per token and pass. *As good*: no measure is worse than the worse end of dopri5's",
        "interval. *Other grid point*, *error / std*: against a tight float64 solution with the same noise",
        "and the same tokens around; RMS in units of the targets' standard deviation.",
        "",
        f"![FID and distance to the tight solution]({picture.name})",
        "",
    ]
    notes = Path(record_dir) / "notes.md"  # what the records cannot say
    if notes.is_file():
        lines += [notes.read_text(encoding="utf-8")]
    lines += [f"## Evaluations from which on the FID stays within {NEAR:.0%} of dopri5's", ""]
    lines += [*convergence_table(families), ""]
    for kind, family in families.items():
        lines += section(kind, family)
    write_text(output, "\n".join(lines))
    print(f"{output}, {picture}")
