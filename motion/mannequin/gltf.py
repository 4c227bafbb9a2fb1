"""Joints -> GLB: skeleton, skinned mannequin and animation in one file; metres, Y up, T-pose bind."""

# T frames, J joints, V vertices, F triangles

import numpy as np
import pygltflib as gltf

from motion.bvh.pose import fitted_pose, local_rotations, rest_places
from motion.bvh.writer import FAMILIAR
from motion.captions import clean_text
from motion.files import atomic_file
from motion.mannequin.body import mannequin
from motion.rotations import quaternions
from motion.skeletons import SMPL22

MIXAMO = "mixamorig:"
PAINT = {  # sRGB of the colour groups, 0 to 255
    "trunk": (0xB9, 0xBE, 0xC6),
    "left": (0x5B, 0x8F, 0xD6),
    "right": (0xE2, 0x8F, 0x4B),
    "visor": (0x26, 0x2A, 0x31),
}
COMPONENTS = {"float32": gltf.FLOAT, "uint16": gltf.UNSIGNED_SHORT, "uint8": gltf.UNSIGNED_BYTE}
SHAPES = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}


def write_glb(path, joints, fps, caption="", skeleton=SMPL22, own=None):
    """joints [T,J,3] in the skeleton's unit -> a GLB file, whole or not at all.

    The root is exact; other joints are as near as constant bones allow. own: the frames that bone lengths are
    measured on (see `motion.bvh.pose.fit_bones`).
    """
    joints = np.asarray(joints, dtype=np.float64)
    offsets, world = fitted_pose(joints, skeleton, own)
    scene = glb_scene(skeleton.unit_m * joints[:, 0], skeleton.unit_m * offsets, world, fps, skeleton)
    scene.animations[0].name = clean_text(caption) or "motion"
    blob = b"".join(scene.save_to_bytes())
    with atomic_file(path) as part:
        part.write_bytes(blob)


def glb_scene(root, offsets, world, fps, skeleton):
    """The file's content: root [T,3] and offsets [J,3] in metres, world rotations [T,J,3,3]."""
    body = mannequin(offsets, skeleton)
    floor = body.vertices[:, 1].min()  # at rest the mannequin stands on it
    places = rest_places(offsets, skeleton, root=(0, -floor, 0))
    scene = gltf.GLTF2(asset=gltf.Asset(version="2.0", generator="FSQ-MARDM"))
    store = _Store(scene)

    names = FAMILIAR.get(skeleton.name)
    names = [MIXAMO + name for name in names] if names else skeleton.joints
    children = [[k for k, parent in enumerate(skeleton.parents) if parent == j] for j in range(len(skeleton))]
    resting = [places[0], *offsets[1:]]
    for name, kids, offset in zip(names, children, resting):
        scene.nodes.append(gltf.Node(name=name, children=kids or None, translation=offset.tolist()))
    scene.nodes.append(gltf.Node(name="Mannequin", mesh=0, skin=0))
    scene.scenes, scene.scene = [gltf.Scene(nodes=[0, len(skeleton)])], 0
    inverse = np.tile(np.eye(4), (len(skeleton), 1, 1))
    inverse[:, 3, :3] = -places  # glTF's matrices are column-major
    scene.skins = [
        gltf.Skin(inverseBindMatrices=store.add(inverse), joints=list(range(len(skeleton))), skeleton=0)
    ]
    scene.materials = [_material(name, colour) for name, colour in PAINT.items()]
    scene.meshes = [gltf.Mesh(name="Mannequin", primitives=_primitives(body, places[0], store))]
    scene.animations = [_animation(root, world, fps, skeleton, store)]
    scene.buffers = [gltf.Buffer(byteLength=len(store.blob))]
    scene.set_binary_blob(bytes(store.blob))
    return scene


def _primitives(body, origin, store):
    """One primitive per material, all on the same vertices."""
    alone = body.joints[:, 0] == body.joints[:, 1]  # one joint twice is not allowed
    shares = np.where(alone, 255, np.rint(255 * body.shares)).astype(np.uint8)
    zero = np.zeros_like(shares)
    weights = np.stack([shares, 255 - shares, zero, zero], axis=1)
    owners = np.concatenate([body.joints, np.zeros_like(body.joints)], axis=1)
    owners = np.where(weights > 0, owners, 0).astype(np.uint8)
    attributes = gltf.Attributes(
        POSITION=store.add(body.vertices + origin, gltf.ARRAY_BUFFER, bounds=True),
        NORMAL=store.add(body.normals, gltf.ARRAY_BUFFER),
        JOINTS_0=store.add(owners, gltf.ARRAY_BUFFER),
        WEIGHTS_0=store.add(weights, gltf.ARRAY_BUFFER, normalized=True),
    )
    return [
        gltf.Primitive(
            attributes=attributes,
            indices=store.add(
                body.triangles[body.groups == group].ravel().astype(np.uint16), gltf.ELEMENT_ARRAY_BUFFER
            ),
            material=group,
        )
        for group in range(len(PAINT))
    ]


def _material(name, colour):
    srgb = np.array(colour) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    surface = gltf.PbrMetallicRoughness(
        baseColorFactor=[*linear.round(4).tolist(), 1.0], metallicFactor=0.0, roughnessFactor=0.65
    )
    return gltf.Material(name=name, pbrMetallicRoughness=surface)


def _animation(root, world, fps, skeleton, store):
    """Linear keyframes at every frame: the root's position, each joint's rotation relative to its parent."""
    turns = quaternions(local_rotations(world, skeleton))
    times = store.add(np.arange(len(root)) / fps, bounds=True)
    tracks = [(0, "translation", root)]
    tracks += [(joint, "rotation", turns[:, joint]) for joint in sorted(set(skeleton.parents[1:]))]
    animation = gltf.Animation(name="motion")
    for joint, path, values in tracks:
        target = gltf.AnimationChannelTarget(node=joint, path=path)
        animation.channels.append(gltf.AnimationChannel(sampler=len(animation.samplers), target=target))
        animation.samplers.append(
            gltf.AnimationSampler(input=times, output=store.add(values), interpolation="LINEAR")
        )
    return animation


class _Store:
    """The binary chunk: arrays, each with its view and accessor."""

    def __init__(self, scene):
        self.scene, self.blob = scene, bytearray()

    def add(self, array, target=None, bounds=False, normalized=None):
        """Append an array -> index of its accessor. Floats become float32."""
        array = np.asarray(array)
        array = np.ascontiguousarray(array, dtype=np.float32 if array.dtype.kind == "f" else array.dtype)
        self.blob += bytes(-len(self.blob) % 4)
        view = gltf.BufferView(buffer=0, byteOffset=len(self.blob), byteLength=array.nbytes, target=target)
        self.blob += array.astype(array.dtype.newbyteorder("<")).tobytes()
        accessor = gltf.Accessor(
            bufferView=len(self.scene.bufferViews),
            componentType=COMPONENTS[array.dtype.name],
            count=len(array),
            type=SHAPES[array.shape[1:]],
            normalized=normalized,
        )
        if bounds:
            rows = array.reshape(len(array), -1)
            accessor.min, accessor.max = rows.min(axis=0).tolist(), rows.max(axis=0).tolist()
        self.scene.bufferViews.append(view)
        self.scene.accessors.append(accessor)
        return len(self.scene.accessors) - 1
