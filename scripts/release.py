"""Pack a trained run into small files that can be published: float16 weights, nothing that only training
needs.

  python -m scripts.release --dataset_name Demo --name FSQ_MARDM_SiT_XS --to demo_MARDM --to_ae demo_AE

writes checkpoints/<dataset>/<to_ae>/model/net_best_fid.tar and
checkpoints/<dataset>/<to>/model/net_best_fid.tar; the latter carries the set's length estimator and captions.
A one-step head goes with them, as onestep.tar. Scripts load them like any other run.
"""

import torch

from utils.cli import Parser, name, run
from utils.data.clips import load_clips
from utils.datasets import find_dataset
from utils.errors import BadInput
from utils.evaluation_report import read_labels
from utils.generation.known_captions import KnownCaptions
from utils.runs import Run, learned, save_state, weights_hash
from utils.safe_load import State, load_state
from utils.text_embeddings import embed_prompts

KEPT = ("format", "ep", "total_it", "best", "mean", "std", "target_stats")  # beside weights and config


def flags():
    parser = Parser(__doc__)
    parser.add_argument("--dataset_name", type=name, default="Demo", help="[%(default)s]")
    parser.add_argument(
        "--checkpoints_dir", default="./checkpoints", help="where runs are kept [%(default)s]"
    )
    parser.add_argument(
        "--dataset_dir", default="./datasets", help="the set whose captions go with them [%(default)s]"
    )
    parser.add_argument("--name", type=name, required=True, help="the generator's run")
    parser.add_argument("--to", type=name, required=True, help="name of the released generator")
    parser.add_argument("--to_ae", type=name, required=True, help="name of the released autoencoder")
    parser.add_argument("--checkpoint", choices=("best", "latest"), default="best", help="[%(default)s]")
    return parser


def half(weights):
    """float32 -> float16, without tables that every model makes anew; loading gives float32 again."""
    return {key: x.half() if x.dtype == torch.float32 else x for key, x in learned(weights).items()}


def packed(state, weights, **config):
    """A checkpoint of these weights alone, with what it takes to use them."""
    kept = {key: state[key] for key in KEPT if key in state}
    return {key: half(state[key]) for key in weights} | kept | {"config": state["config"] | config}


def released_onestep(onestep, generator, released, name):
    """A one-step head, tied to the released weights of its generator. BadInput where it belongs to others."""
    teacher = onestep["config"]["teacher"]
    if teacher["sha256"] != weights_hash(generator["ema_mardm"]):
        raise BadInput("onestep.tar was distilled from other weights: distill anew, or remove it")
    tie = teacher | {"name": name, "file": "net_best_fid.tar", "sha256": weights_hash(released["ema_mardm"])}
    return packed(onestep, ["ema_onestep"], name=name, teacher=tie)


def main(argv=None):
    args = flags().parse_args(argv)
    generator = load_state(Run.of(args).choose(args.checkpoint))
    tie = generator.get("config", {}).get("autoencoder")
    if tie is None:
        raise BadInput(f"{args.name} does not say which autoencoder it belongs to: it was not trained here")
    ae = load_state(Run.of(args, tie["name"]).model / tie["file"])
    if weights_hash(ae["ae"]) != tie["sha256"]:
        raise BadInput(f"{tie['name']}/model/{tie['file']} is not the autoencoder of {args.name} any more")
    encoder = generator["config"]["text_encoder"]
    finest = Run.of(args, "length_estimator").finest
    estimator = load_state(finest)
    known = State(estimator, finest).part("config").text("text_encoder")
    if known not in (None, encoder):  # the published one does not say
        raise BadInput(
            f"the length estimator was trained with {known}, {args.name} with {encoder}: "
            f"run train_LengthEstimator.py --text_encoder {encoder}"
        )
    released_ae = packed(ae, ["ae"], name=args.to_ae)
    released_ae_path, path = Run.of(args, args.to_ae).best, Run.of(args, args.to).best
    tie |= {"name": args.to_ae, "file": path.name, "sha256": weights_hash(released_ae["ae"])}
    # Only training needs the raw weights: the moving average alone is kept.
    released = packed(generator, ["ema_mardm"], name=args.to, ae_name=args.to_ae, autoencoder=tie)
    released |= {"estimator": half(estimator["estimator"])}
    spec, root = find_dataset(args.dataset_name, args.dataset_dir)
    clips = load_clips(spec, root, "train")
    known = KnownCaptions.of(
        clips, read_labels(root, clips), lambda texts: embed_prompts(texts, encoder, torch.device("cpu"))
    )
    released |= {"captions": known.as_dict()}
    files = {released_ae_path: released_ae, path: released}
    source, target = Run.of(args).onestep, Run.of(args, args.to).onestep
    if source.is_file():
        files[target] = released_onestep(load_state(source), generator, released, args.to)
    for file, state in files.items():
        save_state(file, state)
        print(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    run(main)
