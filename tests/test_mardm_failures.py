"""What fails in MARDM does not fail here. docs/mardm_failures.md numbers the failures and says
for each where it is tested; those without a test of their own elsewhere are here, in that order.
"""

import re
import warnings
from argparse import Namespace

import numpy as np
import pytest
import torch

import edit
import evaluation_MARDM
import sample
import train_MARDM
from models.AE import make_ae
from models.MARDM import MARDM_models, SamplingConfig
from motion.files import Unwritten
from tests.conftest import ROOT
from utils import metrics
from utils.checkpoints import Run, load_state, save_state
from utils.cli import Parser
from utils.config import LoaderConfig, TrainingConfig, from_flags
from utils.data.clips import Caption, Clip, load_clips, parse_caption, read_split
from utils.datasets import DATASETS, DatasetSpec, Normalizer, TextMotionSet, WindowSet, loader
from utils.errors import BadInput
from utils.flags import sampling_config, sampling_flags
from utils.generation.prompts import parse_prompt
from utils.motion_process import recover_from_ric
from utils.pipeline import Pipeline
from utils.training.train_utils import EMA, warm_up_then_milestones
from utils.training.training_loop import Best, TrainingLoop

DOC = ROOT / "docs/mardm_failures.md"
ITEMS = {"1": 9, "2": 14, "3": 9, "4": 15, "5": 10}  # section -> its number of failures


def rows():
    """Item -> the rest of its row."""
    found = re.findall(r"^\| 4\.(\d)\.(\d+) \|(.*)\|$", DOC.read_text(encoding="utf-8"), re.MULTILINE)
    return {(section, int(number)): text for section, number, text in found}


def test_the_document_answers_every_failure():
    assert list(rows()) == [(section, i + 1) for section, n in ITEMS.items() for i in range(n)]


def test_every_test_that_the_document_names_exists():
    named = re.findall(r"`(test_\w+)\.(test_\w+)`", DOC.read_text(encoding="utf-8"))
    assert len(named) > 50
    for module, name in named:
        assert f"\ndef {name}(" in (ROOT / "tests" / f"{module}.py").read_text(), f"{module}.{name}"


def still(values):
    """An essential row's statistics that change nothing, for motions of these lengths."""
    return Normalizer(np.zeros(67), np.ones(67)), [
        Clip(f"c{n}", np.full((n, 67), n, np.float32), (Caption("walk", ("walk/VERB",)),)) for n in values
    ]


# 4.1 a current stack, no GPU


def test_fid_is_free_of_deprecated_functions():
    x = np.random.default_rng(0).normal(size=(50, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isfinite(metrics.fid(torch.tensor(x), torch.tensor(x + 1)))


@pytest.mark.parametrize("main", [sample.main, edit.main])
def test_a_missing_prompt_is_one_line_before_anything_is_loaded(main, capsys, monkeypatch):
    monkeypatch.setattr(Pipeline, "open", None)
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 2 and len(capsys.readouterr().err.strip().splitlines()) == 1


# 4.2 training


def loop_in(folder, **flags):
    """A TrainingLoop over one linear layer, and that layer."""
    args = Namespace(
        **{
            "checkpoints_dir": str(folder),
            "dataset_name": "t2m",
            "name": "run",
            "is_continue": False,
            "epoch": 3,
        }
        | {
            "max_iters": 0,
            "batch_size": 2,
            "grad_accum": 1,
            "seed": 1,
            "num_workers": 0,
            "log_every": 1,
            "save_every": 1,
        }
        | flags
    )
    net = torch.nn.Linear(67, 1)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3)
    training = from_flags(TrainingConfig, args, warm_up_iter=2)
    schedule = warm_up_then_milestones(optimizer, training)
    parts = {"net": net, "opt_net": optimizer, "scheduler": schedule}
    loading, best, cpu = from_flags(LoaderConfig, args), Best(tuple(parts)), torch.device("cpu")
    return TrainingLoop(training, loading, Run.of(args), cpu, parts, {}, best), net


def run_epoch(loop, net, clips=3, metrics=None, spoil=1.0):
    """One epoch on that many motions."""
    normalizer, motions = still([8] * clips)
    for micro_batches in loop.batches(TextMotionSet(motions, normalizer)):
        for batch in micro_batches:
            loop.backward(net(batch.motion).square().mean(dim=(1, 2)).sum() * spoil, len(batch))
        loop.optimizer_step(loop.parts["opt_net"])
    loop.finish_epoch(metrics)


def test_a_resumed_run_remembers_its_best(tmp_path):
    loop, net = loop_in(tmp_path, max_iters=2)
    run_epoch(loop, net, metrics={"fid": 1.0})
    kept = load_state(loop.run.best)["net"]["weight"]
    loop, net = loop_in(tmp_path, is_continue=True, max_iters=6)
    assert loop.progress.ep == 1 and loop.progress.best["fid"] == 1.0
    run_epoch(loop, net, metrics={"fid": 2.0})
    assert torch.equal(load_state(loop.run.best)["net"]["weight"], kept)
    run_epoch(loop, net, metrics={"fid": 0.5})
    assert not torch.equal(load_state(loop.run.best)["net"]["weight"], kept)


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


def test_no_debugging_aid_is_left_on():
    assert not torch.is_anomaly_enabled()  # after the scripts were imported, and in the middle of a run:
    for file in [*ROOT.glob("*.py"), *(ROOT / "utils").rglob("*.py"), *(ROOT / "models").glob("*.py")]:
        assert "anomaly" not in file.read_text(encoding="utf-8"), file


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_file(tmp_path):
    loop, net = loop_in(tmp_path)
    run_epoch(loop, net)
    with pytest.raises(BadInput, match="the loss is nan at step 3.*latest.tar is intact"):
        run_epoch(loop, net, spoil=float("nan"))
    assert all(x.isfinite().all() for x in load_state(loop.run.latest)["net"].values())


def rates(warm_up, milestones, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = warm_up_then_milestones(
        optimizer, TrainingConfig(1, warm_up_iter=warm_up, milestones=milestones)
    )
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


def test_fewer_motions_than_a_batch_are_trained_on(tmp_path):
    loop, net = loop_in(tmp_path, batch_size=64)
    run_epoch(loop, net, clips=3)
    assert loop.progress.total_it == 1
    normalizer, motions = still([8] * 3)
    (batch,) = loader(TextMotionSet(motions, normalizer), 64)
    assert len(batch) == 3


def test_an_interrupted_save_leaves_the_file_before(tmp_path, monkeypatch):
    path = tmp_path / "latest.tar"
    save_state(path, {"ep": 1})

    def full(state, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(Unwritten, match="No space left.*untouched"):
        save_state(path, {"ep": 2})
    assert load_state(path) == {"ep": 1} and [f.name for f in tmp_path.iterdir()] == ["latest.tar"]


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
    normalizer, motions = still([70, 64, 66, 20])
    windows = WindowSet(motions, normalizer, 64)
    assert len(windows) == 7 + 1 + 3 + 1
    served = [windows[(0, i)] for i in range(len(windows))]
    assert [name for _, name, *_ in served] == ["c70"] * 7 + ["c64"] + ["c66"] * 3 + ["c20"]
    assert [len(motion) for motion, *_ in served] == [64] * 11 + [20]
    frames = [np.repeat(np.arange(n)[:, None], 67, 1).astype(np.float32) for n in (70, 64, 66)]
    counted = WindowSet([Clip(str(len(x)), x) for x in frames], normalizer, 64)
    starts = [int(counted[(0, i)][0][0, 0]) for i in range(len(counted))]
    assert starts == [*range(7), 0, *range(3)]


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
        assert {len(cut[(epoch, 0)][0]) for epoch in range(30)} <= {40, 36}


def test_an_id_twice_counts_once(written, capsys):
    root, write = written
    for name in "abc":
        write(name, 60, ["walk#walk/VERB#0.0#0.0"])
    (root / "train.txt").write_text("a\nb\na\nc\n")
    assert read_split(root, "train") == ["a", "b", "c"]
    assert "more than once" in capsys.readouterr().out
    assert [clip.name for clip in load_clips(DATASETS["t2m"], root, "train")] == ["a", "b", "c"]


@pytest.mark.parametrize("ids", ["", "gone\nlost\n"])
def test_data_without_a_usable_clip_is_named(written, ids):
    root, _ = written
    (root / "val.txt").write_text(ids)
    with pytest.raises(BadInput, match=r"val.txt: none of its \d clips can be used"):
        load_clips(DATASETS["t2m"], root, "val")


def test_a_token_may_hold_slashes():
    assert parse_caption("walk and/or run#walk/VERB and/or/CCONJ run/VERB#0.0#nan")[0].tokens[1] == (
        "and/or/CCONJ"
    )


def test_recovery_takes_both_precisions():
    motion = torch.randn(2, 9, 67, dtype=torch.float64)
    exact = recover_from_ric(motion, 22)
    assert exact.dtype == torch.float64
    torch.testing.assert_close(recover_from_ric(motion.float(), 22).double(), exact, atol=1e-4, rtol=0)


# 4.4 sampling and editing


@pytest.mark.parametrize("frames", ["1", "3"])
def test_a_length_below_one_token_is_refused(frames):
    args = sample.flags().parse_args(["--text_prompt", "walk", "--motion_length", frames])
    with pytest.raises(BadInput, match="4 to 196"):
        sample.read_prompts("walk", None, args.motion_length)
    with pytest.raises(BadInput, match="4 to 196"):
        parse_prompt(f"walk#{frames}", 0, "prompts.txt:1")


def test_a_prompt_files_lengths_are_read_line_by_line(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_bytes(b"walk#120\r\njump # high#60\nsit\nrun#NA\nturn#80\n")
    args = sample.flags().parse_args(["--text_path", str(path), "--motion_length", "40"])
    read = sample.read_prompts(args.text_prompt, args.text_path, args.motion_length)
    prompts = [(p.text, p.frames) for p in read]
    assert prompts == [("walk", 120), ("jump # high", 60), ("sit", 40), ("run", 0), ("turn", 80)]


def test_sections_are_numbers_and_never_code(tmp_path):
    for text in (f"__import__('os').mkdir('{tmp_path}/pwned')or(0),1", "0.1", "0,1,2", "a,b", "", "nan,0.5"):
        with pytest.raises(BadInput, match="two numbers"):
            edit.parse_sections([text], 40)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("section", "tokens"),
    [("0,0.5", range(5)), ("0.5,1.0", range(5, 10)), ("8,40", range(2, 10)), ("9,10", [2])],
)
def test_fractions_and_frames_may_be_mixed(section, tokens):
    assert edit.parse_sections([section], 40).nonzero().flatten().tolist() == list(tokens)


@pytest.mark.parametrize("section", ["0.6,0.3", "8,8", "0,41", "-0.1,0.5", "0.5,1.5"])
def test_empty_sections_and_those_beyond_the_motion_are_refused(section):
    with pytest.raises(BadInput, match="0 <= a < b.*40 frames"):
        edit.parse_sections([section], 40)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    ae = make_ae("AE_Model", width=8)
    return MARDM_models["MARDM-SiT-XS"](ae_dim=8, target_dim=8, text_dim=4).eval(), ae.eval()


def test_an_empty_edit_changes_nothing_and_a_section_changes_only_itself(pair):
    mardm, ae = pair
    source, text, m_lens = torch.randn(1, 6, 8), torch.ones(1, 4), torch.tensor([6])
    nothing = torch.zeros(1, 6, dtype=torch.bool)
    assert torch.equal(mardm.edit(ae, text, m_lens, source, nothing), source)
    part = torch.tensor([[False, True, True, False, False, False]])
    drawn = mardm.edit(ae, text, m_lens, source, part)
    assert torch.equal((drawn != source).any(dim=-1), part)


def test_a_section_is_required(capsys):
    with pytest.raises(SystemExit):
        edit.flags().parse_args(["--source_motion", "a.npy", "--text_prompt", "walk"])
    assert "mask_edit_section" in capsys.readouterr().err


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


def test_multimodality_is_measured_when_asked_for():
    parse = evaluation_MARDM.flags().parse_args
    assert parse([]).cal_mm is False and parse(["--cal_mm"]).cal_mm is True


@pytest.mark.parametrize("n", [2, 20, 100, 101, 1000])
def test_diversity_of_few_samples_says_its_pairs(n):
    count = metrics.diversity_pairs(n)
    assert count == (300 if n > 300 else min(100, n - 1))
    first, second = metrics.draw_pairs(n, count, np.random.default_rng(0))
    assert np.isfinite(metrics.diversity(torch.randn(n, 4), first, second))


def test_guidance_follows_the_data_set_and_no_path(tmp_path):
    parser = Parser(None)
    sampling_flags(parser)
    args = Namespace(seed=0, out_dir="my_kitchen_run", name="kit_kit", **vars(parser.parse_args([])))
    assert (
        sampling_config(args, DATASETS["t2m"]).cfg == 4.5
        and sampling_config(args, DATASETS["kit"]).cfg == 2.5
    )
    own = DatasetSpec("my_kitchen", "my_kitchen", DATASETS["t2m"].skeleton, 20.0, 24, cfg=3.0)
    assert sampling_config(args, own).cfg == 3.0
