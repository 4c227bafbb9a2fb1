"""Evaluations of the same clips compared: is one run better than another on them, by which measure?

python analyze_evaluations.py checkpoints/Demo/A/eval/eval.json checkpoints/Demo/B/eval/eval.json
python analyze_evaluations.py A.json B.json C.json --names released longer finer --json comparison.json

The first file is the base. ± is a 95% interval of the difference, paired over clips: both runs are measured
on the same random halves of the clips, so what makes a half easy or hard for both cancels. It is mostly much
narrower than the intervals of the two runs suggest. A star marks a difference whose interval leaves zero out.
It tells these weights apart, not the methods behind them: for those, train several seeds.
"""

import utils.environment  # noqa: F401  # isort: skip
from pathlib import Path

from motion.files import write_json, write_text
from utils.analysis.event_files import check_names
from utils.analysis.paired import compare, read_record, table
from utils.cli import Parser, command_line, run
from utils.errors import BadInput


def parse(argv):
    parser = Parser(__doc__)
    parser.add_argument("records", type=Path, nargs="+", help="JSON files of evaluation_*.py, two or more")
    parser.add_argument("--names", nargs="+", help="their names [<run>/<record>]")
    parser.add_argument("--row", help="row of the records [generated, or reconstruction]")
    parser.add_argument("--table", type=Path, help="markdown file for the table [printed only]")
    parser.add_argument("--json", type=Path, help="file for every number [none]")
    args = parser.parse_args(argv)
    if len(args.records) < 2:
        raise BadInput("one record alone compares with nothing: name two or more")
    args.names = args.names or [f"{path.absolute().parent.parent.name}/{path.stem}" for path in args.records]
    check_names(args.names, args.records)
    return args


def main(argv=None):
    args = parse(argv)
    records = {name: read_record(path, args.row) for name, path in zip(args.names, args.records)}
    compared = compare(records)
    if "matching" not in compared:
        print("judged by different evaluators, or by none: only what needs none is compared")
    print(table(records, compared))
    if args.table:
        write_text(args.table, table(records, compared) + "\n")
    if args.json:
        write_json(args.json, {"command": command_line(), "measures": compared})


if __name__ == "__main__":
    run(main)
