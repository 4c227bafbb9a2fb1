"""Does a generator repeat its training clips? Distances to the nearest of them. Arrays in, numbers out."""

from dataclasses import replace

import numpy as np

from utils.eval_utils import EvaluationRun
from utils.metrics import distances
from utils.statistics import wilson

FRAMES = 16  # to which every clip is resampled


class PostureExam(EvaluationRun):
    """An Exam whose Motions hold the joints in the root's frame: where one walks does not matter."""

    def to_motions(self, motion, m_lens):
        rows, unit = self.dataset.normalizer.inverse(motion).cpu(), self.spec.skeleton.unit_m
        local = rows[..., 4:].unflatten(-1, (-1, 3)) * unit
        joints = [one[:n].numpy() for one, n in zip(local, m_lens.tolist())]
        return replace(super().to_motions(motion, m_lens), joints=joints)


def postures(clips, frames=FRAMES):
    """Clips of joints [T,J,3] in metres -> [N, frames J 3], evenly resampled in time, so that the Euclidean
    distance of two rows is the root mean square distance of their joints, in mm.
    """
    rows = []
    for joints in clips:
        at = np.linspace(0, len(joints) - 1, frames)
        low = np.floor(at).astype(int)
        share = (at - low)[:, None, None]
        high = np.minimum(low + 1, len(joints) - 1)
        rows.append(((1 - share) * joints[low] + share * joints[high]).ravel())
    return 1000 * np.array(rows) / np.sqrt(frames * clips[0].shape[1])


def nearest(rows, train):
    """Distance of each row [N,D] to the nearest of train [M,D], and which that is. -> two arrays [N]"""
    found = distances(rows, train).min(dim=1)
    return found.values.numpy(), found.indices.numpy()


def near_copies(found, test, percent=1):
    """Share of `found` distances below the 1st percentile of the test clips' own. -> dict

    If generated clips lay like test clips, 1% of them would be below.
    """
    threshold = float(np.percentile(test, percent))
    hits = int((found < threshold).sum())
    low, high = wilson(hits, len(found))
    return {"n": len(found), "near_copies": hits, "share": hits / len(found), "low": low, "high": high}
