"""Check a data set before training on it: files, captions, lengths, statistics, leaks between splits."""

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from motion.bvh.rigs import bones_m, wrong_size
from utils.data.cal_mean_std import mean_std
from utils.data.clips import SPLITS, first, parse_caption, read_split
from utils.data.feature_cache import as_float32, load_array
from utils.data.shared_motion import MIRRORED, clip_joints, pose_distances, shared_frames
from utils.datasets import Normalizer
from utils.errors import BadInput
from utils.plain import read_csv

OK, WARN, FAIL = "ok", "warn", "FAIL"
PUBLISHED = {"t2m": (23384, 1460, 4384), "kit": (4888, 300, 830)}  # train, val, test, mirrored twins counted
KNOWN_NAN = {"t2m": {"007975", "M007975"}}
OUTSIDE = "caption section outside its clip"
TEXT_PROBLEMS = ("no text file", "malformed text line", "no usable caption", OUTSIDE)
UNUSABLE = 0.05  # a larger share of a split fails the check
HEIGHT = (0.1, 2.0)  # metres, of the root: mean over a set
UPRIGHT = 0.2  # metres of the head above the root, at least: mean over a set
NO_TOES = 0.005  # metres of the toes ahead of the ankles, mean over a set: less means bones of no length
MEAN_OFF, STD_OFF = 0.1, 0.1  # the largest error of Mean, in Std, and of Std, relative


@dataclass
class Findings:
    """The rows of a report: (level, what was checked, detail)."""

    rows: list = field(default_factory=list)

    def add(self, level, what, detail=""):
        self.rows.append((level, what, detail))

    def expect(self, names, what, level=WARN, good="none"):
        """A row for a list of offending clips, which should be empty."""
        names = list(names)
        self.add(level if names else OK, what, f"{len(names)}: {first(names)}" if names else good)

    def failed(self):
        return [what for level, what, _ in self.rows if level == FAIL]

    def table(self):
        width = max(len(what) for _, what, _ in self.rows)
        return "\n".join(f"{level:4}  {what:{width}}  {detail}".rstrip() for level, what, detail in self.rows)


def check_dataset(spec, root):
    """A DatasetSpec and its folder -> Findings. Raises BadInput if a split's list cannot be read."""
    root, findings = Path(root), Findings()
    ids = {split: read_split(root, split) for split in SPLITS}
    _check_ids(spec, root, ids, findings)
    lengths, offending, train, poses, sizes = _look_at_clips(spec, root, ids)
    known = KNOWN_NAN.get(spec.name, set())
    nan = set(offending["NaN or infinite values"])
    if known & nan:
        findings.add(OK, "known NaN files", f"{', '.join(sorted(known & nan))}: skipped, as everywhere")
    findings.expect(sorted(nan - known), "NaN or infinite values")
    for what in ("no motion file", "unreadable motion", f"fewer than {spec.dim} columns", *TEXT_PROBLEMS):
        findings.expect(offending[what], what)
    _check_lengths(spec, ids, lengths, findings)
    _check_size(sizes, findings)
    _check_shared_motion(poses, findings)
    _check_statistics(spec, root, train, findings)
    return findings


def _twins(spec, root, names):
    """{mirrored twin: its original}, by labels.csv; in the published sets, M<id> is the twin of <id>."""
    if spec.name in PUBLISHED:
        return {name: name[1:] for name in names if name.startswith("M")}
    try:
        rows = read_csv(root / "labels.csv")
    except BadInput:
        return {}
    return {
        row["name"]: row["mirror_of"] for row in rows if row.get("mirror_of") and row.get("name") in names
    }


def _check_ids(spec, root, ids, findings):
    """Check counts, ids that are in two splits, twins that are not in their original's split."""
    counts = tuple(len(ids[split]) for split in SPLITS)
    published = PUBLISHED.get(spec.name)
    shown = " / ".join(map(str, counts))
    if published and counts != published:
        findings.add(
            WARN, "clips in train / val / test", f"{shown}, published are {' / '.join(map(str, published))}"
        )
    else:
        findings.add(OK if min(counts) else FAIL, "clips in train / val / test", shown)
    twice = [
        name for name, count in Counter(name for names in ids.values() for name in names).items() if count > 1
    ]
    findings.expect(twice, "ids in more than one split", FAIL)
    of = {name: split for split in SPLITS for name in ids[split]}
    parted = [twin for twin, name in _twins(spec, root, of).items() if of.get(name, of[twin]) != of[twin]]
    findings.expect(parted, "mirrored twins in another split", FAIL)


def _look_at_clips(spec, root, ids):
    """Read every file once. -> lengths of valid clips {split: [T]}, offenders {what: [names]}, names for the
    statistics of train, poses of valid motions {split: {name: [T,15]}}, metres of their bones together"""
    lengths, offending, train, sizes = defaultdict(list), defaultdict(list), [], []
    poses = {split: {} for split in SPLITS}
    everything = [(split, name) for split in SPLITS for name in ids[split]]
    for split, name in tqdm(everything, desc=spec.name, unit="clip", disable=len(everything) < 500):
        motion, problem = _sound_motion(spec, root / "new_joint_vecs" / f"{name}.npy")
        if problem:
            offending[problem].append(name)
            continue
        if len(motion):
            joints = clip_joints(motion, spec.skeleton)
            poses[split][name] = pose_distances(joints, spec.skeleton)
            sizes.append(bones_m(joints[:1], spec.skeleton))
        problems = _text_problems(spec, root / "texts" / f"{name}.txt", len(motion))
        for problem, where in problems:
            offending[problem].append(where)
        if not {"no text file", "no usable caption"} & {problem for problem, _ in problems}:
            lengths[split].append(len(motion))
        if split == "train" and spec.min_frames <= len(motion) <= spec.max_frames:
            train.append(name)
    return lengths, offending, train, poses, sizes


def _sound_motion(spec, file):
    if not file.is_file():
        return None, "no motion file"
    try:
        motion = load_array(file)
    except BadInput:
        return None, "unreadable motion"
    if motion.ndim != 2 or motion.shape[1] < spec.dim:
        return None, f"fewer than {spec.dim} columns"
    motion = as_float32(motion)
    return (motion, None) if np.isfinite(motion[:, : spec.dim]).all() else (None, "NaN or infinite values")


def _text_problems(spec, file, frames):
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        return [("no text file", file.stem)]
    problems, usable = [], 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            _, start, end = parse_caption(line)
        except ValueError:
            problems.append(("malformed text line", f"{file.name}:{number}"))
            continue
        usable += 1
        if end and int(end * spec.fps) > frames + spec.fps:  # a second's tolerance: published sets round up
            problems.append((OUTSIDE, f"{file.name}:{number}"))
    return problems if usable else [*problems, ("no usable caption", file.stem)]


def _check_lengths(spec, ids, lengths, findings):
    for split in SPLITS:
        frames = np.array(lengths[split], dtype=int)
        fits = (frames >= spec.min_frames) & (frames <= spec.max_frames)
        detail = f"{fits.sum()} of {len(ids[split])}"
        if len(frames):
            numbers = f"{frames.min()} / {np.median(frames):.0f} / {frames.max()}"
            detail += (
                f"; frames min / median / max {numbers}; {spec.min_frames} to {spec.max_frames} are used"
            )
        lost = 1 - len(frames) / max(len(ids[split]), 1)
        findings.add(FAIL if not fits.any() or lost > UNUSABLE else OK, f"usable clips of {split}", detail)


def _check_size(sizes, findings):
    """Check for people, not giants or dwarfs of a wrong unit. sizes: metres of each clip's bones together."""
    if sizes:
        metres = float(np.median(sizes))
        remedy = ", a person's 4.4: prepare the set again, in the unit of its source"
        wrong = bool(wrong_size(metres))
        findings.add(FAIL if wrong else OK, "all bones together", f"{metres:.2f} m{remedy if wrong else ''}")


def _check_shared_motion(poses, findings):
    """Check for clips of val and test that share frames with train: these do not test unseen motion."""
    for split in ("val", "test"):
        shares = shared_frames(poses[split], poses["train"])
        half = sum(share >= 0.5 for share in shares.values())
        detail = f"{len(shares)} of {len(poses[split])} clips, {half} with half of their frames or more"
        detail += f": {first(sorted(shares, key=shares.get, reverse=True))}" if shares else ""
        findings.add(WARN if shares else OK, f"motion of {split} that is also in train", detail)
        others = {name: pose[:, MIRRORED] for name, pose in poses[split].items() if name not in shares}
        findings.expect(shared_frames(others, poses["train"]), f"mirror image of {split} in train")


def _check_statistics(spec, root, train, findings):
    try:
        normalizer = Normalizer.load(root, spec.dim)
    except BadInput as error:
        findings.add(FAIL, "Mean.npy, Std.npy", str(error))
        return
    mean, std = normalizer.mean.numpy(), normalizer.std.numpy()
    if not train:
        return
    # read again, since a large set does not fit in memory
    motions = (load_array(root / "new_joint_vecs" / f"{name}.npy")[:, : spec.dim] for name in train)
    true_mean, true_std = mean_std(motions, len(spec.skeleton))
    off = np.abs((mean - true_mean) / std).max()
    ratio = np.abs(std / true_std - 1).max()
    level = OK if off <= MEAN_OFF and ratio <= STD_OFF else WARN
    if off > 3 or (std / true_std).max() > 2 or (std / true_std).min() < 0.5:
        level = FAIL  # of another set
    findings.add(
        level, "Mean, Std against the train split", f"{off:.3f} Std off at most; Std differs by {ratio:.1%}"
    )
    height = float(true_mean[3]) * spec.skeleton.unit_m
    findings.add(OK if HEIGHT[0] < height < HEIGHT[1] else WARN, "mean height of the root", f"{height:.2f} m")
    above = float(true_mean[3 * spec.skeleton.head + 2]) * spec.skeleton.unit_m - height
    findings.add(OK if above > UPRIGHT else WARN, "head above the root", head_above(above))
    _check_toes(spec.skeleton, true_mean, findings)


def head_above(metres):
    """The mean height of the head above the root as text, with a hint if bodies seem to lie."""
    lying = "" if metres > UPRIGHT else ": do they lie? BVH files with Z up need --up z, others no --up"
    return f"{metres:.2f} m{lying}"


def _check_toes(skeleton, mean, findings):
    """Check that toes point where people face: not so if left and right, which give the heading, are swapped.

    Published features of KIT-ML have the two swapped, so that skeleton is not checked.
    """
    if skeleton.facing[1] != skeleton.hips[0]:
        return
    pairs = zip(skeleton.feet[::2], skeleton.feet[1::2])  # ankle and toe of either side
    ahead = [mean[3 * toe + 3] - mean[3 * ankle + 3] for ankle, toe in pairs]
    metres = float(np.mean(ahead)) * skeleton.unit_m
    wrong = "" if metres > 0 else ": is an axis the other way round, or are left and right exchanged?"
    if abs(metres) < NO_TOES:
        wrong = ": have the bones of the toes no length?"
    findings.add(WARN if wrong else OK, "toes ahead of the ankles", f"{metres:.2f} m{wrong}")
