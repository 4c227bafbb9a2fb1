"""The public Bandai-Namco-Research-Motiondataset: captions and a split from its file names.

A file is called dataset-<1|2>_<content>_<style>_<number>.bvh. The motions are CC BY-NC 4.0, and not part of
this project.
"""

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import PurePosixPath

from utils.data.caption_text import Described, tag

SOURCE = "Bandai-Namco-Research-Motiondataset, Bandai Namco Research Inc."
LICENCE = "CC BY-NC 4.0"
NAME = re.compile(r"(dataset-[12])_([a-z-]+)_([a-z-]+)_(\d+)")

CONTENTS = {  # content -> what a person is seen to do, in two wordings
    "bow": ("bows", "bends forward in a bow"),
    "bye": ("waves goodbye with the right hand", "raises the right hand and waves goodbye"),
    "byebye": ("waves goodbye with both hands", "raises both hands and waves goodbye"),
    "call": ("leans forward and calls out", "calls out to somebody"),
    "dance-long": ("dances", "performs a long dance"),
    "dance-short": ("dances", "performs a short dance"),
    "dash": ("dashes forward", "sprints ahead"),
    "guide": ("holds out the right arm to show the way", "guides somebody with the right arm"),
    "kick": ("kicks with the right leg and turns to the left", "kicks and turns several times"),
    "punch": ("punches several times", "throws several punches"),
    "respond": ("raises the left hand high", "responds by raising the left hand"),
    "run": ("runs forward", "runs ahead"),
    "slash": ("swings a sword with both hands", "slashes with both hands"),
    "walk": ("walks forward", "walks ahead"),
    "walk-back": ("walks backward", "takes steps backward"),
    "walk-left": ("walks diagonally to the left", "walks to the left while facing ahead"),
    "walk-right": ("walks diagonally to the right", "walks to the right while facing ahead"),
    "raise-up-both-hands": ("raises both hands and lowers them", "lifts both arms and puts them down"),
    "raise-up-left-hand": ("raises the left hand and lowers it", "lifts the left arm and puts it down"),
    "raise-up-right-hand": ("raises the right hand and lowers it", "lifts the right arm and puts it down"),
    "walk-turn-left": ("walks forward and turns left", "walks and makes a turn to the left"),
    "walk-turn-right": ("walks forward and turns right", "walks and makes a turn to the right"),
    "wave-both-hands": ("waves both hands", "waves with both arms"),
    "wave-left-hand": ("waves the left hand", "waves with the left arm"),
    "wave-right-hand": ("waves the right hand", "waves with the right arm"),
}  # fmt: skip
STYLES = {  # style -> an adjective and an adverb
    "active": ("active", "energetically"),
    "angry": ("angry", "angrily"),
    "childish": ("childish", "childishly"),
    "chimpira": ("rough", "like a thug"),
    "elderly": ("elderly", "like an old person"),
    "exhausted": ("exhausted", "wearily"),
    "feminine": ("feminine", "in a feminine way"),
    "giant": ("giant", "like a giant"),
    "happy": ("happy", "happily"),
    "masculine": ("manly", "in a manly way"),
    "masculinity": ("manly", "in a manly way"),
    "musical": ("theatrical", "as on a stage"),
    "normal": ("calm", "normally"),
    "not-confident": ("timid", "without confidence"),
    "old": ("old", "like an old person"),
    "proud": ("proud", "proudly"),
    "sad": ("sad", "sadly"),
    "tired": ("tired", "tiredly"),
    "youthful": ("young", "in a youthful way"),
}
# labelled with one turn in the source, but they show the other
RELABELLED = {
    "dataset-2_walk-turn-left_masculine_006": "walk-turn-right",
    "dataset-2_walk-turn-left_masculine_007": "walk-turn-right",
    "dataset-2_walk-turn-right_masculine_007": "walk-turn-left",
}
SHARES = (0.80, 0.05, 0.15)


def describe(names):
    """Names of files in the clone -> {name: Described}; files of other names are left out."""
    groups = defaultdict(list)
    for name in sorted(names):
        match = NAME.fullmatch(PurePosixPath(name).name)
        if match and match[2] in CONTENTS and match[3] in STYLES:
            content = RELABELLED.get(match[0], match[2])
            groups[match[1], content, match[3]].append(name)
    described = {}
    for (_, content, style), members in groups.items():
        captions = _captions(content, style)
        tokens = tuple(map(tag, captions))
        for index, name in enumerate(members):
            described[name] = Described(captions, tokens, _split(index, len(members)), content, style)
    if {what.split for what in described.values()} != {"train", "val", "test"}:
        described = {name: replace(what, split="") for name, what in described.items()}  # too few for blocks
    return described


def _captions(content, style):
    adjective, adverb = STYLES[style]
    first, second = CONTENTS[content]
    article = "an" if adjective[0] in "aeiou" else "a"
    return (
        f"{article} {adjective} person {first}",
        f"a person {second} {adverb}",
        f"someone {first} {adverb}",
        f"the person looks {adjective} and {second}",
    )


def _split(index, count):
    """Neighbours share a split: clips of one content and style were cut in order from few recordings."""
    place = (index + 0.5) / count
    return "train" if place < SHARES[0] else "val" if place < SHARES[0] + SHARES[1] else "test"
