"""Clips and their captions, as a data set's files have them. What cannot be used is skipped, counted and
listed.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.data.feature_cache import Packed
from utils.errors import BadInput

UNIT = 4  # frames in one token
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Caption:
    text: str
    tokens: tuple[str, ...]  # word/POS


@dataclass(frozen=True)
class Clip:
    name: str
    motion: np.ndarray  # [T,dim] float32, not normalised
    captions: tuple[Caption, ...] = ()


def parse_caption(line):
    """`caption#word/POS word/POS#start#end` -> (Caption, start, end) in seconds; nan and 0.0 mean the whole
    clip.
    """
    text, tokens, start, end = line.strip().split("#")
    start, end = (0.0 if math.isnan(float(x)) else float(x) for x in (start, end))
    if not text or any("/" not in token for token in tokens.split()) or not 0 <= start <= end < math.inf:
        raise ValueError("not caption#word/POS ...#start#end")
    return Caption(text.strip(), tuple(tokens.split())), start, end


class Skipped:
    """What was left out of a data set, and why. Nothing vanishes without a line."""

    def __init__(self):
        self.names = defaultdict(list)

    def add(self, reason, name):
        self.names[reason].append(name)

    def report(self, where):
        for reason, names in self.names.items():
            shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
            print(f"{where}: skipped {len(names)}, {reason}: {shown}")


def read_split(root, split):
    """The ids of a split file, in order, each once."""
    ids = read_ids(root, split)
    twice = [name for name, count in Counter(ids).items() if count > 1]
    if twice:
        file = Path(root) / f"{split}.txt"
        print(f"{file}: {len(twice)} ids stand there more than once and count once: {', '.join(twice[:5])}")
    return list(dict.fromkeys(ids))


def read_ids(root, split):
    """The ids of a split file as they stand there."""
    file = Path(root) / f"{split}.txt"
    try:
        return file.read_text(encoding="utf-8-sig").split()
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist: a data set needs train.txt, val.txt and test.txt") from None
    except UnicodeDecodeError:
        raise BadInput(f"{file} is not a text file in UTF-8") from None


def load_clips(spec, root, split, texts=True):
    """The usable clips of a split, in the order of its file. Skips are printed with their reasons.

    With texts: clips of min_frames..max_frames that have a caption; a caption with its own start and end
    makes a clip of its own. Without: every clip of at least one token.
    """
    skipped, clips = Skipped(), []
    ids = read_split(root, split)
    packed = Packed.of(root, sorted({name for other in SPLITS for name in read_ids(root, other)}), spec.dim)
    for name in ids:
        if name in packed.broken:
            skipped.add(packed.broken[name], name)
        elif texts:
            clips += _captioned(spec, name, packed.motion(name), packed.texts[name], skipped)
        elif len(packed.motion(name)) < UNIT:
            skipped.add(f"shorter than {UNIT} frames", name)
        else:
            clips.append(Clip(name, packed.motion(name)))
    skipped.report(f"{root}/{split}.txt")
    if not clips:
        raise BadInput(f"{root}/{split}.txt: none of its {len(ids)} clips can be used")
    return clips


def _captioned(spec, name, motion, text, skipped):
    """One clip for the captions of the whole motion, and one for each caption with its own start and end."""
    if text is None:
        skipped.add("no readable text", name)
        return []
    lines = [line for line in text.splitlines() if line.strip()]
    whole, parts = [], []
    for number, line in enumerate(lines, start=1):
        try:
            caption, start, end = parse_caption(line)
        except ValueError:
            skipped.add(
                "malformed text line (expected caption#word/POS ...#start#end)", f"{name}.txt:{number}"
            )
            continue
        if end == 0:
            whole.append(caption)
        else:
            frames = motion[int(start * spec.fps) : int(end * spec.fps)]
            parts.append(Clip(f"{name}_{number}", frames, (caption,)))
    candidates = ([Clip(name, motion, tuple(whole))] if whole else []) + parts
    if not candidates:
        skipped.add("no usable caption", name)
    kept = []
    for clip in candidates:
        if spec.min_frames <= len(clip.motion) <= spec.max_frames:
            kept.append(clip)
        else:
            skipped.add(f"not {spec.min_frames} to {spec.max_frames} frames long", clip.name)
    return kept
