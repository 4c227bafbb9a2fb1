"""Is a small step in code space a small step in motion? Compares trained autoencoders, token by token.

python analyze_topology.py --dataset_name BandaiNamco --ae_names AE_Model_1 FSQ_AE_High_1 VQ_4096_1
One token of a test clip is moved, both versions are decoded without snapping, and the joints are compared in
the root's frame, in mm, over the frames that the token can affect; root path and heading separately.

FSQ          1, 2, 3, 4 grid steps along one dimension, each dimension in turn
VQ           the nearest other code, one of rank 2-8, of rank 9-64, any code
continuous   control: moves of the same latent norm as the grid steps, in a random direction and towards
             another token
all          the token replaced by a random token of the split, the same pairs for all autoencoders (without
             those that change nothing in one of them); Spearman's rank correlation between the distance in
             code space and that in motion

Norms are of the decoder's input latents, relative to the mean distance of two random tokens of the
autoencoder.
Usage = distinct codes / min(code book, tokens). Runs whose names differ in a trailing _<number> are seeds of
one group.
"""

import utils.environment  # noqa: F401  # isort: skip
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from motion.files import write_json
from utils.analysis import latent_perturbation as topology
from utils.analysis.output import check_picture
from utils.analysis.topology_figure import draw, table
from utils.checkpoints import load_ae
from utils.cli import Parser, command_line, count, name, run, start
from utils.config import WeightsConfig, from_flags
from utils.data.clips import load_clips
from utils.datasets import TextMotionSet, find_dataset
from utils.errors import BadInput
from utils.flags import common_flags, weights_flags
from utils.statistics import split_seed
from utils.training.train_utils import CodeUsage


def parse(argv):
    parser = Parser(__doc__)
    common_flags(parser)
    parser.add_argument("--ae_names", type=name, nargs="+", required=True, help="runs of train_AE.py")
    weights_flags(parser, "checkpoint")
    parser.add_argument(
        "--samples", type=count(8, 10**5), default=256, help="tokens to move, each in every way [%(default)s]"
    )
    parser.add_argument("--split", choices=("test", "val"), default="test", help="[%(default)s]")
    parser.add_argument("--output", type=Path, default="topology.png", help="png, pdf or svg [%(default)s]")
    parser.add_argument("--json", type=Path, default="topology.json", help="every number [%(default)s]")
    args = parser.parse_args(argv)
    check_picture(args.output)
    return args


def analyse(source, device, names, split, count, seed):
    """Move `count` tokens of these autoencoders -> all that `table` and `draw` need, as plain data."""
    root = find_dataset(source.dataset_name, source.dataset_dir)[1]
    parts = {one: load_ae(source, device, one) for one in dict.fromkeys(names)}
    clips = load_clips(next(iter(parts.values())).spec, root, split)
    tokens = {
        one: topology.encode(part.ae, TextMotionSet(clips, part.normalizer)) for one, part in parts.items()
    }
    samples = {
        one: topology.draw_samples(encoded, count, torch.Generator().manual_seed(seed))
        for one, encoded in tokens.items()
    }
    same = [topology.coincide(parts[one].ae, samples[one]) for one in parts]
    kept = ~torch.stack(same).any(dim=0)
    if kept.sum() < 3:
        raise BadInput(f"--samples {count}: {int(kept.sum())} swaps change every one of them; ask for more")
    results, norms = {}, {}
    # grids first: the continuous control takes the norms of their steps
    for one in tqdm(sorted(parts, key=lambda one: parts[one].ae.kind != "FSQ"), desc="autoencoders"):
        part, ae = parts[one], parts[one].ae
        decoding = topology.Decoding(
            ae, part.normalizer, part.spec.skeleton.unit_m, topology.reach(ae.decoder)
        )
        generator = torch.Generator().manual_seed(seed + 1)
        results[one] = describe(one, parts[one].model, decoding, tokens[one])
        results[one] |= topology.examine(decoding, samples[one], kept, generator, norms or topology.NORMS)
        norms |= grid_norms(results)
    facts = {"split": split, "clips": len(clips), "samples": count, "seed": seed}
    return facts | {"autoencoders": {one: results[one] for one in parts}}


def grid_norms(results):
    """{move of 1, 2, ... grid steps: its relative norm, mean over the FSQ autoencoders}"""
    rows = [move for one in results.values() if one["kind"] == "FSQ" for move in one["moves"][1:]]
    names = dict.fromkeys(move["move"] for move in rows)
    return {n: float(np.mean([move["relative_norm"] for move in rows if move["move"] == n])) for n in names}


def describe(one, model, decoding, tokens):
    """Model, receptive field, usage of the code book, histogram of each grid dimension. -> dict"""
    ae, (group, seed) = decoding.ae, split_seed(one)
    facts = {"model": model, "kind": ae.kind, "group": group, "seed": seed, "codes": ae.codebook_size}
    facts["tokens"], facts["frames_each_side"] = sum(map(len, tokens)), decoding.field
    if ae.codebook_size is None:
        return facts
    every = torch.cat(tokens).to(next(ae.parameters()).device)
    usage = CodeUsage(ae.codebook_size, every.device)
    usage.add(ae.indices(every))
    facts["usage"] = usage.report()
    if ae.kind == "FSQ":
        digits = ae.fsq.codes_to_digits(every).cpu()
        facts["levels"] = list(ae.fsq.levels)
        facts["histograms"] = [
            torch.bincount(digits[:, k], minlength=n).tolist() for k, n in enumerate(ae.fsq.levels)
        ]
    return facts


def main(argv=None):
    args = parse(argv)
    device = start(args)
    record = {"command": command_line()}
    source = from_flags(WeightsConfig, args, name="")
    record |= analyse(source, device, args.ae_names, args.split, args.samples, args.seed)
    print(table(record))
    write_json(args.json, record)
    draw(record, args.output)
    print(f"figure: {args.output}, numbers: {args.json}")


if __name__ == "__main__":
    run(main)
