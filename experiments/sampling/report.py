"""results/sampling.md and .png from the records of the study: tables, rule for the default, figure.

Repeats of one generator share its weights and are not independent: they are averaged first, and the 95%
intervals (Student's t) are over the generator seeds; of one seed, over its repeats, marked "(r)". Differences
are taken repeat by repeat (same weights, captions and noise), averaged within a seed likewise.
"""

import json
import math
from pathlib import Path

from diffusions.samplers import EVALUATIONS
from utils.analysis.output import markdown, new_figure, plus_minus, save
from utils.cli import write_text
from utils.errors import BadInput
from utils.statistics import student

MEASURES = {"fid": "FID", "top1": "top 1", "top3": "top 3", "foot_skate": "foot skate"}
SHOWN = {name: title for name, title in MEASURES.items() if name != "top3"}  # in the tables
BETTER = {"fid": -1, "top1": 1, "top3": 1, "foot_skate": -1}
OPTIONS = ("default/temperature=", "default/cfg=")  # records also hold settings that were removed since
FEWEST = 8  # evaluations that a default may have
ENOUGH = 15  # repeats of dopri5 to compare with: five of three seeds
NEAR = 0.05  # share of dopri5's FID within which a solver has converged
ROUNDS_NEAR, ROUNDS_SEEDS, TEACHER = 0.02, 3, "rounds-18/random/midpoint"
ROUNDS_RULE = f"""The rule: the fastest whose FID, paired, exceeds that of 18 rounds of the teacher by less
than {ROUNDS_NEAR:.0%} of it or half of its ±, while top 1, foot skate and the root speed's distance from the
real one are worse by no more than the teacher's ±; three seeds at least."""
FEW_SEEDS = "FID. The rule for rounds needs three seeds; the records hold the other measures."
FAMILIES = {"FSQ": "FSQ", "continuous": "continuous latent", "VQ": "VQ"}
SNAPS = {"step": "snapped as drawn", "end": "snapped once, before decoding", "off": "never snapped"}
COLOURS = {"euler": "tab:orange", "midpoint": "tab:green", "heun": "tab:blue"}


def by_seed(values):
    """{(run, repeat): value} -> {run: its values}"""
    runs = {}
    for (run, _), value in values.items():
        runs.setdefault(run, []).append(value)
    return runs


def spread(values):
    """(mean, half width of its interval) over seeds, of one seed over its repeats; None without values."""
    runs = list(by_seed(values).values())
    if len(runs) < 2:
        return student(runs[0]) if runs else None
    return student([sum(run) / len(run) for run in runs])


def format_spread(values, digits=3, sign=""):
    """The spread in print, "(r)" behind an interval that is not over seeds."""
    if not values:
        return "-"
    return plus_minus(*spread(values), digits, sign) + (
        " (r)" if len(by_seed(values)) == 1 < len(values) else ""
    )


def format_n(values):
    """Seeds x repeats of each, such as "3 x 5"; "3 x 2-5" where they have unequal numbers."""
    counts = sorted({len(run) for run in by_seed(values).values()})
    return f"{len(by_seed(values))} x {'-'.join(map(str, counts[:1] + counts[1:][-1:]))}"


class Family:
    """The records of one kind of targets, a run per seed."""

    def __init__(self, records):
        self.records = records
        self.cells = dict.fromkeys(cell for record in records for cell in record["cells"])

    def values(self, cell, measure="fid"):
        """{(run, repeat): value} of a cell."""
        return {
            (record["run"], number): figures[measure]
            for record in self.records
            for number, figures in record["cells"].get(cell, {"repeats": {}})["repeats"].items()
            if measure in figures
        }

    def summary(self, cell, measure="fid"):
        """(mean, half width of its interval) of a measure, None where it was not taken."""
        return spread(self.values(cell, measure))

    def differences(self, cell, other):
        """{(run, repeat): difference of two cells' FID} where both have it; {} of a cell to itself."""
        ours, theirs = self.values(cell), self.values(other)
        return {key: x - theirs[key] for key, x in ours.items() if key in theirs and cell != other}

    def against(self, cell, other):
        """(mean, half width of its interval) of the paired difference of two cells' FID, or None."""
        return spread(self.differences(cell, other))

    def landing(self, solver, measure):
        """Mean over the runs of a solver's distance from the tight solution, or None."""
        values = [record["landing"][solver].get(measure) for record in self.records if record["landing"]]
        return sum(values) / len(values) if values and None not in values else None

    def solvers(self, snap):
        """name -> counted evaluations a token, dopri5 last."""
        evaluations = {
            cell.removesuffix(f"/{snap}"): self.summary(cell, "evaluations")[0]
            for cell in self.cells
            if cell.endswith(f"/{snap}") and self.values(cell, "evaluations")
        }
        return dict(sorted(evaluations.items(), key=lambda item: (item[0] == "dopri5", item[1], item[0])))

    def as_good(self, cell, reference):
        """No measure is worse than the worse end of the reference's 95% interval; None where either lacks."""
        for measure, sign in BETTER.items():
            ours, theirs = self.summary(cell, measure), self.summary(reference, measure)
            if cell == reference or ours is None or len(self.values(reference, measure)) < ENOUGH:
                return None
            if sign * ours[0] < sign * theirs[0] - theirs[1]:
                return False
        return True

    def converged(self, solver, snap="step"):
        """The fewest evaluations from which on a solver's FID is within NEAR of dopri5's, or None."""
        reference, fewest = self.summary(f"dopri5/{snap}"), None
        for name, evaluations in self.solvers(snap).items() if reference else ():
            if name.split("-")[0] == solver:
                away = self.against(f"{name}/{snap}", f"dopri5/{snap}")
                if away:
                    fewest = None if abs(away[0]) > NEAR * reference[0] else fewest or evaluations
        return fewest

    def holds(self, cell):
        """Whether a cell may take the place of TEACHER, by ROUNDS_RULE; three runs at least."""
        if len(by_seed(self.differences(cell, TEACHER))) < ROUNDS_SEEDS:
            return False
        away, (fid, half) = self.against(cell, TEACHER), self.summary(TEACHER)
        real = self.records[0]["root_speed"]

        def fault(cell, measure):
            mean = self.summary(cell, measure)[0]
            return abs(mean - real) if measure == "root_speed" else -BETTER[measure] * mean

        return away[0] < max(ROUNDS_NEAR * fid, half / 2) and all(
            fault(cell, measure) - fault(TEACHER, measure) <= self.summary(TEACHER, measure)[1]
            for measure in ("top1", "foot_skate", "root_speed")
        )

    def cheapest(self, fewest):
        """The fewest evaluations (at least `fewest`) that are as good as dopri5; of equals the lower FID."""
        good = [
            (evaluations, self.summary(f"{name}/step")[0], name)
            for name, evaluations in self.solvers("step").items()
            if evaluations > fewest - 0.5 and self.as_good(f"{name}/step", "dopri5/step")
        ]
        return min(good)[2] if good else None


def solver_table(family, snap):
    landed = snap == "step" and any(record["landing"] for record in family.records)
    grid, reference = family.landing("dopri5", "share") is not None, f"dopri5/{snap}"
    decided, rows = len(family.values(reference)) >= ENOUGH, []
    for name, evaluations in family.solvers(snap).items():
        cell = f"{name}/{snap}"
        row = [name.split("-")[0], f"{evaluations:.3g}"]
        row += [format_spread(family.values(cell, key)) for key in SHOWN]
        row.append(format_spread(family.differences(cell, reference), sign="+"))
        if decided:
            row.append({None: "-", True: "yes", False: "no"}[family.as_good(cell, reference)])
        row += [format_n(family.values(cell)), f"{family.summary(cell, 'seconds')[0]:.0f}"]
        if landed:
            away = family.landing(name, "share" if grid else "rms")
            row.append(f"{away:.2%}" if grid else f"{away:.2e}")
        rows.append(row)
    titles = ["solver", "evaluations", *SHOWN.values(), "FID less dopri5's", *["as good"] * decided]
    titles += ["n", "s a repeat"]
    return markdown(titles + (["other grid point" if grid else "error / std"] if landed else []), rows)


def option_table(family):
    """Guidance and temperature, beside the default; "" where none was measured."""
    default = family.records[0]["default"]
    base = f"{default['sampler']}-{EVALUATIONS[default['sampler']] * default['sampler_steps']}/step"
    titles, rows = {base: f"{base.removesuffix('/step')}, cfg={default['cfg']}"}, []
    titles |= {cell: cell.removeprefix("default/") for cell in family.cells if cell.startswith(OPTIONS)}
    for cell, title in titles.items():
        if family.values(cell):
            row = [title, f"{family.summary(cell, 'evaluations')[0]:.3g}"]
            row += [format_spread(family.values(cell, measure)) for measure in SHOWN]
            row.append(format_spread(family.differences(cell, base), sign="+"))
            rows.append([*row, format_n(family.values(cell))])
    header = ["setting", "evaluations", *SHOWN.values(), "FID less the first row's", "n"]
    return markdown(header, rows) if len(rows) > 1 else ""  # not the default alone


def rounds_of_few_seeds(family, measured):
    """FID alone, a row per number of rounds. measured: cell -> (rounds, order, head)"""
    columns = dict.fromkeys(f"{order}/{head}" for _, order, head in measured.values())
    rows = [
        [rounds, *(format_spread(family.values(f"rounds-{rounds}/{column}")) for column in columns)]
        for rounds in dict.fromkeys(rounds for rounds, *_ in measured.values())
    ]
    return markdown(["rounds", *columns], rows)


def rounds_table(family):
    """Rounds by order and head, and what the rule for fewer of them says; "" where none was measured."""
    measured = {
        cell: cell.removeprefix("rounds-").split("/")
        for cell in filter(family.values, family.cells)
        if cell.startswith("rounds-")
    }
    if not measured:
        return ""
    if len(family.records) < ROUNDS_SEEDS:
        return "\n\n".join([FEW_SEEDS, rounds_of_few_seeds(family, measured)])
    rows, found = [], []
    for cell, (rounds, order, head) in measured.items():
        seconds, holds = family.summary(cell, "seconds")[0], family.holds(cell)
        row = [head, order, rounds]
        row += [format_spread(family.values(cell, key)) for key in (*SHOWN, "root_speed")]
        row.append(format_spread(family.differences(cell, TEACHER), sign="+"))
        row += ["-" if cell == TEACHER else "yes" if holds else "no", f"{seconds:.1f}"]
        rows.append([*row, format_n(family.values(cell))])
        found += [(seconds, cell)] if holds else []
    header = ["head", "order", "rounds", *SHOWN.values(), "root speed", "FID less the teacher's"]
    chosen = "the teacher's 18 rounds"
    if found:
        chosen = f"`{min(found)[1]}`; {len(found)} of {len(rows) - 1} settings hold"
    rule = f"{ROUNDS_RULE} Here that is {chosen}."
    return "\n\n".join([rule, markdown([*header, "holds", "s a repeat", "n"], rows)])


def verdict(family):
    """What the rule for the default says, in words."""
    if len(family.values("dopri5/step")) < ENOUGH:
        return f"The rule for the default needs {ENOUGH} or more repeats of dopri5/step."
    chosen, least = (family.cheapest(fewest) or "no setting measured" for fewest in (FEWEST, 0))
    return (
        f"Rule for the default (at least {FEWEST} evaluations, no measure worse than the worse end of "
        f"dopri5's interval): **{chosen}**. Without the lower limit: {least}."
    )


def convergence_table(families):
    """Does a grid need fewer evaluations than a continuous latent?"""
    rows = []
    for kind, family in families.items():
        for snap in filter(family.solvers, SNAPS):
            title = FAMILIES[kind] + (f", {SNAPS[snap]}" if kind != "continuous" else "")
            needed = (family.converged(solver, snap) for solver in COLOURS)
            cells = [f"{n:.3g}" if n else "more than measured" for n in needed]
            rows.append([title, *cells, format_n(family.values(f"dopri5/{snap}"))])
    return markdown(["targets", *COLOURS, "n"], rows)


def section(kind, family):
    first, runs = family.records[0], ", ".join(record["run"] for record in family.records)
    parts = [f"## {FAMILIES[kind]}"]
    parts.append(
        f"{first['model']} on {first['dataset']}, {first['split']} split, {first['clips']} clips; "
        f"runs {runs}; cfg {first['default']['cfg']}, batches of {first['batch_size']}, "
        f"{first['threads']} thread(s)."
    )
    parts.append(verdict(family))
    for snap in filter(family.solvers, SNAPS):
        title = SNAPS[snap].capitalize() if kind != "continuous" else "No grid to snap to"
        parts += [f"### {title}", solver_table(family, snap)]
    for title, table in {"Rounds": rounds_table(family), "Other options": option_table(family)}.items():
        parts += [f"### {title}", table] if table else []
    return parts


def figure(families, path):
    """FID (left) and the distance to the tight solution (right) over evaluations, a row per family.

    Error bars: of the paired difference to dopri5, in which seed effects cancel; band: dopri5's interval.
    """
    fig = new_figure(9, 3.2 * len(families))
    axes = fig.subplots(len(families), 2, squeeze=False)
    for (kind, family), (left, right) in zip(families.items(), axes):
        share = family.landing("dopri5", "share") is not None
        for solver, colour in COLOURS.items():
            names = {n: e for n, e in family.solvers("step").items() if n.split("-")[0] == solver}
            style = {"label": solver, "color": colour, "marker": "o", "ms": 4}
            means = [family.summary(f"{name}/step")[0] for name in names]
            pairs = [family.against(f"{name}/step", "dopri5/step") for name in names]
            half = [0 if pair is None or math.isnan(pair[1]) else pair[1] for pair in pairs]
            left.errorbar(list(names.values()), means, half, capsize=3, **style)
            landed = {e: family.landing(n, "share" if share else "rms") for n, e in names.items()}
            landed = {e: 100 * y if share else y for e, y in landed.items() if y is not None}
            right.plot(list(landed), list(landed.values()), **style)
        reference = family.summary("dopri5/step")
        if reference is not None:
            mean, half = reference
            left.axhline(mean, color="grey", ls="--", label="dopri5")
            if not math.isnan(half):
                left.axhspan(mean - half, mean + half, color="grey", alpha=0.2)
        left.set(title=f"{FAMILIES[kind]}: FID", yscale="log")
        left.yaxis.set_major_formatter("{x:g}")
        left.yaxis.set_minor_formatter("")
        right.set_title("on another grid point, %" if share else "RMS error / std of the targets")
        if any(record["landing"] for record in family.records):
            right.set_yscale("log")
        left.legend(fontsize=8)
    for axis in axes.flat:
        axis.set_xscale("log", base=2)
        axis.set_xlabel("evaluations a token")
        axis.xaxis.set_major_formatter("{x:g}")
    save(fig, path)


HEAD = """# Solvers, evaluations, rounds

How many solver evaluations a token needs and how many rounds a motion, measured on trained generators."""
READING = """## How to read the tables

Written by `python -m experiments.sampling.study --report`. ± is the 95% interval over generator seeds
(Student's t), repeats of a seed being averaged first; of one seed it is over its repeats and marked (r). *n*:
seeds x repeats. *FID less ...*: paired, with the same weights, captions and noise. *Evaluations* are counted,
per token and pass. *Other grid point*, *error / std*: against a tight float64 solution with the same noise
and the same tokens around; RMS in units of the targets' standard deviation. Seconds are of a machine that did
other work."""


def write_report(record_dir, output):
    records = [json.loads(path.read_text("utf-8")) for path in sorted(Path(record_dir).glob("*.json"))]
    if not records:
        raise BadInput(f"{record_dir} holds no records: run experiments.sampling.study with --runs first")
    kinds = [kind for kind in FAMILIES if any(record["family"] == kind for record in records)]
    families = {kind: Family([r for r in records if r["family"] == kind]) for kind in kinds}
    output, picture = Path(output), Path(output).with_suffix(".png")
    figure(families, picture)
    parts = [HEAD]
    notes = Path(record_dir) / "notes.md"  # what the records cannot say
    if notes.is_file():
        text = notes.read_text(encoding="utf-8").strip()
        parts.append(text.replace("](../", "]("))  # the page lies one folder higher
    parts += [READING, f"![FID and distance to the tight solution]({picture.name})"]
    parts.append(f"## Evaluations from which on the FID stays within {NEAR:.0%} of dopri5's")
    parts.append(convergence_table(families))
    for kind, family in families.items():
        parts += section(kind, family)
    write_text(output, "\n\n".join(parts) + "\n")
    print(f"{output}, {picture}")
