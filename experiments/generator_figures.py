"""Root paths and jerk of six test clips: real, reconstructed, and generated from their captions.

python -m experiments.generator_figures --dataset_name BandaiNamco --name FSQ_MARDM --output_dir results

generator_paths.png and generator_jerk.png, of clips chosen as experiments/autoencoder_figures.py chooses
them. A generated motion has the caption and the length of the clip; its path may differ and still answer the
caption.
"""

from functools import partial
from pathlib import Path

from experiments.autoencoder_figures import chosen, draw, plot_jerk, plot_path
from utils.cli import Parser, run, start
from utils.config import WeightsConfig, from_flags
from utils.data.clips import load_clips
from utils.datasets import TextMotionSet, find_dataset
from utils.eval_utils import EvaluationRun
from utils.flags import generator_flags, sampling_config
from utils.pipeline import Pipeline
from utils.text_embeddings import embed_captions


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    parser.add_argument("--output_dir", type=Path, default=Path("results"), help="[%(default)s]")
    return parser


def main(argv=None):
    args = flags().parse_args(argv)
    device = start(args)
    pipeline = Pipeline.open(from_flags(WeightsConfig, args), device)
    tokenizer, spec = pipeline.tokenizer, pipeline.spec
    root = find_dataset(args.dataset_name, args.dataset_dir)[1]
    clips = load_clips(spec, root, "test")
    texts = embed_captions([clips], pipeline.text_encoder, root, device, pipeline.mardm.words)[0]

    def evaluation(some):
        return EvaluationRun(None, TextMotionSet(some, tokenizer.normalizer, texts), spec, device)

    def joints(motions, some):
        return dict(zip([clip.name for clip in some], motions.joints, strict=True))

    names = chosen(joints(evaluation(clips).real(), clips))
    clips = [clip for clip in clips if clip.name in names]
    six = evaluation(clips)
    rows = {
        "real": six.real(),
        "reconstructed": six.reconstructed(tokenizer.ae),
        "generated": six.generated(pipeline.mardm, tokenizer.ae, sampling_config(args, spec)),
    }
    rows = {label: joints(motions, clips) for label, motions in rows.items()}
    args.output_dir.mkdir(parents=True, exist_ok=True)
    draw(names, rows, plot_path, args.output_dir / "generator_paths.png")
    draw(names, rows, partial(plot_jerk, fps=spec.fps), args.output_dir / "generator_jerk.png")


if __name__ == "__main__":
    run(main)
