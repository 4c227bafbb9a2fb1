"""Every numeric flag of every script, as its own parser knows it, with values that nobody should pass."""

import argparse
import importlib
import math

from tests.conftest import ROOT
from tests.fuzz.contract import Case
from tests.fuzz.home import COMMON, EDIT, GENERATOR, LOAD, SAMPLE

VALUES = ("0", "-1", "nan", "inf", "-inf", "1e9", "1000000000", "text", "", "1" + "0" * 400, "0x10")
FEW = "--batch_size 64 --epoch 1 --max_iters 1 --warm_up_iter 1"
TOKENS = "--ae_name AE --ae_model FSQ_AE_High"
PREPARE = {
    "demo": "--clips 10 --name New --dataset_dir {home}/out",
    "joints": "--input {home}/packed --name New --dataset_dir {home}/out",
    "bvh": "--input {home}/bvh --captions {home}/bvh/captions.jsonl --name New --dataset_dir {home}/out",
    "check": "--dataset_name Demo --dataset_dir {home}/datasets",
}
# A command of each script that costs little, to which one flag is added
BASES = {
    "train_AE": f"{LOAD} --name New --model FSQ_AE_Small --width 8 {FEW}",
    "train_MARDM": f"{LOAD} --name New {TOKENS} --model FSQ-MARDM-SiT-XS {FEW}",
    "train_LengthEstimator": f"{COMMON} {FEW}",
    "train_Evaluators": f"{LOAD} --dim 8 --hidden 8 8 8 {FEW}",
    "evaluation_AE": f"{LOAD} --name AE --model FSQ_AE_High --repeat_times 1",
    "evaluation_MARDM": f"{GENERATOR} --repeat_times 1 --time_steps 1 --cfg 1",
    "sample": SAMPLE,
    "edit": EDIT,
    "plot_loss": "--log_dir {home}/checkpoints/Demo/AE --metric Val/loss --output {home}/out/loss.png",
    "experiments.prompt_check": "--real --clips 42 --output {home}/out/check.json",
}


class Captured(BaseException):
    """Carries a parser out of a script that was about to use it."""

    def __init__(self, parser):
        self.parser = parser


def parser_of(script):
    """The parser that a script builds."""

    def carry(parser, *_):
        raise Captured(parser)

    original, argparse.ArgumentParser.parse_args = argparse.ArgumentParser.parse_args, carry
    try:
        importlib.import_module(script).main([])
    except Captured as captured:
        return captured.parser
    finally:
        argparse.ArgumentParser.parse_args = original
    raise AssertionError(f"{script} parses no flags")


def scripts():
    return sorted({file.stem for file in ROOT.glob("*.py")} | set(BASES))


def flags_of(parser, words=()):
    """(words of the subcommand, option, action) of every flag with a type, subcommands included."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield from flags_of(sub, (*words, name))
        elif action.type is not None and action.option_strings:
            yield words, action.option_strings[-1], action


def numeric_flags(script):
    return [found for found in flags_of(parser_of(script)) if hasattr(found[2].type, "low")]


def beyond(kind):
    """The nearest values outside its bounds."""
    step = 1 if kind.kind is int else 0.001
    if math.isfinite(kind.low):
        yield f"{kind.low - step:.12g}"
    if math.isfinite(kind.high):
        yield f"{kind.high + step:.15g}"


def is_legal(kind, text):
    try:
        kind(text)
    except argparse.ArgumentTypeError:
        return False
    return True


def base(script, words):
    """The cheap command, or None where the script (the web page) would not end by itself."""
    if script == "prepare_dataset":
        return (*words, *PREPARE[words[0]].split())
    return (*words, *BASES[script].split()) if script in BASES else None


def cases():
    """Kind "flags": refused by the parser, so it costs nothing; "legal flags": an extreme that is allowed."""
    for script in scripts():
        for words, option, action in numeric_flags(script):
            for text in dict.fromkeys([*VALUES, *beyond(action.type)]):
                legal, command = is_legal(action.type, text), base(script, words)
                if legal and command is None:
                    continue
                repeated = (text,) * (action.nargs if isinstance(action.nargs, int) else 1)
                if text.startswith("-"):
                    given = (f"{option}={text}",) if len(repeated) == 1 else (option, *repeated)
                else:
                    given = (option, *repeated)
                yield Case(
                    kind="legal flags" if legal else "flags",
                    name=f"{' '.join((script, *words))} {option} {text[:16]!r}",
                    script=script,
                    words=(*(command or words), *given),
                    expect=None if legal else 2,
                    mentions="" if legal else option,
                    own_folder=legal,
                )
