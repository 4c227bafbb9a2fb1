"""A split that tests unseen combinations: whole pairs of content and style are held out of training."""

from collections import Counter, defaultdict
from dataclasses import replace

from models.counter_rng import Purpose, rng
from utils.data.caption_text import swap_sides
from utils.data.clips import SPLITS
from utils.errors import BadInput


def hold_out_pairs(clips, least, seed):
    """Split labelled RawClips anew: at least `least` test clips, whose pairs of content and style occur
    neither in train nor in val, though the content and the style alone are in train. -> RawClips

    Pairs are tried in an order that follows from the seed. A pair is held out as a whole, with that of its
    mirror image (walk-left and walk-right count as one), since training may have mirrored twins. Other clips
    keep their split, except that test clips become training clips; those of no split count nowhere. BadInput
    if there are too few pairs.
    """
    members = defaultdict(list)
    for clip in clips:
        if clip.content and clip.style and clip.split in SPLITS:
            members[content_of(clip), clip.style].append(clip)
    pairs = sorted(members)
    trained = {pair for pair in pairs if any(clip.split in ("train", "test") for clip in members[pair])}
    contents, styles = Counter(content for content, _ in trained), Counter(style for _, style in trained)
    held, n = set(), 0
    for i in rng(Purpose.ORDER, seed).permutation(len(pairs)):
        content, style = pairs[i]
        if n >= least:
            break
        own = pairs[i] in trained
        if contents[content] > own and styles[style] > own:  # both stay in training, in other pairs
            contents[content] -= own
            styles[style] -= own
            held.add(pairs[i])
            n += len(members[pairs[i]])
    if n < least:
        raise BadInput(
            f"--unseen_pairs {least}: only {n} clips lie in pairs of content and style that can be held out; "
            "ask for fewer, or label more clips in labels.csv"
        )

    def split(clip):
        if clip.split in SPLITS and (content_of(clip), clip.style) in held:
            return "test"
        return "train" if clip.split == "test" else clip.split

    return [replace(clip, split=split(clip)) for clip in clips]


def content_of(clip):
    """One name for a content and its mirror image."""
    return min(clip.content, swap_sides(clip.content))
