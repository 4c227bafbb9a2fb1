"""The CMU part of HumanML3D without AMASS: its clip borders and captions on public BVH files of CMU's motion.

B. Hahne's conversions of the CMU database have a file per trial, SS/SS_TT.bvh: a T-pose, then frames at 120
fps. HumanML3D's repository says which 20 fps frames of which trial make a clip, and holds its captions.
Clips with broken motion are left out, with the reason.
"""

import csv
import io
import re
import zipfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motion.bvh import read_bvh
from motion.bvh.rigs import HUMANML3D_BONES, bone_lengths, with_bone_lengths
from motion.skeletons import SMPL22
from utils.data.bvh_dataset import Reading, convert, find_bvh, load_converted
from utils.data.clips import SPLITS, Skipped, parse_caption
from utils.data.dataset_writer import RawClip, are_tokens
from utils.data.shared_motion import pose_distances, shared_frames
from utils.errors import BadInput
from utils.plain import read_csv, read_utf8

SOURCE = "CMU Graphics Lab Motion Capture Database (mocap.cs.cmu.edu), BVH conversion; HumanML3D's captions"
LICENCE = "motion: free for all uses, not to be sold as data; captions: MIT, Copyright (c) 2022 Chuan Guo"
FPS = 20
STEP = 3  # every third BVH frame is kept: 40 fps of 120, 20 fps of 60
FILTERED = 2  # 20 fps frames: the conversion pulls the first 0.1 s of a trial towards its T-pose
CUT = 4  # 20 fps frames by which a file may be too short for a clip
SHORT = 1.25  # a trial was shot at 60 fps if a clip ends beyond this multiple of its file's length
LEGS = tuple(
    SMPL22.joints.index(f"{side}_{joint}")
    for side in ("left", "right")
    for joint in ("knee", "ankle", "foot")
)
TRUNK = tuple(SMPL22.joints.index(joint) for joint in ("pelvis", "spine1", "spine2", "spine3", "neck"))
LEG_JUMP, TRUNK_JUMP = 0.5, 0.4  # metres in 1/20 s; people's feet reach 0.6, but not from a standstill
UNDERGROUND = 0.2  # metres below the floor
FROZEN, STILL, THAW = 3, 1e-5, 0.1  # so many frames move less than STILL metres, the next more than THAW
KEPT = "kept"


@dataclass(frozen=True)
class CmuConfig:
    """Where the BVH conversion and the clone of HumanML3D's repository lie."""

    bvh: str
    humanml3d: str
    num_workers: int = 1


@dataclass(frozen=True)
class Section:
    """A clip of HumanML3D: frames start..end (exclusive) of a trial at 20 fps."""

    trial: str
    start: int
    end: int
    split: str

    @property
    def subject(self):
        return self.trial.partition("_")[0]


class TrialReading(Reading):
    """Reads every third frame after the T-pose, in the file's world coordinates."""

    def joints(self, path):
        bvh = read_bvh(path, self.position_channels)
        if bvh.fps != 120:
            raise ValueError(f"{bvh.fps:g} frames a second, the conversion has 120")
        joints = self.converted(bvh)
        if joints[0, 0, 1] < -0.01:  # a T-pose at the origin, as one conversion has, is not below
            raise ValueError(
                "converted with a wrong reference height: the hip of its T-pose is below the floor"
            )
        return joints[1::STEP]


def cmu_clips(files, work, min_frames):
    """-> list of RawClips, report {name: (Section, its trial's fps, KEPT or why not)}. Raises BadInput."""
    sections = read_sections(files.humanml3d)
    texts = read_texts(files.humanml3d, sections)
    trials, broken = read_trials(files, {section.trial for section in sections.values()}, work)
    slow = shot_at_60(sections.values(), {trial: len(joints) for trial, joints in trials.items()})
    trials = {trial: joints if trial in slow else joints[::2] for trial, joints in trials.items()}
    lengths = common_bones(trials.values()) if trials else None
    clips, report = [], {}
    for name, section in sorted(sections.items()):
        reason = _unusable(section, texts.get(name), broken, trials)
        if not reason:
            start, end = max(section.start, FILTERED), min(section.end, len(trials[section.trial]))
            joints = trials[section.trial][start:end]
            reason = f"shorter than {min_frames} feature rows" if len(joints) <= min_frames else fault(joints)
        report[name] = section, 60 if section.trial in slow else 120, reason or KEPT
        if not reason:
            joints = with_bone_lengths(joints, lengths, SMPL22)
            clips.append(_raw_clip(name, joints, section.split, texts[name], (start - section.start) / FPS))
    for name, reason in leaks(clips).items():
        report[name] = *report[name][:2], reason
    return [clip for clip in clips if report[clip.name][2] == KEPT], report


def _unusable(section, captions, broken, trials):
    """Why a clip cannot be read at all, or None."""
    if not section.split:
        return "in none of HumanML3D's splits"
    if "/" in section.trial:
        return "two people in a folder: it is not clear whose motion it is"
    if not captions:
        return "no caption"
    if section.trial not in trials:
        return broken.get(section.trial, "no BVH file of its trial")
    if section.end > len(trials[section.trial]) + CUT:
        return f"the conversion ends {CUT / FPS:g} s or more before the clip"
    return None


def _raw_clip(name, joints, split, captions, skipped):
    """captions: [(Caption, start, end)] in seconds of HumanML3D's clip, which begins `skipped` s earlier."""
    return RawClip(
        name,
        joints,
        tuple(caption.text for caption, *_ in captions),
        tuple(tuple(filter(lambda token: are_tokens((token,)), caption.tokens)) for caption, *_ in captions),
        split,
        sections=tuple(
            (round(max(start - skipped, 0), 4), round(max(end - skipped, 0), 4)) for _, start, end in captions
        ),
    )


def read_sections(folder):
    """HumanML3D's index and split lists -> {name: Section} of its CMU clips. Raises BadInput."""
    index = _find(folder, "index.csv")
    split_of = {}
    for split in SPLITS:
        split_of |= dict.fromkeys(read_utf8(_find(folder, f"{split}.txt")).split(), split)
    sections = {}
    try:
        for row in read_csv(index):
            match = re.search(r"/CMU/([^/]+)/(\w+)_poses\.npy$", row["source_path"])
            if match:
                name, alone = row["new_name"].removesuffix(".npy"), match[1].isdigit()
                trial = match[2] if alone else f"{match[1]}/{match[2]}"  # 20_21_rory1/20_11: of two people
                borders = int(row["start_frame"]), int(row["end_frame"])
                sections[name] = Section(trial, *borders, split_of.get(name, ""))
    except (ValueError, KeyError) as error:
        raise BadInput(f"{index} is not HumanML3D's index ({error!r})") from None
    if not sections:
        raise BadInput(f"{index} names no clip of CMU")
    return sections


def _find(folder, name):
    """A file of HumanML3D's repository, there or in its folder HumanML3D. Raises BadInput."""
    places = (Path(folder) / name, Path(folder) / "HumanML3D" / name)
    for place in places:
        if place.exists():
            return place
    raise BadInput(f"{places[0]} does not exist: --humanml3d must name a clone of HumanML3D's repository")


def read_texts(folder, names):
    """texts/ or texts.zip -> {name: [(Caption, start, end)]}, without malformed lines. Raises BadInput."""
    try:
        texts = _find(folder, "texts")
        read = {name: read_utf8(texts / f"{name}.txt") for name in names if (texts / f"{name}.txt").is_file()}
    except BadInput:
        read = _zipped_texts(_find(folder, "texts.zip"), names)
    parsed = defaultdict(list)
    for name, text in read.items():
        for line in filter(str.strip, text.splitlines()):
            try:
                caption, start, end = parse_caption(line)
            except ValueError:
                continue
            if any(are_tokens((token,)) for token in caption.tokens):
                parsed[name].append((caption, start, end))
    return parsed


def _zipped_texts(file, names):
    try:
        with zipfile.ZipFile(file) as packed:
            members = {Path(member).stem: member for member in packed.namelist() if member.endswith(".txt")}
            return {name: packed.read(members[name]).decode("utf-8-sig") for name in names if name in members}
    except (zipfile.BadZipFile, OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is not readable as HumanML3D's texts: {error}") from None


def read_trials(files, wanted, work):
    """Convert the BVH files of the trials wanted. -> {trial: joints [T,22,3]}, {trial: what is wrong}"""
    paths = {}
    for path in find_bvh(files.bvh).values():
        if path.stem in wanted and path.stem in paths:
            raise BadInput(f"{paths[path.stem]} and {path} are one trial: --bvh must name one conversion")
        if path.stem in wanted:
            paths[path.stem] = path
    if not paths:
        raise BadInput(f"{files.bvh} holds no file SS_TT.bvh of a trial in HumanML3D's index")
    skipped = Skipped()
    converted = convert(paths, TrialReading(), work, files.num_workers, skipped)
    trials = {trial: load_converted(file, mmap_mode="r") for trial, file in converted.items()}
    return trials, {trial: reason for reason, names in skipped.names.items() for trial in names}


def shot_at_60(sections, lengths):
    """The trials that were shot at 60 fps, though their files say 120. lengths: {trial: frames at 40 fps}.

    HumanML3D counts frames at the true rate. So a clip that ends far beyond its file, read at 120, shows that
    the trial was shot at 60; a clip of exactly the whole file, that it was not. A trial without such clips is
    taken to be as most others of its subject.
    """
    slow, of_subject, by_trial = {}, Counter(), defaultdict(list)
    for section in sections:
        by_trial[section.trial].append(section)
    for trial, length in lengths.items():
        at_120 = -(-length // 2)
        if max(section.end for section in by_trial[trial]) > SHORT * at_120 + CUT:
            slow[trial] = True
        elif any(section.start == 0 and abs(section.end - at_120) <= 2 for section in by_trial[trial]):
            slow[trial] = False
        if trial in slow:
            of_subject[by_trial[trial][0].subject] += 1 if slow[trial] else -1
    return {t for t in lengths if slow.get(t, of_subject[by_trial[t][0].subject] > 0)}


def common_bones(trials):
    """Bone lengths [22] for all: the median over trials, with legs as long as HumanML3D's."""
    lengths = np.median([bone_lengths(np.asarray(joints), SMPL22) for joints in trials], axis=0)
    legs = [
        SMPL22.joints.index(f"{side}_{joint}") for side in ("left", "right") for joint in ("knee", "ankle")
    ]
    return lengths * np.array(HUMANML3D_BONES)[legs].sum() / lengths[legs].sum()


def fault(joints):
    """What is broken in a clip [T,22,3] in metres, its source's floor at y = 0; or None."""
    moved = np.diff(joints, axis=0)
    speed = np.linalg.norm(moved, axis=-1)
    still = np.convolve(speed.max(axis=1) < STILL, np.ones(FROZEN), mode="valid") == FROZEN
    if (still[:-1] & (speed[FROZEN:].max(axis=1) > THAW)).any():
        return "frozen frames, then a jump"
    legs = moved[:, LEGS] - moved[:, :1]
    jolts = np.linalg.norm(np.diff(legs, axis=0), axis=-1)
    if np.minimum(np.linalg.norm(legs, axis=-1).max(axis=0), jolts.max(axis=0)).max() >= LEG_JUMP:
        return "a leg jumps between two frames"
    if speed[:, TRUNK].max() >= TRUNK_JUMP:
        return "the trunk jumps between two frames"
    if joints[:, LEGS, 1].min() <= -UNDERGROUND:
        return f"a leg goes {UNDERGROUND:g} m or more below the floor"
    return None


def leaks(clips):
    """Clips of val that share a frame with test, of train that share one with val or test. -> {name: reason}

    CMU lists some subjects twice, HumanML3D has both, and sections of one trial overlap.
    """
    poses = {split: {} for split in SPLITS}
    for clip in clips:
        poses[clip.split][clip.name] = pose_distances(clip.joints, SMPL22)
    shared = {name: "shares frames with test" for name in shared_frames(poses["val"], poses["test"])}
    judged = poses["val"] | poses["test"]
    return shared | {name: "shares frames with val or test" for name in shared_frames(poses["train"], judged)}


def report_csv(report):
    """A table of every CMU clip of HumanML3D: kept, or why not."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("name", "trial", "split", "start_frame", "end_frame", "trial_fps", "verdict"))
    for name, (section, fps, verdict) in report.items():
        rows.writerow((name, section.trial, section.split, section.start, section.end, fps, verdict))
    return text.getvalue()


def print_verdicts(report):
    """Print how many clips were kept, and how many were left out for which reason."""
    for verdict, count in Counter(verdict for *_, verdict in report.values()).most_common():
        print(f"{count:6} {verdict}")
    print(f"of {len(report)} clips; report.csv lists them")
