"""The home that cases are copied from: the tiny world, the released demo weights, and input of every kind."""

import contextlib
import csv
import io
import json

import numpy as np

import train_AE
from motion.bvh.writer import write_bvh
from motion.skeletons import SMPL22
from motion.synthetic.clips import demo_clips
from tests.conftest import ROOT
from tests.tiny import PAIR, call, linked, where

DATA = where("{home}")
NEW = where("{home}", "{home}/new")
GENERATOR = f"{DATA} --name MARDM {PAIR} --time_steps 1 --cfg 1"
OUT = "--output_dir {home}/out --export npy"
FEW = "--batch_size 64 --epoch 1 --max_iters 1 --warm_up_iter 1"
# A command of each script that costs little
COMMANDS = {
    "train_AE": f"{DATA} --name New --model FSQ_AE_Small --width 8 {FEW}",
    "train_MARDM": f"{DATA} --name New {PAIR} {FEW}",
    "train_LengthEstimator": f"{NEW} {FEW}",
    "train_Evaluators": f"{NEW} --which matching --dim 8 --hidden 8 8 8 {FEW}",
    "evaluation_AE": f"{DATA} --name AE --model FSQ_AE_High --repeat_times 1",
    "evaluation_MARDM": f"{GENERATOR} --repeat_times 1",
    "sample": f"{GENERATOR} --motion_length 8 {OUT} --text_prompt walk",
    "edit": f"{GENERATOR} {OUT} --text_prompt walk -msec 0.3,0.6 --source_motion {{home}}/source.npy",
    "plot_loss": "--log_dir {home}/checkpoints/Demo/AE --metric Val/loss --output {home}/out/loss.png",
    "experiments.prompt_check": "--real --clips 42 --output {home}/out/check.json",
    "prepare_dataset demo": "--clips 10 --name New --dataset_dir {home}/out",
    "prepare_dataset joints": "--input {home}/packed --name New --dataset_dir {home}/out",
    "prepare_dataset bvh": "--input {home}/bvh --captions {home}/bvh/captions.jsonl --name New "
    "--dataset_dir {home}/out --num_workers 1",
    "prepare_dataset check": "--dataset_name Demo --dataset_dir {home}/datasets",
}


def build(world, home):
    """-> home, a copy of the world with a run Small, released/Demo, packed/, bvh/, glove/ and sources"""
    linked(world, home)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        assert call(train_AE.main, f"{where(home)} --name Small --model FSQ_AE_Small --width 16 {FEW}") == 0
    for previous in (home / "checkpoints/Demo").glob("*/model/latest.prev.tar"):
        previous.unlink()
    for name in ("demo_AE", "demo_MARDM"):
        source = ROOT / "checkpoints/Demo" / name / "model/net_best_fid.tar"
        target = home / "released/Demo" / name / "model/net_best_fid.tar"
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes())
    clips = list(demo_clips(3, seed=1))
    np.save(home / "source.npy", clips[0].joints[:41].astype(np.float32))
    for folder in ("packed", "bvh", "glove"):
        (home / folder).mkdir()
    np.savez(
        home / "packed/motions.npz",
        joints=np.concatenate([clip.joints for clip in clips]).astype(np.float32),
        offsets=np.cumsum([0, *(len(clip.joints) for clip in clips)]),
        names=np.array([clip.name for clip in clips]),
        joint_names=np.array(SMPL22.joints),
        unit_m=1.0,
        fps=20.0,
    )
    rows = [{"name": c.name, "captions": list(c.captions), "tokens": list(c.tokens)} for c in clips]
    (home / "packed/captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with open(home / "packed/labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "split", "content", "style"])
        writer.writerows([c.name, split, c.label, ""] for c, split in zip(clips, ("train", "val", "test")))
    for clip in clips:
        write_bvh(home / f"bvh/{clip.name}.bvh", clip.joints[:40], 20.0)
    write_bvh(home / "source.bvh", clips[0].joints[:40], 20.0)
    (home / "prompts.txt").write_text("walk")
    np.save(home / "glove/our_vab_data.npy", np.zeros((3, 300), np.float32))
    rows = [{"name": clip.name, "captions": [clip.captions[0]]} for clip in clips]
    (home / "bvh/captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return home
