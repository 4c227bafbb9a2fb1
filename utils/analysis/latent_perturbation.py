"""Effect of a small step in code space on the motion: one token is moved, both clips are decoded.

S samples, each one token of one clip; L tokens, T = 4 L frames, d target width, J joints. A move is a new
target [S,d] for the sampled tokens with a mask [S] of those for which it exists. All draws follow from the
given generator and the clips' lengths, so that all autoencoders are compared on the same tokens.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from models.AE import STRIDE
from models.FSQ import FSQ
from utils.data.batches import collate
from utils.motion_process import recover_root
from utils.statistics import mean_ci95, spearman

STEPS = 4  # grid steps looked at, along one dimension
RANKS = {"nearest code": (1, 1), "near code (rank 2-8)": (2, 8), "code of rank 9-64": (9, 64)}
NORMS = {str(x): x for x in (0.1, 0.2, 0.4, 0.8)}  # of continuous moves, if no FSQ autoencoder is compared


def device_of(module):
    return next(module.parameters()).device


def reach(decoder):
    """The decoder's receptive field: frames on each side of its own four that a token can change."""
    frames, total = STRIDE, 0
    for layer in decoder.modules():
        if isinstance(layer, nn.Upsample):
            frames /= layer.scale_factor
        elif isinstance(layer, nn.Conv1d):
            total += frames * layer.dilation[0] * (layer.kernel_size[0] - 1) / 2
    return int(total)


@dataclass
class Samples:
    """One token each of S clips, as one autoencoder encodes them."""

    targets: torch.Tensor  # [S,L,d]
    m_lens: torch.Tensor  # [S] frames
    place: torch.Tensor  # [S] which token
    other: torch.Tensor  # [S,d] a random token of the set, to swap it for

    @property
    def token(self):
        """[S,d]"""
        return self.targets[torch.arange(len(self.place)), self.place]

    def moved(self, new):
        """Targets [S,L,d] with the sampled tokens replaced by new [S,d]."""
        targets = self.targets.clone()
        targets[torch.arange(len(self.place)), self.place] = new
        return targets


@torch.no_grad()
def encode(ae, dataset, batch_size=64):
    """Every clip of a TextMotionSet -> list of targets [L_i,d]."""
    tokens = []
    for rows in torch.arange(len(dataset)).split(batch_size):
        batch = collate([dataset[(0, i)] for i in rows.tolist()]).to(device_of(ae))
        targets = ae.tokenize(batch.motion, batch.m_lens)[1]
        tokens += [one[: n // STRIDE].cpu() for one, n in zip(targets, batch.m_lens.tolist())]
    return tokens


def draw_samples(tokens, count, generator):
    """Draw Samples from tokens, a list of [L_i,d]: `count` random tokens of random clips, with another token
    to swap each for. The draws depend on the lengths only: the same tokens for every autoencoder.
    """
    lengths = torch.tensor([len(one) for one in tokens])
    clips = torch.randint(len(tokens), (count,), generator=generator)
    clips = clips[lengths[clips].argsort(stable=True)]  # clips of like length share a batch
    place = (torch.rand(count, generator=generator) * lengths[clips]).long()
    other = torch.randint(int(lengths.sum()), (count,), generator=generator)
    chosen = [tokens[clip] for clip in clips.tolist()]
    targets = nn.utils.rnn.pad_sequence(chosen, batch_first=True)
    return Samples(targets, lengths[clips] * STRIDE, place, torch.cat(tokens)[other])


@dataclass
class Decoding:
    """Decodes and compares clips of an autoencoder, over `field` frames on each side of a token's own."""

    ae: nn.Module
    normalizer: object
    unit_m: float
    field: int
    batch_size: int = 64

    @torch.no_grad()
    def rows(self, targets, m_lens):
        """Targets [S,L,d] -> features [S,T,dim] in the set's units, on the CPU; nothing is snapped."""
        decoded = []
        for part, lens in zip(targets.split(self.batch_size), m_lens.split(self.batch_size)):
            part, device = part[:, : int(lens.max()) // STRIDE], device_of(self.ae)
            motion = self.ae.detokenize(part.to(device), lens.to(device), snap=False).cpu()
            decoded.append(nn.functional.pad(motion, (0, 0, 0, targets.shape[1] * STRIDE - motion.shape[1])))
        return self.normalizer.inverse(torch.cat(decoded)).double()

    def compare(self, samples, new, before):
        """What replacing the tokens by new [S,d] changes against the rows `before`. -> name -> [S]

        field_mm, own_mm: mean distance of the joints in the root's frame, over the token's receptive field
        and over its own four frames. root_mm, yaw_deg: change of the root's final position and heading.
        """
        after, m_lens = self.rows(samples.moved(new), samples.m_lens), samples.m_lens
        joints = [rows[..., 4:].unflatten(-1, (-1, 3)) for rows in (before, after)]
        moved = 1000 * self.unit_m * (joints[1] - joints[0]).norm(dim=-1).mean(dim=-1)  # [S,T]
        frame, first = torch.arange(moved.shape[1]), (samples.place * STRIDE)[:, None]
        result = {}
        for name, margin in (("field_mm", self.field), ("own_mm", 0)):
            mask = (frame >= first - margin) & (frame < first + STRIDE + margin) & (frame < m_lens[:, None])
            result[name] = (moved * mask).sum(dim=1) / mask.sum(dim=1)
        last = torch.arange(len(m_lens)), m_lens - 1
        (turn_a, path_a), (turn_b, path_b) = (recover_root(rows) for rows in (before, after))
        yaw_a, yaw_b = (2 * torch.atan2(turn[..., 2], turn[..., 0])[last] for turn in (turn_a, turn_b))
        turned = torch.remainder(yaw_b - yaw_a + torch.pi, 2 * torch.pi) - torch.pi
        result["root_mm"] = 1000 * self.unit_m * (path_b - path_a)[last][:, [0, 2]].norm(dim=-1)
        return result | {"yaw_deg": torch.rad2deg(turned.abs())}


def latent_norm(ae, a, b):
    """Distance [S] of targets a, b [S,d], measured on the latents that the decoder gets."""
    with torch.no_grad():
        a, b = (ae.embed_codes(x.to(device_of(ae))[:, None]).squeeze(-1).cpu() for x in (a, b))
    return (b - a).norm(dim=1)


def grid_moves(ae, samples, generator):
    """FSQ: 1, 2, ... steps along each dimension, up or down at random where both are on the grid.

    -> list of (name, dimension or None, new [S,d], exists [S])
    """
    grid, moves = FSQ(ae.fsq.levels), []
    digits = grid.codes_to_digits(samples.token)
    for steps in range(1, STEPS + 1):
        for dimension, levels in enumerate(grid.levels):
            digit = digits[:, dimension]
            up, down = digit + steps < levels, digit - steps >= 0
            prefer_up = torch.rand(len(digit), generator=generator) < 0.5
            sign = torch.where(up & (prefer_up | ~down), 1, -1)
            new = digits.clone()
            new[:, dimension] += sign * steps
            name = f"{steps} step" + "s" * (steps > 1)
            moves.append((name, dimension, grid.digits_to_codes(new), up | down))
    return moves


def code_moves(ae, samples, generator):
    """VQ: another code, by its rank among the neighbours of the token's own (1 = nearest), or any code."""
    codes = ae.vq.codebook.detach().cpu()
    index = ae.vq.nearest(samples.token.to(device_of(ae))).cpu()
    distance = torch.cdist(codes[index], codes)
    distance[torch.arange(len(index)), index] = -1  # itself: rank 0, even if another code is equal
    order, everyone = distance.argsort(dim=1), torch.ones(len(index), dtype=torch.bool)
    ranks = RANKS | {"random code": (1, len(codes) - 1)}
    moves = []
    for name, (low, high) in ranks.items():
        if high < len(codes):
            rank = torch.randint(low, high + 1, (len(index),), generator=generator)
            moves.append((name, None, codes[order.gather(1, rank[:, None])[:, 0]], everyone))
    return moves


def noise_moves(samples, generator, norms):
    """Any targets, such as continuous ones: moves in a random direction and towards a random token.

    norms: name -> distance in the targets' units.
    """
    token, everyone = samples.token, torch.ones(len(samples.place), dtype=torch.bool)
    ways = {"noise": torch.randn(token.shape, generator=generator), "towards a token": samples.other - token}
    ways = {kind: way / way.norm(dim=1, keepdim=True).clamp(1e-9) for kind, way in ways.items()}
    return [
        (f"{kind}, {name}", None, token + norm * way, everyone)
        for kind, way in ways.items()
        for name, norm in norms.items()
    ]


def moves_of(ae, samples, generator, norms):
    own = {"FSQ": grid_moves, "VQ": code_moves}.get(ae.kind)
    return own(ae, samples, generator) if own else noise_moves(samples, generator, norms)


def coincide(ae, samples):
    """bool [S]: whether the token and the one to swap it for are the same."""
    if ae.codebook_size is None:
        return (samples.token == samples.other).all(dim=1)
    a, b = (ae.indices(x.to(device_of(ae))).cpu() for x in (samples.token, samples.other))
    return a == b


def examine(decoding, samples, kept, generator, norms):
    """All moves of one autoencoder. -> dict

    kept [S]: swaps that change something in every autoencoder. norms: name -> length of the moves of a
    continuous autoencoder, in units of the mean distance of two random tokens.
    """
    ae, before = decoding.ae, decoding.rows(samples.targets, samples.m_lens)
    apart = latent_norm(ae, samples.token, samples.other)[kept]
    scale = float(apart.mean())
    swap = {key: x[kept] for key, x in decoding.compare(samples, samples.other, before).items()}
    rows = [row("random token", None, swap, apart / scale)]
    norms = {name: norm * scale for name, norm in norms.items()}
    for name, dimension, new, exists in moves_of(ae, samples, generator, norms):
        if exists.any():
            values = {key: x[exists] for key, x in decoding.compare(samples, new, before).items()}
            rows.append(row(name, dimension, values, latent_norm(ae, samples.token, new)[exists] / scale))
    code, motion = (samples.other - samples.token).norm(dim=1)[kept], swap["field_mm"]
    return {
        "latent_scale": scale,
        "moves": pooled(rows),
        "per_dimension": [one for one in rows if one["dimension"] is not None],
        "spearman": spearman(code, motion),
        "spearman_n": int(kept.sum()),
        "swaps": [[float(f"{x:.4g}") for x in pair] for pair in zip(code.tolist(), motion.tolist())][:300],
    }


def row(name, dimension, values, norm):
    """A move's means over the samples, with half widths of their 95% intervals. -> dict"""
    result = {"move": name, "dimension": dimension, "n": len(norm), "relative_norm": float(norm.mean())}
    for key, x in values.items():
        result[key], result[key.replace("_", "_half_", 1)] = mean_ci95(x)
    return result


def pooled(rows):
    """One row per move: the mean over dimensions, weighted by the samples for which the move exists."""
    groups = {}
    for one in rows:
        groups.setdefault(one["move"], []).append(one)
    keys = ("relative_norm", "field_mm", "own_mm", "root_mm", "yaw_deg")
    result = []
    for move, same in groups.items():
        counts = [one["n"] for one in same]
        means = {key: float(np.average([one[key] for one in same], weights=counts)) for key in keys}
        result.append({"move": move, "n": sum(counts)} | means)
    return result
