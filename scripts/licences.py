"""What the dependencies ask for: the table of docs/licences.md, from the metadata of what is installed.

python -m scripts.licences                            # show it
python -m scripts.licences --write docs/licences.md   # put it there in the place of the one before
"""

import importlib.metadata
import re
from pathlib import Path

from motion.files import write_text
from utils.cli import Parser, run
from utils.errors import BadInput

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- begin: python -m scripts.licences -->", "<!-- end -->"
KNOWN_BY = {  # words of a licence's text -> its name, where the metadata does not say it
    "Permission is hereby granted, free of charge": "MIT",
    "Apache License": "Apache-2.0",
    "Redistribution and use in source and binary forms": "BSD",
}


def plain(name):
    """The form in which names of packages are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()


def listed(requirements):
    """Names in a requirements.txt, also behind "# no-deps:", in their order."""
    found = re.findall(r"^(?:# no-deps: *)?([A-Za-z][\w.-]*) *[=<>]", requirements, flags=re.MULTILINE)
    return [plain(name) for name in found]


def installed_with(names):
    """The distributions of these names and of all that they require, as far as installed. name -> it"""
    found, asked = {}, list(names)
    while asked:
        name = asked.pop()
        if name in found:
            continue
        try:
            found[name] = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        needs = (line for line in found[name].requires or () if "extra ==" not in line)
        asked += [plain(re.match(r"[\w.-]+", line).group()) for line in needs]
    return found


def licence(distribution):
    """By its metadata: the SPDX expression, else the classifier, else the short name, else its text."""
    fields = distribution.metadata
    if fields["License-Expression"]:
        return fields["License-Expression"]
    classifiers = [line for line in fields.get_all("Classifier", ()) if line.startswith("License ::")]
    if classifiers:
        return ", ".join(line.rpartition(" :: ")[2] for line in classifiers)
    short = fields["License"] or ""
    if 0 < len(short) <= 60 and "\n" not in short and short != "UNKNOWN":
        return short
    texts = [file.read_text() for file in distribution.files or () if "LICENSE" in file.name.upper()]
    return next((name for words, name in KNOWN_BY.items() if words in "".join(texts)), "not stated")


def table(requirements):
    """Markdown: those of the list in its order, then those they bring along."""
    names = listed(requirements)
    found = installed_with(names)
    if missing := [name for name in names if name not in found]:
        raise BadInput(f"{', '.join(missing)}: not installed; pip install -r requirements.txt first")
    lines = ["| package | version | licence | |", "|---|---|---|---|"]
    for name in [*names, *sorted(set(found) - set(names))]:
        what, by = found[name], "listed" if name in names else ""
        lines.append(f"| {what.metadata['Name']} | {what.version} | {licence(what)} | {by} |")
    return "\n".join(lines)


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="a document with a place for the table")
    args = parser.parse_args(argv)
    made = table((ROOT / "requirements.txt").read_text(encoding="utf-8"))
    if args.write is None:
        print(made)
        return
    try:
        head, rest = args.write.read_text(encoding="utf-8").split(BEGIN)
        tail = rest.split(END)[1]
    except (FileNotFoundError, ValueError, IndexError):
        raise BadInput(f"{args.write}: no place for the table, {BEGIN} ... {END}") from None
    write_text(args.write, f"{head}{BEGIN}\n{made}\n{END}{tail}")


if __name__ == "__main__":
    run(main)
