"""The table of licences: every dependency has a row, and a licence is found wherever a package states it."""

from email.message import Message

import pytest

from scripts import licences
from tests.conftest import ROOT
from utils.errors import BadInput

DOCUMENT = ROOT / "docs/licences.md"


def test_every_listed_package_has_a_row_in_the_document():
    rows = [
        line.split(" | ") for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if " listed |" in line
    ]
    named = {licences.plain(row[0].strip("| ")) for row in rows}
    assert named >= set(licences.listed((ROOT / "requirements.txt").read_text(encoding="utf-8")))
    assert len(named) > 10 and all(row[2] not in ("", "not stated") for row in rows)


def test_the_list_is_read_with_its_comments():
    text = "# torch==1\nTorch==2.13.0  # networks\nhuggingface_hub>=1,<2\n"
    text += "\n# no-deps: clip-anytorch==2.6.0  # x\n"
    assert licences.listed(text) == ["torch", "huggingface-hub", "clip-anytorch"]


class Package:
    """Stands in for an installed distribution."""

    def __init__(self, text="", **fields):
        self.metadata, self.files = Message(), [self]
        self.name, self.text = "LICENSE.txt", text
        for key, values in fields.items():
            for value in [values] if isinstance(values, str) else values:
                self.metadata[key.replace("_", "-")] = value

    def read_text(self):
        return self.text


CLASSIFIED = ["Topic :: X", "License :: OSI Approved :: MIT License"]


@pytest.mark.parametrize(
    ("package", "expected"),
    [
        (Package(License_Expression="MPL-2.0 AND MIT", License="other"), "MPL-2.0 AND MIT"),
        (Package(Classifier=CLASSIFIED, License="A long text\nof many lines"), "MIT License"),
        (Package(License="BSD-3-Clause"), "BSD-3-Clause"),
        (Package(License="UNKNOWN", text="Permission is hereby granted, free of charge, to"), "MIT"),
        (Package(text="All rights reserved."), "not stated"),
    ],
)
def test_a_licence_is_found(package, expected):
    assert licences.licence(package) == expected


def test_the_table_takes_the_place_of_the_one_before(tmp_path, monkeypatch):
    file = tmp_path / "doc.md"
    file.write_text(f"before\n{licences.BEGIN}\nold\n{licences.END}\nafter\n")
    monkeypatch.setattr(licences, "table", lambda _: "| new |")
    for _ in range(2):
        licences.main(["--write", str(file)])
        assert file.read_text() == f"before\n{licences.BEGIN}\n| new |\n{licences.END}\nafter\n"
    file.write_text("no place")
    with pytest.raises(BadInput, match="no place for the table"):
        licences.main(["--write", str(file)])


def test_a_package_that_is_not_installed_is_named():
    with pytest.raises(BadInput, match="nowhere-to-be-found: not installed"):
        licences.table("nowhere-to-be-found==1\n")
