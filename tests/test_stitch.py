"""One long motion from several prompts: where it is drawn anew, what stays, and how the script writes it."""

import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import sample
from models.LengthEstimator import MAX_TOKENS
from models.sampling import SamplingConfig, unguided
from motion.bvh import read_bvh
from motion.skeletons import SMPL22
from tests.tiny import call, with_demo
from utils.errors import BadInput
from utils.flags import settled
from utils.generation.loops import draw_loop
from utils.generation.stitch import TRANSITION, draw_parts, draw_story, in_a_row, joins, seams
from utils.generation.windows import part_key
from utils.motion_process import recover_from_ric

SHARES = st.lists(st.integers(1, MAX_TOKENS), min_size=2, max_size=12)


@given(SHARES, st.integers(0, MAX_TOKENS // 2))
def test_joins_are_apart_fit_a_window_and_leave_something_of_every_part(lengths, transition):
    total, drawn = sum(lengths), torch.zeros(sum(lengths), dtype=torch.bool)
    windows = list(joins(seams(lengths, transition), total))
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
    lengths = [MAX_TOKENS] * 3
    (window, mask), _ = joins(seams(lengths, 8), sum(lengths))
    assert window == slice(24, 73) and mask.nonzero().flatten().tolist() == [*range(21, 29)]


@pytest.mark.parametrize("transition", [1, 2, 3])
def test_the_shortest_transitions_draw_what_they_say(transition):
    ((first, last), _) = seams([10, 10, 10], transition)
    assert last - first == transition


def turned_pose(degrees, frames=8):
    """Rows of a body that stands, `degrees` ahead of the rows' heading."""
    offsets = np.random.default_rng(0).standard_normal((21, 3))
    offsets[[1, 0, 16, 15]] = [[-0.1, 0, 0], [0.1, 0, 0], [-0.2, 0.5, 0], [0.2, 0.5, 0]]  # hips, shoulders
    rows = np.zeros((frames, 67))
    rows[:, 3], rows[:, 4:] = 1, (offsets @ yaw(degrees).T).flatten()
    return rows


def yaw(degrees):
    return Rotation.from_rotvec([0, np.radians(degrees), 0]).as_matrix()


@given(st.lists(st.floats(-170, 170), min_size=2, max_size=5))
def test_in_a_row_every_part_begins_as_the_body_faces(ahead):
    """Equal poses whose bodies are turned differently from their headings join into one that stands still."""
    rows = in_a_row([turned_pose(a) for a in ahead], SMPL22)
    joints = recover_from_ric(torch.from_numpy(rows), 22).numpy()
    assert np.abs(joints - joints[0]).max() < 1e-9


def test_a_story_is_its_parts_except_at_the_joins(pipeline, monkeypatch):
    """Every token and every row outside the joins is the one that its prompt gives alone."""
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
    (tokens,) = (tokens[0] for tokens in seen if tokens.shape[1] == 72)
    parts = draw_parts(pipeline, text, lengths, sampling, repeat=0)
    alone = torch.cat(parts)
    changed = (tokens != alone).any(dim=1).nonzero().flatten().tolist()
    joined = [*range(8, 16), *range(48, 56)]
    assert set(changed) <= set(joined) and min(changed) < 16 and max(changed) >= 48
    monkeypatch.undo()
    rows = np.concatenate(
        [pipeline.decode(part[None], torch.tensor([4 * len(part)]))[0][0] for part in parts]
    )
    kept = np.setdiff1d(np.arange(4 * 72), np.add.outer(4 * np.array(joined), np.arange(4)))
    assert np.allclose(features[kept], rows[kept], atol=1e-6)
    others = draw_parts(pipeline, text, lengths, sampling, repeat=1)
    assert not any(torch.equal(a, b) for a, b in zip(others, alone.split([12, 40, 20])))
    again = draw_story(pipeline, text, lengths, sampling, transition=8)[1]
    other = draw_story(pipeline, text, lengths, sampling, transition=8, repeat=1)[1]
    assert np.array_equal(joints, again) and not np.array_equal(joints, other)


def test_a_join_is_drawn_from_the_text_after_it_unguided_with_noise_of_its_own(released, monkeypatch):
    text, lengths, seen = released.embed(["walk", "turn", "jump"]), torch.tensor([8, 8, 8]), {}
    for name in ("generate", "edit"):
        method, calls = getattr(released.mardm, name), seen.setdefault(name, [])
        wrapped = lambda *given, method=method, calls=calls: calls.append(given) or method(*given)  # noqa: E731
        monkeypatch.setattr(released.mardm, name, wrapped)
    monkeypatch.setattr("utils.generation.stitch.BATCH", 2)
    draw_story(released, text, lengths, SamplingConfig(time_steps=1, cfg=3.0), transition=4, repeat=7)
    alone, joins = seen["generate"], seen["edit"]
    assert torch.equal(torch.cat([given[1] for given in alone]), text) and len(alone) == 2
    assert torch.equal(torch.cat([given[1] for given in joins]), text[1:])
    assert {given[-2].cfg for given in alone} == {3} and {given[-2].cfg for given in joins} == {1}
    own, others = (sum((list(given[-1]) for given in calls), []) for calls in (alone, joins))
    assert own == [part_key(k, 7) for k in range(3)] and len({*own, *others}) == 3 + 2


def test_a_one_step_head_that_knows_guidance_alone_leaves_the_joins_to_its_teacher(released, monkeypatch):
    text, lengths = released.embed(["walk", "turn"]), torch.tensor([8, 8])
    monkeypatch.setattr(released.mardm.onestep, "scales", (2.0, 6.0))  # --cfg_range 2 6
    sampling = SamplingConfig(cfg=2.5, time_steps=2)
    assert settled(sampling, released.mardm).sampler == "onestep"
    joins = settled(unguided(sampling, released.mardm), released.mardm)
    assert (joins.sampler, joins.sampler_steps, joins.cfg) == ("midpoint", 4, 1)
    assert (joins.time_steps, joins.order, joins.refine) == (2, "random", 0)  # not the one-step head's own
    chosen = replace(sampling, sampler="onestep", sampler_steps=1)
    assert settled(unguided(chosen, released.mardm), released.mardm) == joins
    for rounds, used in (None, 18), (7, 7):  # the default of the head that draws, or what was asked for
        asked = SamplingConfig(cfg=2.5, time_steps=rounds)
        assert settled(unguided(asked, released.mardm), released.mardm).time_steps == used
    assert np.isfinite(draw_story(released, text, lengths, sampling, transition=4)[1]).all()
    assert np.isfinite(draw_loop(released, text[:1], 8, sampling, 4, key=0)[1]).all()
    monkeypatch.setattr(released.mardm.onestep, "scales", (1.0, 4.0))
    assert unguided(sampling, released.mardm) == replace(sampling, cfg=1.0)


def facing(joints):
    """Degrees [T] that hips and shoulders face, about +Y."""
    right_hip, left_hip, right_shoulder, left_shoulder = np.moveaxis(joints[:, list(SMPL22.facing)], 1, 0)
    across = left_hip - right_hip + left_shoulder - right_shoulder
    return np.degrees(np.unwrap(np.arctan2(-across[:, 2], across[:, 0])))


@pytest.mark.parametrize("direction", ["left", "right"])
def test_a_turn_in_a_story_keeps_seven_eighths_of_its_degrees(released, direction):
    """With the released weights, a turn of 80 degrees keeps 70: the facing after it less that before."""
    text = released.embed([f"a person {a}" for a in ("jumps up twice", f"turns to the {direction}", "waves")])
    lengths, sampling = torch.tensor([20, 15, 20]), SamplingConfig(cfg=released.spec.cfg)
    turn = draw_parts(released, text, lengths, sampling, repeat=0)[1]
    alone = facing(released.decode(turn[None], torch.tensor([60]))[1][0])
    story = facing(draw_story(released, text, lengths, sampling, TRANSITION // 4)[1])
    turned, degrees = alone[-4:].mean() - alone[:4].mean(), story[144:160].mean() - story[56:72].mean()
    assert abs(turned) > 60 and 7 / 8 < degrees / turned < 9 / 8


def stitch(weights, tmp_path, lines, *flags):
    (tmp_path / "story.txt").write_text(lines, encoding="utf-8")
    words = ["--time_steps", "3", "--text_path", str(tmp_path / "story.txt"), "--stitch", *flags]
    return with_demo(sample.main, words, tmp_path / "out", weights)


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


def test_prompts_by_flag_are_those_of_a_file(demo_weights, tmp_path):
    both = [tmp_path / "flags", tmp_path / "file"]
    (tmp_path / "p.txt").write_text("someone walks#40\nsomeone waves#40\n", encoding="utf-8")
    each = ["--text_prompt", "someone walks", "--text_prompt", "someone waves", "--motion_length", "40"]
    for out, prompts in zip(both, (each, ["--text_path", str(tmp_path / "p.txt")])):
        words = ["--time_steps", "3", "--stitch", "--export", "npy", *prompts]
        with_demo(sample.main, words, out, demo_weights)
    flags, file = (next(out.rglob("story*.npy")).read_bytes() for out in both)
    assert flags == file


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
    words = ["--time_steps", "1", "--export", "npy", "--text_path", str(tmp_path / "prompts.txt")]
    with pytest.raises(KeyboardInterrupt):
        with_demo(sample.main, words, tmp_path / "out", demo_weights)
    assert len(calls[-1]) == 2 == len(json.loads((folder / "samples.json").read_text())[-1]["motions"])

    def stop_at_the_sixth(*args, **kw):
        calls.append(args)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return export(*args, **kw)

    monkeypatch.setattr(sample.Record, "PAUSE", 1e9)  # the second motion is not due, yet the end writes it
    monkeypatch.setattr(sample, "export_motion", stop_at_the_sixth)
    with pytest.raises(KeyboardInterrupt):
        with_demo(sample.main, words, tmp_path / "out", demo_weights)
    first, second = json.loads((folder / "samples.json").read_text())
    assert len(first["motions"]) == len(second["motions"]) == 2


def test_sigterm_ends_a_run_as_ctrl_c_does(demo_weights, tmp_path, monkeypatch, capsys):
    before, export = signal.getsignal(signal.SIGTERM), sample.export_motion

    def ended_after_the_first(*args, **kw):
        if list(tmp_path.rglob("*.npy")):
            signal.raise_signal(signal.SIGTERM)
        return export(*args, **kw)

    monkeypatch.setattr(sample, "export_motion", ended_after_the_first)
    words = f"--demo --checkpoints_dir {demo_weights} --output_dir {tmp_path} --device cpu --time_steps 1"
    words += " --text_prompt=walk --motion_length 8 --repeat_times 3 --export npy"
    assert call(sample.main, words) == 143
    assert capsys.readouterr().err.splitlines()[-1] == "interrupted"
    (folder,) = tmp_path.iterdir()
    ((made,),) = [one["motions"] for one in json.loads((folder / "samples.json").read_text())]
    assert {file.name for file in folder.iterdir()} == {"samples.json", *made["files"]}  # no hidden ones
    assert signal.getsignal(signal.SIGTERM) is before


def test_calls_at_the_same_time_keep_each_others_entries(tmp_path):
    file = tmp_path / "samples.json"
    file.write_text('[{"prompt": "an earlier call"}]')
    both = first, second = [sample.Record(file, seed=seed) for seed in (1, 2)]
    for k in range(3):
        first.add({"files": (f"{k}.npy",)})
        second.add({"files": (f"{k} (2).npy",)})
    for record in both:
        record.write()
    before, *calls = json.loads(file.read_text())
    assert before == {"prompt": "an earlier call"}
    assert [(call["seed"], len(call["motions"])) for call in calls] == [(1, 3), (2, 3)]
    for seed in (3, 4):  # what another program wrote, or a slip of the hand, is kept beside it
        file.write_text('{"not": "ours"}')
        record = sample.Record(file, seed=seed)
        record.write()  # nothing was made yet
        assert file.read_text() == '{"not": "ours"}'
        record.add({"files": ()})
        assert [call["seed"] for call in json.loads(file.read_text())] == [seed]
    kept = sorted(tmp_path.glob("samples.json.*"))
    assert [one.name for one in kept] == ["samples.json.unreadable", "samples.json.unreadable2"]
    assert {one.read_text() for one in kept} == {'{"not": "ours"}'}
