"""A folder of BVH files with captions -> raw clips: in parallel, resumable, with a reason for what is not."""

import hashlib
import os
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from motion.bvh import read_bvh
from motion.bvh.rigs import HUMANML3D_BONES, UNITS, bone_lengths, to_joints22, with_bone_lengths
from motion.files import whole_file
from motion.skeletons import SMPL22
from utils.data.caption_text import swap_sides, swap_token_sides
from utils.data.clips import SPLITS
from utils.data.dataset_writer import RawClip
from utils.errors import BadInput
from utils.motion_process import mirror_joints
from utils.plain import parse_json

SKELETONS = ("uniform", "humanml3d", "own")
MAX_REACH = 1000.0  # metres from the start: beyond, something is wrong with the file


@dataclass(frozen=True)
class Reading:
    """How a BVH file is understood. All of it goes into the key of a converted clip."""

    fps: float = 20.0
    unit: str | None = None  # None: from the body's height
    up: str = "y"
    position_channels: str = "auto"
    joint_map: tuple = ()  # pairs (joint, source or sources)

    def joints(self, path):
        """[T,22,3] in metres at self.fps. Raises ValueError, OSError."""
        bvh = read_bvh(path, self.position_channels).resampled(self.fps)
        joints = to_joints22(bvh, dict(self.joint_map), self.unit, self.up)
        if not np.isfinite(joints).all() or np.abs(joints - joints[:1, :1]).max() > MAX_REACH:
            raise ValueError(f"positions beyond {MAX_REACH:g} m: a broken file, or not its unit")
        return joints

    def key(self, path):
        """Changes with the file and with everything that decides about its joints."""
        stat = os.stat(path)
        return hashlib.sha256(repr((self, stat.st_size, stat.st_mtime_ns)).encode()).hexdigest()[:32]


def reading_flags(group):
    """How BVH files are understood."""
    group.add_argument(
        "--joint_map", help='.json for an unknown rig: {"pelvis": "Hips", ...}, all 22 or a few'
    )
    group.add_argument("--unit", choices=tuple(UNITS), help="of the files [from the body's height]")
    group.add_argument("--up", choices=("y", "z"), default="y", help="the axis that points up [%(default)s]")
    group.add_argument(
        "--position_channels",
        choices=("auto", "replace", "add"),
        default="auto",
        help="what position channels below the root do with OFFSET [%(default)s]",
    )


def reading_of(args, fps):
    """These flags as a value."""
    joint_map = read_joint_map(args.joint_map) if args.joint_map else ()
    return Reading(fps, args.unit, args.up, args.position_channels, joint_map)


def read_joint_map(file):
    """A .json of {"pelvis": "Hips", "spine2": ["Spine", "Chest"], ...} -> pairs for Reading, or BadInput."""
    try:
        fields = parse_json(Path(file).read_text(encoding="utf-8"))
        pairs = [
            (joint, tuple([source] if isinstance(source, str) else source))
            for joint, source in fields.items()
        ]
        if not all(isinstance(name, str) for _, sources in pairs for name in sources):
            raise ValueError("a name is no text")
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist") from None
    except (ValueError, AttributeError, TypeError) as error:
        raise BadInput(f'{file}: expected {{"pelvis": "Hips", ...}}: {error}') from None
    unknown = [joint for joint, _ in pairs if joint not in SMPL22.joints]
    if unknown:
        raise BadInput(f"{file}: {unknown[0]} is none of the 22 joints: {', '.join(SMPL22.joints)}")
    return tuple(pairs)


def find_bvh(folder):
    """Every .bvh below a folder -> {path below it without .bvh: Path}, in order. Raises BadInput."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder: --input must name one with BVH files")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".bvh" and path.is_file())
    if not found:
        raise BadInput(f"{folder} holds no .bvh file")
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in found}


def convert(files, reading, work, workers, skipped):
    """Every file's joints, kept in the folder `work` until the set is whole. -> {name: its .npy}."""
    Path(work).mkdir(parents=True, exist_ok=True)
    jobs = [(name, path, reading, Path(work)) for name, path in files.items()]
    kept = {}
    with ProcessPoolExecutor(workers) as pool:
        done = pool.map(_convert_one, jobs, chunksize=max(1, min(16, len(jobs) // (8 * workers))))
        try:
            for name, file, problem in tqdm(done, total=len(jobs), desc="BVH", unit="file"):
                if problem:
                    skipped.add(problem, name)
                else:
                    kept[name] = file
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return kept


def _convert_one(job):
    """-> name, its .npy or None, what is wrong with the file. A disk that is full is not the file's fault."""
    name, path, reading, work = job
    try:
        target = work / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}-{reading.key(path)}.npy"
        if target.exists():
            return name, target, None
        joints = reading.joints(path).astype(np.float32)
    except (ValueError, OSError) as error:
        return name, None, re.sub(r"\s+", " ", str(error))[:300]
    with whole_file(target) as part, open(part, "wb") as file:
        np.save(file, joints)
    return name, target, None


def drop_short(kept, min_frames, skipped):
    """Without what gives fewer than min_frames rows, so that the split is one of clips that count."""
    short = [
        name
        for name, file in kept.items()
        if len(np.load(file, mmap_mode="r", allow_pickle=False)) <= min_frames
    ]
    for name in short:
        skipped.add(f"shorter than {min_frames} feature rows", name)
    return {name: file for name, file in kept.items() if name not in set(short)}


def clip_name(name):
    """walks/Fast one -> walks_Fast_one: a plain file name."""
    return re.sub(r"[^\w.+-]+", "_", name).strip(".")


def assign_splits(described, names, shares, seed):
    """{name: split}: what the captions say, if they say it for all; else at random by `shares`."""
    given = {name: described[name].split for name in names if described[name].split}
    wrong = sorted(set(given.values()) - set(SPLITS))
    if wrong:
        raise BadInput(f"split {wrong[0]!r} in the captions is none of {', '.join(SPLITS)}")
    if given and len(given) < len(names):
        raise BadInput(f"the captions give a split for {len(given)} of {len(names)} files: all or none")
    if given:
        return given
    if not sum(shares) > 0:
        raise BadInput(f"--split {' '.join(f'{share:g}' for share in shares)}: shares of nothing")
    order = np.random.default_rng(seed).permutation(sorted(names))
    ends = np.round(np.cumsum(shares) / np.sum(shares) * len(order)).astype(int)
    if len(order) >= len(SPLITS) and min(shares) > 0:  # a small set too has something in each
        ends[0] = np.clip(ends[0], 1, len(order) - 2)
        ends[1] = np.clip(ends[1], ends[0] + 1, len(order) - 1)
    return {str(name): SPLITS[int(np.searchsorted(ends, i, side="right"))] for i, name in enumerate(order)}


def raw_clips(described, kept, splits, skeleton, mirror):
    """The raw clips of all converted files, each followed by its mirrored twin. A generator."""
    lengths = None
    if skeleton == "humanml3d":
        lengths = np.array(HUMANML3D_BONES)
    elif skeleton == "uniform" and kept:
        lengths = np.median(
            [bone_lengths(np.load(file, allow_pickle=False), SMPL22) for file in kept.values()], axis=0
        )
    for name, file in kept.items():
        joints = np.load(file, allow_pickle=False).astype(np.float64)
        if lengths is not None:
            joints = with_bone_lengths(joints, lengths, SMPL22)
        what = described[name]
        clip = RawClip(
            clip_name(name), joints, what.captions, what.tokens, splits[name], what.content, what.style
        )
        yield clip
        if mirror:
            yield mirrored(clip)


def mirrored(clip):
    """The twin: left is right in the motion, the captions, the labels; the same split."""
    return replace(
        clip,
        name=f"M{clip.name}",
        joints=mirror_joints(clip.joints, SMPL22),
        captions=tuple(map(swap_sides, clip.captions)),
        tokens=tuple(map(swap_token_sides, clip.tokens)),
        content=swap_sides(clip.content),
    )


def described_files(files, described, skipped):
    """The files that have captions. What lacks its other half is counted."""
    for name in files.keys() - described.keys():
        skipped.add("no captions", name)
    for name in sorted(described.keys() - files.keys()):
        skipped.add("captions, but no BVH file", name)
    both = {name: path for name, path in files.items() if name in described}
    if not both:
        theirs = f"files are called {next(iter(files))}, ..., captions {next(iter(described), 'none')}, ..."
        raise BadInput(f"no caption belongs to a file: {theirs}")
    names = {}
    for name in both:
        other = names.setdefault(clip_name(name), name)
        if other != name:
            raise BadInput(f"{other}.bvh and {name}.bvh would both be called {clip_name(name)}: rename one")
    return both
