"""The record as markdown: ablation.md and fsq_ae_comparison.md. Missing runs say so."""

from experiments.ablation.verdicts import difference, measured, seeds_of, solver_fids
from utils.analysis.output import markdown, plus_minus
from utils.statistics import student

AUTOENCODERS = ("AE_Model", "FSQ_888", "VQ_512", "FSQ_AE_Small", "FSQ_75555", "VQ_4096", "FSQ_AE_Medium")
AUTOENCODERS += ("FSQ_AE_High", "VQ_16384")
GENERATORS = ("MARDM", "FSQ_MARDM", "VQ_MARDM")
RECONSTRUCTION = {  # title: key, digits
    "FID": ("fid", 3), "MPJPE mm": ("mpjpe", 1), "global mm": ("mpjpe_global", 0), "top 1": ("top1", 3),
    "top 3": ("top3", 3), "foot skate": ("foot_skate", 3), "jitter": ("jitter", 1),
}  # fmt: skip
GENERATION = {
    "FID": ("fid", 2), "KID": ("kid", 3), "top 1": ("top1", 3), "top 3": ("top3", 3),
    "label top 1": ("label_top1", 3), "label top 3": ("label_top3", 3), "Matching": ("matching", 2),
    "Diversity": ("diversity", 2), "MultiModality": ("multimodality", 2), "foot skate": ("foot_skate", 3),
    "jitter": ("jitter", 1), "root speed m/s": ("root_speed", 2),
}  # fmt: skip
BESIDE = {
    "real": "real test clips",
    "random train": "random training clips",
    "same content": "training clips of the same contents (train/test reference)",
}
EFFECTS = (  # what is changed; variant and record with the default; variant and record without
    ("no neighbour initialisation, grid", ("FSQ_MARDM", "eval"), ("FSQ_MARDM_flat", "eval")),
    ("no neighbour initialisation, latents", ("MARDM", "eval"), ("MARDM_flat", "eval")),
    ("no neighbour initialisation, VQ codes", ("VQ_MARDM", "eval"), ("VQ_MARDM_flat", "eval")),
    ("... and targets not standardised, grid", ("FSQ_MARDM_flat", "eval"), ("FSQ_MARDM_flat_raw", "eval")),
    ("... and targets not standardised, latents", ("MARDM_flat", "eval"), ("MARDM_flat_raw", "eval")),
    ("EMA off, grid", ("FSQ_MARDM", "eval"), ("FSQ_MARDM", "no_ema")),
    ("EMA off, latents", ("MARDM", "eval"), ("MARDM", "no_ema")),
    ("snap at the end only", ("FSQ_MARDM", "eval"), ("FSQ_MARDM", "snap_end")),
    ("snap never", ("FSQ_MARDM", "eval"), ("FSQ_MARDM", "snap_off")),
)


def spread(values, digits, inner=None):
    """mean ± half over seeds [mean half over repeats]; values: one per seed, "-" without any."""
    values = list(values)
    if not values:
        return "-"
    text = plus_minus(*student(values), digits)
    return text + (f" [{inner:.{digits}f}]" if inner and round(inner, digits) else "")


def rows_of(record, variant, evaluation="eval"):
    """The rows of a variant's own product, one per evaluated seed; MultiModality may be measured apart."""
    name = {"generator": "generated", "autoencoder": "reconstruction"}
    result = []
    for run in seeds_of(record, variant).values():
        row, apart = (
            run["evaluations"].get(one, {}).get("rows", {}).get(name[run["kind"]], {})
            for one in (evaluation, "multimodality")
        )
        if row:
            result.append({key: apart[key] for key in ("multimodality",) if key in apart} | row)
    return result


def cell(rows, key, digits):
    have = [row[key] for row in rows if key in row]
    halves = [x["half"] for x in have if x["half"] is not None]
    return spread([x["mean"] for x in have], digits, sum(halves) / len(halves) if halves else None)


def beside_row(record, name, variants=GENERATORS):
    """A row of real or training clips, from the first evaluation that has it; {} if none does."""
    runs = [run for variant in variants for run in seeds_of(record, variant).values()]
    rows = (run["evaluations"].get("eval", {}).get("rows", {}) for run in runs)
    return next((one[name] for one in rows if name in one), {})


def metric_table(record, variants, columns):
    have = [(variant, rows) for variant in variants for rows in [rows_of(record, variant)]]
    beside = [(title, beside_row(record, name, variants)) for name, title in BESIDE.items()]
    lines = []
    for title, rows in have + [(title, [row]) for title, row in beside if row]:
        n = "/".join(sorted({f"{row['n']} x {row['repeats']}" for row in rows})) or "not run"
        seeds = "-" if title in BESIDE.values() else len(rows)
        lines.append([title, seeds, n, *(cell(rows, *column) for column in columns.values())])
    return markdown(["", "seeds", "n clips x repeats", *columns], lines)


def usage_table(record):
    """How much of each code book the test clips need."""
    rows = []
    for variant in AUTOENCODERS[1:]:
        runs = list(seeds_of(record, variant).values())
        codes = [run["evaluations"].get("eval", {}).get("codes") for run in runs]
        codes = [one for one in codes if one]
        if not codes:
            rows.append([variant, 0, "not run", *["-"] * 4])
            continue
        book, tokens = runs[0]["codes"], codes[0]["tokens"]
        keys = {"codes_used": 0, "usage": 3, "perplexity": 0}
        cells = [spread((one[key] for one in codes), digits) for key, digits in keys.items()]
        rows.append([variant, len(codes), f"{book:,} / {tokens:,}", f"{min(book, tokens):,}", *cells])
    header = ["", "seeds", "code book / test tokens", "the smaller", "distinct codes", "usage", "perplexity"]
    return markdown(header, rows)


def paired_table(record, pairs, metrics, title):
    """Differences seed by seed, and their 95% interval."""
    rows = []
    for a, b in pairs:
        differences = [difference(*(measured(record, x, key) for x in (a, b))) for key, _ in metrics.values()]
        cells = [spread(x.values(), digits) for x, (_, digits) in zip(differences, metrics.values())]
        rows.append([f"{a} - {b}", len(differences[0]) or "not run", *cells])
    return markdown([title, "seeds", *metrics], rows)


def effects_table(record):
    """Each effect: without minus with, paired by seed."""
    metrics = {key: GENERATION[key] for key in ("FID", "top 1", "foot skate", "jitter", "root speed m/s")}
    rows = []
    for text, on, off in EFFECTS:
        cells, n = [], 0
        for key, digits in metrics.values():
            a, b = (measured(record, variant, key, evaluation) for variant, evaluation in (on, off))
            change = difference(b, a)
            if not change:
                cells.append("-")
                continue
            means = [f"{sum(x[seed] for seed in change) / len(change):.{digits}f}" for x in (a, b)]
            delta = f" ({spread(change.values(), digits)})" if len(change) > 1 else ""
            cells.append(" -> ".join(means) + delta)
            n = max(n, len(change))
        rows.append([text, n or "not run", *cells])
    return markdown(["with -> without (difference)", "seeds", *metrics], rows)


def solver_table(record):
    fids = solver_fids(record)
    snaps = [snap for snap in ("step", "end", "off") if any(key[0] == snap for key in fids)]
    steps = sorted({n for _, n in fids})
    cells = {key: f"{spread(values.values(), 2)}, {len(values)}" for key, values in fids.items()}
    rows = [[snap, *(cells.get((snap, n), "-") for n in steps)] for snap in snaps]
    return (
        markdown(["snap", *(f"FID at {n} solver steps, seeds" for n in steps)], rows) if rows else "Not run."
    )


def memorisation_table(record):
    rows = []
    for variant in GENERATORS:
        runs = [run["memorisation"] for run in seeds_of(record, variant).values() if "memorisation" in run]
        if not runs:
            rows.append([variant, "not run", *["-"] * 6])
            continue
        for name in ("test", "reconstruction", "generated"):
            cells = [variant, name, sum(run["spaces"]["embedding"][name]["n"] for run in runs)]
            for space in ("embedding", "joints_mm"):
                values = [run["spaces"][space][name] for run in runs]
                hits = sum(one["near_copies"] for one in values)
                cells += [spread((one["median"] for one in values), 2), f"{hits} = {hits / cells[2]:.2%}"]
            rows.append([*cells, spread((run["kid"] for run in runs), 3) if name == "generated" else "-"])
    header = ["", "clips", "n over seeds", "embedding: median", "near-copies", "joints: median mm"]
    return markdown([*header, "near-copies", "KID"], rows)


def tuning_table(record):
    """Settings of the VQ control, evaluated on the validation split."""
    rows = []
    for name, run in record["runs"].items():
        evaluation = run["evaluations"].get("eval_val", {})
        row = evaluation.get("rows", {}).get("reconstruction")
        if name.startswith("VQ_tune") and row:
            settings = [run["flags"].get(key, "-") for key in ("lr", "commitment_cost", "restart_after")]
            figures = [f"{row['fid']['mean']:.3f}", f"{row['mpjpe']['mean']:.1f}"]
            used = evaluation.get("codes", {}).get("codes_used", "-")
            rows.append([name, run["codes"], run["seed"], *settings, *figures, used, row["n"]])
    header = ["", "codes", "seed", "lr", "commitment cost", "restart after", "FID", "MPJPE mm", "codes used"]
    return markdown([*header, "n"], rows) if rows else "Not run."


def run_table(record):
    rows = []
    for name, run in record["runs"].items():
        seconds = sum(one["seconds"] for one in run["evaluations"].values())
        trained = f"{run['train_seconds']:.0f}" if "train_seconds" in run else "-"
        rows.append([name, run["seed"], run["steps"], trained, f"{seconds:.0f}", f"`{run['command']}`"])
    return markdown(["run", "seed", "steps", "s in steps", "s evaluated", "command"], rows)


def verdict_table(hypotheses):
    rows = []
    for one in hypotheses:
        claims = (f"{c['claim']}: {c['figure']} (n={c['n']} seeds): {c['answer']}" for c in one["claims"])
        rows.append([one["name"], one["text"], f"**{one['verdict']}**", "<br>".join(claims)])
    return markdown(["", "hypothesis", "verdict", "claims: figure ± 95% interval over seeds: answer"], rows)


ZOO = ["model", "levels", "codes", "d", "parameters (width 512)", "status", "seeds", "width", "parameters"]
ZOO += ["steps", "epochs", "best validation FID", "at step", "at epoch"]
ZOO += [*RECONSTRUCTION, "Matching", "Diversity", "usage"]


def zoo_table(record):
    """Every entry of AE_models: a row for each variant that was trained of it."""
    rows = []
    for entry in record["zoo"]:
        runs = [run for run in record["runs"].values() if run["flags"]["model"] == entry["model"]]
        variants = dict.fromkeys(run["variant"] for run in runs if "eval" in run["evaluations"])
        rows += [[entry["model"], *measured_row(record, entry, variant)] for variant in variants]
        if not variants:
            row = [entry["model"], *shape_of(entry), f"{entry['parameters']:,}", "not trained"]
            rows.append(row + ["-"] * (len(ZOO) - len(row)))
    return markdown(ZOO, rows)


def shape_of(entry):
    return [" ".join(map(str, entry["levels"] or "-")), entry["codes"] or "-", entry["d"]]


def measured_row(record, entry, variant):
    runs = [run for run in seeds_of(record, variant).values() if "eval" in run["evaluations"]]
    first, rows = runs[0], rows_of(record, variant)
    best = [run["best"] for run in runs if "best" in run]
    codes = [run["evaluations"]["eval"].get("codes") for run in runs]
    columns = [*RECONSTRUCTION.values(), GENERATION["Matching"], GENERATION["Diversity"]]
    size = first["evaluations"]["eval"].get("parameters")
    return [
        *shape_of(first),
        f"{entry['parameters']:,}" if entry["codes"] == first["codes"] else "-",
        "measured",
        len(runs),
        first["flags"]["width"],
        f"{size:,}" if size else "-",
        first["steps"],
        first["epochs"] or "under 1",
        spread((one["fid"] for one in best), 3),
        ", ".join(str(one["step"]) for one in best) or "-",
        ", ".join(str(one["epoch"] or "under 1") for one in best) or "-",
        *(cell(rows, *column) for column in columns),
        spread((one["usage"] for one in codes), 3) if all(codes) else "-",
    ]
