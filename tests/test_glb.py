"""The mannequin and its GLB: closed surface, skinning weights, size; foreign readers see the joints.

The Khronos validator and three.js need Node and `npm install gltf-validator three` in the folder that
FSQ_MARDM_NODE names; Blender needs a Python with `pip install bpy` that FSQ_MARDM_BLENDER names.
"""

import base64
import json
import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import numpy as np
import pygltflib
import pytest
from scipy.spatial.transform import Rotation

from motion.bvh.pose import fit_bones, skeleton_pose
from motion.mannequin.body import FACE, mannequin
from motion.mannequin.gltf import write_glb
from motion.render.figure import LEFT, RIGHT, faces
from motion.skeletons import KIT21, SMPL22
from tests.browser import WEBGL, Browser, needs_browser
from tests.test_motion_process import walk

MODULES = Path(os.environ.get("FSQ_MARDM_NODE", "/nonexistent"), "node_modules")
BLENDER = os.environ.get("FSQ_MARDM_BLENDER")
VALIDATE = """
const { createRequire } = await import("node:module");
const validator = createRequire(process.argv[2] + "/")("gltf-validator");
const { readFileSync } = await import("node:fs");
const report = await validator.validateBytes(new Uint8Array(readFileSync(process.argv[3])));
console.log(JSON.stringify(report));
"""
PAGE = """<!doctype html><canvas width="320" height="320"></canvas>
<script type="importmap">{"imports": {"three": "THREE/build/three.module.js"}}</script>
<script type="module">
import * as three from "three";
import { GLTFLoader } from "THREE/examples/jsm/loaders/GLTFLoader.js";
const canvas = document.querySelector("canvas"), scene = new three.Scene();
const renderer = new three.WebGLRenderer({ canvas, preserveDrawingBuffer: true });
const camera = new three.PerspectiveCamera(40, 1, 0.1, 50);
scene.add(new three.HemisphereLight(0xffffff, 0x888888, 3));
const bytes = Uint8Array.from(atob("DATA"), (c) => c.charCodeAt(0)).buffer;
new GLTFLoader().parse(bytes, "", ({ scene: model, animations }) => {
  scene.add(model);
  const mixer = new three.AnimationMixer(model), bones = [];
  mixer.clipAction(animations[0]).play();
  model.traverse((node) => { node.frustumCulled = false; if (node.isBone) bones.push(node); });
  window.names = bones.map((bone) => bone.name);
  window.show = (time) => {
    mixer.setTime(time);
    model.updateMatrixWorld(true);
    const at = bones.map((bone) => bone.getWorldPosition(new three.Vector3()));
    camera.position.set(at[0].x + 2, 1.4, at[0].z + 3);
    camera.lookAt(at[0].x, 0.9, at[0].z);
    renderer.render(scene, camera);
    return at.map((place) => place.toArray());
  };
});
</script>"""
BLEND = """
import json, sys
import bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
bpy.context.scene.render.fps = 20
bpy.ops.import_scene.gltf(filepath=sys.argv[1])
(rig,) = [o for o in bpy.data.objects if o.type == "ARMATURE"]
meshes = [o.name for o in bpy.data.objects if o.type == "MESH" and o.find_armature()]
first, last = rig.animation_data.action.frame_range
frames = []
for frame in range(round(first), round(last) + 1):
    bpy.context.scene.frame_set(frame)
    frames.append({b.name: list(rig.matrix_world @ b.head) for b in rig.pose.bones})
print("RESULT" + json.dumps([meshes, frames]))
"""


@pytest.fixture(scope="module")
def glb(varying_walk, tmp_path_factory):
    path = tmp_path_factory.mktemp("glb") / "walk.glb"
    write_glb(path, varying_walk, 20, 'a <b>walk</b> "quoted"')
    return path


def check(positions, joints, frames=slice(None)):
    """Compare the positions that a reader found at some frames with the joints."""
    fitted, joints = fit_bones(joints, SMPL22)[frames], joints[frames]
    errors = np.linalg.norm(positions - joints, axis=-1)
    print(f"root {errors[:, 0].max():.1e} m, joints mean {errors.mean():.1e}, max {errors.max():.1e} m")
    ends = [SMPL22.head, *SMPL22.feet, *SMPL22.wrists]
    assert errors[:, 0].max() < 1e-3 and errors[:, ends].mean() < 0.01 and errors.max() < 0.05
    assert np.linalg.norm(positions - fitted, axis=-1).max() < 1e-3  # what constant bones allow


def joint_names(file):
    return [file.nodes[j].name for j in file.skins[0].joints]


class Reader:
    """Reads our file by the glTF specification, with NumPy."""

    def __init__(self, path):
        self.file = pygltflib.GLTF2().load(str(path))
        self.names = joint_names(self.file)

    def array(self, index):
        accessor = self.file.accessors[index]
        view = self.file.bufferViews[accessor.bufferView]
        kinds = {pygltflib.FLOAT: "<f4", pygltflib.UNSIGNED_SHORT: "<u2", pygltflib.UNSIGNED_BYTE: "u1"}
        width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor.type]
        data = self.file.binary_blob()[view.byteOffset : view.byteOffset + view.byteLength]
        return np.frombuffer(data, kinds[accessor.componentType]).reshape(accessor.count, width)

    def pose(self):
        """-> times [T], matrices of the joints [T,J,4,4]."""
        (animation,), count = self.file.animations, len(self.names)
        times = self.array(animation.samplers[0].input)[:, 0]
        local = np.tile(np.eye(4), (len(times), count, 1, 1))
        for joint in range(count):
            local[:, joint, :3, 3] = self.file.nodes[joint].translation
        for channel in animation.channels:
            values = self.array(animation.samplers[channel.sampler].output)
            if channel.target.path == "translation":
                local[:, channel.target.node, :3, 3] = values
            else:
                local[:, channel.target.node, :3, :3] = Rotation.from_quat(values).as_matrix()
        for joint in range(count):
            for kid in self.file.nodes[joint].children or ():
                local[:, kid] = local[:, joint] @ local[:, kid]
        return times, local

    def skinned(self):
        """Vertices in every pose [T,V,3], and those of each material, by name."""
        primitives = self.file.meshes[0].primitives
        attributes = primitives[0].attributes
        inverse = self.array(self.file.skins[0].inverseBindMatrices).reshape(-1, 4, 4).swapaxes(1, 2)
        rest = np.pad(self.array(attributes.POSITION), ((0, 0), (0, 1)), constant_values=1)
        owners, weights = self.array(attributes.JOINTS_0), self.array(attributes.WEIGHTS_0) / 255
        matrices = self.pose()[1] @ inverse
        moved = sum(
            weights[:, k, None] * np.einsum("tvij,vj->tvi", matrices[:, owners[:, k]], rest) for k in range(4)
        )
        names = [material.name for material in self.file.materials]
        return moved[..., :3], {names[p.material]: np.unique(self.array(p.indices)) for p in primitives}


@pytest.mark.parametrize("skeleton", [SMPL22, KIT21], ids=lambda s: s.name)
def test_the_surface_is_closed_faces_outward_and_hangs_on_the_bones(skeleton):
    offsets, _ = skeleton_pose(walk(skeleton, frames=8), skeleton)
    body = mannequin(skeleton.unit_m * offsets, skeleton)
    edges = Counter(tuple(edge) for t in body.triangles.tolist() for edge in zip(t, [t[1], t[2], t[0]]))
    assert set(edges.values()) == {1} and all((b, a) in edges for a, b in edges)
    corners = body.vertices[body.triangles]
    faces_out = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    volume = (corners[:, 0] * faces_out).sum() / 6
    assert 0.02 < volume < 0.25 and np.allclose(np.linalg.norm(body.normals, axis=1), 1)
    assert len(body.vertices) < 2**16 and ((body.shares >= 0) & (body.shares <= 1)).all()
    middles = corners.mean(axis=1)
    assert middles[body.groups == LEFT, 0].min() > -0.06 > -0.2 > middles[body.groups == RIGHT, 0].min()
    head = body.vertices[(body.joints == skeleton.head).any(axis=1)].mean(axis=0)
    assert middles[body.groups == FACE, 2].mean() > head[2] + 0.03
    assert len(set(body.joints.ravel())) >= len(skeleton) - 4


def test_both_bones_move_what_lies_at_their_joint(varying_walk):
    body = mannequin(skeleton_pose(varying_walk, SMPL22)[0], SMPL22)
    for lower in (4, 5, 18, 19):
        pair = (body.joints == [SMPL22.parents[lower], lower]).all(axis=1)
        shares = body.shares[pair]
        assert shares.max() == 1 and shares.min() == 0 and ((shares > 0.2) & (shares < 0.8)).any()


def test_ten_seconds_are_small_and_the_joints_are_where_they_were(varying_walk, tmp_path):
    joints = np.concatenate([varying_walk, varying_walk])[:200]
    write_glb(tmp_path / "a.glb", joints, 20)
    assert (tmp_path / "a.glb").stat().st_size < 300_000
    reader = Reader(tmp_path / "a.glb")
    times, pose = reader.pose()
    assert np.allclose(times, np.arange(200) / 20)
    check(pose[:, :, :3, 3], joints)


def test_the_body_moves_with_the_joints(glb, varying_walk):
    reader = Reader(glb)
    times, pose = reader.pose()
    vertices, groups = reader.skinned()
    visor = vertices[:, groups["visor"]].mean(axis=1) - pose[:, SMPL22.head, :3, 3]
    ahead = (visor * faces(varying_walk, SMPL22)).sum(axis=-1)
    assert np.median(ahead) > 0.05 and np.percentile(ahead, 20) > 0  # the person also bends down
    for side, wrist in zip(("left", "right"), SMPL22.wrists):
        apart = np.linalg.norm(vertices[:, groups[side]] - pose[:, None, wrist, :3, 3], axis=-1)
        assert (apart.min(axis=1) < 0.04).all()
        rest = np.linalg.norm(reader.array(reader.file.meshes[0].primitives[0].attributes.POSITION), axis=1)
        assert np.ptp(apart[:, rest[groups[side]].argsort()[-50:]], axis=0).max() < 0.02  # fingers stay
    lowest, toes = vertices[..., 1].min(axis=1), varying_walk[:, list(SMPL22.feet[1::2]), 1].min(axis=1)
    assert np.median(np.abs(lowest - toes)) < 0.03  # soles are on the floor; a hand may reach lower


def test_names_are_mixamos_and_the_caption_is_the_animations_name(glb):
    file = pygltflib.GLTF2().load(str(glb))
    assert joint_names(file)[:2] == ["mixamorig:Hips", "mixamorig:LeftUpLeg"]
    assert file.animations[0].name == 'a <b>walk</b> "quoted"'


def test_a_body_that_is_a_point_has_a_surface_too():
    assert np.isfinite(mannequin(np.zeros((22, 3)), SMPL22).vertices).all()


@pytest.mark.parametrize("frames, skeleton", [(1, SMPL22), (30, KIT21)])
def test_other_lengths_and_skeletons(frames, skeleton, tmp_path):
    joints = walk(skeleton, frames=40)[:frames]
    write_glb(tmp_path / "a.glb", joints, 12.5, skeleton=skeleton)
    _, pose = Reader(tmp_path / "a.glb").pose()
    assert np.abs(pose[:, 0, :3, 3] - skeleton.unit_m * joints[:, 0]).max() < 1e-5
    if shutil.which("node") and (MODULES / "gltf-validator").is_dir():
        assert validated(tmp_path / "a.glb")["issues"]["numErrors"] == 0


def needs_module(name):
    absent = not shutil.which("node") or not (MODULES / name).is_dir()
    reason = f"FSQ_MARDM_NODE names no folder in which `npm install {name}` was run, or there is no Node"
    return pytest.mark.skipif(absent, reason=reason)


def validated(path):
    script = path.with_name("validate.mjs")
    script.write_text(VALIDATE, encoding="utf-8")
    command = ["node", str(script), str(MODULES.resolve().parent), str(path)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout)


@needs_module("gltf-validator")
def test_the_khronos_validator_has_nothing_to_say(glb):
    report = validated(glb)
    print(report["info"]["totalVertexCount"], report["info"]["totalTriangleCount"])
    assert report["issues"]["messages"] == []


@needs_browser
@needs_module("three")
def test_three_js_shows_it_move(glb, varying_walk, tmp_path):
    page = PAGE.replace("THREE", (MODULES / "three").resolve().as_uri())
    page = page.replace("DATA", base64.b64encode(glb.read_bytes()).decode())
    (tmp_path / "a.html").write_text(page, encoding="utf-8")
    browser = Browser(tmp_path / "profile", *WEBGL, "--allow-file-access-from-files")
    try:
        browser.open(tmp_path / "a.html")
        browser.wait("window.show !== undefined")
        frames = range(0, len(varying_walk) - 1, 10)
        positions = np.array([browser.js(f"show({frame / 20})") for frame in frames])
        names = [name.removeprefix("mixamorig") for name in browser.js("names")]
        pictures = [browser.js(f"show({t})") and browser.canvas() for t in (0, 1.0, 0)]
    finally:
        browser.close()
    order = [names.index(name.removeprefix("mixamorig:")) for name in Reader(glb).names]
    check(positions[:, order], varying_walk, list(frames))
    assert (pictures[0] != pictures[1]).any(axis=-1).mean() > 0.02
    assert np.array_equal(pictures[0], pictures[2])


@pytest.mark.skipif(not BLENDER, reason="FSQ_MARDM_BLENDER names no Python with Blender (pip install bpy)")
def test_blender_imports_it(glb, varying_walk, tmp_path):
    (tmp_path / "read.py").write_text(BLEND, encoding="utf-8")
    command = [BLENDER, str(tmp_path / "read.py"), str(glb)]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    meshes, frames = json.loads(output.split("RESULT")[1])
    positions = np.array([[frame[name] for name in Reader(glb).names] for frame in frames])
    assert meshes == ["Mannequin"] and len(positions) == len(varying_walk)
    check(positions[..., [0, 2, 1]] * [1, 1, -1], varying_walk)  # Blender's Z is up
