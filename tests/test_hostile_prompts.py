"""Prompts that nobody should write: a motion or one clear line each, and nothing leaves its folder."""

import json
import re

import numpy as np
import pytest

import sample
from tests.fuzz.contract import files_below
from tests.test_export import HOSTILE
from tests.tiny import call
from utils.generation.prompts import unknown_letters

MARKUP = [
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(1)>",
    "<!--",
    "&lt;b&gt; &amp; &#0;",
    "{{script}} {{data}}",
    "${alert(1)} `id` $(id)",
    "\"'><svg onload=alert(1)>",
]
PATHS = [
    "a/../../../b",
    "~/.ssh/id_rsa",
    "C:\\Windows\\System32",
    "%2e%2e%2f%2e%2e%2f",
    "nul",
    "-rf *",
    "--export mp4",
    "; rm -rf / #",
    "samples.json",
]
LETTERS = [
    "человек идёт вперёд",
    "一个人向前走",
    "मनुष्य चलता है",
    "👨‍👩‍👧‍👦 jumps",
    "Z\u0310\u0320a\u0311\u0335l\u0312\u0326g\u0313o\u0327" * 50,
    "\u200b\u200c\u200d\ufeff walk",
    "\ufffd\ufffe\uffff",
    "\U000e0001\U000e0041 tag",
    "ﷺ" * 300,
    "𝐛𝐨𝐥𝐝 𝓼𝓬𝓻𝓲𝓹𝓽",
]
LENGTHS = [
    "#",
    "walk#",
    "walk#12.5",
    "walk #forty",
    "#hashtag walks",
    "walk#NaN",
]
ODD = ["a", "0", "None", "NaN", "%s %d %n", "a" * 10_000, "walk " * 2000]
ALL = [*HOSTILE, *MARKUP, *PATHS, *LETTERS, *LENGTHS, *ODD]


def draw(weights, folder, *words):
    """The exit code of sample.py with these words."""
    fixed = f"--demo --checkpoints_dir {weights} --device cpu --time_steps 1 --cfg 1 --motion_length 8"
    return call(sample.main, [*fixed.split(), "--output_dir", str(folder / "out"), "--export", *words])


def check_written(folder, formats):
    """All that was written lies in the run's folder, under names that samples.json lists, once each."""
    run_folder = folder / "out/demo_MARDM_Demo"
    made = [
        motion
        for one in json.loads((run_folder / "samples.json").read_text("utf-8"))
        for motion in one["motions"]
    ]
    names = [name for motion in made for name in motion["files"]]
    assert len(names) == len(set(names)) == len(made) * formats
    expected = {str(run_folder / name) for name in [*names, "samples.json"]}
    assert files_below(folder / "out") == expected
    return made, run_folder


def test_all_in_one_file_give_a_motion_each(demo_weights, tmp_path, capsys):
    """Line ends part a prompt in two, and blank ones are none; what cannot be UTF-8 cannot be in the file."""
    path = tmp_path / "prompts.txt"
    text = "\n".join(prompt for prompt in ALL if "\udcff" not in prompt)
    path.write_text(text, encoding="utf-8", newline="\n")
    lines = [line for line in text.splitlines() if line.strip() and line.strip(" \0#")]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert draw(demo_weights, tmp_path, "npy", "html", "--text_path", str(path)) == 0
    assert "learned from English" in capsys.readouterr().out
    made, folder = check_written(tmp_path, formats=2)
    assert len(made) == len(lines) > 50
    for motion in made:
        joints = np.load(folder / motion["files"][0])
        assert joints.shape == (8, 22, 3) and np.isfinite(joints).all()
        page = (folder / motion["files"][1]).read_text(encoding="utf-8")
        assert page.count("<script") == 2 and not re.search("<[^<>]*onerror", page)
        assert "<img" not in page and "<svg" not in page


@pytest.mark.parametrize(
    "prompt", ["", " \n\t", "\0", "\ufeff", *[p for p in HOSTILE if "\udcff" in p], "a\nb\0c", "walk#40 "]
)
def test_on_the_command_line(demo_weights, tmp_path, capsys, prompt):
    code = draw(demo_weights, tmp_path, "npy", "--text_prompt", prompt)
    if prompt.strip(" \n\t\0\ufeff"):
        assert code == 0
        ((motion,), _) = check_written(tmp_path, formats=1)
        assert motion["frames"] == 8
        assert ("#40 is read as words" in capsys.readouterr().out) == ("#40" in prompt)
    else:
        error = capsys.readouterr().err.strip()
        assert code == 2 and error == "error: --text_prompt: the prompt is empty"
        assert not (tmp_path / "out").exists()


def test_a_prompt_that_looks_like_a_flag_gets_the_remedy(capsys):
    with pytest.raises(SystemExit):
        sample.flags().parse_args(["--text_prompt", "-jump"])
    assert 'one that begins with "-" is written --text_prompt=-...' in capsys.readouterr().err
    assert sample.flags().parse_args(["--text_prompt=-jump"]).text_prompt == ["-jump"]


def test_signs_between_latin_letters_are_no_other_script():
    latin = ["a person doesnʼt walk", "5 µm", "the 2ª time", "café"]
    assert unknown_letters([*latin, "ein Mensch läuft", "человек идёт", "人走路"]) == [
        "человек идёт",
        "人走路",
    ]
