"""The evaluators: inputs, embeddings that do not depend on the batch, training, one evaluation pass."""

import math
import pickle
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch

import train_Evaluators
import train_LengthEstimator
from models.LengthEstimator import MAX_FRAMES
from motion.skeletons import SMPL22
from tests.tiny import call, where
from utils import distributed, evaluation_report, metrics
from utils.config import EvaluationConfig, LoaderConfig, RunConfig, TrainingConfig, from_flags
from utils.data.batches import collate
from utils.data.clips import Caption, Clip
from utils.datasets import DatasetSpec, Normalizer, TextMotionSet, find_dataset
from utils.errors import BadInput
from utils.eval_utils import EvaluationRun, Metrics, Scores, interval
from utils.evaluation import evaluators, glove
from utils.evaluation.evaluator_networks import MotionCLIP, matching_networks
from utils.evaluation.evaluator_training import (
    Contrast,
    Matching,
    WordStates,
    contrastive_margin,
    info_nce,
    mean_r_precision,
    reachable,
    same_caption,
)
from utils.evaluation.evaluators import CONTRAST, MATCHING, TextMotionEvaluator, embed_rows
from utils.evaluation.glove import WordTokens, WordVectors
from utils.runs import Run, save_state

SIZES = {"movement": 16, "text": 16, "motion": 16, "embedding": 8}
SPEC = DatasetSpec("Tiny", "Tiny", SMPL22, 20.0, 24)
VERBS = ["walk", "run", "jump", "bow", "wave", "kick", "punch", "turn"]


def tiny_clips(n, seed=0, frames=(24, 48)):
    """Clips whose joints swing with a frequency that the caption names."""
    rng = np.random.default_rng(seed)
    clips = []
    for i in range(n):
        verb = i % len(VERBS)
        t = np.arange(4 * int(rng.integers(frames[0] // 4, frames[1] // 4 + 1)))[:, None]
        phases = rng.normal(0, 0.1, SPEC.dim) + np.arange(SPEC.dim)
        motion = np.sin(0.1 * (verb + 1) * t + phases).astype(np.float32)
        captions = tuple(
            Caption(f"{who} {VERBS[verb]}s", (f"{who}/NOUN", f"{VERBS[verb]}/VERB"))
            for who in ("man", "woman")
        )
        clips.append(Clip(f"clip{i}", motion, captions))
    return clips


@pytest.fixture(scope="module")
def normalizer():
    return Normalizer(torch.zeros(SPEC.dim), torch.ones(SPEC.dim))


@pytest.fixture(scope="module")
def dataset(normalizer):
    return TextMotionSet(tiny_clips(40), normalizer, seed=3407)


@pytest.mark.parametrize("crop", [False, True])
def test_a_caption_is_read_without_its_motion(normalizer, crop):
    def untouched(motion):
        raise AssertionError("a motion was normalised")

    clips = tiny_clips(20)
    whole, bare = (TextMotionSet(clips, one, crop=crop, seed=3) for one in (normalizer, untouched))
    for repeat in range(3):
        expected = [whole[repeat, i][2] for i in range(20)]
        assert [bare.caption(repeat, i) for i in range(20)] == expected and len(set(expected)) > 4
        texts = EvaluationRun(None, bare, SPEC, torch.device("cpu")).captions(repeat)[1]
        assert texts == [caption.text for caption in expected]


@pytest.fixture(scope="module")
def evaluator(normalizer):
    torch.manual_seed(0)
    networks = matching_networks(SPEC.dim, SIZES)
    for network in networks.values():
        network.eval().requires_grad_(False)
    return TextMotionEvaluator(networks, normalizer, WordVectors.hashed([*VERBS, "man", "woman"]))


# words


def test_hashed_vectors_follow_from_the_spelling_alone():
    a, b = WordVectors.hashed(["walk", "run"]), WordVectors.hashed(["run", "zebra", "walk", "bow"])
    for word in ("walk", "run", "sos", "unk"):
        assert torch.equal(a.vectors[a.index[word]], b.vectors[b.index[word]])
    assert not torch.equal(a.vectors[a.index["walk"]], a.vectors[a.index["run"]])
    assert float(b.vectors.std()) == pytest.approx(0.4, rel=0.1)


def test_tokens_become_vectors_and_parts_of_speech():
    words = WordVectors.hashed(["walk", "slow", "and/or", "person"])
    captions = [["person/NOUN", "walk/VERB", "and/or/CCONJ", "gallop/VERB"], ["walk/NOUN"]]
    vectors, pos, lengths = words(captions)
    assert lengths.tolist() == [6, 3]
    kinds = [[glove.PARTS_OF_SPEECH[one.argmax()] for one in row[:n]] for row, n in zip(pos, lengths)]
    assert kinds[0] == ["OTHER", "NOUN", "Act_VIP", "OTHER", "OTHER", "OTHER"]
    assert kinds[1] == ["OTHER", "Act_VIP", "OTHER"]  # a word that matters to motion, whatever its tag
    assert pos.sum() == 9 and vectors[1, 3:].eq(0).all() and pos[1, 3:].eq(0).all()
    for column, word in enumerate(["sos", "person", "walk", "and/or", "unk", "eos"]):
        assert torch.equal(vectors[0, column], words.vectors[words.index[word]])


def published(folder, index=None):
    """The three published files with three words."""
    vectors = np.random.default_rng(0).normal(size=(4, 300)).astype(np.float32)
    np.save(folder / "our_vab_data.npy", vectors)
    index = {"unk": 0, "sos": 1, "eos": 2, "walk": 3} if index is None else index
    (folder / "our_vab_idx.pkl").write_bytes(pickle.dumps(index))
    return vectors


def test_published_word_vectors(tmp_path):
    vectors = published(tmp_path)
    words = glove.word_vectors(tmp_path, ["bow"])
    assert words.source == "glove"
    assert torch.equal(words([["walk/VERB"]])[0][0, 1], torch.as_tensor(vectors[3]))
    assert glove.word_vectors(tmp_path / "none", ["bow"]).source == "hashed"


def test_word_tokens_end_with_the_largest_id():
    tokens = WordTokens(["bow", "walk"], context=5)
    ids = tokens(["Walk, walk!", "a bow", "", "walk " * 9])
    assert ids.tolist() == [[2, 2, 4, 0, 0], [3, 1, 4, 0, 0], [4, 0, 0, 0, 0], [2, 2, 2, 2, 4]]


# networks


def test_a_clips_embedding_does_not_depend_on_its_batch(evaluator, dataset):
    batch = collate([dataset[(0, i)] for i in range(12)])
    together = as_if_alone(evaluator.embed_motion, batch.motion, batch.m_lens)
    assert len(set(batch.m_lens.tolist())) > 3
    spoilt = batch.motion.clone()
    for row, n in enumerate(batch.m_lens):
        spoilt[row, n:] = 1e3
    assert torch.allclose(evaluator.embed_motion(spoilt, batch.m_lens), together, atol=1e-5)
    text = evaluator.embed_text(batch.tokens)
    for i, tokens in enumerate(batch.tokens):
        assert torch.allclose(evaluator.embed_text([tokens])[0], text[i], atol=1e-5)


@pytest.mark.parametrize("frames", [24, 188, 192, 196])
def test_the_published_padding_of_196_frames_gives_the_same(evaluator, frames):
    motion = torch.randn(2, frames, SPEC.dim, generator=torch.Generator().manual_seed(0))
    m_lens = torch.tensor([frames, frames])
    full = torch.nn.functional.pad(motion, (0, 0, 0, MAX_FRAMES - frames))
    movements = evaluator.networks["movement_encoder"](full)
    expected = evaluator.networks["motion_encoder"](movements, m_lens // 4)
    assert torch.allclose(embed_rows(evaluator.networks, motion, m_lens), expected, atol=1e-6)


def as_if_alone(embed, motion, m_lens):
    """-> embeddings of a batch, each checked against that of its clip alone."""
    together = embed(motion, m_lens)
    for i, n in enumerate(m_lens):
        alone = embed(motion[i : i + 1, :n], m_lens[i : i + 1])
        assert torch.allclose(alone[0], together[i], atol=1e-5)
    return together


def test_the_contrast_model_does_not_see_padding():
    torch.manual_seed(0)
    model = MotionCLIP(SPEC.dim, d_model=16, layers=2, heads=2, vocabulary_size=9, context=6, out=8).eval()
    motion, m_lens = torch.randn(3, 20, SPEC.dim), torch.tensor([20, 8, 12])
    together = as_if_alone(model.encode_motion, motion, m_lens)
    assert torch.allclose(together.norm(dim=1), torch.ones(3))


def states(captions, longest=7):
    """Captions [B,1+W,384] as a text encoder gives them: the mean, then a row a word, by its spelling."""
    rows = []
    for caption in captions:
        words = [np.random.default_rng([*word.encode()]).normal(0, 0.2, 384) for word in caption.split()]
        rows.append(torch.from_numpy(np.stack([np.mean(words, axis=0), *words])).float())
    return torch.nn.utils.rnn.pad_sequence([*rows, torch.zeros(1 + longest, 384)], batch_first=True)[:-1]


WORD_SIZES = {"dim": SPEC.dim, "width": 384, "hidden": 16, "embedding": 8, "blocks": 2}


def test_towers_see_every_word_and_no_padding():
    torch.manual_seed(0)
    model = WordStates(WORD_SIZES, "minilm").eval().model
    motion, m_lens = torch.randn(3, 40, SPEC.dim), torch.tensor([40, 24, 12])
    motion = motion * (torch.arange(40)[None, :, None] < m_lens[:, None, None])
    as_if_alone(model.embed_motion, motion, m_lens)
    captions = ["a man walks", "a man walks and jumps", "run"]
    text = model.embed_text(states(captions))
    assert torch.allclose(text, model.embed_text(states(captions, longest=20)), atol=1e-5)
    assert torch.allclose(text.norm(dim=1), torch.ones(3)) and (text[0] - text[1]).abs().max() > 1e-2


# losses


def test_contrastive_margin_in_closed_form():
    distance = torch.tensor([[3.0, 8.0], [12.0, 1.0]])
    own = torch.eye(2, dtype=torch.bool)
    # own pairs (9 + 1) / 2; of the others only 8 lies within the margin of 10: (10 - 8)^2
    assert float(contrastive_margin(distance, own)) == pytest.approx(5 + 4)
    assert float(contrastive_margin(distance, torch.ones(2, 2, dtype=torch.bool))) == pytest.approx(5)


def test_info_nce_in_closed_form():
    distance = torch.tensor([[1.0, 2.0, 4.0], [3.0, 1.0, 2.0], [5.0, 2.0, 1.0]])
    own = torch.eye(3, dtype=torch.bool)
    p = np.exp(-distance.numpy())
    rows, columns = np.diag(p) / p.sum(axis=1), np.diag(p) / p.sum(axis=0)
    expected = -(np.log(rows).mean() + np.log(columns).mean()) / 2
    assert float(info_nce(distance, own)) == pytest.approx(expected, rel=1e-6)
    everyone = torch.ones(3, 3, dtype=torch.bool)  # one caption for all: nothing to tell apart
    assert float(info_nce(distance, everyone)) == pytest.approx(0, abs=1e-6)


def test_captions_of_equal_meaning_are_no_negatives_of_word_states(dataset):
    model, batch = WordStates(WORD_SIZES, "minilm").eval(), collate([dataset[(0, i)] for i in range(6)])
    batch.text = states(batch.captions)
    batch.text[:, 0] = torch.eye(6, batch.text.shape[-1])
    batch.text[1, 0] = 2 * batch.text[0, 0]
    same = torch.eye(6, dtype=torch.bool)
    same[0, 1] = same[1, 0] = True
    text, motion = model.embed(batch)
    expected = info_nce(-model.model.scale() * text @ motion.T, same)
    assert model.loss(batch).item() == pytest.approx(expected.item(), rel=1e-6)


def test_equal_captions_are_no_negatives():
    same = same_caption(["a", "b", "a"], "cpu")
    assert same.tolist() == [[True, False, True], [False, True, False], [True, False, True]]


@pytest.mark.parametrize("kind", ["matching", "contrast", "words"])
def test_evaluators_learn_what_is_planted(kind, normalizer):
    """Eight kinds of motion, sixteen captions: after a few steps a caption finds its kind."""
    torch.manual_seed(0)
    clips = tiny_clips(64, frames=(24, 28))
    said = sorted({caption.text for clip in clips for caption in clip.captions})
    train_set = TextMotionSet(clips, normalizer, dict(zip(said, states(said))))
    if kind == "words":
        model = WordStates({**WORD_SIZES, "hidden": 32}, "minilm")
    elif kind == "contrast":
        captions = [caption.text for clip in train_set.clips for caption in clip.captions]
        model = Contrast(SPEC.dim, captions, d_model=32, layers=1)
    else:
        words = WordVectors.hashed([*VERBS, "man", "woman"])
        model = Matching(SPEC.dim, {**SIZES, "movement": 32}, words, "infonce")
    before = mean_r_precision(model, train_set, 64, 0, "cpu", repeats=1)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for step in range(80):
        batch = collate([train_set[(step, int(i))] for i in torch.randperm(64)[:24]])
        loss = model.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.after_step(step)
    after = mean_r_precision(model, train_set, 64, 0, "cpu", repeats=1)
    # Four motions of a pool are of the asked kind and look alike: 1/4, 2/4, 3/4 is what can be had.
    assert before[2] < 0.2 and after[0] > 0.12 and after[2] > 0.4


# files


def state(model):
    """An Evaluator as `TrainingLoop` saves it, without progress."""
    return {name: part.state_dict() for name, part in model.parts.items()} | model.constants


def run_in(folder):
    return RunConfig("run", "Tiny", dataset_dir=str(folder), checkpoints_dir=str(folder))


def test_a_saved_evaluator_gives_the_same_embeddings(tmp_path, normalizer, dataset):
    torch.manual_seed(0)
    model = Matching(SPEC.dim, SIZES, WordVectors.hashed([*VERBS, "man"]), "infonce").eval()
    clip = Contrast(SPEC.dim, [c.text for x in dataset.clips for c in x.captions], d_model=16).eval()
    run, more = run_in(tmp_path), {"mean": normalizer.mean, "std": normalizer.std}
    save_state(Run.of(run, MATCHING).model / "finest.tar", state(model) | more | {"test": {"top3": 0.5}})
    save_state(Run.of(run, CONTRAST).model / "finest.tar", state(clip) | {"config": clip.config})
    evaluator = TextMotionEvaluator.load(run, SPEC, "cpu")
    batch = collate([dataset[(0, i)] for i in range(6)])
    with torch.no_grad():
        text, motion = model.embed(batch)
        read = []
        evaluator.networks["text_encoder"].register_forward_hook(
            lambda net, given, out: read.append(len(out))
        )
        for _ in range(2):
            assert torch.allclose(evaluator.embed_text(batch.tokens), text, atol=1e-6)
        assert read == [len(set(map(tuple, batch.tokens)))]  # each caption once
        assert torch.allclose(evaluator.embed_motion(batch.motion, batch.m_lens), motion, atol=1e-6)
        text, motion = clip.embed(batch)
        assert torch.allclose(evaluator.contrast_text(batch.captions), text, atol=1e-6)
        assert torch.allclose(evaluator.contrast_motion(batch.motion, batch.m_lens), motion, atol=1e-6)
    assert evaluator.width == SIZES["embedding"] and evaluator.test["top3"] == 0.5


def test_a_saved_word_evaluator_gives_the_same_embeddings(tmp_path, monkeypatch, normalizer, dataset):
    torch.manual_seed(0)
    model, run = WordStates(WORD_SIZES, "minilm").eval(), run_in(tmp_path)
    path, more = Run.of(run, MATCHING).model / "finest.tar", {"mean": normalizer.mean, "std": normalizer.std}
    save_state(path, state(model) | more | {"config": model.config})
    asked = []
    monkeypatch.setattr(
        evaluators, "embed_prompts", lambda texts, *x, **y: asked.extend(texts) or states(texts)
    )
    evaluator = TextMotionEvaluator.load(run, SPEC, "cpu")
    batch = collate([dataset[(0, i)] for i in range(12)])
    batch.text = states(batch.captions)
    with torch.no_grad():
        text, motion = model.embed(batch)
    for _ in range(2):
        assert torch.allclose(evaluator.embed_text(batch.tokens, batch.captions), text, atol=1e-6)
    assert sorted(asked) == sorted(set(batch.captions))  # each caption is read once
    assert torch.allclose(evaluator.embed_motion(batch.motion, batch.m_lens), motion, atol=1e-6)
    assert evaluator.width == 8
    for other in ({"facing": "one_sign"}, {"fps": 30}):
        described = SPEC.as_dict() | other
        save_state(path, state(model) | more | {"config": model.config | {"dataset": described}})
        with pytest.raises(BadInput, match=f"trained with {next(iter(other))} .*train_Evaluators.py anew"):
            TextMotionEvaluator.load(run, SPEC, "cpu")
    for wrong in ({"dim": 5}, {"hidden": 10**9}, {"blocks": "2"}):
        save_state(path, state(model) | {"config": {"sizes": WORD_SIZES | wrong, "text_encoder": "minilm"}})
        with pytest.raises(BadInput, match="finest.tar"):
            TextMotionEvaluator.load(run, SPEC, "cpu")


def test_the_bar_is_relative_to_what_captions_allow(normalizer, capsys):
    """32 clips of which four each bear the same two captions: three of the four are among the first three."""
    clips = tiny_clips(32)
    assert reachable(TextMotionSet(clips, normalizer), 0, repeats=2) == pytest.approx(3 / 4)
    own = [replace(clip, captions=(Caption(clip.name, ("a/X",)),)) for clip in clips]
    assert reachable(TextMotionSet(own, normalizer), 0, repeats=2) == 1

    def warned(**test):
        evaluation_report.warn_of_a_weak_evaluator(SimpleNamespace(test=test))
        return "too weak" in capsys.readouterr().out

    assert warned(top3=0.7) and not warned(top3=0.7, reach=0.9) and warned(top3=0.6, reach=0.9)


@pytest.mark.parametrize(
    "flags, found", [("", ("cosine", 1)), ("--schedule milestones --clip_norm 0", ("milestones", 0))]
)
def test_the_schedule_is_the_one_that_is_asked_for(normalizer, monkeypatch, flags, found):
    seen = []
    monkeypatch.setattr(train_Evaluators, "TrainingLoop", lambda training, *_, **__: seen.append(training))
    args, sets = (
        train_Evaluators.flags().parse_args(flags.split()),
        [TextMotionSet(tiny_clips(2), normalizer)] * 3,
    )
    configs = RunConfig("x"), from_flags(TrainingConfig, args), from_flags(LoaderConfig, args)
    model = Matching(SPEC.dim, SIZES, WordVectors.hashed(VERBS), "infonce")
    with pytest.raises(AttributeError):  # there is no loop to go through
        train_Evaluators.train(model, *configs, torch.device("cpu"), sets, {})
    assert (seen[0].schedule, seen[0].clip_norm) == found


def test_networks_without_low_precision_do_not_take_its_flags(capsys):
    for main in (train_Evaluators.main, train_LengthEstimator.main):
        for flag in ("--compile", "--precision bf16"):
            assert call(main, flag) == 2 and "unrecognized arguments" in capsys.readouterr().err


# one pass


@pytest.fixture
def evaluation(evaluator, dataset, normalizer):
    return EvaluationRun(evaluator, dataset, SPEC, torch.device("cpu"))


def test_real_motion_against_itself(evaluation):
    real = evaluation.real()
    result = evaluation.compare(real, real.take(np.arange(40)), paired=True)
    assert result.fid == pytest.approx(0, abs=1e-9) and result.mpjpe == 0 == result.mpjpe_global
    assert result.n_real == result.n_pred == 40
    assert result.multimodality is None is result.clip_score and result.top3 >= result.top1 > 0
    itself = evaluation.compare(real, real)
    assert itself.fid is None is itself.kid and itself.top1 == result.top1


def test_the_real_set_is_embedded_once_and_repeats_draw_only_captions_and_pools(evaluation, monkeypatch):
    calls = []
    embed, fid = evaluation.evaluator.embed_motion, evaluation_report.metrics.fid
    monkeypatch.setattr(evaluation.evaluator, "embed_motion", lambda *x: calls.append("embed") or embed(*x))
    monkeypatch.setattr(evaluation_report.metrics, "fid", lambda *x: calls.append("fid") or fid(*x))
    pred = evaluation.real().take(np.roll(np.arange(40), 1))
    monkeypatch.setattr(evaluation, "halves", lambda *x: {})
    column = evaluation.repeats(lambda repeat: pred, 3).repeats
    assert calls == ["embed", "fid"]
    assert column == [evaluation.compare(evaluation.real(), pred, i) for i in range(3)]
    assert len({one.matching for one in column}) == 3 == len({one.diversity for one in column})


def test_order_and_batch_size_change_nothing(evaluation):
    expected = evaluation.real()
    evaluation = replace(evaluation, config=EvaluationConfig(batch_size=7))
    again = evaluation.real()
    assert torch.allclose(again.embeddings, expected.embeddings, atol=1e-5)
    for row, (one, other, clip) in enumerate(zip(again.joints, expected.joints, evaluation.dataset.clips)):
        assert np.allclose(one, other, atol=1e-6) and len(one) == len(clip.motion)
        sample = collate([evaluation.dataset[(0, row)]])
        alone = evaluation.evaluator.embed_motion(sample.motion, sample.m_lens)[0]
        assert torch.allclose(alone, expected.embeddings[row], atol=1e-5)


def test_metrics_are_plain_numbers_and_all_measured(evaluation):
    """They go into checkpoints, which hold plain data only."""
    evaluation.labels = [(VERBS[i % len(VERBS)], "") for i in range(40)]
    real = evaluation.real()
    pred = real.take(np.roll(np.arange(40), 8))
    values = evaluation.compare(real, pred).as_dict()
    assert {type(x) for x in values.values() if x is not None} == {float, int}
    absent = {"multimodality", "clip_score", "mpjpe", "mpjpe_global", "fid_content"}  # no group of 20 clips
    assert {name for name, x in values.items() if x is None} - {"path_speed"} == absent
    halves = {name: metrics.half_width(x) for name, x in evaluation.halves(real, pred).items()}
    assert set(halves) >= {"fid", "kid", "physical", "top1", "label_top3", "jitter", "coverage"}
    measured = {name: x for name, x in halves.items() if name not in ("fid_content", "path_speed")}
    assert all(x >= 0 for x in measured.values()) and halves["matching"] > 0


def test_several_processes_are_refused(monkeypatch):
    for left_behind in ("some", "0", "-1"):
        monkeypatch.setenv("WORLD_SIZE", left_behind)
        with pytest.raises(BadInput, match="no number of processes"):
            distributed.launched()
    monkeypatch.setenv("WORLD_SIZE", "")
    assert distributed.launched() == 1
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(BadInput, match="RANK expected.*start with torchrun, or unset it"):
        distributed.init_distributed(torch.device("cpu"))
    with pytest.raises(BadInput, match="one process"):
        evaluation_report.make_evaluation(None, EvaluationConfig(), None, [], "cpu")


def test_parent_protocol_drops_the_remainder_and_few_clips_have_no_r_precision(
    evaluation, evaluator, normalizer
):
    evaluation.config = EvaluationConfig(protocol="parent")
    real = evaluation.real()
    assert evaluation.compare(real, real).n_pred == 32
    few = EvaluationRun(evaluator, TextMotionSet(tiny_clips(9), normalizer), SPEC, torch.device("cpu"))
    found = few.compare(few.real(), few.real().take(np.arange(9)))
    assert found.top1 is None and found.fid is not None and found.kid is not None and found.n_real == 9


class Echo:
    """A generator whose motion follows from its key, and a tokenizer that hands it on; it keeps the keys."""

    def __init__(self):
        self.keys, self.rows = [], {}

    def generate(self, tokenizer, text, m_lens, sampling, keys):
        assert len(text) == len(m_lens) == len(keys)
        self.keys += keys
        return torch.tensor(keys, dtype=torch.float32)[:, None, None].expand(-1, int(m_lens.max()), 1)

    def detokenize(self, targets, m_lens, snap):
        assert (m_lens % 4 == 0).all()
        return (targets % 97).sin().repeat_interleave(4, dim=1).expand(-1, -1, SPEC.dim) * torch.arange(
            SPEC.dim
        )


class How:
    snap, seed = "step", 3407


def test_every_generated_motion_has_a_key_of_its_own(evaluation, normalizer):
    texts = {c.text: torch.zeros(3) for clip in evaluation.dataset.clips for c in clip.captions}
    evaluation.dataset = TextMotionSet(evaluation.dataset.clips, normalizer, texts)
    echo = Echo()
    first = evaluation.generated(echo, echo, How(), 0)
    assert sorted(echo.keys) == list(range(40))
    evaluation.config = EvaluationConfig(batch_size=11)
    assert torch.allclose(evaluation.generated(echo, echo, How(), 0).embeddings, first.embeddings, atol=1e-5)
    echo.keys = []
    evaluation.generated(echo, echo, How(), 3)
    assert sorted(echo.keys) == list(range(120, 160))
    echo.keys = []
    value = evaluation.multimodality(echo, echo, How(), 1)
    assert len(set(echo.keys)) == 30 * 40 and min(echo.keys) > 10**6 and value > 0


def test_interval_is_students():
    repeats = [Metrics(fid=value, n_real=5) for value in (1.0, 2.0, 4.0)]
    found = interval(repeats)
    half = scipy.stats.t.ppf(0.975, 2) * np.std([1, 2, 4], ddof=1) / math.sqrt(3)
    assert found["fid"] == pytest.approx((7 / 3, half)) and found["n_real"] == (5, 0)
    assert "kid" not in found
    mean, half = interval(repeats[:1])["fid"]
    assert mean == 1 and math.isnan(half)


# the rows beside the result


def test_reference_clips_match_labels_and_lengths():
    offered = ["a"] * 5 + ["b"] * 2 + ["c"]
    asked = ["b", "a", "a", "c", "c", "b"]
    rows = evaluation_report.matched_clips(asked, offered, np.random.default_rng(0))
    assert [offered[row] for row in rows] == asked
    assert len(set(rows[[0, 5]])) == 2 and len(set(rows[[1, 2]])) == 2 and rows[3] == rows[4] == 7
    lengths = np.array([40, 80, 10, 10, 10, 60]), np.array([78, 10, 42, 80, 200, 59, 41, 7])
    rows = evaluation_report.matched_clips(asked, offered, np.random.default_rng(0), lengths)
    assert rows.tolist() == [6, 3, 1, 7, 7, 5]


def test_a_style_that_is_not_in_training_falls_back_on_its_content():
    offered = [("walk", "sad"), ("walk", "old"), ("run", "sad")]
    rows = [
        evaluation_report.matched_clips(
            [("walk", None), ("run", "sad")], offered, np.random.default_rng(seed)
        )
        for seed in range(20)
    ]
    assert {row[0] for row in rows} == {0, 1} and {row[1] for row in rows} == {2}


class ByHeight:
    """An evaluator that reads a number off a caption, and off the height of a motion's root."""

    def embed_text(self, tokens, texts):
        return torch.tensor([[float(text)] for text in texts])

    def embed_motion(self, rows, m_lens):
        return rows[:, 0, 3:4]

    def contrast_text(self, texts):
        return None

    def contrast_motion(self, rows, m_lens):
        return None


def test_retrieval_answers_the_caption_that_it_is_scored_by(normalizer, tmp_path, monkeypatch):
    """A clip of two captions is asked by the one or the other, and each has a training clip of its own."""

    def numbered(clips, captions):
        for k, clip in enumerate(clips):
            clip.motion[:, 3] = k
            yield replace(clip, captions=tuple(Caption(str(c), ("a/X",)) for c in captions(k)))

    train = list(numbered(tiny_clips(20), lambda k: [k]))
    test = list(numbered(tiny_clips(10), lambda k: [k, 19 - k]))
    monkeypatch.setattr(evaluation_report, "load_clips", lambda *_: train)
    monkeypatch.setattr(evaluation_report, "REFERENCE_DRAWS", 3)
    evaluation = EvaluationRun(ByHeight(), TextMotionSet(test, normalizer), SPEC, torch.device("cpu"))
    rows = evaluation_report.reference_rows(evaluation, tmp_path)
    assert [one.matching for one in rows["retrieval"].repeats] == [0, 0, 0]
    assert min(one.matching for one in rows["random train"].repeats) > 1
    assert set(rows) == {"random train", "retrieval"}

    def taller(motion, m_lens):  # by 2, as an autoencoder may fail
        return normalizer(normalizer.inverse(motion) + 2)

    rows = evaluation_report.reference_rows(evaluation, tmp_path, taller)
    assert [one.matching for one in rows["retrieval"].repeats] == [0, 0, 0]
    assert [one.matching for one in rows["retrieval, reconstructed"].repeats] == pytest.approx([2, 2, 2])
    assert "random train, reconstructed" not in rows


@pytest.mark.filterwarnings("error")
def test_clips_of_few_captions_have_no_more_groups_than_these(normalizer):
    clips = [replace(clip, captions=(Caption("1", ("a/X",)),)) for clip in tiny_clips(60)]
    evaluation = EvaluationRun(ByHeight(), TextMotionSet(clips, normalizer), SPEC, torch.device("cpu"))
    assert set(evaluation.groups()) == {0}


def test_labels_are_read_or_left_alone(tmp_path):
    clips = tiny_clips(3)
    assert evaluation_report.read_labels(tmp_path, clips) is None
    file = tmp_path / "labels.csv"
    file.write_text("name,content,style\nclip0,walk,sad\nclip1,run,\nclip2,bow,\n")
    assert evaluation_report.read_labels(tmp_path, clips) == [("walk", "sad"), ("run", ""), ("bow", "")]
    part = Clip("clip1_4", clips[1].motion, clips[1].captions)
    assert evaluation_report.read_labels(tmp_path, [part]) == [("run", "")]
    assert evaluation_report.read_labels(tmp_path, [*clips, Clip("other", None)]) is None
    file.write_text("id,what\n1,2\n")
    with pytest.raises(BadInput, match="labels.csv"):
        evaluation_report.read_labels(tmp_path, clips)


def test_both_evaluators_go_on_after_an_interruption_in_the_first(world, tmp_path, capsys):
    line = f"{where(world, tmp_path)} --max_iters 2 --batch_size 16 --dim 16 --hidden 16 16 16 --epoch 1"
    assert call(train_Evaluators.main, f"{line} --which matching") == 0
    assert call(train_Evaluators.main, line) == 2  # it asks before it goes on
    capsys.readouterr()
    assert call(train_Evaluators.main, f"{line} --is_continue") == 0
    assert "going on from" in capsys.readouterr().out
    assert all(list(tmp_path.glob(f"*/{name}/model/finest.tar")) for name in (MATCHING, CONTRAST))
    assert call(train_Evaluators.main, f"{where(world, tmp_path / 'none')} --is_continue") == 2


def test_a_trained_evaluator_keeps_how_it_does_on_the_test_split(world, tmp_path, monkeypatch, capsys):
    """The command, as where there are clips enough: what it found is in the file and warns at evaluations."""
    monkeypatch.setattr(train_Evaluators, "mean_r_precision", lambda *_, **__: np.array([0.1, 0.2, 0.3]))
    monkeypatch.setattr(train_Evaluators, "reachable", lambda *_, **__: 0.9)
    line = (
        f"{where(world, tmp_path)} --which matching --max_iters 2 --batch_size 16 --dim 16 --hidden 16 16 16"
    )
    assert call(train_Evaluators.main, line) == 0
    assert "IT DOES NOT COUNT" in capsys.readouterr().out
    loaded = TextMotionEvaluator.load(
        RunConfig(name="x", dataset_name="Demo", checkpoints_dir=str(tmp_path)),
        find_dataset("Demo", world / "datasets")[0],
        torch.device("cpu"),
    )
    assert loaded.test == pytest.approx({"top1": 0.1, "top2": 0.2, "top3": 0.3, "reach": 0.9})


def test_halves_that_are_all_alike_do_not_make_a_share_certain():
    alike = dict.fromkeys(("precision", "top1", "fid"), np.zeros(40))
    scores = Scores([Metrics(precision=0.98, top1=1.0, fid=0.0)], alike)
    halves = {name: half for name, (_, half) in scores.interval().items()}
    assert np.isnan(halves["precision"]) and halves["top1"] == halves["fid"] == 0
    assert np.isnan(evaluation_report.as_record(scores)["interval"]["precision"]["half_clips"])
