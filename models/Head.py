"""Base class of a generator's heads, which train on single tokens and draw them."""

from functools import partial

from torch import nn


class Head(nn.Module):
    """A head adds `loss(targets, z, t, noise)`, `sample(z, z_null, noise, sampling)` and
    `describe_sampling(sampling)`; the defaults of the rest are here.

    noisy: it trains on standardised targets with random times and noise. samplers: the values of
    `SamplingConfig.sampler` that it supports, its default first. noise_shape: shape of one token's noise.
    net: its network, whose linear layers are laid out for inference. A noisy head is distilled by `ode_end`,
    and as a flow map by `velocity`: see DiffMLPs_SiT.
    """

    noisy = True

    def reschedule(self, train_steps=None, sample_steps=None):
        """For a DDPM head: see DiffMLPs_DDPM. Others have no schedule."""

    def times(self, u):
        """Uniform numbers in (0,1) [N] -> the times to train at."""
        return u

    def guides(self, sampling):
        """Whether drawing needs the unconditional branch of guidance."""
        return sampling.cfg != 1

    def draw_with(self, sampling):
        """-> draw(z, z_null, noise): `sample` with these settings, for all rounds of a motion. A head may
        compute here, once, what depends on the settings alone.
        """
        return partial(self.sample, sampling=sampling)
