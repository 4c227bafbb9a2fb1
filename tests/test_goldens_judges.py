"""Metrics and judge networks against what the parent implementation gave; tolerances of its README."""

import pytest
import torch

from utils import metrics


def test_metrics_of_the_parent(goldens):
    recorded = goldens("metrics.pt")
    text, real, pred = (recorded["inputs"][key] for key in ("text", "motion_real", "motion_pred"))
    pools = metrics.draw_pools(len(text))
    for name, motion in (("real", real), ("pred", pred)):
        top = metrics.r_precision(text, motion, pools)
        assert top == pytest.approx(recorded[f"r_precision_{name}_top123"].numpy(), abs=1e-7)
        assert metrics.matching_score(text, motion) == pytest.approx(recorded[f"matching_{name}"], rel=1e-5)
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
    assert metrics.mpjpe([joints_pred], [joints_gt]) == pytest.approx(recorded["mpjpe_mean"], rel=1e-5)
