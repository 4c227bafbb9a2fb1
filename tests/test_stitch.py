"""One long motion from several prompts: where it is drawn anew, what stays, and how the script writes it."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import sample
from models.LengthEstimator import MAX_TOKENS
from models.MARDM import SamplingConfig
from motion.bvh import read_bvh
from utils.errors import BadInput
from utils.generation.stitch import draw_parts, draw_story, joins
from utils.pipeline import load

SHARES = st.lists(st.integers(1, MAX_TOKENS), min_size=2, max_size=12)


@given(SHARES, st.integers(0, MAX_TOKENS // 2))
def test_joins_are_apart_fit_a_window_and_leave_something_of_every_part(lengths, transition):
    total, drawn = sum(lengths), torch.zeros(sum(lengths), dtype=torch.bool)
    windows = list(joins(lengths, transition))
    starts = []
    for (window, mask), seam in zip(windows, np.cumsum(lengths)[:-1], strict=True):
        assert 0 <= window.start < window.stop <= total and len(mask) == window.stop - window.start
        assert len(mask) <= MAX_TOKENS
        at = window.start + mask.nonzero().flatten()
        assert not drawn[at].any(), "a token is drawn twice"
        drawn[at] = True
        starts.append(int(at[0]) if len(at) else seam)
        if len(at):
            assert seam - transition // 2 <= at[0] <= seam <= at[-1] + 1 <= seam + (transition + 1) // 2
            assert not mask[0] and not mask[-1], "context on both sides"
    for part in (~drawn).split(lengths):
        assert part.any()
    for (window, _), start in zip(windows, starts[1:]):
        assert window.stop <= start, "a window sees what is still to be drawn"


def test_between_long_parts_the_join_lies_in_the_middle_of_a_full_window():
    (window, mask), _ = joins([MAX_TOKENS] * 3, 8)
    assert window == slice(24, 73) and mask.nonzero().flatten().tolist() == [*range(21, 29)]


@pytest.mark.parametrize("transition", [1, 2, 3])
def test_the_shortest_transitions_draw_what_they_say(transition):
    (_, mask), *_ = joins([10, 10, 10], transition)
    assert mask.sum() == transition


def test_a_turn_survives_the_default():
    """Of 60 frames no more than a token at either end is drawn anew."""
    args = sample.flags().parse_args(["--text_path", "x"])
    (_, a), (_, b) = joins([20, 15, 20], args.transition // 4)
    assert a.sum() == b.sum() == 2


@pytest.fixture(scope="module")
def pipeline(demo_weights):
    return load("Demo/demo_MARDM", demo_weights)


def test_a_story_is_its_parts_except_at_the_joins(pipeline, monkeypatch):
    """Every token outside the joins is the one that its prompt gives alone; all are decoded in one go."""
    text = pipeline.embed(["walk", "turn", "jump"])
    lengths, sampling = torch.tensor([12, 40, 20]), SamplingConfig(time_steps=4)
    seen = []
    decode = type(pipeline).decode
    monkeypatch.setattr(
        type(pipeline),
        "decode",
        lambda self, tokens, *args, **kw: seen.append(tokens) or decode(self, tokens, *args, **kw),
    )
    features, joints = draw_story(pipeline, text, lengths, sampling, transition=8)
    assert joints.shape == (4 * 72, 22, 3) and features.shape == (4 * 72, 67) and np.isfinite(joints).all()
    ((tokens,),) = seen
    alone = torch.cat(draw_parts(pipeline, text, lengths, sampling, repeat=0))
    changed = (tokens != alone).any(dim=1).nonzero().flatten().tolist()
    joined = {*range(8, 16), *range(48, 56)}
    assert set(changed) <= joined and min(changed) < 16 and max(changed) >= 48
    others = draw_parts(pipeline, text, lengths, sampling, repeat=1)
    assert not any(torch.equal(a, b) for a, b in zip(others, alone.split([12, 40, 20])))
    again = draw_story(pipeline, text, lengths, sampling, transition=8)[1]
    other = draw_story(pipeline, text, lengths, sampling, transition=8, repeat=1)[1]
    assert np.array_equal(joints, again) and not np.array_equal(joints, other)


def stitch(weights, tmp_path, lines, *flags):
    (tmp_path / "story.txt").write_text(lines, encoding="utf-8")
    fixed = ["--demo", "--checkpoints_dir", str(weights), "--device", "cpu", "--time_steps", "3"]
    out = ["--output_dir", str(tmp_path / "out"), "--text_path", str(tmp_path / "story.txt"), "--stitch"]
    sample.main([*fixed, *out, *flags])
    return tmp_path / "out/demo_MARDM_Demo"


def test_sample_writes_one_story_longer_than_any_motion(demo_weights, tmp_path):
    lines = "someone walks#120\nthen <b>waves</b>#24\nand jumps#96\n"
    folder = stitch(demo_weights, tmp_path, lines, "--export", "npy", "bvh", "html", "features")
    stem = "story_sample0_repeat0_len240"
    suffixes = (".npy", ".bvh", ".html", ".features.npy")
    assert {path.name for path in folder.iterdir()} == {stem + s for s in suffixes} | {"samples.json"}
    assert np.load(folder / f"{stem}.npy").shape == (240, 22, 3)
    assert len(read_bvh(folder / f"{stem}.bvh")) == 240
    assert "\\u003cb\\u003ewaves" in (folder / f"{stem}.html").read_text(encoding="utf-8")
    ((made,),) = [call["motions"] for call in json.loads((folder / "samples.json").read_text())]
    assert made["prompt"] == "story" and made["frames"] == 240
    assert [part["frames"] for part in made["prompts"]] == [120, 24, 96]
    assert made["prompts"][1]["prompt"] == "then <b>waves</b>"


def test_one_prompt_is_no_story(demo_weights, tmp_path):
    with pytest.raises(BadInput, match="two or more"):
        stitch(demo_weights, tmp_path, "someone walks\n")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_run_has_recorded_what_it_wrote(demo_weights, tmp_path, monkeypatch):
    """samples.json grows with the files, and names all that are there when the run is stopped."""
    folder, calls, export = tmp_path / "out/demo_MARDM_Demo", [], sample.export_motion
    monkeypatch.setattr(sample.Record, "PAUSE", 0)

    def stop_at_the_third(*args, **kw):
        written = sorted(path.name for path in folder.glob("*.npy"))
        recorded = json.loads((folder / "samples.json").read_text())[-1]["motions"] if written else []
        assert sorted(name for motion in recorded for name in motion["files"]) == written
        calls.append(written)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return export(*args, **kw)

    monkeypatch.setattr(sample, "export_motion", stop_at_the_third)
    (tmp_path / "prompts.txt").write_text("walk#8\nturn#8\njump#8\nsit#8\n")
    words = ["--demo", "--checkpoints_dir", str(demo_weights), "--device", "cpu", "--time_steps", "1"]
    words += ["--export", "npy", "--output_dir", str(tmp_path / "out")]
    with pytest.raises(KeyboardInterrupt):
        sample.main([*words, "--text_path", str(tmp_path / "prompts.txt")])
    assert len(calls[-1]) == 2 == len(json.loads((folder / "samples.json").read_text())[-1]["motions"])
    monkeypatch.setattr(sample.Record, "PAUSE", 1e9)  # nothing is due, yet the end writes it
    calls.clear()
    with pytest.raises(AssertionError):
        sample.main([*words, "--text_path", str(tmp_path / "prompts.txt")])
    first, second = json.loads((folder / "samples.json").read_text())
    assert len(first["motions"]) == 2 and len(second["motions"]) <= 1
