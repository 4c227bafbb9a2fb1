"""edit.py: which tokens a section means, which sources are read, and that what is kept stays."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edit import best_reproduced, parse_sections, read_source
from models.AE import make_ae
from models.MARDM import MARDM_models, SamplingConfig
from motion.bvh.rigs import HUMANML3D_BONES
from motion.bvh.writer import write_bvh
from motion.rotations import unit
from motion.skeletons import SMPL22
from tests.test_MARDM import awake
from utils.data.bvh_dataset import Reading
from utils.datasets import DATASETS
from utils.errors import BadInput
from utils.motion_process import recover_from_ric


@pytest.mark.parametrize(
    ("sections", "drawn"),
    [
        (["0.25,0.5"], range(5, 10)),
        (["20,40"], range(5, 10)),
        (["21,38"], range(5, 10)),  # a token is drawn where any of its frames is
        (["0.0,1.0"], range(20)),
        (["0,4", "76,80"], [0, 19]),
        (["8,12", "0.0,0.1"], [0, 1, 2]),
    ],
)
def test_sections(sections, drawn):
    mask = parse_sections(sections, 80)
    assert mask.nonzero().flatten().tolist() == list(drawn)


@pytest.mark.parametrize(
    "section", ["0.6,0.3", "5,5", "10", "a,b", "1,2,3", "-4,8", "0,90", "nan,1.0", "__import__('os'),1", ""]
)
def test_bad_sections_are_refused_in_one_line(section):
    with pytest.raises(BadInput, match="-msec"):
        parse_sections([section], 80)


@given(st.integers(0, 79), st.integers(1, 80), st.integers(1, 49))
def test_frames_and_their_fractions_mean_the_same(first, length, tokens):
    frames = 4 * tokens
    first, last = first % frames, min(first % frames + length, frames)
    mask = parse_sections([f"{first},{last}"], frames)
    assert mask.sum() == -(-last // 4) - first // 4
    if first % 4 == last % 4 == 0 and frames % 8 == 0:
        assert torch.equal(mask, parse_sections([f"{first / frames!r},{last / frames:.17f}"], frames))


def test_sources(tmp_path):
    spec = DATASETS["t2m"]
    rows = np.random.default_rng(0).standard_normal((42, 263)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    source = read_source(tmp_path / "rows.npy", spec)
    assert torch.equal(source, torch.from_numpy(rows[:40, :67]))
    for name, array, reason in (
        ("narrow", rows[:, :20], "columns"),
        ("nan", np.full((40, 67), np.nan), "NaN"),
        ("short", rows[:3], "frames"),
        ("long", np.zeros((400, 67)), "frames"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(BadInput, match=reason):
            read_source(tmp_path / f"{name}.npy", spec)


@pytest.fixture(scope="module")
def pair():
    torch.manual_seed(0)
    ae = make_ae("FSQ_AE_Small", width=32).eval()
    return MARDM_models["FSQ-MARDM-SiT-XS"](ae_dim=32, target_dim=5, text_dim=16).eval(), ae


def test_kept_tokens_stay_bit_for_bit_and_drawn_ones_change(pair):
    mardm, ae = pair
    with torch.no_grad():
        tokens = ae.tokenize(torch.randn(2, 40, 67))[1]
    sections = torch.zeros(2, 10, dtype=torch.bool)
    sections[0, 3:6], sections[1, [0, 9]] = True, True
    text, m_lens = torch.randn(2, 16), torch.tensor([10, 10])
    edited = mardm.edit(ae, text, m_lens, tokens, sections, SamplingConfig())
    assert torch.equal(edited[~sections], tokens[~sections])
    assert (edited[sections] != tokens[sections]).any()
    nothing = mardm.edit(ae, text, m_lens, tokens, torch.zeros_like(sections), SamplingConfig())
    assert torch.equal(nothing, tokens)


def test_an_edit_sees_what_is_kept(pair):
    """The same section, text and noise, another surrounding: another result."""
    mardm, ae = pair
    awake(mardm)
    with torch.no_grad():
        tokens = ae.tokenize(torch.randn(2, 40, 67))[1]
    sections = torch.zeros(1, 10, dtype=torch.bool)
    sections[0, 4:6] = True
    text, m_lens, sampling = torch.randn(1, 16), torch.tensor([10]), SamplingConfig(snap="off")
    a, b = (mardm.edit(ae, text, m_lens, tokens[i : i + 1], sections, sampling)[0, 4:6] for i in range(2))
    assert not torch.equal(a, b)


def test_a_bvh_is_a_source_too(tmp_path):
    """Joints -> BVH at another rate -> rows: the motion that went in, on its own bones or HumanML3D's."""
    spec = DATASETS["t2m"]
    pose, joints = np.zeros((22, 3)), np.zeros((60, 22, 3))
    for joint, parent in enumerate(SMPL22.parents[1:], start=1):
        pose[joint] = pose[parent] + HUMANML3D_BONES[joint] * unit(np.array(SMPL22.directions[joint], float))
    joints[:] = pose - (0, pose[:, 1].min(), 0)
    joints[..., 2] += 0.03 * np.arange(60)[:, None]  # strides along +Z at 1.8 m/s, 60 frames a second
    write_bvh(tmp_path / "a.BVH", joints, 60.0)
    rows = read_source(tmp_path / "a.BVH", spec)
    assert rows.shape == (16, 67)  # 20 frames at 20 Hz, 19 rows, 4 whole tokens
    back = recover_from_ric(rows, 22).numpy()
    assert np.abs(back - joints[:48:3]).max() < 0.005
    large = joints * 1.2
    write_bvh(tmp_path / "large.bvh", large, 20.0)
    for bones, height in (("own", 1.2), ("humanml3d", 1.0)):
        found = recover_from_ric(read_source(tmp_path / "large.bvh", spec, Reading(20.0), bones), 22).numpy()
        assert np.ptp(found[0, :, 1]) == pytest.approx(height * np.ptp(joints[0, :, 1]), abs=0.01)
    (tmp_path / "broken.bvh").write_text("HIERARCHY\nROOT x\n")
    for name, of in (("broken.bvh", spec), ("missing.bvh", spec), ("large.bvh", DATASETS["kit"])):
        with pytest.raises(BadInput, match=name):
            read_source(tmp_path / name, of)


def test_of_two_bodies_the_one_that_the_autoencoder_knows():
    class KnowsNothingAboveOne(torch.nn.Linear):
        def tokenize(self, motion):
            return None, motion.clamp(max=1)

        def detokenize(self, targets):
            return targets

    tokenizer = SimpleNamespace(ae=KnowsNothingAboveOne(1, 1), normalizer=lambda rows: rows)
    small, large = torch.full((8, 67), 0.5), torch.full((8, 67), 2.0)
    for sources in ([small, large], [large, small]):
        assert best_reproduced(tokenizer, sources) is small
