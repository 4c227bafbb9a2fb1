"""Any motion -> datasets/<Name>/ in HumanML3D's layout: raw clips, the packed form, how a set is written."""

import csv
import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from motion.files import whole_folder, write_text
from motion.skeletons import SMPL22
from motion.synthetic.clips import demo_clips
from utils.data.cal_mean_std import mean_std
from utils.data.clips import SPLITS, Skipped
from utils.data.feature_cache import load_array
from utils.errors import BadInput
from utils.motion_process import joints_to_features
from utils.plain import parse_csv, parse_json

MAX_ROWS = 199  # HumanML3D's limit
LAYOUT_VERSION = 1


@dataclass(frozen=True)
class RawClip:
    """Joints [T,J,3] in the skeleton's unit at the set's fps, and what is said of them."""

    name: str
    joints: np.ndarray
    captions: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]  # word/POS, a tuple for each caption
    split: str
    content: str = ""
    style: str = ""


@dataclass(frozen=True)
class Header:
    """What stands in spec.json: all that the rest of the code wants to know of a set."""

    name: str
    fps: float
    min_frames: int
    source: str
    licence: str
    cfg: float = 2.5
    skeleton: str = SMPL22.name
    version: int = LAYOUT_VERSION


def micro_batches(clip, max_rows=MAX_ROWS):
    """A clip of more than max_rows + 1 frames in equal parts that share their border frames; else itself."""
    rows = len(clip.joints) - 1
    if rows <= max_rows:
        return [clip]
    edges = np.linspace(0, rows, -(-rows // max_rows) + 1).round().astype(int)
    return [
        replace(clip, name=f"{clip.name}_p{number}", joints=clip.joints[start : end + 1])
        for number, (start, end) in enumerate(zip(edges, edges[1:]), start=1)
    ]


class SetWriter:
    """Writes a set into a folder, clip by clip."""

    def __init__(self, folder, header, where, skeleton=SMPL22):
        """where: what messages call the set."""
        self.folder, self.header, self.where, self.skeleton = folder, header, where, skeleton
        self.skipped, self.cut = Skipped(), []
        self.kept = []  # (name, split, content, style, rows)
        for part in ("new_joint_vecs", "texts"):
            (folder / part).mkdir()

    def add(self, clip):
        """Write one clip (a long one in pieces), or count why not."""
        problem = self._problem(clip)
        if problem:
            self.skipped.add(problem, clip.name)
            return
        parts = micro_batches(clip)
        if len(parts) > 1:
            self.cut.append(clip.name)
        for part in parts:
            self._write(part)

    def _problem(self, clip):
        if not re.fullmatch(r"[^\s/\\#]{1,200}", clip.name) or clip.name.startswith("."):
            return "name is no plain file name"
        if clip.split not in SPLITS:
            return f"split is none of {', '.join(SPLITS)}"
        if len(clip.joints) - 1 < self.header.min_frames:
            return f"shorter than {self.header.min_frames} feature rows"
        if not np.isfinite(clip.joints).all():
            return "NaN or infinite positions"
        if not clip.captions:
            return "no caption"
        if any(re.search(r"[#\n\r]", text) or not text.strip() for text in clip.captions):
            return "a caption is empty or contains # or a line break"
        if len(clip.tokens) != len(clip.captions) or not all(map(_are_tokens, clip.tokens)):
            return "tokens are not word/POS, a list for each caption"
        return None

    def _write(self, clip):
        features = joints_to_features(clip.joints, self.skeleton)
        np.save(self.folder / "new_joint_vecs" / f"{clip.name}.npy", features)
        lines = [f"{text}#{' '.join(tokens)}#0.0#0.0\n" for text, tokens in zip(clip.captions, clip.tokens)]
        (self.folder / "texts" / f"{clip.name}.txt").write_text("".join(lines), encoding="utf-8")
        self.kept.append((clip.name, clip.split, clip.content, clip.style, len(features)))

    def finish(self):
        """Split lists, labels, statistics of the train split; spec.json last."""
        names = {split: [name for name, its_split, *_ in self.kept if its_split == split] for split in SPLITS}
        if not names["train"]:
            self.skipped.report(str(self.where))
            raise BadInput(f"{self.where}: no clip is left for training; nothing was written")
        for split, ids in names.items():
            (self.folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in ids), encoding="utf-8")
        with open(self.folder / "labels.csv", "w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerows(
                [("name", "content", "style"), *((name, *labels) for name, _, *labels, _ in self.kept)]
            )
        train = (load_array(self.folder / "new_joint_vecs" / f"{name}.npy") for name in names["train"])
        for file, values in zip(("Mean.npy", "Std.npy"), mean_std(train, len(self.skeleton))):
            np.save(self.folder / file, values)
        write_text(self.folder / "spec.json", json.dumps(vars(self.header), indent=1) + "\n")

    def report(self):
        self.skipped.report(str(self.where))
        if self.cut:
            more = ", ..." if len(self.cut) > 5 else ""
            what = f"cut {len(self.cut)} clips of more than {MAX_ROWS} rows; the pieces keep all captions"
            print(f"{self.where}: {what}: {', '.join(self.cut[:5])}{more}")
        frames, clips = Counter(), Counter()
        for _, split, _, _, rows in self.kept:
            frames[split] += rows
            clips[split] += 1
        for split in SPLITS:
            minutes = frames[split] / self.header.fps / 60
            print(f"{self.where}: {split:5} {clips[split]:6} clips {frames[split]:8} rows {minutes:8.1f} min")
            if not clips[split]:
                print(f"{self.where}: warning: nothing in {split}, which training and evaluation want")


def _are_tokens(tokens):
    return bool(tokens) and all(re.fullmatch(r"[^\s#/]+/[^\s#/]+", token) for token in tokens)


def refuse_existing(root, overwrite):
    if Path(root).exists() and not overwrite:
        raise BadInput(f"{root} exists: pass --overwrite to replace it, or another --name")


def write_set(clips, total, root, header, overwrite=False):
    """All clips of an iterable -> a whole set at `root`, with a bar and a summary."""
    refuse_existing(root, overwrite)
    with whole_folder(root) as folder:
        writer = SetWriter(folder, header, root)
        for clip in tqdm(clips, total=total, desc=header.name, unit="clip"):
            writer.add(clip)
        writer.finish()
    writer.report()


def demo_set(n_clips, seed):
    """The embedded demo set as raw clips, one after another."""
    for clip in demo_clips(n_clips, seed):
        tokens = tuple(map(tuple, clip.tokens))
        yield RawClip(clip.name, clip.joints, tuple(clip.captions), tokens, clip.split, content=clip.label)


def read_packed(folder):
    """The packed form: motions.npz, captions.jsonl, labels.csv -> (fps, list of RawClip). Raises BadInput.

    motions.npz holds `joints` [N,22,3] of all clips one after another, in units of `unit_m` metres, `offsets`
    of the clips, their `names`, `joint_names` and `fps`; a line of captions.jsonl has name, captions and
    tokens; labels.csv has the columns name, split, content, style.
    """
    folder = Path(folder)
    names, clips, fps = _read_motions(folder / "motions.npz")
    texts = _read_captions(folder / "captions.jsonl")
    labels = _read_labels(folder / "labels.csv")
    missing = [name for name in names if name not in texts or name not in labels]
    if missing:
        raise BadInput(f"{folder}: {len(missing)} clips lack a caption or a label, first {missing[0]}")
    raw = []
    for name, joints in zip(names, clips):
        captions, tokens = texts[name]
        row = labels[name]
        raw.append(RawClip(name, joints, captions, tokens, row["split"], row["content"], row["style"]))
    return fps, raw


def _read_motions(file):
    try:
        with np.load(file, allow_pickle=False) as packed:
            joints, offsets, names = (
                packed["joints"],
                packed["offsets"],
                [str(name) for name in packed["names"]],
            )
            joint_names = tuple(str(name) for name in packed["joint_names"])
            unit, fps = float(packed["unit_m"]), float(packed["fps"])
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist: --input must name a folder of packed joints") from None
    except Exception as error:  # a damaged archive fails in as many ways as zip and its codecs can
        reason = " ".join(str(error).split())[:200]
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
    return names, [joints[a:b] * unit for a, b in zip(offsets, offsets[1:])], fps


def divides(offsets, frames, clips):
    """Whether offsets are the borders of that many clips in that many frames."""
    if offsets.shape != (clips + 1,) or offsets.dtype.kind not in "iu":
        return False
    return offsets[0] == 0 and offsets[-1] == frames and bool((np.diff(offsets.astype(np.int64)) >= 0).all())


def _read_captions(file):
    texts = {}
    for number, line in enumerate(_lines(file), start=1):
        try:
            row = parse_json(line)
            captions, tokens = tuple(row["captions"]), tuple(tuple(words) for words in row["tokens"])
            if not all(isinstance(text, str) for text in (row["name"], *captions, *sum(tokens, ()))):
                raise ValueError("a name, a caption or a token is no text")
            texts[row["name"]] = captions, tokens
        except (ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{file}:{number}: not a caption line with name, captions, tokens ({error!r})"
            ) from None
    return texts


def _read_labels(file):
    try:
        rows = parse_csv("\n".join(_lines(file)))
    except ValueError as error:
        raise BadInput(f"{file}: {error}") from None
    absent = {"name", "split", "content", "style"} - set(rows[0] if rows else ())
    if absent:
        raise BadInput(f"{file}: no column {', '.join(sorted(absent))}")
    return {row["name"]: row for row in rows}


def _lines(file):
    try:
        return Path(file).read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist") from None
    except UnicodeDecodeError:
        raise BadInput(f"{file} is not a text file in UTF-8") from None
