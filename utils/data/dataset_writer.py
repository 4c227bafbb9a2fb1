"""Write motion with captions to datasets/<Name>/ in HumanML3D's layout; read the packed form of joints."""

import csv
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models.AE import STRIDE
from models.LengthEstimator import MAX_FRAMES
from motion.bvh.rigs import bones_m, wrong_size
from motion.files import whole_folder, write_json, write_text
from motion.skeletons import SMPL22, mirror_joints
from motion.synthetic.clips import demo_clips
from utils.cli import count, refuse_file
from utils.config import flag
from utils.data.cal_mean_std import mean_std
from utils.data.caption_text import read_captions, swap_sides, swap_token_sides
from utils.data.clips import MAX_ROWS, SPLITS, Skipped, first
from utils.data.feature_cache import load_array
from utils.datasets import DATASETS
from utils.errors import BadInput
from utils.motion_process import FACING_RULES, joints_to_features
from utils.plain import composed, read_csv

UNSAID = "see its source"
RATES = (12.5, 30)  # frames per second of the motion that the models here were made for
SIZED = 10_000  # frames, at least, of which the body of a packed set is measured


@dataclass(frozen=True)
class SetConfig:
    """Settings of a set to write."""

    name: str
    dataset_dir: str = flag("where the data sets lie", "./datasets")
    min_frames: int = flag("shorter clips are left out", 24, type=count(STRIDE, MAX_FRAMES))
    overwrite: bool = flag("replace a set of that name", False)
    facing: str = flag(
        "of the heading: hips with the shoulders' sign, or as published",
        "one_sign",
        choices=tuple(FACING_RULES),
    )
    source: str = flag("where the motion is from [the folder's name]", "")
    licence: str = flag(f"its terms [{UNSAID}]", "")
    fps: float = 20.0

    @property
    def root(self):
        """The set's folder."""
        return Path(self.dataset_dir) / self.name

    def refuse_existing(self):
        """BadInput if the set exists and must not be replaced, would pass for a published one, or if
        --dataset_dir is no folder.
        """
        for spec in DATASETS.values():
            if self.name in (spec.name, spec.folder):
                raise BadInput(f"--name {self.name} means the published {spec.folder}: pass another --name")
        if self.root.exists() and not self.overwrite:
            raise BadInput(f"{self.root} exists: pass --overwrite to replace it, or another --name")
        refuse_file(self.root.parent, "--dataset_dir")

    def spec(self):
        """The content of spec.json: all that the rest of the code needs to know about a set."""
        spec = {"name": self.name, "fps": self.fps, "min_frames": self.min_frames, "source": self.source}
        spec |= {"licence": self.licence, "cfg": 2.5, "skeleton": SMPL22.name, "version": 1}
        return spec | {"facing": self.facing}


@dataclass(frozen=True)
class RawClip:
    """Joints [T,22,3] in metres at the set's fps, with captions and labels."""

    name: str
    joints: np.ndarray
    captions: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]  # word/POS, a tuple for each caption
    split: str
    content: str = ""
    style: str = ""
    mirror_of: str = ""  # the clip whose mirror image this is
    sections: tuple = ()  # per caption (start, end) in seconds; (0, 0), or () for all: the whole clip

    def mirrored(self):
        """The mirrored twin M<name>: left and right swapped in motion, captions and labels; same split."""
        return replace(
            self,
            name=f"M{self.name}",
            joints=mirror_joints(self.joints, SMPL22),
            captions=tuple(map(swap_sides, self.captions)),
            tokens=tuple(map(swap_token_sides, self.tokens)),
            content=swap_sides(self.content),
            style=swap_sides(self.style),
            mirror_of=self.name,
        )

    def parts(self):
        """-> [itself]; or, if it has more than MAX_ROWS rows, equal parts that share their border frames."""
        rows = len(self.joints) - 1
        if rows <= MAX_ROWS:
            return [self]
        edges = np.linspace(0, rows, -(-rows // MAX_ROWS) + 1).round().astype(int)
        return [
            replace(
                self,
                name=f"{self.name}_p{number}",
                joints=self.joints[start : end + 1],
                mirror_of=self.mirror_of and f"{self.mirror_of}_p{number}",
            )
            for number, (start, end) in enumerate(zip(edges, edges[1:]), start=1)
        ]


def with_twins(clips, splits=SPLITS):
    """Yield each clip, followed by its mirrored twin if it is in one of `splits`."""
    for clip in clips:
        yield clip
        if clip.split in splits:
            yield clip.mirrored()


class SetWriter:
    """Writes a set into a folder, clip by clip."""

    def __init__(self, folder, config):
        self.folder, self.config, self.where = folder, config, config.root
        self.skipped, self.cut = Skipped(), []
        self.kept = {}  # name -> (split, content, style, mirror_of, rows)
        for part in ("new_joint_vecs", "texts"):
            (folder / part).mkdir()

    def add(self, clip):
        """Write one clip (a long one in parts), or note why not. BadInput if its name is taken."""
        problem = self._problem(clip)
        if problem:
            self.skipped.add(problem, clip.name)
            return
        parts = clip.parts()
        if len(parts) > 1:
            self.cut.append(clip.name)
        for part in parts:
            self._write(part)

    def _problem(self, clip):
        if len(clip.name.encode(errors="replace")) > 200:  # a file system has 255 for M<name>_p1.npy
            return "name is longer than 200 bytes, folders counted: shorten it"
        if not re.fullmatch(r"[^\s/\\#]+", clip.name) or clip.name.startswith("."):
            return "name is no plain file name (without blanks, / \\ # and a dot in front)"
        if clip.split not in SPLITS:
            return f"split is none of {', '.join(SPLITS)}"
        if len(clip.joints) - 1 < self.config.min_frames:
            return f"shorter than {self.config.min_frames} feature rows"
        if not np.isfinite(clip.joints).all():
            return "NaN or infinite positions"
        if wrong_size(bones_m(clip.joints, SMPL22)):
            return "its body has no person's size"
        if not clip.captions:
            return "no caption"
        if any(re.search(r"[#\n\r]", text) or not text.strip() for text in clip.captions):
            return "a caption is empty or contains # or a line break"
        if any(end for _, end in clip.sections) and len(clip.joints) - 1 > MAX_ROWS:
            return f"longer than {MAX_ROWS} rows, with captions of sections"
        if not all(clip.tokens) and len(clip.tokens) == len(clip.captions):
            return "a caption has no words, emoji alone perhaps: write what the person does"
        if len(clip.tokens) != len(clip.captions) or not all(map(are_tokens, clip.tokens)):
            return "tokens are not word/POS, a list for each caption"
        return None

    def _write(self, clip):
        if clip.name in self.kept:
            raise BadInput(
                f"{self.where}: two clips would be called {clip.name} (mirrored twins are M<name>, "
                f"parts of long clips <name>_p1, ...): rename one; nothing was written"
            )
        features = joints_to_features(clip.joints, SMPL22, self.config.facing)
        np.save(self.folder / "new_joint_vecs" / f"{clip.name}.npy", features)
        sections = clip.sections or [(0.0, 0.0)] * len(clip.captions)
        lines = [
            f"{text}#{' '.join(tokens)}#{float(start)}#{float(end)}\n"
            for text, tokens, (start, end) in zip(clip.captions, clip.tokens, sections)
        ]
        (self.folder / "texts" / f"{clip.name}.txt").write_text("".join(lines), encoding="utf-8")
        self.kept[clip.name] = (clip.split, clip.content, clip.style, clip.mirror_of, len(features))

    def finish(self):
        """Write split lists, labels and statistics of the train split; spec.json last."""
        names = {split: [name for name, row in self.kept.items() if row[0] == split] for split in SPLITS}
        if not names["train"]:
            self.skipped.report(str(self.where))
            raise BadInput(f"{self.where}: no clip is left for training; nothing was written")
        for split, ids in names.items():
            (self.folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
        with open(self.folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("name", "content", "style", "mirror_of"))
            rows.writerows((name, *row[1:4]) for name, row in self.kept.items())
        train = (load_array(self.folder / "new_joint_vecs" / f"{name}.npy") for name in names["train"])
        for file, values in zip(("Mean.npy", "Std.npy"), mean_std(train, len(SMPL22))):
            np.save(self.folder / file, values)
        write_json(self.folder / "spec.json", self.config.spec())

    def report(self):
        """Print what was skipped and cut, and the size of each split."""
        self.skipped.report(str(self.where))
        if self.cut:
            what = f"cut {len(self.cut)} clips of more than {MAX_ROWS} rows; the parts keep all captions"
            print(f"{self.where}: {what}: {first(self.cut)}")
        frames, clips = Counter(), Counter()
        for split, *_, rows in self.kept.values():
            frames[split] += rows
            clips[split] += 1
        for split in SPLITS:
            minutes = frames[split] / self.config.fps / 60
            print(f"{self.where}: {split:5} {clips[split]:6} clips {frames[split]:8} rows {minutes:8.1f} min")
            if not clips[split]:
                print(f"{self.where}: warning: nothing in {split}, which training and evaluation need")


def are_tokens(tokens):
    return bool(tokens) and all(re.fullmatch(r"[^\s#/]+/[^\s#/]+", token) for token in tokens)


def write_set(clips, total, config, texts=None):
    """Write all RawClips of an iterable as the set `config`, with a progress bar and a summary.

    texts: {name: content} of further text files of the set.
    """
    config.refuse_existing()
    if not RATES[0] <= config.fps <= RATES[1]:
        cut = f"clips longer than {MAX_ROWS / config.fps:.1f} s will be cut"
        made_for = f"models here were made for {RATES[0]:g} to {RATES[1]:g} frames per second"
        print(f"{config.root}: warning: fps {config.fps:g}: {cut}; {made_for}")
    with whole_folder(config.root) as folder:
        writer = SetWriter(folder, config)
        for clip in tqdm(clips, total=total, desc=config.name, unit="clip"):
            writer.add(clip)
        for name, text in (texts or {}).items():
            write_text(folder / name, text)
        writer.finish()
    writer.report()


def demo_set(n_clips, seed):
    """The embedded demo set as RawClips, one after another."""
    for clip in demo_clips(n_clips, seed):
        tokens = tuple(map(tuple, clip.tokens))
        yield RawClip(clip.name, clip.joints, tuple(clip.captions), tokens, clip.split, content=clip.label)


def read_packed(folder, split_column="split"):
    """The packed form: motions.npz, captions.jsonl, labels.csv -> (fps, list of RawClip). Raises BadInput.

    motions.npz holds `joints` [N,22,3] of all clips, concatenated, in units of `unit_m` metres, the `offsets`
    and `names` of the clips, `joint_names` and `fps`; captions.jsonl: see `read_captions`; labels.csv has the
    columns name and `split_column`, and optionally content and style.
    """
    files = [Path(folder) / name for name in ("motions.npz", "captions.jsonl", "labels.csv")]
    for file in files:
        if not file.exists():
            remedy = "--input must name a folder of packed joints, which datasets/README.md describes"
            raise BadInput(f"{file} does not exist: {remedy}")
    names, clips, fps = _read_motions(files[0])
    texts = read_captions(files[1])
    labels = _read_labels(files[2], split_column)
    for file, known in zip(files[1:], (texts, labels)):
        missing = [name for name in names if name not in known]
        if missing:
            raise BadInput(f"{file}: {len(missing)} clips of motions.npz have no line: {first(missing)}")
    return fps, [
        RawClip(name, joints, texts[name].captions, texts[name].tokens, *labels[name])
        for name, joints in zip(names, clips)
    ]


def _read_motions(file):
    """-> names, joints in metres [T,22,3] of each clip, fps"""
    try:
        with np.load(file, allow_pickle=False) as packed:
            joints, offsets = packed["joints"], packed["offsets"]
            names = [composed(str(name)) for name in packed["names"]]
            joint_names = tuple(str(name) for name in packed["joint_names"])
            if packed["unit_m"].size != 1 or packed["fps"].size != 1:
                raise ValueError("fps and unit_m must be one number each")
            unit, fps = float(packed["unit_m"].item()), float(packed["fps"].item())
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"{file} does not exist: --input must name a folder of packed joints") from None
    except Exception as error:  # a damaged archive fails in as many ways as zip and its codecs can
        # for a file that is no archive NumPy's message says how to load it unsafely: cut that off
        reason = getattr(error, "strerror", None) or str(error).partition(" If you trust")[0]
        reason = " ".join(reason.split())[:200]
        raise BadInput(f"{file} is not readable as packed joints: {reason}") from None
    if joints.dtype.kind not in "fiu" or joints.shape[1:] != (len(SMPL22), 3):
        raise BadInput(f"{file}: joints of shape {joints.shape}, expected [N, {len(SMPL22)}, 3]")
    if joint_names != SMPL22.joints:
        raise BadInput(
            f"{file}: joint_names are not those of HumanML3D, in its order: {', '.join(SMPL22.joints)}"
        )
    if not (0 < unit < 1e6 and 1 <= fps <= 240):
        raise BadInput(f"{file}: unit_m {unit:g} or fps {fps:g} (1 to 240) makes no sense")
    if not divides(offsets, len(joints), len(names)):
        raise BadInput(f"{file}: offsets do not divide {len(joints)} frames into {len(names)} clips")
    some = joints[:: max(1, len(joints) // SIZED)] * unit
    some = some[np.isfinite(some).all(axis=(1, 2))]  # clips with other numbers are skipped
    if len(some) and (size := wrong_size(bones_m(some, SMPL22))):
        raise BadInput(f"{file}: {size}: unit_m is {unit:g}, but should be the metres in one unit of joints")
    return names, [joints[a:b] * unit for a, b in zip(offsets, offsets[1:])], fps


def divides(offsets, frames, clips):
    """Whether offsets are the borders of `clips` clips in `frames` frames."""
    if offsets.shape != (clips + 1,) or offsets.dtype.kind not in "iu":
        return False
    return offsets[0] == 0 and offsets[-1] == frames and bool((np.diff(offsets.astype(np.int64)) >= 0).all())


def _read_labels(file, split_column):
    """-> {name: (split, content, style)}"""
    rows = read_csv(file)
    absent = {"name", split_column} - set(rows[0] if rows else ())
    if absent:
        raise BadInput(f"{file}: no column {', '.join(sorted(absent))}")
    labels = {}
    for row in rows:
        name, said = composed(row["name"]), (row[split_column], row.get("content", ""), row.get("style", ""))
        if labels.setdefault(name, said) != said:
            raise BadInput(f"{file}: {name} stands in two rows that differ: leave one of them")
    return labels
