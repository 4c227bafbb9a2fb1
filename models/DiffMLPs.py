"""The diffusion heads: loss and sampling on single tokens, as in MAR (Li et al., NeurIPS 2024).

N tokens, x [N,D] noisy targets, t [N] times, z [N,H] conditions from the Transformer. Names of modules
follow the published checkpoints of MARDM, which load strictly.
"""

from functools import partial

from diffusions import ddpm, flow
from diffusions.samplers import EVALUATIONS, guided, integrate, solver_times
from models.AdaLN import AdaLN_MLP
from models.Head import Head
from models.options import SIZES
from models.precision import autocast_to
from models.sampling import SOLVERS
from models.Softmax import SoftmaxHead


class DiffMLPs_SiT(Head):
    """Flow matching: predicts the velocity on the linear path (diffusions/flow.py)."""

    samplers = SOLVERS

    def __init__(self, target_dim, z_dim, depth, width):
        super().__init__()
        self.net = AdaLN_MLP(target_dim, z_dim, depth, width)
        self.noise_shape = (target_dim,)

    def loss(self, targets, z, t=None, noise=None):
        """Clean targets [N,D], conditions [N,H] -> [N]."""
        return flow.loss(self.net, targets, z, t, noise)

    def sample(self, z, z_null, noise, sampling):
        """Conditions [N,H], unconditional ones [N,H] or None, noise [N,*noise_shape] -> targets [N,D].

        sampling: see `models.sampling.SamplingConfig`.
        """
        times = solver_times(sampling.sampler, sampling.sampler_steps, noise)
        field = self.velocity(z, z_null, sampling.cfg, times)
        return integrate(field, sampling.temperature * noise, sampling.sampler, sampling.sampler_steps)

    def velocity(self, z, z_null, scale, times=None):
        """-> the guided velocity v(x, t) of sampling and distillation. scale: as in `guided`; times: those at
        which v will be asked for, in order, if known.
        """
        return guided(precompute_modulations(self.net, times, z), z, z_null, scale)

    def ode_end(self, rows, steps):
        """HeadInputs -> end points [K,N,D] of the guided ODE, by `steps` midpoint steps."""
        field = self.velocity(rows.z, rows.z_null, rows.w[:, None])
        return integrate(field, rows.noise, "midpoint", steps)

    def describe_sampling(self, sampling):
        """The solver, and how often it evaluates the network per draw of a token, as text."""
        if sampling.sampler not in EVALUATIONS:
            return f"{sampling.sampler}: as many evaluations as its tolerance takes"
        return describe_steps(sampling.sampler, sampling.sampler_steps, EVALUATIONS[sampling.sampler])


class DiffMLPs_DDPM(Head):
    """Noise prediction on a cosine schedule; 50 steps to train and to sample, as MARDM builds it."""

    samplers = ("ddpm",)

    def __init__(self, target_dim, z_dim, depth, width):
        super().__init__()
        self.net = AdaLN_MLP(target_dim, z_dim, depth, width)
        self.target_dim = target_dim
        self.reschedule()

    def reschedule(self, train_steps=50, sample_steps=50):
        """Diffuse over `train_steps`, sample over `sample_steps` of them. No weight depends on either."""
        self.schedule = ddpm.Schedule.cosine(train_steps)
        self.sampling_schedule = self.schedule.respaced(sample_steps)
        self.noise_shape = (1 + sample_steps, self.target_dim)  # the start, then one draw per step

    def times(self, u):
        """Uniform numbers in (0,1) [N] -> the steps to train at."""
        return (u * len(self.schedule)).long()

    def loss(self, targets, z, t=None, noise=None):
        """Clean targets [N,D], conditions [N,H] -> [N]."""
        return ddpm.loss(self.net, self.schedule, targets, z, t, noise)

    def sample(self, z, z_null, noise, sampling):
        """As DiffMLPs_SiT.sample; sampling.temperature scales the noise of the steps."""
        times = self.sampling_schedule.timestep_map.flip(0).to(z.device)
        field = guided(precompute_modulations(self.net, times, z), z, z_null, sampling.cfg)
        return ddpm.sample(field, self.sampling_schedule, noise[:, 0], noise[:, 1:], sampling.temperature)

    def ode_end(self, rows, steps):
        """As DiffMLPs_SiT.ode_end, by DDIM over the sampling schedule; steps: not used."""
        field = guided(self.net, rows.z, rows.z_null, rows.w[:, None])
        return ddpm.ddim(field, self.sampling_schedule, rows.noise)

    def describe_sampling(self, sampling):
        """As DiffMLPs_SiT.describe_sampling."""
        return describe_steps("DDPM", len(self.sampling_schedule), 1)


def describe_steps(solver, steps, evaluations):
    """Solver, steps and network evaluations per draw of a token, as text. evaluations: per step."""
    counted = (steps, "step"), (steps * evaluations, "evaluation")
    steps_taken, asked = (f"{n} {word}{'s' * (n > 1)}" for n, word in counted)
    return f"{solver}, {steps_taken}: {asked} a draw"


def precompute_modulations(net, times, z, max_rows=512):
    """`net`, but the modulations of all `times` are computed at its first call. For a solver that calls it at
    these times, in this order.

    times [T]; z [N,H]: its number counts; with guidance every call brings 2N, else N, the same at each. 3/5
    of the weights are thus read once instead of T times, which pays only while reading weights is the
    bottleneck: where T N is beyond `max_rows`, `net` itself is returned; likewise if it is compiled, or if
    the times are not known (None).
    """
    if times is None or len(times) * len(z) > max_rows or net._compiled_call_impl:
        return net
    queue = []

    def prepared(x, t, z):
        if not queue:
            time = net.time_embed(times)[:, None]
            with autocast_to(net.precision, z):
                queue.extend(zip(*net.modulations(time, z)))
        return net(x, t, z, queue.pop(0))

    return prepared


HEADS = {"SiT": DiffMLPs_SiT, "DDPM": DiffMLPs_DDPM, "Softmax": SoftmaxHead}
DiffMLPs_models = {
    f"{head}-{name}": partial(cls, depth=size.head[0], width=size.head[1])
    for head, cls in HEADS.items()
    for name, size in SIZES.items()
}


def make_head(name, target_dim, z_dim, options):
    """Build an entry of DiffMLPs_models with the GeneratorOptions that concern it."""
    own = {"width": options.head_width} if options.head_width else {}
    if name.startswith("Softmax"):
        own |= {"levels": options.levels, "coordinates": options.softmax_coordinates}
    return DiffMLPs_models[name](target_dim=target_dim, z_dim=z_dim, **own)


def diffmlps_sit_xl_fsq(fsq_dim=6, z_dim=1024):
    """The recommended head: SiT, XL, on the grid coordinates of FSQ_AE_High."""
    return DiffMLPs_models["SiT-XL"](target_dim=fsq_dim, z_dim=z_dim)
