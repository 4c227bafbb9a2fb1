"""How motions are drawn from a generator, and with which of its heads."""

from dataclasses import dataclass, replace

from diffusions.samplers import FIXED_STEP
from models.counter_rng import SEED

SOLVERS = (*FIXED_STEP, "dopri5")  # of a SiT head, its default first
STEPS = dict.fromkeys(FIXED_STEP, 4) | {"onestep": 1}  # defaults; other samplers choose their own
ROUNDS = {"time_steps": 18, "order": "random", "refine": 0}  # defaults, as in MARDM
ONESTEP_ROUNDS = {"time_steps": 7, "order": "halton", "refine": 1}  # of a one-step head (results/sampling.md)


@dataclass(frozen=True)
class SamplingConfig:
    """How motions are drawn."""

    time_steps: int | None = None  # rounds; for this and every None see `resolve_sampling`
    cfg: float = 4.5  # guidance scale, 1 = off
    # SiT, one-step: scales the start noise; DDPM: the noise of the steps; Softmax: divides the logits
    temperature: float = 1.0
    snap: str = "step"  # step: every drawn token at once; end: before decoding; off: never
    sampler: str = "auto"  # see `resolve_sampling`
    sampler_steps: int | None = None
    hard_pseudo_reorder: bool = False
    order: str | None = None  # order in which tokens leave the mask; halton: those of a round evenly spread
    seed: int = SEED
    refine: int | None = None  # how often every token is then drawn anew: see `MARDM._refined`


def resolve_sampling(sampling, mardm):
    """The SamplingConfig with "auto" and every None replaced by what this generator (`mardm`) draws with.

    "auto": the one-step head if it supports this guidance scale and number of steps, else the head's first
    sampler (midpoint for SiT: results/sampling.md). Steps: as in STEPS. Rounds, order and refine: as in
    ONESTEP_ROUNDS with the one-step head, else as in ROUNDS. ValueError where the generator does not have
    the sampler, or the sampler does not take these steps.
    """
    samplers, refusal = mardm.DiffMLPs.samplers, _refusal(mardm.onestep, sampling)
    sampler = sampling.sampler
    if sampler == "auto":
        sampler = samplers[0] if refusal else "onestep"
    elif sampler == "onestep" and refusal:
        raise ValueError(f"sampler onestep: {refusal}")
    elif sampler not in ("onestep", *samplers):
        known = ", ".join(samplers if refusal else ("onestep", *samplers))
        raise ValueError(f"sampler {sampler}: this generator does not have it, but {known}; leave it at auto")
    steps = sampling.sampler_steps or STEPS.get(sampler)
    if steps and sampler not in (*STEPS, "ddpm"):
        raise ValueError(f"sampler {sampler} has no number of steps to choose: leave --sampler_steps out")
    if sampler == "ddpm" and steps:
        loaded = len(mardm.DiffMLPs.sampling_schedule)
        if steps != loaded:
            raise ValueError(
                f"this DDPM head was loaded to sample in {loaded} steps, not {steps}: load it with "
                f"sampler_steps {steps}"
            )
    usual = ONESTEP_ROUNDS if sampler == "onestep" else ROUNDS
    chosen = {name: value for name in usual if (value := getattr(sampling, name)) is not None}
    return replace(sampling, sampler=sampler, sampler_steps=steps, **(usual | chosen))


def unguided(sampling, mardm):
    """The SamplingConfig without guidance (cfg 1), with which joins are drawn: by the diffusion head where
    the one-step head was not trained for that scale. sampling: as asked for, so that what is None becomes
    the default of the head that draws.
    """
    plain = replace(sampling, cfg=1.0)
    if resolve_sampling(sampling, mardm).sampler == "onestep" and _refusal(mardm.onestep, plain):
        return replace(plain, sampler="auto", sampler_steps=None)
    return plain


def _refusal(onestep, sampling):
    """Why this one-step head (None: there is none) cannot draw as asked; "" if it can."""
    if onestep is None:
        return "this generator has no one-step head; distill_MARDM.py makes one"
    low, high = onestep.scales
    if not low <= sampling.cfg <= high:
        return (
            f"its head knows guidance from {low:g} to {high:g}, not {sampling.cfg:g}; take another sampler, "
            "such as midpoint"
        )
    if (sampling.sampler_steps or 1) > onestep.most_steps:
        return (
            f"its head draws in 1 evaluation, not {sampling.sampler_steps}; distill_MARDM.py --objective "
            "flow_map makes one that may take several"
        )
    return ""
