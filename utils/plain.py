"""Read text, JSON and CSV files of the user."""

import csv
import io
import json
import math
import unicodedata
from pathlib import Path

from utils.errors import BadInput, unreadable


def read_utf8(file, flag=""):
    """The text of a file, without a byte order mark. flag: the one that names it. Raises BadInput."""
    where = f"{flag} {file}".lstrip()
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise unreadable(where, error) from None
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise BadInput(f"{where}:{line}: not a text in UTF-8: save it as UTF-8") from None


def composed(name):
    """A name in Unicode's composed form: macOS writes "é" in file names as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def is_number(value):
    """A finite int or float; a bool is neither."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def parse_json(text):
    """json.loads; ValueError also for deep nesting."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deep") from None


def read_csv(file, *needed):
    """Rows as dicts by the column names of the first line; a missing cell is "". Raises BadInput.

    needed: for each required column the names that it may have. A row with too many cells is refused: it has
    an unquoted comma, after which the text would be lost.
    """
    table = csv.DictReader(io.StringIO(read_utf8(file), newline=""), restval="", strict=True)
    rows = []
    try:
        _check_columns(file, table.fieldnames, needed)
        for row in table:
            if any(row.pop(None, ())):
                columns = len(table.fieldnames)
                remedy = 'put a text with a comma in double quotes ("a, b")'
                raise BadInput(f"{file}:{table.reader.line_num}: more than {columns} cells: {remedy}")
            rows.append(row)
    except csv.Error as error:
        where = f"{file}:{table.reader.line_num}"
        raise BadInput(f"{where}: no table of comma-separated values with matching quotes: {error}") from None
    return rows


def _check_columns(file, columns, needed):
    for names in needed if columns else ():
        if not set(names) & set(columns):
            remedy = "name it in the first line"
            if any(sign in columns[0] for sign in ";\t"):
                remedy = "write commas between the cells, not semicolons or tabs"
            found = ", ".join(repr(name[:60]) for name in columns[:10])
            raise BadInput(f"{file}: no column {' or '.join(names)}, but {found}: {remedy}")
