"""How motions are drawn from a generator, and with which of its heads."""

from dataclasses import dataclass, replace

SOLVERS = ("midpoint", "heun", "euler", "dopri5")  # of a diffusion head


@dataclass(frozen=True)
class SamplingConfig:
    """How motions are drawn."""

    time_steps: int = 18  # rounds
    cfg: float = 4.5  # guidance scale, 1 = off
    temperature: float = 1.0  # SiT, one-step: of the start noise; Softmax: divides the logits
    snap: str = "step"  # step: every drawn token at once; end: before decoding; off: never
    sampler: str = "auto"  # see `settle`
    sampler_steps: int = 4
    hard_pseudo_reorder: bool = False
    order: str = "random"  # in which tokens leave the mask; halton: those of a round evenly spread
    seed: int = 3407


def settle(sampling, mardm):
    """The same with a sampler in the place of "auto": the one-step head where it has learned this guidance
    scale, else the head's first; midpoint is the cheapest that equals dopri5 (results/sampling.md).

    mardm: the generator. ValueError where a sampler is asked for that it does not have.
    """
    onestep, samplers = mardm.onestep, mardm.DiffMLPs.samplers
    serves = onestep is not None and onestep.scales[0] <= sampling.cfg <= onestep.scales[1]
    if sampling.sampler == "auto":
        return replace(sampling, sampler="onestep" if serves else samplers[0])
    if sampling.sampler == "onestep" and onestep is None:
        raise ValueError("sampler onestep: this generator has no one-step head; distill_MARDM.py makes one")
    if sampling.sampler == "onestep" and not serves:
        low, high = onestep.scales
        raise ValueError(
            f"sampler onestep: its head knows guidance from {low:g} to {high:g}, not {sampling.cfg:g}; take "
            "another sampler, such as midpoint"
        )
    if sampling.sampler not in ("onestep", *samplers):
        raise ValueError(
            f"sampler {sampling.sampler}: this generator's head does not have it, but {', '.join(samplers)}; "
            "leave it at auto"
        )
    return sampling
