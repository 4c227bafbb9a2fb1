"""Evaluate a trained generator on the test split: one motion per caption and repeat, beside the real ones.

python evaluation_MARDM.py --name FSQ_MARDM --ae_name AE --ae_model FSQ_AE_High --model FSQ-MARDM-SiT-XL
prints each measure with its 95% interval over clips (diversity, MultiModality: over repeats), appends it to
checkpoints/<dataset>/<name>/eval/eval.log and writes eval.json beside it.
"""

import utils.environment  # noqa: F401  # isort: skip
from dataclasses import asdict
from functools import partial

from utils.cli import Parser, run, start
from utils.config import EvaluationConfig, RunConfig, WeightsConfig, from_flags
from utils.datasets import find_dataset
from utils.eval_utils import Scores
from utils.evaluation_report import Report, format_interval, make_generator_evaluation, reference_rows
from utils.flags import evaluation_flags, generator_flags, sampling_config
from utils.pipeline import Pipeline
from utils.runs import Run


def flags():
    parser = Parser(__doc__)
    generator_flags(parser)
    evaluation_flags(parser)
    parser.add_argument(
        "--cal_mm",
        action="store_true",
        help="also measure MultiModality: 30 motions for each of 96 captions [off]",
    )
    parser.add_argument(
        "--no_ema", action="store_true", help="use the weights as trained, not their moving average [off]"
    )
    return parser


def shares(generated, real):
    """Ratio of generated to real R-precision, as text. Both arguments: {name: (mean, half width)}."""
    counted = [k for k in ("top1", "top2", "top3") if real.get(k, (0,))[0] > 0]  # a poor evaluator has none
    return "  ".join(f"{k} {generated[k][0] / real[k][0]:.3f}" for k in counted) or "not measured"


def main(argv=None):
    args = flags().parse_args(argv)
    device = start(args)
    config, this_run = from_flags(EvaluationConfig, args), from_flags(RunConfig, args)
    root = find_dataset(args.dataset_name, args.dataset_dir)[1]
    pipeline = Pipeline.open(from_flags(WeightsConfig, args), device)
    mardm, ae = pipeline.mardm, pipeline.autoencoder.ae
    sampling = sampling_config(args, pipeline.spec, mardm)
    evaluation = make_generator_evaluation(this_run, config, pipeline)
    report = Report(Run.of(this_run).eval, vars(args))
    report.log(f"Evaluating {args.name}: cfg {sampling.cfg}, tokens of {pipeline.autoencoder.model}")
    report.log(mardm.describe_sampling(sampling))

    repeats, generated = config.repeat_times, Scores([])
    for repeat in range(repeats):
        motions = evaluation.generated(mardm, ae, sampling, repeat)
        spread = evaluation.multimodality(mardm, ae, sampling, repeat) if args.cal_mm else None
        real = evaluation.real(repeat)
        generated.repeats.append(evaluation.compare(real, motions, repeat, multimodality=spread))
        if repeat == 0:
            generated.halves = evaluation.halves(real, motions)
        values = generated.repeats[-1].as_dict().items()
        report.log(f"repeat {repeat + 1}: " + "  ".join(f"{k} {v:.4g}" for k, v in values if v is not None))
    rows = {
        "real": evaluation.repeats(evaluation.real, repeats),
        "reconstruction": evaluation.repeats(partial(evaluation.reconstructed, ae), repeats, paired=True),
        "generated": generated,
    }
    if config.baselines:
        rows |= reference_rows(evaluation, root, ae)
    files = list(map(str, pipeline.paths))
    report.finish(evaluation, rows, checkpoint=files[1], files=files, decoding=asdict(sampling))
    values, n = generated.interval(), generated.repeats[0].n_pred
    report.log(f"generated / real R-precision: {shares(values, rows['real'].interval())}")
    if "fid" in values:
        fid = format_interval(values["fid"])
        report.log(f"FID = {fid} (n={n} real, {n} generated, {repeats} repeats)")


if __name__ == "__main__":
    run(main)
