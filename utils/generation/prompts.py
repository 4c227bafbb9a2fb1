"""Prompts and their lengths, from the command line or a file."""

import re
import unicodedata
from dataclasses import dataclass

from models.AE import STRIDE
from models.LengthEstimator import MAX_FRAMES
from motion.captions import clean_text
from utils.errors import BadInput
from utils.plain import read_utf8

ALPHABET = "LATIN"  # the script that the text encoders were trained on


@dataclass(frozen=True)
class Prompt:
    text: str  # one line of printable characters
    frames: int  # 0 = let the length estimator decide


def read_prompts(text_prompts, text_path, motion_length):
    """The flags' prompts, or the lines of a file. A line's #frames beats motion_length. -> [Prompt]"""
    if 0 < motion_length < STRIDE:
        raise BadInput(f"--motion_length {motion_length}: a motion has {STRIDE} to {MAX_FRAMES} frames")
    if text_path is None:
        return [_prompt(text, motion_length, "--text_prompt") for text in text_prompts]
    text = read_utf8(text_path, "--text_path")
    prompts = [
        parse_prompt(line, motion_length, f"{text_path}:{number}") for number, line in prompt_lines(text)
    ]
    if not prompts:
        raise BadInput(f"--text_path {text_path} holds no prompt: write one a line")
    return prompts


def prompt_lines(text):
    """Lines of a text that are prompts -> [(number, clean line)]; "# ", or # alone, begins a comment."""
    lines = ((n, clean_text(line)) for n, line in enumerate(text.splitlines(), start=1))
    return [(n, line) for n, line in lines if line and not f"{line} ".startswith("# ")]


def parse_prompt(line, default_frames, where):
    """A line of a prompt file: `text`, `text#frames` or `text#NA`; anything else after # is text."""
    head, hash_sign, tail = line.rpartition("#")
    tail = tail.strip()
    if hash_sign and tail == "NA":
        return _prompt(head, 0, where)
    if hash_sign and re.fullmatch(r"-?\d+", tail):
        if len(tail) > 9 or not STRIDE <= int(tail) <= MAX_FRAMES:
            raise BadInput(f"{where}: {tail[:12]} frames; a motion has {STRIDE} to {MAX_FRAMES}")
        return _prompt(head, int(tail), where)
    return _prompt(line, default_frames, where)


def _prompt(text, frames, where):
    text = clean_text(text)
    if not text:
        raise BadInput(f"{where}: the prompt is empty")
    return Prompt(text, frames)


def frames_as_words(text):
    """The end of a prompt that would set its frames in a file of prompts (#120, #NA), or None."""
    found = re.search(r"#(\d+|NA)$", text)
    return found and found[0]


def unknown_letters(texts):
    """The texts with letters of other scripts, which the encoders do not understand."""

    def foreign(c):  # not modifiers such as an apostrophe, nor the signs for micro and ordinals
        letter = c.isalpha() and unicodedata.category(c) != "Lm" and c not in "µªº"
        return letter and ALPHABET not in unicodedata.name(c, "")

    return [text for text in texts if any(map(foreign, text))]
