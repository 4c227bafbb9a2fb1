"""What fails in MARDM does not fail here. docs/mardm_failures.md numbers the failures and says
for each where it is tested; those without a test of their own elsewhere are here, in that order.
"""

from argparse import Namespace

import numpy as np
import pytest
import torch

import edit
import sample
import train_MARDM
from models.AE import make_ae
from models.MARDM import MARDM_models
from models.sampling import SamplingConfig
from utils.cli import Parser
from utils.config import SamplingFlags, TrainingConfig, add_flags
from utils.data.clips import Caption, Clip, load_clips, read_split
from utils.datasets import DATASETS, DatasetSpec, Normalizer, TextMotionSet, WindowSet
from utils.flags import sampling_config
from utils.pipeline import Pipeline
from utils.training.train_utils import EMA, learning_rate


def still(values):
    """-> a Normalizer that changes nothing, and clips of these lengths whose entries are the length."""
    return Normalizer(np.zeros(67), np.ones(67)), [
        Clip(f"c{n}", np.full((n, 67), n, np.float32), (Caption("walk", ("walk/VERB",)),)) for n in values
    ]


# 4.1 a current stack, no GPU


@pytest.mark.parametrize("main", [sample.main, edit.main])
def test_a_missing_prompt_is_one_line_before_anything_is_loaded(main, capsys, monkeypatch):
    monkeypatch.setattr(Pipeline, "open", None)
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1


# 4.2 training


@pytest.mark.parametrize("mul", [1, 4])
def test_the_batch_multiplier_multiplies(mul):
    mardm = MARDM_models["MARDM-SiT-XS"](ae_dim=8, target_dim=8, text_dim=4, diffmlps_batch_mul=mul)
    counted = []
    mardm.DiffMLPs.net.register_forward_hook(lambda net, given, out: counted.append(len(out)))
    hidden = torch.tensor([[True, False, True, True]])
    masks = hidden, torch.zeros_like(hidden), hidden
    latents = torch.randn(1, 8, 4)
    mardm.forward_loss(latents, latents.mT, torch.randn(1, 4), torch.tensor([4]), masks=masks)
    assert counted == [3 * mul]
    assert train_MARDM.flags().parse_args(["--diffmlps_batch_mul", "2"]).diffmlps_batch_mul == 2


def rates(warm_up, milestones, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = learning_rate(optimizer, TrainingConfig(1, warm_up_iter=warm_up, milestones=milestones), steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_warm_up_ends_at_the_full_rate_and_milestones_count_within_it():
    found = rates(10, [20], 30)
    assert found[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert found[9:20] == pytest.approx([1.0] * 11) and found[20:] == pytest.approx([0.1] * 10)
    assert rates(10, [5], 12)[-1] == pytest.approx(0.1)


def test_a_short_runs_average_has_left_its_initial_weights():
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(net.weight)
    ema = EMA(net, 0.9999)
    torch.nn.init.ones_(net.weight)
    for step in range(1, 101):
        ema.update(net, step)
    assert float(ema.model.weight) > 0.99  # with a decay of 0.9999 all along: 0.01


# 4.3 data


def test_every_start_of_every_motion_is_served_once():
    normalizer, motions = still([70, 64, 66, 22])
    windows = WindowSet(motions, normalizer, 64)
    assert len(windows) == 7 + 1 + 3 + 1
    served = [windows[(0, i)] for i in range(len(windows))]
    assert [name for _, name, *_ in served] == ["c70"] * 7 + ["c64"] + ["c66"] * 3 + ["c22"]
    assert [len(motion) for motion, *_ in served] == [64] * 11 + [20]  # whole tokens
    frames = [np.repeat(np.arange(n)[:, None], 67, 1).astype(np.float32) for n in (70, 64, 66)]
    counted = WindowSet([Clip(str(len(x)), x) for x in frames], normalizer, 64)
    starts = [int(counted[(0, i)][0][0, 0]) for i in range(len(counted))]
    assert starts == [*range(7), 0, *range(3)]


def test_equal_windows_of_each_clip_are_anywhere_in_it_and_others_in_every_epoch():
    """So that a clip of many windows counts no more than a short one; an epoch is as long as with all."""
    normalizer, _ = still([])
    frames = [np.repeat(np.arange(n)[:, None], 67, 1).astype(np.float32) for n in (70, 64, 20)]
    clips = [Clip(str(len(x)), x) for x in frames]
    drawn = WindowSet(clips, normalizer, 64, equal=True, seed=5)
    assert len(drawn) == len(WindowSet(clips, normalizer, 64)) == 9
    epochs = [[drawn[(epoch, i)] for i in range(len(drawn))] for epoch in range(100)]
    for epoch in epochs:
        assert sorted(name for _, name, *_ in epoch) == ["20"] * 3 + ["64"] * 3 + ["70"] * 3
        assert {len(motion) for motion, name, *_ in epoch if name == "20"} == {20}
        assert {int(motion[0, 0]) for motion, name, *_ in epoch if name != "70"} == {0}
    starts = [[int(motion[0, 0]) for motion, name, *_ in epoch if name == "70"] for epoch in epochs]
    assert {start for epoch in starts for start in epoch} == set(range(7))
    assert len(set(map(tuple, starts))) > 50
    assert torch.equal(drawn[(3, 0)][0], epochs[3][0][0])
    other = WindowSet(clips, normalizer, 64, equal=True, seed=6)
    assert [int(other[(e, 0)][0][0, 0]) for e in range(100)] != [first for first, *_ in starts]


@pytest.fixture
def written(tmp_path):
    """write(name, frames, lines) puts a motion and its captions into a set; -> (its folder, write)."""
    for folder in ("new_joint_vecs", "texts"):
        (tmp_path / folder).mkdir()
    for split in ("train", "val", "test"):
        (tmp_path / f"{split}.txt").touch()

    def write(name, frames, lines):
        np.save(tmp_path / "new_joint_vecs" / f"{name}.npy", np.zeros((frames, 263), np.float32))
        (tmp_path / "texts" / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")

    return tmp_path, write


def test_forty_tagged_captions_make_forty_clips(written):
    root, write = written
    write("a", 199, [f"walk#walk/VERB#{i * 0.1}#{i * 0.1 + 3}" for i in range(40)])
    (root / "train.txt").write_text("a\n")
    clips = load_clips(DATASETS["t2m"], root, "train")
    assert len({clip.name for clip in clips}) == 40


def test_a_short_maximal_length_crops():
    normalizer, motions = still([120])
    for crop in (False, True):
        cut = TextMotionSet(motions, normalizer, max_frames=40, crop=crop)
        lengths = {len(cut[(epoch, 0)][0]) for epoch in range(30)}
        assert lengths == ({40, 36} if crop else {40})


def test_a_crop_starts_anywhere_and_has_any_of_the_captions():
    normalizer, _ = still([])
    rows = np.repeat(np.arange(43)[:, None], 67, 1).astype(np.float32)
    long, short = (Clip("x", rows[:n], (Caption("a", ()), Caption("b", ()))) for n in (43, 7))
    cut = TextMotionSet([long, short], normalizer, max_frames=40, crop=True)
    drawn = [cut[epoch, 0] for epoch in range(400)]
    starts = {n: {int(motion[0, 0]) for motion, *_ in drawn if len(motion) == n} for n in (40, 36)}
    assert starts == {40: set(range(4)), 36: set(range(8))}
    assert abs(np.mean([len(motion) == 36 for motion, *_ in drawn]) - 1 / 3) < 0.1
    captions = [caption for _, _, caption, *_ in drawn]
    assert set(captions) == set(long.captions)
    assert captions == [cut.caption(epoch, 0) for epoch in range(400)]
    assert {len(cut[epoch, 1][0]) for epoch in range(30)} == {4}  # one token is never taken from one


def test_an_id_twice_counts_once(written, capsys):
    root, write = written
    for name in "abc":
        write(name, 60, ["walk#walk/VERB#0.0#0.0"])
    (root / "train.txt").write_text("a\nb\na\nc\n")
    assert read_split(root, "train") == ["a", "b", "c"]
    assert "more than once" in capsys.readouterr().out
    assert [clip.name for clip in load_clips(DATASETS["t2m"], root, "train")] == ["a", "b", "c"]


# 4.4 sampling and editing


def test_a_prompt_files_lengths_are_read_line_by_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"walk#120\r\n# a comment\njump # high#60\nsit\nrun#NA\nturn#80\n")
    args = sample.flags().parse_args(["--text_path", str(path), "--motion_length", "40"])
    read = sample.read_prompts(args.text_prompt, args.text_path, args.motion_length)
    prompts = [(p.text, p.frames) for p in read]
    assert prompts == [("walk", 120), ("jump # high", 60), ("sit", 40), ("run", 0), ("turn", 80)]


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    ae = make_ae("AE_Model", width=8)
    return MARDM_models["MARDM-SiT-XS"](ae_dim=8, target_dim=8, text_dim=4).eval(), ae.eval()


def test_without_guidance_by_text_the_head_still_draws(pair):
    """cfg 0 is the unconditional model: the text has no effect, the noise has."""
    mardm, ae = pair
    m_lens, sampling = torch.tensor([5]), SamplingConfig(cfg=0.0, time_steps=3)
    drawn = [mardm.generate(ae, text, m_lens, sampling) for text in (torch.ones(1, 4), -torch.ones(1, 4))]
    torch.testing.assert_close(*drawn)
    other = mardm.generate(ae, torch.ones(1, 4), m_lens, SamplingConfig(cfg=0.0, time_steps=3, seed=1))
    assert (other - drawn[0]).abs().max() > 1e-3


def test_given_lengths_need_no_length_estimator():
    pipeline = Pipeline(None, None, "", "", 0, device="cpu", source=None, paths=[])
    assert pipeline.lengths(None, [120, 43], seed=0).tolist() == [30, 10]


# 4.5 evaluation


def test_guidance_follows_the_data_set_and_no_path(tmp_path):
    parser = Parser(None)
    add_flags(parser, "sampling", SamplingFlags)
    args = Namespace(seed=0, out_dir="my_kitchen_run", name="kit_kit", **vars(parser.parse_args([])))
    assert (
        sampling_config(args, DATASETS["t2m"]).cfg == 4.5
        and sampling_config(args, DATASETS["kit"]).cfg == 2.5
    )
    own = DatasetSpec("my_kitchen", "my_kitchen", DATASETS["t2m"].skeleton, 20.0, 24, cfg=3.0)
    assert sampling_config(args, own).cfg == 3.0
