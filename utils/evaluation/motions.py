"""A set of motions with all that the measures need: embeddings, joints, physical features, sums."""

from dataclasses import dataclass

import numpy as np
import torch

from utils import metrics
from utils.evaluation.physical import describe


@dataclass
class Motions:
    """A set of motions, in the order of the data set."""

    embeddings: torch.Tensor  # [N,D]
    contrast: torch.Tensor | None  # [N,C]
    joints: list  # N of [n,J,3] metres
    features: np.ndarray  # [N,F], see utils.evaluation.physical
    sums: dict  # foot_skate, jitter, root_speed -> per clip (numerator, denominator) [N,2]

    def take(self, rows):
        """The motions at these indices, as Motions."""
        contrast = None if self.contrast is None else self.contrast[rows]
        joints, sums = [self.joints[row] for row in rows], {k: x[rows] for k, x in self.sums.items()}
        return Motions(self.embeddings[rows], contrast, joints, self.features[rows], sums)

    @classmethod
    def concatenate(cls, parts):
        return cls(
            torch.cat([part.embeddings for part in parts]),
            None if parts[0].contrast is None else torch.cat([part.contrast for part in parts]),
            [clip for part in parts for clip in part.joints],
            np.concatenate([part.features for part in parts]),
            {key: np.concatenate([part.sums[key] for part in parts]) for key in parts[0].sums},
        )


def kinematics(clips, spec):
    """Clips of joints [n,J,3] in metres -> (`sums`, `features`) as in Motions."""
    skeleton, fps = spec.skeleton, spec.fps
    sums = {
        "foot_skate": np.array([metrics.skate_sums(joints, skeleton.feet, fps) for joints in clips]),
        "jitter": np.array([metrics.jitter_sums(joints, fps) for joints in clips]),
        "root_speed": np.array([metrics.root_travel_sums(joints, fps) for joints in clips]),
    }
    skate = sums["foot_skate"][:, 0] / np.maximum(sums["foot_skate"][:, 1], 1)
    features = [describe(joints, skeleton, fps, share) for joints, share in zip(clips, skate)]
    return sums, np.array(features)
