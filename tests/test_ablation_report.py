"""The ablation's report: verdicts of records whose answer is known, folders written here, planted copies."""

import json
import re
import shutil

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from torch.utils.tensorboard import SummaryWriter

from experiments import nearest_neighbours as memorisation
from experiments.ablation import report, tables, verdicts
from experiments.ablation.collect import collect
from experiments.nearest_neighbours import cut_copies, local_joints, near_copies, nearest_clips
from models.AE import AE_models
from utils.checkpoints import Run, save_state
from utils.data.clips import Clip
from utils.flags import DEMO

SEEDS = (1, 2, 3)
AES = {  # variant -> model, codes, FIDs of three seeds: FSQ beats VQ, High is near the AE and meets 0.1
    "AE_Model": ("AE_Model", None, (0.050, 0.052, 0.051)),
    "FSQ_888": ("FSQ_AE_Model", 512, (0.30, 0.31, 0.30)),
    "VQ_512": ("VQ_AE_Model", 512, (0.50, 0.51, 0.52)),
    "FSQ_75555": ("FSQ_AE_Model", 4375, (0.14, 0.15, 0.14)),
    "VQ_4096": ("VQ_AE_Model", 4096, (0.40, 0.40, 0.41)),
    "FSQ_AE_Medium": ("FSQ_AE_Medium", 5000, (0.13, 0.14, 0.14)),
    "FSQ_AE_High": ("FSQ_AE_High", 64000, (0.070, 0.073, 0.071)),
    "VQ_16384": ("VQ_AE_Model", 16384, (0.35, 0.36, 0.35)),
}
MODELS = {"MARDM": (2.0, 2.1, 2.05), "FSQ_MARDM": (1.5, 1.6, 1.55), "VQ_MARDM": (6.0, 6.3, 6.2)}


def rows(product, fid):
    def row(n, **values):
        found = {key: {"mean": value, "half": 0.01} for key, value in values.items()}
        return found | {"n": n, "repeats": 5}

    common = {"top1": 0.7, "foot_skate": 0.1, "jitter": 60.0, "mpjpe": 100 * fid, "diversity": 17.0}
    return {
        "real": row(514, top1=0.8, foot_skate=0.08),
        product: row(514, fid=fid, **common),
        "random train": row(514, fid=1.3, top1=0.03),
        "same content": row(514, fid=0.6, top1=0.2),
    }


def evaluation(product, fid, **flags):
    flags = {"split": "test", "snap": "step", "sampler_steps": None} | flags
    return {
        "command": "evaluate",
        "seconds": 9.0,
        "reference_fid": 0.6,
        "flags": flags,
        "rows": rows(product, fid),
    }


def autoencoder(variant, seed):
    model, codes, fids = AES[variant]
    found = evaluation("reconstruction", fids[seed - 1])
    if codes:
        found["codes"] = {
            "codes_used": 400,
            "tokens": 11348,
            "usage": 400 / min(codes, 11348),
            "perplexity": 250.0,
        }
    step = {"FSQ_AE_High": 1000, "FSQ_AE_Medium": 2000 + seed}.get(variant, 1500)
    return {
        "variant": variant, "seed": seed, "kind": "autoencoder", "evaluations": {"eval": found},
        "command": f"train_AE.py --name {variant}_{seed}", "flags": {"model": model, "width": 128},
        "levels": None, "codes": codes, "d": 3, "steps": 2000, "epochs": 1, "train_seconds": 100.0,
        "judged": 4, "best": {"fid": fids[seed - 1], "step": step, "epoch": 1, "n": 178},
    }  # fmt: skip


def generator(variant, seed):
    fid = MODELS[variant][seed - 1]
    evaluations = {"eval": evaluation("generated", fid)}
    if variant == "FSQ_MARDM":  # snapping saves a step: 0.1 lost with it, 1 without
        lost = {("step", 1): 0.1, ("off", 4): 0.0, ("off", 1): 1.0 + 0.01 * seed}
        for (snap, steps), more in lost.items():
            drawn = evaluation("generated", fid + more, snap=snap, sampler_steps=steps)
            evaluations[f"snap_{snap}_{steps}"] = drawn
    spaces = {"embedding": near(0.5), "joints_mm": near(30.0)}
    return {
        "variant": variant, "seed": seed, "kind": "generator", "evaluations": evaluations,
        "command": f"train_MARDM.py --name {variant}_{seed}", "flags": {"model": variant}, "steps": 2500,
        "epochs": 33, "train_seconds": 400.0,
        "memorisation": {"command": "m", "n_train": 99, "kid": 0.1, "spaces": spaces},
    }  # fmt: skip


def near(median):
    one = {
        "median": median,
        "n": 514,
        "near_copies": 5,
        "percentiles": list(np.linspace(0.1, 2, 101) * median),
    }
    return dict.fromkeys(("test", "reconstruction", "generated"), one)


def curve(values):
    return {"steps": [300, 600], "values": values}


def trained(variant, seed):
    arrives, cv = {"MARDM": (1200, 0.5), "FSQ_MARDM": (600, 0.3), "VQ_MARDM": (None, 0.6)}[variant]
    return {
        "group": variant, "seed": seed, "steps": 2500, "cv": cv + 0.01 * seed,
        "steps_to_fid": arrives, "steps_to_top3": arrives,
        "best_fid": 2.0, "seconds_per_step": 0.1,
        "curves": {"Test/FID": curve([9.0, 2.0]), "Train/loss": curve([2.0, 1.0])},
    }  # fmt: skip


def topology_of(variant, seed):
    name, share = ("1 step", 0.2) if variant.startswith("FSQ") else ("nearest code", 0.6)
    facts = {"n": 256, "relative_norm": 0.3, "own_mm": 9.0, "root_mm": 9.0, "yaw_deg": 1.0}
    moves = [facts | {"move": "random token", "field_mm": 10.0}]
    moves.append(facts | {"move": name, "field_mm": 10 * (share + 0.01 * seed)})
    kind = variant[: 3 if variant.startswith("FSQ") else 2]
    found = {"kind": kind, "group": variant, "seed": seed, "codes": 9, "levels": [3, 3], "moves": moves}
    return found | {
        "histograms": [[1, 2, 3]] * 2,
        "spearman": 0.6,
        "spearman_n": 200,
        "swaps": [[1, 2], [2, 3]],
    }


@pytest.fixture
def record():
    """Three seeds of everything, each hypothesis planted as true."""
    runs = {f"{v}_{s}": autoencoder(v, s) for v in AES for s in SEEDS}
    runs |= {f"{v}_{s}": generator(v, s) for v in MODELS for s in SEEDS}
    pairs = [variant for pair in verdicts.PAIRS for variant in pair]
    topology = {f"{v}_{s}": topology_of(v, s) for v in pairs for s in SEEDS}
    return {
        "dataset": "Planted",
        "machine": "a machine",
        "runs": runs,
        "training": {
            "metric": "Train/loss", "fid_at": 3.0, "top3_at": 0.9,
            "runs": {f"{v}_{s}": trained(v, s) for v in MODELS for s in SEEDS},
        },
        "topology": {
            "command": "analyze_topology.py", "samples": 256, "clips": 514, "split": "test",
            "autoencoders": topology,
        },
        "zoo": [{"model": m, "levels": None, "codes": None, "d": 5, "parameters": 1000} for m in AE_models],
        "quoted": [],
    }  # fmt: skip


def verdict_of(record, name):
    return next(one["verdict"] for one in verdicts.hypotheses(record) if one["name"] == name)


# verdicts


def test_what_was_planted_is_found(record):
    assert {one["name"]: one["verdict"] for one in verdicts.hypotheses(record)} == dict.fromkeys(
        ("H1", "H2", "H3", "H4", "H5", "H6"), "supported"
    )


def test_two_seeds_leave_everything_undecided(record):
    for part in (record["runs"], record["training"]["runs"], record["topology"]["autoencoders"]):
        for name in [name for name in part if name.endswith("_3")]:
            del part[name]
    assert {one["verdict"] for one in verdicts.hypotheses(record)} == {"undecided"}


@pytest.mark.parametrize(
    ("name", "variant", "evaluation_", "fids"),
    [
        ("H1", "VQ_512", "eval", (0.1, 0.1, 0.11)),  # VQ beats its FSQ
        ("H1", "FSQ_AE_High", "eval", (0.2, 0.21, 0.2)),  # far from the AE
        ("H3", "VQ_MARDM", "eval", (2.2, 2.3, 2.25)),  # worse, and not by the plan's factor
        ("H4", "FSQ_AE_Medium", "eval", (0.08, 0.081, 0.082)),  # 5k codes do not miss the target
        ("H5", "FSQ_MARDM", "snap_off_1", (1.51, 1.61, 1.56)),  # snapping loses more
    ],
)
def test_one_claim_that_fails_is_enough(record, name, variant, evaluation_, fids):
    for seed, fid in zip(SEEDS, fids):
        found = record["runs"][f"{variant}_{seed}"]["evaluations"][evaluation_]["rows"]
        found["generated" if "generated" in found else "reconstruction"]["fid"]["mean"] = fid
    assert verdict_of(record, name) == "not supported"


def test_a_claim_without_a_vote_decides_nothing(record):
    for one in record["training"]["runs"].values():
        one["cv_detrended"] = 2.0 if one["group"] == "FSQ_MARDM" else 1.0
    h2 = next(one for one in verdicts.hypotheses(record) if one["name"] == "H2")
    assert h2["claims"][-1]["answer"] == "no (no vote)" and h2["verdict"] == "supported"


def test_a_claim_in_closed_form():
    values = {1: 1.0, 2: 2.0, 3: 3.0}  # mean 2, half 4.3027 / sqrt(3) = 2.4841
    assert verdicts.claim("x", values, 4.49)["answer"] == "yes"
    assert verdicts.claim("x", values, 4.48)["answer"] == "open"
    assert verdicts.claim("x", values, -0.49)["answer"] == "no"
    assert verdicts.claim("x", values, -0.49, above=True)["answer"] == "yes"
    assert verdicts.claim("x", values, 4.49, above=True)["answer"] == "no"
    assert verdicts.claim("x", values, 4.49)["figure"] == "2.000 ± 2.484"
    assert verdicts.claim("x", {1: 0.0, 2: 0.0}, 4)["answer"] == "open"  # two seeds


def test_a_run_that_never_arrives_counts_with_its_last_step():
    def one(reached):
        return {"steps_to_fid": reached, "steps": 1000}

    assert verdicts.sooner(one(300), one(500)) == -200
    assert verdicts.sooner(one(300), one(None)) == -700 and verdicts.sooner(one(None), one(300)) == 700
    assert verdicts.sooner(one(None), one(None)) is None


def test_differences_are_paired_by_seed():
    assert verdicts.difference({1: 5.0, 2: 7.0, 4: 1.0}, {2: 3.0, 1: 4.0, 9: 0.0}) == {1: 1.0, 2: 4.0}


# tables


def test_cells_show_the_interval_over_seeds_and_over_repeats():
    three = [{"fid": {"mean": x, "half": 0.2}} for x in (1.0, 2.0, 3.0)]
    assert tables.cell(three, "fid", 2) == "2.00 ± 2.48 [0.20]"
    assert tables.cell(three[:1], "fid", 2) == "1.00 [0.20]"
    assert tables.cell([{"fid": {"mean": 1.0, "half": None}}], "fid", 2) == "1.00"
    assert tables.cell(three, "kid", 2) == "-"


def body(text, title):
    """The lines of the first table under a heading, cells stripped."""
    part = text.split(f"## {title}\n")[1]
    found = next(one for one in part.strip().split("\n\n") if one.startswith("|")).splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in found]


def test_the_page_has_every_number_with_its_n(record):
    text = report.page(record, "ablation", {})
    header, _, *lines = body(text, "Generation")
    row = dict(zip(header, next(line for line in lines if line[0] == "FSQ_MARDM")))
    assert (row["seeds"], row["n clips x repeats"]) == ("3", "514 x 5") and row["FID"].startswith(
        "1.55 ± 0.12"
    )
    assert any(line[0].endswith("(train/test reference)") and line[3].startswith("0.60") for line in lines)
    assert "not run" in text and "FSQ_AE_Small" in text  # it is missing from the record
    assert text.count("train_AE.py --name") == len(AES) * 3
    assert "**supported**" in text and "15 = 0.97%" in text  # near-copies over three seeds of 514


def test_an_empty_record_is_all_not_run(record):
    empty = record | {"runs": {}, "training": None, "topology": None}
    text = report.page(empty, "ablation", {})
    assert "**supported**" not in text and text.count("not run") > 20
    assert report.comparison(empty, "x").count("not trained") == len(AE_models)


def test_from_the_json_alone_come_page_figures_and_comparison(record, tmp_path, capfd):
    (tmp_path / "ablation.json").write_text(json.dumps(record))
    report.main(["--report", str(tmp_path / "ablation.json"), "--comparison", str(tmp_path / "cmp.md")])
    page = (tmp_path / "ablation.md").read_text()
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", page)
    assert pictures == [
        f"ablation_{x}.png" for x in ("reconstruction", "generation", "training", "topology", "memorisation")
    ]
    assert all(imread(tmp_path / picture).std() > 0.02 for picture in pictures)
    comparison = (tmp_path / "cmp.md").read_text()
    assert all(f"| {model} |" in comparison for model in AE_models)
    assert "H1: supported" in capfd.readouterr().out


# collecting


def write_folder(root):
    """Two runs as the scripts leave them, and an evaluator."""
    flags = {
        "model": "FSQ_AE_Model",
        "fsq_levels": [8, 8, 8],
        "codebook_size": 512,
        "width": 16,
        "num_workers": 0,
    }
    for name, options in (
        ("FSQ_888_1", flags),
        ("MARDM_1", {"model": "MARDM-SiT-XS", "ae_name": "FSQ_888_1"}),
        ("text_mot_match", {"which": "both"}),
    ):
        run_ = Run(root / name)
        run_.eval.mkdir(parents=True)
        (run_.root / "opt.json").write_text(json.dumps({"command": f"train {name}", "flags": options}))
        best = {"fid": 0.25, "total_it": 20, "ep": 2, "n_real": 178}
        save_state(run_.latest, {"total_it": 40, "ep": 4, "seconds": 12.5, "best": best})
        with SummaryWriter(run_.model) as writer:
            for step in (10, 20):
                for tag, value in (("Test/FID", 5 / step), ("Train/loss", 1.0), ("Train/grad_norm", step)):
                    writer.add_scalar(tag, value, step)
    product = {"reconstruction": "FSQ_888_1", "generated": "MARDM_1"}
    for row, name in product.items():
        interval = {"fid": {"mean": 0.5, "half": 0.1}, "n_pred": {"mean": 514.0, "half": 0.0}}
        found = {
            "command": "evaluate",
            "date": "d",
            "seconds": 3.0,
            "flags": {"snap": "step", "sampler_steps": None},
        }
        found |= {"reference_fid": 0.6, "rows": {row: {"interval": interval, "repeats": [{}] * 5}}}
        (root / name / "eval/eval.json").write_text(json.dumps(found))
    distances = {"n": 101, "near_copies": 1, "median": 50.0, "distances": list(range(101))}
    spaces = {space: dict.fromkeys(memorisation.ROWS, distances) for space in ("embedding", "joints_mm")}
    found = {"command": "m", "n_train": 9, "kid": 0.2, "seconds": 1.0, "spaces": spaces}
    (root / "MARDM_1/eval/memorisation.json").write_text(json.dumps(found))


def test_a_folder_becomes_a_record(tmp_path):
    write_folder(tmp_path / "abl/Set")
    record = collect(tmp_path / "abl", "Set")
    ae, mardm = record["runs"]["FSQ_888_1"], record["runs"]["MARDM_1"]
    assert set(record["runs"]) == {"FSQ_888_1", "MARDM_1"}  # the evaluator is no run of the ablation
    assert (ae["variant"], ae["seed"], ae["codes"], ae["d"], ae["levels"]) == (
        "FSQ_888",
        1,
        512,
        3,
        [8, 8, 8],
    )
    assert (ae["steps"], ae["epochs"], ae["train_seconds"], ae["judged"]) == (40, 4, 12.5, 2)
    assert ae["best"] == {"fid": 0.25, "step": 20, "epoch": 2, "n": 178} and "num_workers" not in ae["flags"]
    assert mardm["evaluations"]["eval"]["rows"]["generated"] == {
        "fid": {"mean": 0.5, "half": 0.1}, "n": 514, "repeats": 5,
    }  # fmt: skip
    assert mardm["memorisation"]["spaces"]["embedding"]["test"]["percentiles"] == list(range(101))
    assert record["training"]["runs"]["MARDM_1"]["best_fid"] == 0.25
    zoo = {entry["model"]: entry for entry in record["zoo"]}
    with torch.device("meta"):
        size = sum(p.numel() for p in AE_models["AE_Model"]().parameters())
    assert zoo["FSQ_AE_High"]["codes"] == 64000 and zoo["AE_Model"]["parameters"] == size


# memorisation


def clips(n, frames=(20, 40), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(rng.integers(*frames), 5, 3)) for _ in range(n)]


def test_a_distance_is_the_root_mean_square_of_the_joints_in_mm():
    still = [np.zeros((20, 5, 3))]
    moved = [np.zeros((33, 5, 3)) + np.array([0.03, 0.0, 0.04])]  # every joint 5 cm away
    assert nearest_clips(still, moved) == pytest.approx([50.0])
    one_joint = np.zeros((20, 5, 3))
    one_joint[:, 2, 1] = 0.05
    assert nearest_clips(still, [one_joint]) == pytest.approx([50 / np.sqrt(5)])


@pytest.mark.parametrize("cut", [slice(None), slice(4, None), slice(8, -4)])
def test_a_cut_copy_of_a_training_clip_has_distance_zero_and_is_a_near_copy(cut):
    train, test, generated = clips(30), clips(200, seed=1), clips(50, seed=2)
    generated[7] = train[11][cut].copy()
    distance, own = nearest_clips(generated, train), nearest_clips(test, train)
    assert distance[7] == pytest.approx(0, abs=1e-3) and (np.delete(distance, 7) > 100).all()
    found, clean = (near_copies(x, np.percentile(own, 1)) for x in (distance, np.delete(distance, 7)))
    assert found["near_copies"] == clean["near_copies"] + 1 and found["n"] == 50
    assert found["low"] < found["share"] < found["high"]


def test_less_than_four_fifths_of_a_clip_are_no_copy():
    (clip,) = clips(1, frames=(40, 41))
    assert nearest_clips([clip], [clip[:32]])[0] == pytest.approx(0, abs=1e-3)
    assert nearest_clips([clip], [clip[:28], *clips(3, seed=1)])[0] > 100


def test_reconstructed_test_clips_are_one_percent_near_copies():
    sets = dict.fromkeys(memorisation.ROWS, clips(200, seed=1)) | {"copies": clips(30)}
    rows = memorisation.measure(sets, lambda x: nearest_clips(x, clips(30)))
    assert rows["reconstruction"]["share"] == pytest.approx(0.01, abs=0.005)
    assert rows["copies"]["share"] == 1 and rows["copies"]["nearer"] == 1
    assert rows["reconstruction"]["nearer"] == pytest.approx(0.5)


def test_copies_for_the_control_lack_their_first_token():
    of = [Clip(str(i), np.arange(i + 4)[:, None] * np.ones((1, 3))) for i in range(12)]
    cut = cut_copies(of, 9, seed=1)
    assert 0 < len(cut) <= 9 and all(clip.motion[0, 0] == 4 and len(clip.motion) > 4 for clip in cut)


def test_postures_do_not_see_where_one_walks():
    rows = torch.zeros(1, 8, 10)
    rows[..., 4:] = torch.arange(6.0)
    here, there = rows.clone(), rows.clone()
    there[..., :3] = 0.3  # turns and walks
    a, b = (local_joints(x, torch.tensor([8]), 0.5)[0] for x in (here, there))
    assert np.array_equal(a, b) and np.allclose(a[0], np.arange(6).reshape(2, 3) * 0.5)


def test_the_command_measures_a_generator(demo_weights, tmp_path):
    folder = tmp_path / "checkpoints"
    shutil.copytree(demo_weights, folder)
    where = f"--checkpoints_dir {folder} --dataset_dir {demo_weights.parent}/datasets --device cpu"
    memorisation.main(f"--demo {where} --time_steps 2 --clips 5 --output {tmp_path}/m.png".split())
    found = json.loads((folder / "Demo" / DEMO["name"] / "eval/memorisation.json").read_text())
    for space in found["spaces"].values():
        assert [len(row["distances"]) for row in space.values()] == [5, 5, 5, 5]
        assert min(space["test"]["distances"]) > 0  # no test clip stands in the training split
    assert found["n_train"] > 20 and (tmp_path / "m.png").is_file()
