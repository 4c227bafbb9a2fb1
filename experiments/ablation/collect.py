"""An ablation's folder of runs -> one record of plain data, for tables, figures and verdicts."""

import json
import os
import platform
from pathlib import Path

import numpy as np
import torch

import analyze_training
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
    flags = {key: value for key, value in options["flags"].items() if key not in DROPPED}
    if flags.get("model") is None:
        return None
    variant, seed = split_seed(folder.name)
    run = {"variant": variant, "seed": seed, "command": options["command"], "flags": flags}
    run["kind"] = "generator" if "ae_name" in flags else "autoencoder"
    if run["kind"] == "autoencoder":
        run |= bottleneck(flags)
    run |= trained(Run(folder))
    run["evaluations"] = {}
    for path in sorted((folder / "eval").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        if "rows" in found:
            run["evaluations"][path.stem] = evaluation(found)
        elif "spaces" in found:
            run["memorisation"] = memorisation(found)
    return run


def bottleneck(flags):
    """Levels, codes and d of an autoencoder's run."""
    levels = list(FSQ_LEVELS.get(flags["model"], ()))
    if flags["model"] == "FSQ_AE_Model":
        levels = flags["fsq_levels"]
    if levels:
        return {"levels": levels, "codes": int(np.prod(levels)), "d": len(levels)}
    vq = flags["model"] == "VQ_AE_Model"
    return {"levels": None, "codes": flags["codebook_size"] if vq else None, "d": flags["width"]}


def trained(run):
    """Steps, finished epochs, seconds in steps, best validation FID and where it was: from the checkpoint."""
    if not run.latest.is_file():
        return {"steps": 0}
    state = load_state(run.latest)
    found = {"steps": state["total_it"], "epochs": state["ep"], "train_seconds": state["seconds"]}
    if state.get("best"):
        best = state["best"]
        found["best"] = {
            "fid": best["fid"],
            "step": best["total_it"],
            "epoch": best["ep"],
            "n": best["n_real"],
        }
    if any(run.model.glob(EVENT_FILES)):
        curves = read_points(run.model)
        found["judged"] = len(curves["Test/FID"][0]) if "Test/FID" in curves else 0
    return found


def evaluation(found):
    """eval.json without its repeats: means and intervals, n, the settings."""
    rows = {}
    for name, row in found["rows"].items():
        rows[name] = {key: x for key, x in row["interval"].items() if not key.startswith("n_")}
        rows[name]["n"] = int(row["interval"]["n_pred"]["mean"])
        rows[name]["repeats"] = len(row["repeats"])
    kept = (
        "command",
        "date",
        "seconds",
        "checkpoint",
        "label_ceiling",
        "reference_fid",
        "codes",
        "parameters",
    )
    flags = {key: value for key, value in found["flags"].items() if key not in DROPPED}
    return {key: found[key] for key in kept if key in found} | {"flags": flags, "rows": rows}


def memorisation(found):
    """The distances become their percentiles 0, 1, ..., 100."""
    spaces = {
        space: {
            name: {key: x for key, x in one.items() if key != "distances"}
            | {"percentiles": [float(f"{q:.4g}") for q in np.percentile(one["distances"], range(101))]}
            for name, one in rows.items()
        }
        for space, rows in found["spaces"].items()
    }
    return {key: found[key] for key in ("command", "n_train", "kid", "seconds")} | {"spaces": spaces}


def zoo():
    """Every entry of AE_models at its published width, without weights of any run. -> list of dicts"""
    entries = []
    for name in AE_models:
        with torch.device("meta"):
            ae = make_ae(name, OFFICIAL_DIM, OFFICIAL_WIDTH)
        levels = getattr(ae, "fsq_levels", None)
        entries.append(
            {
                "model": name,
                "levels": None if levels is None else list(levels),
                "codes": ae.codebook_size,
                "d": ae.target_dim,
                "parameters": sum(p.numel() for p in ae.parameters()),
            }
        )
    return entries


def machine():
    """The machine that this record was made on, in words."""
    model, info = platform.machine(), Path("/proc/cpuinfo")
    if info.is_file():
        lines = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        model = lines[0].partition(":")[2].strip() if lines else model
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{model}, {os.cpu_count()} cores, {device}, torch {torch.__version__}"
