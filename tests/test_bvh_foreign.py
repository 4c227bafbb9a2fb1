"""Other programs' BVH readers on our files: positions, floor, heading and rate are those of the .npy.

three.js needs Node and `npm install three` in the folder that FSQ_MARDM_NODE names.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

import bvhio
import numpy as np
import pybvh
import pytest

from motion.bvh.writer import FAMILIAR, write_bvh
from motion.render.figure import faces
from motion.skeletons import SMPL22

THREE = Path(os.environ.get("FSQ_MARDM_NODE", "/nonexistent"), "node_modules/three")
SCRIPT = """
const three = await import(process.argv[2] + "/build/three.module.js");
const { BVHLoader } = await import(process.argv[2] + "/examples/jsm/loaders/BVHLoader.js");
const { readFileSync } = await import("node:fs");
const { skeleton, clip } = new BVHLoader().parse(readFileSync(process.argv[3], "utf8"));
const [root, times] = [skeleton.bones[0], clip.tracks[0].times];
const mixer = new three.AnimationMixer(root);
mixer.clipAction(clip).play();
const names = skeleton.bones.map((bone) => bone.name);
const frames = Array.from(times, (time) => {
  mixer.setTime(Math.min(time, clip.duration - 1e-6)); // at the end it would begin anew
  root.updateMatrixWorld(true);
  return skeleton.bones.map((bone) => bone.getWorldPosition(new three.Vector3()).toArray());
});
console.log(JSON.stringify({ fps: 1 / (times[1] - times[0]), names, frames }));
"""


def by_bvhio(path):
    file, root = bvhio.readAsBvh(str(path)), bvhio.readAsHierarchy(str(path))
    frames = []
    for frame in range(file.FrameCount):
        root.loadPose(frame)
        frames.append([list(joint.PositionWorld) for joint, *_ in root.layout()])
    return 1 / file.FrameTime, [joint.Name for joint, *_ in root.layout()], frames


def by_pybvh(path):
    bvh = pybvh.read_bvh_file(path)
    return bvh.fps, list(bvh.joint_names), bvh.joint_positions()


def by_three(path):
    if not shutil.which("node") or not THREE.is_dir():
        pytest.skip(
            "FSQ_MARDM_NODE names no folder in which `npm install three` was run, or there is no Node"
        )
    script = path.with_name("read.mjs")
    script.write_text(SCRIPT, encoding="utf-8")
    command = ["node", str(script), THREE.resolve().as_uri(), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return json.loads(result.stdout).values()


@pytest.mark.parametrize("bones", ["constant", "varying"])
@pytest.mark.parametrize("reader", [by_bvhio, by_pybvh, by_three], ids=lambda reader: reader.__name__[3:])
def test_a_foreign_reader_sees_the_motion(tmp_path, real_walk, varying_walk, reader, bones):
    joints = real_walk if bones == "constant" else varying_walk
    write_bvh(tmp_path / "motion.bvh", joints, 20)
    fps, names, positions = reader(tmp_path / "motion.bvh")
    order = [list(names).index(name) for name in FAMILIAR[SMPL22.name]]
    positions = np.asarray(positions)[:, order] / 100
    errors = np.linalg.norm(positions - joints, axis=-1)
    print(f"root {errors[:, 0].max():.1e} m, joints mean {errors.mean():.1e}, max {errors.max():.1e} m")
    assert fps == pytest.approx(20) and positions.shape == joints.shape
    assert errors[:, 0].max() < 1e-3
    assert errors.max() < (1e-3 if bones == "constant" else 0.05)
    assert errors.mean() < (1e-3 if bones == "constant" else 0.01)
    assert abs(positions[..., 1].min() - joints[..., 1].min()) < (1e-3 if bones == "constant" else 0.02)
    turned = np.degrees(np.arccos(np.clip((faces(positions, SMPL22) * faces(joints, SMPL22)).sum(-1), -1, 1)))
    assert turned.max() < (0.1 if bones == "constant" else 10)
