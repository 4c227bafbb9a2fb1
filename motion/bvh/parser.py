"""Parse the text of a BVH file, bounded in time and memory; any fault is a ValueError of one line."""

import numpy as np

MAX_HEADER = 2**20
MAX_LINE = 2**20
MAX_JOINTS = 1000
CHANNELS = {
    f"{axis}{kind}".lower(): (kind, i) for kind in ("position", "rotation") for i, axis in enumerate("XYZ")
}


def header_tokens(file):
    """Read up to and including the line MOTION -> tokens before it, number of lines read."""
    header, size = [], 0
    for number, line in enumerate(_lines(file), start=1):
        size += len(line)
        if b"\0" in line:
            raise ValueError(f"line {number}: binary data, this is no BVH file")
        if line.strip().upper() == b"MOTION":
            return _text(b"".join(header)).replace("{", " { ").replace("}", " } ").split(), number
        if not header and line.strip(b"\xef\xbb\xbf \t\r\n").upper().split()[:1] not in ([], [b"HIERARCHY"]):
            raise ValueError("does not begin with HIERARCHY: this is no BVH file")
        if header or line.strip():
            header.append(line)
        if size > MAX_HEADER:
            raise ValueError(f"no MOTION within the first {MAX_HEADER >> 20} MB")
    if not header:
        raise ValueError("the file is empty")
    raise ValueError("no MOTION section: export it with its animation, or the file is truncated")


def _lines(file):
    while line := file.readline(MAX_LINE):
        if len(line) == MAX_LINE:
            raise ValueError(f"a line is longer than {MAX_LINE >> 20} MB")
        yield line


def _text(word):
    try:
        return word.decode("utf-8-sig")
    except UnicodeDecodeError:
        return word.decode("latin-1")


def _quote(word):
    """A piece of the file for an error message, shortened."""
    return repr(word if len(word) <= 40 else word[:37] + "...")


class Hierarchy:
    """Parser of the HIERARCHY section, without recursion: deep nesting cannot overflow the stack."""

    def __init__(self, tokens):
        self.tokens, self.at = tokens, 0
        self.names, self.parents, self.offsets, self.channels, self.end_sites = [], [], [], [], {}

    def parse(self):
        self.expect("HIERARCHY")
        self.expect("ROOT")
        self.open_joint(-1)
        stack = [0]
        while stack:
            word = self.next()
            key = word.upper()
            if key == "}":
                self.close(stack.pop())
            elif key == "JOINT":
                self.open_joint(stack[-1])
                stack.append(len(self.names) - 1)
            elif key == "OFFSET":
                self.offsets[stack[-1]] = self.offset()
            elif key == "CHANNELS":
                self.channel_list(stack[-1])
            elif key == "END":
                self.end_site(stack[-1])
            else:
                raise ValueError(f"{_quote(word)} where JOINT, OFFSET, CHANNELS, End Site or }} is due")
        if self.at < len(self.tokens):
            rest = self.tokens[self.at]
            second = rest.upper() == "ROOT"
            raise ValueError(
                "a second ROOT: one body a file" if second else f"{_quote(rest)} after the last }}"
            )
        return tuple(self.names), tuple(self.parents), np.array(self.offsets), self.channels, self.end_sites

    def next(self):
        if self.at == len(self.tokens):
            raise ValueError("the hierarchy ends too early: a } is missing")
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, wanted):
        word = self.next()
        if word.upper() != wanted:
            raise ValueError(f"{_quote(word)} where {wanted} is due")

    def name(self):
        """Everything up to the brace: names may contain blanks."""
        words = []
        while (word := self.next()) != "{":
            words.append(word)
        return " ".join(words)

    def open_joint(self, parent):
        if len(self.names) == MAX_JOINTS:
            raise ValueError(f"more than {MAX_JOINTS} joints")
        self.names.append(self.name() or f"joint {len(self.names)}")
        self.parents.append(parent)
        self.offsets.append(None)
        self.channels.append(None)

    def close(self, joint):
        if self.offsets[joint] is None:
            raise ValueError(f"joint {_quote(self.names[joint])} has no OFFSET")
        self.channels[joint] = self.channels[joint] or []

    def numbers(self, count, what):
        words = [self.next() for _ in range(count)]
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = [np.nan]
        if not np.isfinite(values).all():
            due = f"{count} finite numbers are due{_decimal_comma(' '.join(words))}"
            raise ValueError(f"{what} {_quote(' '.join(words))}: {due}")
        return values

    def offset(self):
        return np.array(self.numbers(3, "OFFSET"))

    def channel_list(self, joint):
        (count,) = self.numbers(1, "CHANNELS")
        if count not in range(10):
            raise ValueError(f"CHANNELS {count:g}: up to 9 make sense")
        words = [self.next() for _ in range(int(count))]
        unknown = [word for word in words if word.lower() not in CHANNELS]
        if unknown:
            raise ValueError(f"unknown channel {_quote(unknown[0])} of joint {_quote(self.names[joint])}")
        if self.channels[joint] is not None:
            raise ValueError(f"joint {_quote(self.names[joint])} has two lists of channels")
        self.channels[joint] = [CHANNELS[word.lower()] for word in words]

    def end_site(self, joint):
        self.name()  # "Site", or whatever stands there
        while (word := self.next()) != "}":
            if word.upper() != "OFFSET":
                raise ValueError(f"{_quote(word)} in an End Site, where OFFSET is due")
            self.end_sites[joint] = self.offset()


def frame_lines(file, number):
    """Read `Frames: n` and `Frame Time: seconds` -> n, seconds, number of lines read."""
    values = {}
    for line in _lines(file):
        number += 1
        words = line.replace(b":", b" : ").split()
        if not words:
            continue
        key = b" ".join(words[:-1]).rstrip(b" :").lower()
        if key not in (b"frames", b"frame time"):
            wrong = _quote(_text(line.strip()))
            due = "Frames: or Frame Time: is due"
            if key.startswith((b"frames :", b"frame time :")):
                due = "a number alone is due after the colon"
            raise ValueError(f"line {number}: {wrong} where {due}")
        values[key] = _float(words[-1], number)
        if len(values) == 2:
            break
    else:
        raise ValueError("Frames: or Frame Time: is missing: the file is truncated")
    frames, frame_time = values[b"frames"], values[b"frame time"]
    if not frames >= 1 or frames % 1:
        raise ValueError(f"Frames: {frames:g}: a whole number of at least 1 is due")
    if not 1e-4 <= frame_time <= 1:  # NaN fails as well
        raise ValueError(f"Frame Time: {frame_time}: 0.0001 to 1 second make sense; is it in milliseconds?")
    return int(frames), frame_time, number


def read_values(file, frames, count, number):
    """Read the numbers of all frames [F,C]; a frame may run over several lines."""
    values, filled = np.empty(frames * count), 0
    for line in _lines(file):
        number += 1
        words = line.split()
        end = filled + len(words)
        if end > len(values):
            raise ValueError(f"line {number}: more values than {frames} frames of {count} channels take")
        values[filled:end] = [_float(word, number) for word in words]
        filled = end
    if filled < len(values):
        raise ValueError(f"truncated: {filled // count} of {frames} frames of {count} channels")
    values = values.reshape(frames, count)
    if not np.isfinite(values).all():
        first = int(np.argmin(np.isfinite(values).all(axis=1))) + 1
        raise ValueError(f"frame {first}: NaN or infinite values")
    return values


def _float(word, line_number):
    try:
        return float(word)
    except ValueError:
        word = _text(word)
        raise ValueError(f"line {line_number}: {_quote(word)} is no number{_decimal_comma(word)}") from None


def _decimal_comma(words):
    """The end of an error about numbers that have commas where BVH has points."""
    return ": write decimal points, not commas" if "," in words else ""
