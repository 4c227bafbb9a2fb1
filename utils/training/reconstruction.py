"""The loss of stage 1: errors of the rows, of the joints' velocities and of the root's path.

Rows hold the root's velocities. A small constant error in them adds up to a large error of the path, and
little noise from frame to frame makes feet slide. So the loss also measures the path and joint velocities.
B motions, T frames, J joints.
"""

from dataclasses import dataclass

from torch.nn.functional import mse_loss, smooth_l1_loss

from models.masking import lengths_to_mask
from utils.config import ReconstructionLoss
from utils.datasets import DatasetSpec, Normalizer
from utils.motion_process import joint_steps, root_path

DISTANCES = {"l1_smooth": smooth_l1_loss, "mse": mse_loss}
# errors at which the smooth L1 distance changes from squared to absolute
PATH_ERROR = 0.1  # m
STEP_ERROR = 0.2  # m/s
ARM = 0.5  # m: a heading error counts as the displacement of a point so far from the root


@dataclass(frozen=True)
class Reconstruction:
    """The loss that a ReconstructionLoss describes, on a data set's z-normalised rows."""

    config: ReconstructionLoss
    normalizer: Normalizer
    spec: DatasetSpec

    def __call__(self, motion, recons, m_lens, step=None):
        """motion, recons [B,T,dim], m_lens [B] -> mean over real frames []. step: of the training, for the
        ramp of path_weight; None: after it.
        """
        config = self.config
        loss = reconstruction_loss(motion, recons, m_lens, config)
        if config.path_weight or config.velocity_weight:
            rows = [self.normalizer.inverse(x) for x in (motion, recons)]
            inside = lengths_to_mask(m_lens, motion.shape[1])
            if config.velocity_weight:
                both = inside[:, 1:, None, None]
                loss = loss + config.velocity_weight * per_frame(self._step_errors(*rows), both, m_lens)
            if config.path_weight:
                ramp = 1.0 if step is None else min(step / max(config.path_ramp, 1), 1.0)
                errors = self._path_errors(*rows)
                loss = loss + ramp * config.path_weight * per_frame(errors, inside[..., None], m_lens)
        return loss

    def _step_errors(self, real, recons):
        """Errors of the joints' steps from frame to frame [B,T-1,J,3]."""
        metres_per_second = self.spec.skeleton.unit_m * self.spec.fps
        steps = [joint_steps(x, len(self.spec.skeleton)) * metres_per_second for x in (recons, real)]
        return smooth_l1_loss(*(x / STEP_ERROR for x in steps), reduction="none")

    def _path_errors(self, real, recons):
        """Errors of position and heading of the root [B,T,3]."""
        unit = self.spec.skeleton.unit_m
        scale = real.new_full((3,), unit)  # filled on the device: a copy of the host's numbers would wait
        scale[2] = ARM
        scale = scale / PATH_ERROR
        return smooth_l1_loss(*(root_path(x) * scale for x in (recons, real)), reduction="none")


def per_frame(errors, inside, m_lens):
    """Sum of errors [B,t,...] where `inside`, over (real frames x errors per frame) -> [].

    Divided by all real frames even if t = T - 1: batches are weighted by frames, so micro-batches add up.
    """
    return (errors * inside).sum() / (m_lens.sum() * errors[0, 0].numel())


def reconstruction_loss(motion, recons, m_lens, config):
    """recons_loss of all columns + aux_loss_joints * that of the joints alone, mean over real frames -> [].

    motion, recons [B,T,dim], m_lens [B].
    """
    each = DISTANCES[config.recons_loss](recons, motion, reduction="none")
    inside = lengths_to_mask(m_lens, motion.shape[1])
    each = each * inside[..., None]
    root, joints = each[..., :4].sum(), each[..., 4:].sum()
    frames, dim = inside.sum(), motion.shape[2]
    return (config.root_weight * root + joints) / (frames * dim) + config.aux_loss_joints * joints / (
        frames * (dim - 4)
    )
