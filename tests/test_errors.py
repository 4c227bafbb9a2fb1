"""docs/errors.md has a row for every message that the source can give."""

import ast
import re

import pytest

from tests.conftest import ROOT

RAISES = {"BadInput", "ArgumentTypeError", "Unwritten"}
FOLDERS = ("", "motion", "models", "utils", "scripts")  # benchmarks and experiments speak to developers
TABLE = " ".join((ROOT / "docs/errors.md").read_text(encoding="utf-8").split())
SHORTEST = 9  # letters; a message of shorter pieces passes on the reason of another


def pieces(message):
    """The constant parts of a message, between what differs."""
    values = message.values if isinstance(message, ast.JoinedStr) else [message]
    return [" ".join(value.value.split()) for value in values if isinstance(value, ast.Constant)]


def messages():
    for folder in FOLDERS:
        for file in sorted((ROOT / folder).glob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if (
                    isinstance(node, ast.Call)
                    and node.args
                    and ast.unparse(node.func).split(".")[-1] in RAISES
                ):
                    longest = max(pieces(node.args[0]), key=len, default="")
                    if len(longest) >= SHORTEST:
                        yield pytest.param(longest, id=f"{file.relative_to(ROOT)}:{node.lineno}")


@pytest.mark.parametrize("piece", messages())
def test_every_message_has_a_row(piece):
    assert piece in TABLE, f"add a row to docs/errors.md: what it says, what it means, what to do: {piece}"


def test_the_machines_remedies_are_there():
    from utils.errors import REMEDIES, SPENT

    said = " ".join([*REMEDIES.values(), *SPENT.values()])
    rows = re.findall(r"`([^`]*)`", TABLE.partition("## The machine")[2])
    assert sum(row in said for row in rows) >= 6


def test_every_exit_code_has_a_row():
    codes = re.findall(r"^\| ([\d, ]+) \|", (ROOT / "docs/errors.md").read_text(encoding="utf-8"), re.M)
    assert {int(code) for row in codes for code in row.split(",")} == {0, 1, 2, 130, 143}


def test_tables_are_whole():
    for line in (ROOT / "docs/errors.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("|"):
            assert line.count("|") - line.count("\\|") == 4, line
