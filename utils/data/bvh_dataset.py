"""Convert a folder of BVH files with captions to raw clips, in parallel; an interrupted run can continue."""

import hashlib
import multiprocessing
import os
import re
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.counter_rng import SEED
from motion.bvh import read_bvh
from motion.bvh.rigs import (
    HUMANML3D_BONES,
    UNITS,
    bone_lengths,
    bones_m,
    to_joints22,
    with_bone_lengths,
    wrong_size,
)
from motion.files import atomic_file
from motion.skeletons import SMPL22
from utils.cli import count, number
from utils.config import flag
from utils.data.clips import SPLITS
from utils.data.dataset_writer import RawClip
from utils.data.validation import UPRIGHT, head_above
from utils.errors import BadInput
from utils.plain import composed, parse_json, read_utf8

SKELETONS = ("uniform", "humanml3d", "own")
MAX_REACH = 1000.0  # metres from the start: a file that goes further is broken


@dataclass(frozen=True)
class BvhConfig:
    """How a folder of BVH files becomes a set."""

    input: str
    captions: str | None = None  # a caption file; None: the preset's
    preset: str | None = None
    skeleton: str = flag(
        "bone lengths: the median over all clips, HumanML3D's, or each clip's own",
        "uniform",
        choices=SKELETONS,
    )
    mirror: bool = flag("no mirrored twins (M...)", True)
    split: tuple = flag(
        "shares, where the captions name no split [80 5 15]",
        (80, 5, 15),
        type=number(float, 0, 1e6),
        nargs=3,
        metavar=("TRAIN", "VAL", "TEST"),
    )
    seed: int = flag("of the split", SEED, type=count())
    num_workers: int = flag("processes [all cores]", os.cpu_count() or 1, type=count(1, 256))


@dataclass(frozen=True)
class Reading:
    """How BVH files are read. Every field is part of a converted clip's `key`."""

    fps: float = 20.0
    unit: str | None = None  # None: from the body's height
    up: str = "y"
    position_channels: str = "auto"
    joint_map: tuple = ()  # pairs (joint, sources)

    def joints(self, path):
        """[T,22,3] in metres at self.fps. Raises ValueError, OSError."""
        return self.converted(read_bvh(path, self.position_channels).resampled(self.fps))

    def converted(self, bvh):
        """A Bvh -> [F,22,3] in metres, at its own rate. Raises ValueError."""
        joints = to_joints22(bvh, dict(self.joint_map), self.unit, self.up)
        if not np.isfinite(joints).all() or np.abs(joints - joints[:1, :1]).max() > MAX_REACH:
            raise ValueError(f"positions beyond {MAX_REACH:g} m: a broken file, or not its unit")
        if size := wrong_size(bones_m(joints, SMPL22)):
            raise ValueError(f"{size}: pass another --unit, or none")
        return joints

    def key(self, path):
        """A hash of the file's size and time and of these settings: changes if the joints may change."""
        stat = os.stat(path)
        return hashlib.sha256(repr((self, stat.st_size, stat.st_mtime_ns)).encode()).hexdigest()[:32]


def reading_flags(group):
    """Add the flags of `Reading` to an argparse group."""
    group.add_argument(
        "--joint_map",
        help='.json for an unknown rig: {"pelvis": "Hips", ...}; all joints of a trunk, leg or arm of which '
        "one name is unknown",
    )
    group.add_argument("--unit", choices=tuple(UNITS), help="of the files [from the body's height]")
    group.add_argument("--up", choices=("y", "z"), default="y", help="the axis that points up [%(default)s]")
    group.add_argument(
        "--position_channels",
        choices=("auto", "replace", "add"),
        default="auto",
        help="what position channels below the root do with OFFSET [%(default)s]",
    )


def read_joint_map(file):
    """A .json of {"pelvis": "Hips", "spine2": ["Spine", "Chest"], ...} -> pairs for Reading, or BadInput."""
    if not file:
        return ()
    where = f"--joint_map {file}"
    try:
        fields = parse_json(read_utf8(file, "--joint_map")).items()
        pairs = [(joint, (source,) if isinstance(source, str) else tuple(source)) for joint, source in fields]
        if not all(isinstance(name, str) for _, sources in pairs for name in sources):
            raise ValueError("a name is no text")
    except (ValueError, AttributeError, TypeError) as error:
        line = f":{error.lineno}" if hasattr(error, "lineno") else ""
        raise BadInput(f'{where}{line} is no JSON of joints: {{"pelvis": "Hips", ...}} is due') from None
    unknown = [joint for joint, _ in pairs if joint not in SMPL22.joints]
    if unknown:
        raise BadInput(f"{where}: {unknown[0]} is none of the 22 joints: {', '.join(SMPL22.joints)}")
    return tuple(pairs)


def find_bvh(folder):
    """Every .bvh below a folder -> {path below it without .bvh: Path}, in order. Raises BadInput."""
    folder = Path(folder)
    if not folder.is_dir():
        raise BadInput(f"{folder} is no folder: --input must name one with BVH files")
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".bvh" and path.is_file())
    if not files:
        raise BadInput(f"{folder} holds no .bvh file")
    named = {}
    for path in files:
        name = composed(path.relative_to(folder).with_suffix("").as_posix())
        if named.setdefault(name, path) != path:
            raise BadInput(f"{named[name]} and {path} have one name: rename one")
    return named


def convert(files, reading, work, workers, skipped):
    """Convert files {name: BVH} into the folder `work`, except those already there. -> {name: its .npy}

    A .npy holds joints [T,22,3] float32 in metres. A file that cannot be used is added to `skipped`.
    """
    Path(work).mkdir(parents=True, exist_ok=True)
    jobs = [(name, path, reading, Path(work)) for name, path in files.items()]
    kept = {}
    with ProcessPoolExecutor(workers, initializer=end_with_parent) as pool:
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


def end_with_parent():
    """Makes a process of the pool exit when the main process is gone: if that was killed, it would wait for
    work for ever.
    """

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _convert_one(job):
    """-> name, its .npy or None, what is wrong with the file. Raises Unwritten."""
    name, path, reading, work = job
    try:
        target = work / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}-{reading.key(path)}.npy"
        if target.exists():
            return name, target, None
        joints = reading.joints(path).astype(np.float32)
    except (ValueError, OSError) as error:
        return name, None, re.sub(r"\s+", " ", getattr(error, "strerror", None) or str(error))[:300]
    except MemoryError:
        return name, None, "out of memory: cut the file into parts, or pass fewer --num_workers"
    with atomic_file(target) as part, open(part, "wb") as file:
        np.save(file, joints)
    return name, target, None


def load_converted(file, mmap_mode=None):
    """Joints [T,22,3] that `convert` wrote. Raises BadInput if another run has removed them."""
    try:
        return np.load(file, mmap_mode=mmap_mode, allow_pickle=False)
    except FileNotFoundError:
        raise BadInput(
            f"{file} is gone: another run has finished the same set meanwhile; keep that one, or run again"
        ) from None


def drop_short(kept, min_frames, skipped):
    """Drop clips shorter than min_frames rows before splitting."""
    long = {}
    for name, file in kept.items():
        if len(load_converted(file, mmap_mode="r")) > min_frames:
            long[name] = file
        else:
            skipped.add(f"shorter than {min_frames} feature rows", name)
    return long


def warn_of_lying(kept, where):
    """Warn if heads are not above roots, most likely because --up z is missing."""
    rises = [joints[:, SMPL22.head, 1] - joints[:, 0, 1] for joints in map(load_converted, kept.values())]
    above = float(np.concatenate(rises).mean()) if rises else UPRIGHT + 1
    if not above > UPRIGHT:
        print(f"{where}: warning: head above the root {head_above(above)}")


def clip_name(name):
    """A relative path -> a plain file name: walks/Fast one -> walks_Fast_one."""
    return re.sub(r"[^\w.+-]+", "_", name).strip(".")


def assign_splits(described, names, shares, seed):
    """{name: split}: as the captions say, if all do; else at random by shares of train, val, test.

    BadInput for a split that is none, or that leaves no file for training.
    """
    given = {name: described[name].split for name in names if described[name].split}
    wrong = sorted(set(given.values()) - set(SPLITS))
    if wrong:
        raise BadInput(f"split {wrong[0]!r} in the captions is none of {', '.join(SPLITS)}")
    if given and len(given) < len(names):
        raise BadInput(f"the captions give a split for {len(given)} of {len(names)} files: all or none")
    if given and "train" not in given.values():
        raise BadInput("the captions give no file the split train: nothing is left for training")
    if given:
        return given
    if not shares[0] > 0:
        shown = " ".join(f"{share:g}" for share in shares)
        raise BadInput(f"--split {shown}: nothing is left for training, the first share: make it positive")
    order = np.random.default_rng(seed).permutation(sorted(names))
    ends = np.round(np.cumsum(shares) / np.sum(shares) * len(order)).astype(int)
    if len(order) >= len(SPLITS) and min(shares) > 0:  # even a small set has a file in each
        ends[0] = np.clip(ends[0], 1, len(order) - 2)
        ends[1] = np.clip(ends[1], ends[0] + 1, len(order) - 1)
    return {str(name): SPLITS[int(np.searchsorted(ends, i, side="right"))] for i, name in enumerate(order)}


def raw_clips(described, kept, splits, skeleton):
    """The RawClips of converted files {name: .npy}, one after another.

    skeleton: bone lengths, the median over all files ("uniform"), "humanml3d", or each file's "own".
    """
    lengths = None
    if skeleton == "humanml3d":
        lengths = np.array(HUMANML3D_BONES)
    elif skeleton == "uniform" and kept:
        every = [bone_lengths(load_converted(file), SMPL22) for file in kept.values()]
        lengths = np.median(every, axis=0)
    for name, file in kept.items():
        joints = load_converted(file).astype(np.float64)
        if lengths is not None:
            joints = with_bone_lengths(joints, lengths, SMPL22)
        it = described[name]
        yield RawClip(clip_name(name), joints, it.captions, it.tokens, splits[name], it.content, it.style)


def described_files(files, described, skipped, mirror=True):
    """The files {name: BVH} that have captions; files and captions without the other are added to `skipped`.

    Raises BadInput if none has, or if two clips (or a clip and a twin) would have the same name.
    """
    for name in sorted(files.keys() - described.keys()):
        skipped.add("no captions", name)
    for name in sorted(described.keys() - files.keys()):
        skipped.add("captions, but no BVH file", name)
    both = {name: path for name, path in files.items() if name in described}
    if not both:
        theirs = f"files are called {next(iter(files))}, ..., captions {next(iter(described), 'none')}, ..."
        raise BadInput(f"no caption belongs to a file: {theirs}")
    taken = {}  # name of a clip or twin -> what it is
    for name in both:
        for prefix, kind in ("", ""), *([("M", "the mirrored twin of ")] if mirror else []):
            other = taken.setdefault(f"{prefix}{clip_name(name)}", f"{kind}{name}.bvh")
            if other != f"{kind}{name}.bvh":
                both_called = f"{prefix}{clip_name(name)}: rename one"
                raise BadInput(f"{other} and {kind}{name}.bvh would both be called {both_called}")
    return both
