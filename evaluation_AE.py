"""Evaluate a trained autoencoder on the test split: how close is the reconstruction to the input?

python evaluation_AE.py --name AE --model FSQ_AE_High --dataset_name t2m
prints each measure with its 95% interval over clips (diversity: over repeats), appends it to
checkpoints/<dataset>/<name>/eval/eval.log and writes eval.json beside it. --repeat_times: choices of captions
and pools; measures of motion alone are equal in all (except with --protocol parent).
"""

import utils.environment  # noqa: F401  # isort: skip
from functools import partial

import torch

from models.AE import STRIDE, AE_models
from models.masking import lengths_to_mask
from utils.checkpoints import load_ae
from utils.cli import Parser, run, start
from utils.config import EvaluationConfig, RunConfig, WeightsConfig, from_flags
from utils.data.batches import loader
from utils.data.clips import load_clips
from utils.datasets import find_dataset
from utils.evaluation_report import Report, format_interval, make_evaluation, reference_rows
from utils.flags import common_flags, evaluation_flags, weights_flags
from utils.runs import Run
from utils.training.train_utils import CodeUsage, parameter_count

FACTS = {"fsq_levels": "FSQ levels", "fsq_dim": "FSQ dim", "codebook_size": "Codebook size"}


def flags():
    parser = Parser(__doc__)
    common_flags(parser, run_name="AE")
    parser.add_argument("--model", help=f"one of {', '.join(AE_models)} [as the checkpoint says]")
    weights_flags(parser, "checkpoint")
    evaluation_flags(parser)
    return parser


def describe(model, ae):
    """The evaluation's first lines: bottleneck, levels, codes."""
    kind = "AE" if ae.codebook_size is None else f"{ae.kind}-AE"
    facts = {title: getattr(ae, key, None) for key, title in FACTS.items()}
    lines = [f"  {title}: {x}" for title, x in facts.items() if x]
    return "\n".join([f"Evaluating {kind} model: {model}", *lines])


@torch.no_grad()
def code_usage(ae, evaluation):
    """How much of its code book these clips use. -> {codes_used, tokens, usage, perplexity}"""
    usage = CodeUsage(ae.codebook_size, evaluation.device)
    for batch in loader(evaluation.dataset, evaluation.config.batch_size):
        batch = batch.to(evaluation.device)
        codes = ae.indices(ae.tokenize(batch.motion, batch.m_lens)[1])
        usage.add(codes[lengths_to_mask(batch.m_lens // STRIDE, codes.shape[1])])
    return usage.report()


def main(argv=None):
    args = flags().parse_args(argv)
    device = start(args)
    config, this_run = from_flags(EvaluationConfig, args), from_flags(RunConfig, args)
    root = find_dataset(args.dataset_name, args.dataset_dir)[1]
    source = from_flags(WeightsConfig, args, model=None, ae_name=args.name, ae_model=args.model)
    autoencoder = load_ae(source, device)
    ae, clips = autoencoder.ae, load_clips(autoencoder.spec, root, config.split)
    evaluation = make_evaluation(this_run, config, autoencoder, clips, device)
    report = Report(Run.of(this_run).eval, vars(args))
    report.log(describe(autoencoder.model, ae))

    repeats = config.repeat_times
    rows = {
        "real": evaluation.repeats(evaluation.real, repeats),
        "reconstruction": evaluation.repeats(partial(evaluation.reconstructed, ae), repeats, paired=True),
    }
    if config.baselines:
        rows |= reference_rows(evaluation, root, ae)
    facts = {"parameters": parameter_count(ae)}
    if ae.codebook_size:
        facts["codes"] = code_usage(ae, evaluation)
        report.log("codes of this split: " + "  ".join(f"{k} {v:.4g}" for k, v in facts["codes"].items()))
    report.finish(evaluation, rows, checkpoint=str(autoencoder.path), **facts)
    values, n = rows["reconstruction"].interval(), rows["reconstruction"].repeats[0].n_pred
    if "fid" in values:
        fid = format_interval(values["fid"])
        report.log(f"Reconstruction FID = {fid} (n={n} real, {n} reconstructed, {repeats} repeats)")
    else:
        reason = "two clips are needed" if evaluation.evaluator else f"no evaluator for {args.dataset_name}"
        report.log(f"Reconstruction FID = not measured: {reason} (n={n})")


if __name__ == "__main__":
    run(main)
