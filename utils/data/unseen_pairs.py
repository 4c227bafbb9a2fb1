"""A split that asks for what training never showed: whole pairs of content and style are held out."""

from collections import Counter, defaultdict
from dataclasses import replace

from models.counter_rng import Purpose, rng
from utils.data.caption_text import swap_sides
from utils.errors import BadInput


def hold_out_pairs(clips, least, seed):
    """RawClips with labels -> the clips, split anew: at least `least` of them are test clips whose
    content x style occurs neither in train nor in val, though both their content and their style are in
    train.

    Pairs are drawn in an order that follows from the seed. A pair goes as a whole, with that of its mirror
    image (walk-left and walk-right are one here), since training may have mirrored twins. The other clips
    keep their split; those that were test clips become training clips. BadInput where there are too few.
    """
    members = defaultdict(list)
    for clip in clips:
        if clip.content and clip.style:
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
        if (content_of(clip), clip.style) in held:
            return "test"
        return "train" if clip.split == "test" else clip.split

    return [replace(clip, split=split(clip)) for clip in clips]


def content_of(clip):
    """One name for a content and its mirror image."""
    return min(clip.content, swap_sides(clip.content))
