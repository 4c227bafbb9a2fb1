"""Metrics and evaluator networks against the outputs of MARDM's implementation; tolerances of its README."""

import json

import pytest
import torch

from tests.conftest import outside
from tests.test_goldens import close
from utils import metrics
from utils.evaluation.evaluator_networks import (
    MotionCLIP,
    MotionEncoderBiGRUCo,
    MovementConvEncoder,
    TextEncoderBiGRUCo,
)
from utils.evaluation.evaluator_training import info_nce


def test_metrics_of_the_parent(goldens):
    recorded = goldens("metrics.pt")
    text, real, pred = (recorded["inputs"][key] for key in ("text", "motion_real", "motion_pred"))
    pools = metrics.draw_pools(len(text))
    for name, motion in (("real", real), ("pred", pred)):
        top = metrics.r_precision(text, motion, pools)
        assert top == pytest.approx(recorded[f"r_precision_{name}_top123"].numpy(), abs=1e-7)
        assert metrics.matching(text, motion).mean() == pytest.approx(recorded[f"matching_{name}"], rel=1e-5)
    assert metrics.fid(real, pred) == pytest.approx(recorded["fid_real_pred"], rel=1e-4)
    assert metrics.fid(real, real) == pytest.approx(0, abs=1e-9)
    pairs = recorded["diversity_first_indices"], recorded["diversity_second_indices"]
    assert metrics.diversity(pred, *pairs) == pytest.approx(recorded["diversity_pred"], rel=1e-5)
    repeats = recorded["inputs"]["multimodality_embeddings"]
    pairs = recorded["multimodality_first_indices"], recorded["multimodality_second_indices"]
    assert metrics.multimodality(repeats, *pairs) == pytest.approx(recorded["multimodality"], rel=1e-5)
    joints_pred, joints_gt = recorded["inputs"]["joints_pred"], recorded["inputs"]["joints_gt"]
    errors = metrics.pose_errors(joints_pred, joints_gt)
    assert torch.allclose(errors, recorded["mpjpe_per_pose"].double(), atol=1e-6)
    assert metrics.ratio([metrics.pose_error_sums(joints_pred, joints_gt)]) == pytest.approx(
        recorded["mpjpe_mean"], rel=1e-5
    )


@pytest.fixture(scope="module")
def evaluated(goldens):
    """(recorded, the networks with the recorded weights, in eval mode)"""
    recorded = goldens("evaluators.pt")
    classes = {
        "movement": MovementConvEncoder,
        "text": TextEncoderBiGRUCo,
        "motion": MotionEncoderBiGRUCo,
        "contrast": MotionCLIP,
    }
    sizes = {name: dict(recorded["config"][name]) for name in classes}
    contrast = sizes["contrast"]
    assert contrast.pop("ff") == 2 * contrast["d_model"]
    contrast["vocabulary_size"] = contrast.pop("vocab")
    networks = {name: cls(**sizes[name]).eval() for name, cls in classes.items()}
    for name, network in networks.items():
        key = "contrast_model" if name == "contrast" else f"{name}_encoder"
        network.load_state_dict(recorded["weights"][key], strict=True)
    return recorded, networks


@torch.no_grad()
def test_matching_networks_of_the_parent(evaluated):
    """MARDM sorts motions, and their texts, by length; ours keep the order of the batch."""
    recorded, networks = evaluated
    given, expected, order = recorded["inputs"], recorded["outputs"], recorded["outputs"]["align_idx"]
    movement = networks["movement"](given["motion"])
    close(movement, expected["movement"])
    text = networks["text"](given["word_embeddings"], given["pos_one_hot"], given["caption_lengths"])
    close(text, expected["text_embedding_unsorted"])
    close(text[order], expected["text_embedding"])
    motion = networks["motion"](movement, given["motion_lengths"] // 4)
    close(motion[order], expected["motion_embedding"])


@torch.no_grad()
def test_contrast_model_of_the_parent(evaluated):
    recorded, networks = evaluated
    given, expected, model = recorded["inputs"], recorded["outputs"], networks["contrast"]
    text = model.encode_text(given["clip_tokens"])
    motion = model.encode_motion(given["motion"], given["motion_lengths"])
    close(text, expected["clip_text"])
    close(motion, expected["clip_motion"])
    logits = model.logit_scale.exp() * text @ motion.T
    close(logits.T, expected["logits_per_motion"])
    loss = info_nce(-logits, torch.eye(len(logits), dtype=torch.bool))
    assert float(loss) == pytest.approx(expected["contrastive_loss"], rel=1e-5)


@pytest.mark.parametrize("name, dim", [("MotionCLIP_t2m", 67), ("MotionCLIP_kit", 64)])
def test_names_and_shapes_of_the_published_contrast_model(name, dim):
    """Those of the matching networks: test_parity.py."""
    file = outside("FSQ_MARDM_GOLDENS", "../shared/goldens") / "state_dict_keys.json"
    expected = {t["name"]: t["shape"] for t in json.loads(file.read_text())["classes"][name]["tensors"]}
    with torch.device("meta"):
        ours = {key: list(tensor.shape) for key, tensor in MotionCLIP(dim).state_dict().items()}
    assert ours == expected
