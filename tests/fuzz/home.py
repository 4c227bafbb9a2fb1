"""The home that cases are copied from: tiny data and weights of every kind, and the released demo weights."""

import contextlib
import csv
import io
import json

import numpy as np

import train_AE
import train_Evaluators
from motion.bvh.writer import write_bvh
from motion.skeletons import SMPL22
from motion.synthetic.clips import demo_clips
from tests.conftest import ROOT
from tests.tiny import train_demo

COMMON = "--dataset_name Demo --dataset_dir {home}/datasets --checkpoints_dir {home}/checkpoints --device cpu"
LOAD = f"{COMMON} --num_workers 0"
GENERATOR = f"{LOAD} --name MARDM --ae_name AE --ae_model FSQ_AE_High --model FSQ-MARDM-SiT-XS"
CHEAP = "--time_steps 1 --cfg 1 --motion_length 8 --output_dir {home}/out --export npy"
SAMPLE = f"{GENERATOR} {CHEAP} --text_prompt walk"
EDIT = (
    f"{GENERATOR} --time_steps 1 --cfg 1 --output_dir {{home}}/out --export npy --text_prompt walk "
    "-msec 0.3,0.6 --source_motion {home}/source.npy"
)
RELEASED = "--demo --checkpoints_dir {home}/released --device cpu"


def build(home):
    """-> home, with datasets/Demo, checkpoints/Demo, released/Demo, packed/, bvh/, source.npy, prompts.txt"""
    checkpoints = train_demo(home)
    flags = LOAD.replace("{home}", str(home))
    few = "--batch_size 16 --max_iters 2 --epoch 1"
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train_Evaluators.main(f"{flags} {few} --dim 16 --hidden 16 16 16".split())
        train_AE.main(f"{flags} --name Small --model FSQ_AE_Small --width 16 {few}".split())
    for stale in (checkpoints / "Demo").glob("*/model/latest.prev.tar"):
        stale.unlink()
    for name in ("demo_AE", "demo_MARDM"):
        source = ROOT / "checkpoints/Demo" / name / "model/net_best_fid.tar"
        target = home / "released/Demo" / name / "model/net_best_fid.tar"
        target.parent.mkdir(parents=True)
        target.write_bytes(source.read_bytes())
    clips = list(demo_clips(3, seed=1))
    np.save(home / "source.npy", clips[0].joints[:41].astype(np.float32))
    (home / "prompts.txt").write_text("a person walks#8\nsomeone jumps\n", encoding="utf-8")
    write_packed(home / "packed", clips)
    write_bvh_folder(home / "bvh", clips)
    return home


def write_packed(folder, clips):
    """What `prepare_dataset.py joints` reads."""
    folder.mkdir()
    np.savez(
        folder / "motions.npz",
        joints=np.concatenate([clip.joints for clip in clips]).astype(np.float32),
        offsets=np.cumsum([0, *(len(clip.joints) for clip in clips)]),
        names=np.array([clip.name for clip in clips]),
        joint_names=np.array(SMPL22.joints),
        unit_m=1.0,
        fps=20.0,
    )
    with open(folder / "captions.jsonl", "w", encoding="utf-8") as file:
        for clip in clips:
            row = {"name": clip.name, "captions": list(clip.captions), "tokens": list(clip.tokens)}
            file.write(json.dumps(row) + "\n")
    with open(folder / "labels.csv", "w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "split", "content", "style"])
        rows.writerows([clip.name, split, clip.label, ""] for clip, split in zip(clips, SPLITS))


SPLITS = ("train", "val", "test")


def write_bvh_folder(folder, clips):
    """What `prepare_dataset.py bvh` reads."""
    folder.mkdir()
    for clip in clips:
        write_bvh(folder / f"{clip.name}.bvh", clip.joints[:40], 20.0)
    with open(folder / "captions.jsonl", "w", encoding="utf-8") as file:
        for clip in clips:
            file.write(json.dumps({"name": clip.name, "captions": [clip.captions[0]]}) + "\n")
