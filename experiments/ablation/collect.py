"""Collect an ablation's folder of runs into one record of plain data, for tables, figures and verdicts."""

import json
from pathlib import Path

import numpy as np
import torch

import analyze_training
from benchmarks.machine import machine
from models.AE import FSQ_LEVELS, AE_models, make_ae
from utils.analysis.event_files import EVENT_FILES, read_points
from utils.checkpoints import Run, load_state
from utils.errors import BadInput
from utils.statistics import split_seed

GENERATORS = ("MARDM", "FSQ_MARDM", "VQ_MARDM")
OFFICIAL_WIDTH, OFFICIAL_DIM = 512, 67  # of the zoo's parameter counts
DROPPED = ("dataset_dir", "checkpoints_dir", "num_workers", "device", "demo", "glove_dir", "eval_mean_std")


def collect(folder, dataset_name):
    """checkpoints/<ablation>, data set -> the record. Runs that were not evaluated yet are in it too."""
    root = Path(folder) / dataset_name
    if not root.is_dir():
        raise BadInput(
            f"{root} does not exist: run experiments/ablation/run.sh first, or name another --folder"
        )
    runs = {path.parent.name: read_run(path.parent) for path in sorted(root.glob("*/opt.json"))}
    runs = {name: run for name, run in runs.items() if run is not None}
    if not runs:
        raise BadInput(f"{root}: no run of train_AE.py or train_MARDM.py in it")
    evaluated = {
        name: read_points(root / name)
        for name, run in runs.items()
        if run["variant"] in GENERATORS and "eval" in run["evaluations"]  # finished: not half a curve
    }
    topology = root / "topology.json"
    return {
        "dataset": dataset_name,
        "machine": machine(),
        "runs": runs,
        "training": analyze_training.examine(in_order(evaluated)) if evaluated else None,
        "topology": json.loads(topology.read_text(encoding="utf-8")) if topology.is_file() else None,
        "zoo": zoo(),
        "quoted": json.loads((Path(__file__).parent / "quoted.json").read_text(encoding="utf-8")),
    }


def in_order(evaluated):
    """Families in the order of GENERATORS, seeds by number."""
    place = {name: (GENERATORS.index(split_seed(name)[0]), split_seed(name)[1] or 0) for name in evaluated}
    return {name: evaluated[name] for name in sorted(evaluated, key=place.get)}


def read_run(folder):
    """One run of train_AE.py or train_MARDM.py; None for any other, such as the evaluator. -> dict"""
    options = json.loads((folder / "opt.json").read_text(encoding="utf-8"))
    flags = without_places(options["flags"])
    if flags.get("model") is None:
        return None
    variant, seed = split_seed(folder.name)
    run = {"variant": variant, "seed": seed, "command": options["command"], "flags": flags}
    run["kind"] = "generator" if "ae_name" in flags else "autoencoder"
    if run["kind"] == "autoencoder":
        run |= bottleneck(flags)
    run |= training_facts(Run(folder))
    run["evaluations"] = {}
    for path in sorted((folder / "eval").glob("*.json")):
        report = json.loads(path.read_text(encoding="utf-8"))
        if "rows" in report:
            run["evaluations"][path.stem] = evaluation(report)
        elif "spaces" in report:
            run["memorisation"] = memorisation(report)
    return run


def without_places(flags):
    return {key: value for key, value in flags.items() if key not in DROPPED}


def bottleneck(flags):
    """Levels, codes and d of an autoencoder's run."""
    levels = list(FSQ_LEVELS.get(flags["model"], ()))
    if flags["model"] == "FSQ_AE_Model":
        levels = flags["fsq_levels"]
    if levels:
        return {"levels": levels, "codes": int(np.prod(levels)), "d": len(levels)}
    vq = flags["model"] == "VQ_AE_Model"
    return {"levels": None, "codes": flags["codebook_size"] if vq else None, "d": flags["width"]}


def training_facts(run):
    """Steps, finished epochs, seconds in steps, best validation FID and its step: from the checkpoint."""
    if not run.latest.is_file():
        return {"steps": 0}
    state = load_state(run.latest)
    facts = {"steps": state["total_it"], "epochs": state["ep"], "train_seconds": state["seconds"]}
    if state.get("best"):
        keys = {"fid": "fid", "step": "total_it", "epoch": "ep", "n": "n_real"}
        facts["best"] = {key: state["best"][stored] for key, stored in keys.items()}
    if any(run.model.glob(EVENT_FILES)):
        fids = read_points(run.model).get("Test/FID", [()])
        facts["judged"] = len(fids[0])
    return facts


def evaluation(report):
    """eval.json without its repeats: means and intervals, n, the settings."""
    rows = {}
    for name, row in report["rows"].items():
        rows[name] = {key: x for key, x in row["interval"].items() if not key.startswith("n_")}
        rows[name] |= {"n": int(row["interval"]["n_pred"]["mean"]), "repeats": len(row["repeats"])}
    kept = [
        "command",
        "date",
        "seconds",
        "checkpoint",
        "label_ceiling",
        "reference_fid",
        "codes",
        "parameters",
    ]
    facts = {key: report[key] for key in kept if key in report}
    return facts | {"flags": without_places(report["flags"]), "rows": rows}


def memorisation(report):
    """The distances become their percentiles 0, 1, ..., 100."""
    spaces = {
        space: {name: summary(row) for name, row in rows.items()} for space, rows in report["spaces"].items()
    }
    return {key: report[key] for key in ("command", "n_train", "kid", "seconds")} | {"spaces": spaces}


def summary(row):
    percentiles = [float(f"{q:.4g}") for q in np.percentile(row["distances"], range(101))]
    return {key: x for key, x in row.items() if key != "distances"} | {"percentiles": percentiles}


def zoo():
    """Every entry of AE_models at its published width, without weights of any run. -> list of dicts"""
    entries = []
    for name in AE_models:
        with torch.device("meta"):
            ae = make_ae(name, OFFICIAL_DIM, OFFICIAL_WIDTH)
        levels = list(ae.fsq_levels) if ae.fsq_levels else None
        size = sum(p.numel() for p in ae.parameters())
        facts = {"codes": ae.codebook_size, "d": ae.target_dim, "parameters": size}
        entries.append({"model": name, "levels": levels} | facts)
    return entries
