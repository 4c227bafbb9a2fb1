"""Clean and wrap captions for pictures and pages."""

import textwrap
import unicodedata

CAPTION_LINES = 3
BOM = "\ufeff"  # byte order mark: invisible, and not whitespace to str.split
LONGEST = 2000  # characters of a caption that are used


def clean_text(text):
    """Text as one line of printable characters, without byte order marks."""
    kept = (" " if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in text if c != BOM)
    return " ".join("".join(kept).split())


def wrap_caption(caption, width):
    """Wrap into at most CAPTION_LINES lines of `width` columns (CJK counts double), cut with an ellipsis."""
    text = clean_text(caption[:LONGEST])
    wide = sum(unicodedata.east_asian_width(c) in "WF" for c in text) / max(len(text), 1)
    columns = max(8, int(width / (1 + wide)))
    return textwrap.wrap(text, columns, max_lines=CAPTION_LINES, placeholder=" …")
