"""The record as markdown: ablation.md and fsq_ae_comparison.md. Missing runs say so."""

from experiments.ablation import verdicts
from experiments.ablation.verdicts import difference, measured, seeds_of
from utils.statistics import student

AUTOENCODERS = ("AE_Model", "FSQ_888", "VQ_512", "FSQ_AE_Small", "FSQ_75555", "VQ_4096", "FSQ_AE_Medium") + (
    "FSQ_AE_High",
    "VQ_16384",
)
GENERATORS = ("MARDM", "FSQ_MARDM", "VQ_MARDM")
RECONSTRUCTION = {
    "FID": ("fid", 3), "MPJPE mm": ("mpjpe", 1), "global mm": ("mpjpe_global", 0), "top 1": ("top1", 3),
    "top 3": ("top3", 3), "foot skate": ("foot_skate", 3), "jitter": ("jitter", 1),
}  # fmt: skip
GENERATION = {
    "FID": ("fid", 2), "KID": ("kid", 3), "top 1": ("top1", 3), "top 3": ("top3", 3),
    "label top 1": ("label_top1", 3), "label top 3": ("label_top3", 3), "Matching": ("matching", 2),
    "Diversity": ("diversity", 2), "MultiModality": ("multimodality", 2), "foot skate": ("foot_skate", 3),
    "jitter": ("jitter", 1), "pace m/s": ("root_speed", 2),
}  # fmt: skip
BESIDE = {
    "real": "real test clips",
    "random train": "random training clips",
    "same content": "training clips of the same contents (floor)",
}
EFFECTS = (  # what is changed, variant and record with the default, variant and record without
    ("attention begins flat, grid", ("FSQ_MARDM", "eval"), ("FSQ_MARDM_flat", "eval")),
    ("attention begins flat, latents", ("MARDM", "eval"), ("MARDM_flat", "eval")),
    ("attention begins flat, VQ codes", ("VQ_MARDM", "eval"), ("VQ_MARDM_flat", "eval")),
    ("... and targets not standardised, grid", ("FSQ_MARDM_flat", "eval"), ("FSQ_MARDM_flat_raw", "eval")),
    ("... and targets not standardised, latents", ("MARDM_flat", "eval"), ("MARDM_flat_raw", "eval")),
    ("EMA off, grid", ("FSQ_MARDM", "eval"), ("FSQ_MARDM", "no_ema")),
    ("EMA off, latents", ("MARDM", "eval"), ("MARDM", "no_ema")),
    ("snap at the end only", ("FSQ_MARDM", "eval"), ("FSQ_MARDM", "snap_end")),
    ("snap never", ("FSQ_MARDM", "eval"), ("FSQ_MARDM", "snap_off")),
)


def lines(header, rows):
    """Markdown table."""
    every = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in every)


def number(x, digits):
    return f"{x:.{digits}f}"


def spread(values, digits, inner=None):
    """mean ± half over seeds [mean half over repeats]; values: one per seed."""
    mean, half = student(values)
    text = number(mean, digits) + (f" ± {number(half, digits)}" if len(values) > 1 else "")
    return text + (f" [{number(inner, digits)}]" if inner and round(inner, digits) else "")


def rows_of(record, variant, evaluation="eval"):
    """The rows of a variant's own product, one per seed that was evaluated; MultiModality may have been
    measured apart, in a record of its name.
    """
    runs = seeds_of(record, variant).values()
    name = {"generator": "generated", "autoencoder": "reconstruction"}
    found = []
    for run in runs:
        rows = [
            run["evaluations"].get(one, {}).get("rows", {}).get(name[run["kind"]], {})
            for one in (evaluation, "multimodality")
        ]
        if rows[0]:
            found.append({key: rows[1][key] for key in ("multimodality",) if key in rows[1]} | rows[0])
    return found


def cell(rows, key, digits):
    have = [row[key] for row in rows if key in row]
    if not have:
        return "-"
    halves = [x["half"] for x in have if x["half"] is not None]
    return spread([x["mean"] for x in have], digits, sum(halves) / len(halves) if halves else None)


def counts(rows):
    """clips x repeats, seeds."""
    n = "/".join(sorted({f"{row['n']} x {row['repeats']}" for row in rows}))
    return [len(rows), n]


def beside_row(record, name, variants=GENERATORS):
    """A row of real or training clips, from the first evaluation that has it; {} if none does."""
    runs = [run for variant in variants for run in seeds_of(record, variant).values()]
    found = (run["evaluations"].get("eval", {}).get("rows", {}) for run in runs)
    return next((rows[name] for rows in found if name in rows), {})


def beside(record, columns, variants):
    """Real and training clips as rows of the table."""
    found = {title: beside_row(record, name, variants) for name, title in BESIDE.items()}
    return [
        [title, "-", f"{row['n']} x {row['repeats']}"]
        + [cell([row], key, digits) for key, digits in columns.values()]
        for title, row in found.items()
        if row
    ]


def metric_table(record, variants, columns):
    rows = []
    for variant in variants:
        have = rows_of(record, variant)
        if have:
            rows.append(
                [variant, *counts(have), *(cell(have, key, digits) for key, digits in columns.values())]
            )
        else:
            rows.append([variant, 0, "not run", *["-"] * len(columns)])
    return lines(["", "seeds", "n clips x repeats", *columns], rows + beside(record, columns, variants))


def usage_table(record):
    """How much of each code book the test clips need."""
    rows = []
    for variant in AUTOENCODERS[1:]:
        runs = list(seeds_of(record, variant).values())
        codes = [
            run["evaluations"]["eval"]["codes"]
            for run in runs
            if "codes" in run["evaluations"].get("eval", {})
        ]
        if not codes:
            rows.append([variant, 0, "not run", *["-"] * 4])
            continue
        book = min(runs[0]["codes"], codes[0]["tokens"])
        used, usage, perplexity = (
            spread([one[key] for one in codes], digits)
            for key, digits in (("codes_used", 0), ("usage", 3), ("perplexity", 0))
        )
        both = f"{runs[0]['codes']:,} / {codes[0]['tokens']:,}"
        rows.append([variant, len(codes), both, f"{book:,}", used, usage, perplexity])
    header = ["", "seeds", "code book / test tokens", "the smaller", "distinct codes", "usage", "perplexity"]
    return lines(header, rows)


def paired_table(record, pairs, metrics, title):
    """Differences seed by seed, and their 95% interval."""
    rows = []
    for a, b in pairs:
        found = [
            difference(measured(record, a, key), measured(record, b, key)) for key, _ in metrics.values()
        ]
        cells = [spread(list(x.values()), d) if x else "-" for x, (_, d) in zip(found, metrics.values())]
        rows.append([f"{a} - {b}", len(found[0]) or "not run", *cells])
    return lines([title, "seeds", *metrics], rows)


def effects_table(record):
    """Each effect: without minus with, paired by seed."""
    metrics = {
        "FID": ("fid", 2),
        "top 1": ("top1", 3),
        "foot skate": ("foot_skate", 3),
        "jitter": ("jitter", 1),
        "pace m/s": ("root_speed", 2),
    }
    rows = []
    for text, on, off in EFFECTS:
        cells, n = [], 0
        for key, digits in metrics.values():
            with_it, without = (
                measured(record, variant, key, evaluation) for variant, evaluation in (on, off)
            )
            change = difference(without, with_it)
            n = max(n, len(change))
            both = (list(side[seed] for seed in change) for side in (with_it, without))
            means = " -> ".join(number(student(side)[0], digits) for side in both) if change else "-"
            cells.append(means + (f" ({spread(list(change.values()), digits)})" if len(change) > 1 else ""))
        rows.append([text, n or "not run", *cells])
    return lines(["with -> without (difference)", "seeds", *metrics], rows)


def solver_table(record):
    fids = verdicts.solver_fids(record)
    snaps = [snap for snap in ("step", "end", "off") if any(key[0] == snap for key in fids)]
    steps = sorted({n for _, n in fids})

    def shown(values):
        return f"{spread(list(values.values()), 2)}, {len(values)}" if values else "-"

    rows = [[snap, *(shown(fids.get((snap, n))) for n in steps)] for snap in snaps]
    return lines(["snap", *(f"FID at {n} solver steps, seeds" for n in steps)], rows) if rows else "Not run."


def memorisation_table(record):
    rows = []
    for variant in GENERATORS:
        runs = [run for run in seeds_of(record, variant).values() if "memorisation" in run]
        if not runs:
            rows.append([variant, "not run", *["-"] * 6])
            continue
        for name in ("test", "reconstruction", "generated"):
            cells = [
                variant,
                name,
                sum(run["memorisation"]["spaces"]["embedding"][name]["n"] for run in runs),
            ]
            for space in ("embedding", "joints_mm"):
                found = [run["memorisation"]["spaces"][space][name] for run in runs]
                cells.append(spread([one["median"] for one in found], 2))
                hits = sum(one["near_copies"] for one in found)
                cells.append(f"{hits} = {hits / cells[2]:.2%}")
            kid = [run["memorisation"]["kid"] for run in runs]
            rows.append([*cells, spread(kid, 3) if name == "generated" else "-"])
    header = [
        "",
        "clips",
        "n over seeds",
        "embedding: median",
        "near-copies",
        "joints: median mm",
        "near-copies",
        "KID",
    ]
    return lines(header, rows)


def tuning_table(record):
    """Settings of the VQ control, judged on the validation split."""
    rows = []
    for name, run in record["runs"].items():
        found = run["evaluations"].get("eval_val", {}).get("rows", {}).get("reconstruction")
        if name.startswith("VQ_tune") and found:
            flags, codes = run["flags"], run["evaluations"]["eval_val"].get("codes", {})
            settings = [flags["lr"], flags["commitment_cost"], flags["restart_after"]]
            facts = [
                number(found["fid"]["mean"], 3),
                number(found["mpjpe"]["mean"], 1),
                codes.get("codes_used", "-"),
            ]
            rows.append([name, run["codes"], run["seed"], *settings, *facts, found["n"]])
    header = [
        "",
        "codes",
        "seed",
        "lr",
        "commitment cost",
        "restart after",
        "FID",
        "MPJPE mm",
        "codes used",
        "n",
    ]
    return lines(header, rows) if rows else "Not run."


def run_table(record):
    rows = []
    for name, run in record["runs"].items():
        seconds = sum(one["seconds"] for one in run["evaluations"].values())
        trained = f"{run['train_seconds']:.0f}" if "train_seconds" in run else "-"
        rows.append([name, run["seed"], run["steps"], trained, f"{seconds:.0f}", f"`{run['command']}`"])
    return lines(["run", "seed", "steps", "s in steps", "s evaluated", "command"], rows)


def verdict_table(found):
    rows = []
    for one in found:
        claims = "<br>".join(
            f"{c['claim']}: {c['figure']} (n={c['n']} seeds): {c['answer']}" for c in one["claims"]
        )
        rows.append([one["name"], one["text"], f"**{one['verdict']}**", claims])
    return lines(["", "hypothesis", "verdict", "claims: figure ± 95% interval over seeds: answer"], rows)


def zoo_rows(record, entry):
    """An entry of AE_models as rows of the comparison: one for each variant that was trained of it."""
    fixed = [entry["model"]]
    runs = [run for run in record["runs"].values() if run["flags"]["model"] == entry["model"]]
    variants = dict.fromkeys(run["variant"] for run in runs if "eval" in run["evaluations"])
    shape = ["-" if not entry[key] else entry[key] for key in ("codes", "d")]
    levels = " ".join(map(str, entry["levels"])) if entry["levels"] else "-"
    if not variants:
        blank = ["-"] * (len(RECONSTRUCTION) + 11)
        return [[*fixed, levels, *shape, f"{entry['parameters']:,}", "not trained", *blank]]
    return [[*fixed, *measured_row(record, entry, variant)] for variant in variants]


def measured_row(record, entry, variant):
    runs = [run for run in seeds_of(record, variant).values() if "eval" in run["evaluations"]]
    first, rows = runs[0], rows_of(record, variant)
    levels = " ".join(map(str, first["levels"])) if first["levels"] else "-"
    best = [run["best"] for run in runs if "best" in run]
    codes = [run["evaluations"]["eval"].get("codes") for run in runs]
    columns = RECONSTRUCTION | {key: GENERATION[key] for key in ("Matching", "Diversity")}
    parameters = f"{entry['parameters']:,}" if entry["codes"] == first["codes"] else "-"
    size = first["evaluations"]["eval"].get("parameters")
    return [
        levels,
        first["codes"] or "-",
        first["d"],
        parameters,
        "measured",
        len(runs),
        first["flags"]["width"],
        f"{size:,}" if size else "-",
        first["steps"],
        first["epochs"] or "under 1",
        spread([one["fid"] for one in best], 3) if best else "-",
        ", ".join(str(one["step"]) for one in best) or "-",
        ", ".join(str(one["epoch"] or "under 1") for one in best) or "-",
        *(cell(rows, key, digits) for key, digits in columns.values()),
        spread([one["usage"] for one in codes], 3) if all(codes) else "-",
    ]
