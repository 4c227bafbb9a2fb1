"""Evaluations of the same clips compared, measure by measure, with intervals paired over clips."""

import math

import numpy as np

from utils.analysis.output import markdown
from utils.errors import BadInput
from utils.evaluation_report import MEASURES
from utils.metrics import half_width
from utils.plain import parse_json

ROWS = ("generated", "reconstruction")  # of a record: the first that it has is compared
WITHOUT_EVALUATOR = ("mpjpe", "mpjpe_global", "foot_skate", "jitter", "root_speed")


def read_record(path, row=None):
    """An evaluation's JSON -> {"real", "compared"}: {"mean": {measure: x}, "halves": {measure: [draws]}}.

    row: name of the row to compare. Raises BadInput.
    """
    try:
        rows = parse_json(path.read_text(encoding="utf-8"))["rows"]
        row = row or next(name for name in ROWS if name in rows)
        if row not in rows:
            raise BadInput(f"{path} has no row {row!r}; it has {', '.join(rows)}")
        if "halves" not in rows[row]:
            raise BadInput(f"{path} holds no values on halves of the clips: evaluate that run again")
        return {name: as_arrays(one) for name, one in (("real", rows["real"]), ("compared", rows[row]))}
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        raise BadInput(f"{path} is no record of an evaluation: take one from a run's folder eval/") from None


def as_arrays(row):
    halves = {name: np.array(values, dtype=float) for name, values in row["halves"].items()}
    means = {name: math.nan if x["mean"] is None else float(x["mean"]) for name, x in row["interval"].items()}
    return {"mean": means, "halves": halves}


def agree(records, measure):
    """Whether real motion has this measure in all records, the same on every half of the clips."""
    values = [one["real"]["halves"].get(measure) for one in records]
    if any(x is None or x.shape != values[0].shape for x in values):
        return False
    return all(np.allclose(x, values[0], rtol=1e-4) for x in values)


def compare(records):
    """{name: of `read_record`}, the base first -> {measure: {name: (value, difference, half width)}}

    The difference is to the base, its half width the 95% over clips that both share. Raises BadInput where
    the records are not of the same clips. Of another evaluator only what needs none is compared. The half
    width is NaN where every half says the same of a difference, which later repeats alone make.
    """
    names, found = list(records), list(records.values())
    if not agree(found, "root_speed"):
        raise BadInput("these evaluations are not of the same clips by the same --seed: nothing is paired")
    base, result = found[0]["compared"], {}
    for measure in MEASURES if agree(found, "matching") else WITHOUT_EVALUATOR:
        if all(measure in one["compared"]["halves"] for one in found):
            rows = ((name, one["compared"]) for name, one in zip(names, found))
            result[measure] = {name: difference(one, base, measure) for name, one in rows}
    return result


def difference(one, base, measure):
    by = one["mean"][measure] - base["mean"][measure]
    half = half_width(one["halves"][measure] - base["halves"][measure])
    return one["mean"][measure], by, math.nan if by and not half else half


def table(records, compared):
    """Markdown: a line per measure. A star marks a difference whose interval leaves zero out."""
    base, *others = records
    header = ["", "real", base, *(title for name in others for title in (name, f"{name} - {base}"))]
    real = records[base]["real"]["mean"]
    rows = []
    for measure, values in compared.items():
        cells = [
            MEASURES[measure].strip(),
            short(real[measure]) if measure in real else "-",
            short(values[base][0]),
        ]
        for name in others:
            value, by, half = values[name]
            star = " *" if abs(by) > half else ""
            cells += [short(value), f"{short(by, '+')} ± {short(half)}{star}"]
        rows.append(cells)
    return markdown(header, rows)


def short(x, sign=""):
    return "n/a" if math.isnan(x) else f"{x:{sign}.3g}"
