"""Tables of results/sampling.md and its .png from the records of the study, with the rule for fewer rounds.

Repeats of one generator share its weights and are not independent: they are averaged first, and the 95%
intervals (Student's t) are over the generator seeds; of one seed, over its repeats, marked "(r)". Differences
are taken repeat by repeat (same weights, captions and noise), averaged within a seed likewise.
"""

import json
import math
from pathlib import Path

from utils.analysis.output import markdown, new_figure, plus_minus, save, write_below
from utils.errors import BadInput
from utils.statistics import mean_ci95

SHOWN = {"fid": "FID", "top1": "top 1", "foot_skate": "foot skate"}
NEAR = 0.05  # share of dopri5's FID within which a solver has converged
ROUNDS_NEAR, ROUNDS_SEEDS, TEACHER = 0.02, 3, "rounds-18/random/midpoint"
ROUNDS_RULE = f"""The rule: the fastest whose FID, paired, exceeds that of 18 rounds of the teacher by less
than {ROUNDS_NEAR:.0%} of it or half of its ±, while top 1, foot skate and the root speed's distance from the
real one are worse by no more than the teacher's ±; three seeds at least."""
FEW_SEEDS = "FID. The rule for rounds needs three seeds; the records hold the other measures."
FAMILIES = {"FSQ": "FSQ", "continuous": "continuous latent", "VQ": "VQ"}
STEP = "/step"  # ends the names of solvers' cells: snapped as drawn
DOPRI5 = "dopri5" + STEP
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
        return mean_ci95(runs[0]) if runs else None
    return mean_ci95([sum(run) / len(run) for run in runs])


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

    def solvers(self):
        """name -> counted evaluations a token, dopri5 last."""
        evaluations = {
            cell.removesuffix(STEP): self.summary(cell, "evaluations")[0]
            for cell in self.cells
            if cell.endswith(STEP) and self.values(cell, "evaluations")
        }
        return dict(sorted(evaluations.items(), key=lambda item: (item[0] == "dopri5", item[1], item[0])))

    def converged(self, solver):
        """The fewest evaluations from which on a solver's FID is within NEAR of dopri5's, or None."""
        reference, fewest = self.summary(DOPRI5), None
        for name, evaluations in self.solvers().items() if reference else ():
            if name.split("-")[0] == solver:
                away = self.against(name + STEP, DOPRI5)
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
            return {"root_speed": abs(mean - real), "top1": -mean}.get(measure, mean)

        return away[0] < max(ROUNDS_NEAR * fid, half / 2) and all(
            fault(cell, measure) - fault(TEACHER, measure) <= self.summary(TEACHER, measure)[1]
            for measure in ("top1", "foot_skate", "root_speed")
        )


def solver_table(family):
    landed = any(record["landing"] for record in family.records)
    grid, rows = family.landing("dopri5", "share") is not None, []
    for name, evaluations in family.solvers().items():
        cell = name + STEP
        row = [name.split("-")[0], f"{evaluations:.3g}"]
        row += [format_spread(family.values(cell, key)) for key in SHOWN]
        row.append(format_spread(family.differences(cell, DOPRI5), sign="+"))
        row += [format_n(family.values(cell)), f"{family.summary(cell, 'seconds')[0]:.0f}"]
        if landed:
            away = family.landing(name, "share" if grid else "rms")
            row.append(f"{away:.2%}" if grid else f"{away:.2e}")
        rows.append(row)
    titles = ["solver", "evaluations", *SHOWN.values(), "FID less dopri5's", "n", "s a repeat"]
    return markdown(titles + (["other grid point" if grid else "error / std"] if landed else []), rows)


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


def convergence_table(families):
    """Does a grid need fewer evaluations than a continuous latent?"""
    rows = []
    for kind, family in families.items():
        needed = (family.converged(solver) for solver in COLOURS)
        cells = [f"{n:.3g}" if n else "more than measured" for n in needed]
        rows.append([FAMILIES[kind], *cells, format_n(family.values(DOPRI5))])
    return markdown(["targets", *COLOURS, "n"], rows)


def section(kind, family):
    first, runs = family.records[0], ", ".join(record["run"] for record in family.records)
    parts = [f"## {FAMILIES[kind]}"]
    parts.append(
        f"{first['model']} on {first['dataset']}, {first['split']} split, {first['clips']} clips; "
        f"runs {runs}; cfg {first['default']['cfg']}, batches of {first['batch_size']}, "
        f"{first['threads']} thread(s)."
    )
    tables = {"Solvers": solver_table(family), "Rounds": rounds_table(family)}
    return parts + [part for title, table in tables.items() if table for part in (f"### {title}", table)]


def figure(families, path):
    """FID (left) and the distance to the tight solution (right) over evaluations, a row per family.

    Error bars: of the paired difference to dopri5, in which seed effects cancel; band: dopri5's interval.
    """
    fig = new_figure(9, 3.2 * len(families))
    axes = fig.subplots(len(families), 2, squeeze=False)
    for (kind, family), (left, right) in zip(families.items(), axes):
        share = family.landing("dopri5", "share") is not None
        for solver, colour in COLOURS.items():
            names = {n: e for n, e in family.solvers().items() if n.split("-")[0] == solver}
            style = {"label": solver, "color": colour, "marker": "o", "ms": 4}
            means = [family.summary(name + STEP)[0] for name in names]
            pairs = [family.against(name + STEP, DOPRI5) for name in names]
            half = [0 if pair is None or math.isnan(pair[1]) else pair[1] for pair in pairs]
            left.errorbar(list(names.values()), means, half, capsize=3, **style)
            landed = {e: family.landing(n, "share" if share else "rms") for n, e in names.items()}
            landed = {e: 100 * y if share else y for e, y in landed.items() if y is not None}
            right.plot(list(landed), list(landed.values()), **style)
        reference = family.summary(DOPRI5)
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


MARKER = "## How to read the tables\n"  # of results/sampling.md; what stands above it is written by hand
READING = """Written by `python -m experiments.sampling.study --report`. ± is the 95% interval over
generator seeds (Student's t), repeats of a seed being averaged first; of one seed it is over its
repeats and marked (r). *n*: seeds x repeats. *FID less ...*: paired, with the same weights,
captions and noise. *Evaluations* are counted, per token and pass. *Other grid point*, *error /
std*: against a tight float64 solution with the same noise and the same tokens around; RMS in units
of the targets' standard deviation. Seconds are of a machine that did other work."""


def write_report(record_dir, output):
    records = [json.loads(path.read_text("utf-8")) for path in sorted(Path(record_dir).glob("*.json"))]
    if not records:
        raise BadInput(f"{record_dir} holds no records: run experiments.sampling.study with --runs first")
    kinds = [kind for kind in FAMILIES if any(record["family"] == kind for record in records)]
    families = {kind: Family([r for r in records if r["family"] == kind]) for kind in kinds}
    output, picture = Path(output), Path(output).with_suffix(".png")
    figure(families, picture)
    parts = [READING, f"![FID and distance to the tight solution]({picture.name})"]
    parts.append(f"## Evaluations from which on the FID stays within {NEAR:.0%} of dopri5's")
    parts.append(convergence_table(families))
    for kind, family in families.items():
        parts += section(kind, family)
    write_below(output, MARKER, "\n\n".join(parts) + "\n")
    print(f"{output}, {picture}")
