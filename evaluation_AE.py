"""Judge a trained autoencoder on the test split: does what comes out still look like what went in?

python evaluation_AE.py --name AE --model FSQ_AE_High --dataset_name t2m
prints each measure with its 95% interval over --repeat_times choices of captions and pools, appends it to
checkpoints/<dataset>/<name>/eval/eval.log and writes eval.json beside it. What depends on motion alone does
not vary over the repeats (but under --protocol parent): an autoencoder draws nothing.
"""

import torch
from tqdm import trange

from models.AE import STRIDE, AE_models
from models.masking import lengths_to_mask
from utils.checkpoints import Run, check_name, load_ae
from utils.cli import Parser, run, start
from utils.data.clips import load_clips
from utils.datasets import find_dataset, loader
from utils.eval_utils import interval
from utils.evaluation_report import Report, baselines, finish, make_evaluation, shown
from utils.flags import checkpoint_flag, common_flags, evaluation_flags
from utils.training.train_utils import CodeUsage

FACTS = {"fsq_levels": "FSQ levels", "fsq_dim": "FSQ dim", "codebook_size": "Codebook size"}


def flags():
    parser = Parser(__doc__)
    common_flags(parser, run_name="AE")
    parser.add_argument("--model", default="AE_Model", help=f"one of {', '.join(AE_models)} [%(default)s]")
    checkpoint_flag(parser)
    evaluation_flags(parser)
    return parser


def describe(model, ae):
    """What the evaluation's first lines say of an autoencoder."""
    kind = "AE" if ae.codebook_size is None else f"{ae.kind}-AE"
    facts = {title: getattr(ae, key, None) for key, title in FACTS.items()}
    shown = [f"  {title}: {list(x) if isinstance(x, tuple) else x}" for title, x in facts.items() if x]
    return "\n".join([f"Evaluating {kind} model: {model}", *shown])


@torch.no_grad()
def code_usage(ae, evaluation):
    """How much of its code book these clips need. -> codes_used, tokens, usage, perplexity"""
    usage = CodeUsage(ae.codebook_size)
    for batch in loader(evaluation.dataset, evaluation.batch_size):
        batch = batch.to(evaluation.device)
        codes = ae.indices(ae.tokenize(batch.motion, batch.m_lens)[1])
        usage.add(codes[lengths_to_mask(batch.m_lens // STRIDE, codes.shape[1])])
    return usage.report()


def main(argv=None):
    args = flags().parse_args(argv)
    check_name(args.model, AE_models, "--model")
    device = start(args)
    root = find_dataset(args.dataset_name, args.dataset_dir)[1]
    tokenizer = load_ae(args, device, args.name, args.model)
    evaluation = make_evaluation(args, tokenizer, load_clips(tokenizer.spec, root, args.split), device)
    report = Report(Run.of(args).eval)
    report.log(describe(args.model, tokenizer.ae))

    columns = {"real": [], "reconstruction": []}
    real, pred = evaluation.real(), evaluation.reconstructed(tokenizer.ae)
    for repeat in trange(args.repeat_times, desc="repeats", leave=False):
        if repeat and args.protocol == "parent":  # other crops
            real, pred = evaluation.real(repeat), evaluation.reconstructed(tokenizer.ae, repeat)
        columns["real"].append(evaluation.compare(real, real, repeat, against_itself=True))
        columns["reconstruction"].append(evaluation.compare(real, pred, repeat, paired=True))
    if args.baselines and evaluation.evaluator is not None:
        columns |= baselines(args, evaluation, real, device)
    facts = {"parameters": sum(p.numel() for p in tokenizer.ae.parameters())}
    if tokenizer.ae.codebook_size:
        facts["codes"] = code_usage(tokenizer.ae, evaluation)
        report.log("codes of this split: " + "  ".join(f"{k} {v:.4g}" for k, v in facts["codes"].items()))
    finish(report, args, evaluation, columns, checkpoint=str(tokenizer.path), **facts)
    found, n = interval(columns["reconstruction"]), columns["reconstruction"][0].n_pred
    if "fid" in found:
        fid, repeats = shown(found["fid"]), args.repeat_times
        report.log(f"Reconstruction FID = {fid} (n={n} real, {n} reconstructed, {repeats} repeats)")
    else:
        report.log(f"Reconstruction FID = not measured: no evaluator for {args.dataset_name} (n={n})")


if __name__ == "__main__":
    run(main)
