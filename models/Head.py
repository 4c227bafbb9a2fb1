"""What the heads of a generator share: they train on single tokens and draw them."""

from functools import partial

from torch import nn


class Head(nn.Module):
    """A head has `loss(targets, z, t, noise)`, `sample(z, z_null, noise, sampling)` and
    `describe_sampling(sampling)`; here is what most do.

    noisy: it trains on standardised targets, at random times and noise. samplers: the values of
    `SamplingConfig.sampler` that it supports, its default first. noise_shape: of the noise of one token.
    """

    noisy = True

    def reschedule(self, train_steps=None, sample_steps=None):
        """See DiffMLPs_DDPM; without a schedule there is nothing to do."""

    def times(self, u):
        """Uniform numbers in (0,1) [N] -> the times to train at."""
        return u

    def guides(self, sampling):
        """Whether a draw needs the unconditional branch of guidance."""
        return sampling.cfg != 1

    def draw_with(self, sampling):
        """-> draw(z, z_null, noise), `sample` with this setting, for all rounds of a motion: what depends on
        the setting alone may be computed here, once.
        """
        return partial(self.sample, sampling=sampling)
