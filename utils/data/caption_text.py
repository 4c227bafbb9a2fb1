"""What is said of a motion: reading caption files, words with their kinds, left and right swapped."""

import re
from dataclasses import dataclass
from pathlib import Path

from utils.errors import BadInput
from utils.plain import parse_csv, parse_json

_KINDS = """
DET: a an the this that these those each every another both all some any no
ADP: in on at to with from into onto of for by over under around through across along toward towards
    above below behind between against off near past after before during upon about like without within
    beside out up down as
PRON: he she it they someone somebody who which i you we him her them his its their himself herself
    itself themselves oneself one's
AUX: is are was were be been being has have had does do did can could will would may might should must
    am
CCONJ: and or but
SCONJ: while if because when where until
NUM: zero one two three four five six seven eight nine ten half
ADV: then again forward forwards backward backwards sideways upward upwards downward downwards away back
    fast clockwise counterclockwise anticlockwise together very slightly just there here ahead apart
    twice once thrice still straight leftward rightward leftwards rightwards too also almost not
    diagonally
ADJ: left right upper lower front high low wide big small large short long quick slow fast happy sad
    angry tired old young proud active normal calm strong weak straight circular full half new same
    other whole opposite exhausted elderly youthful feminine masculine childish giant confident lively
    energetic bent weary aged little neutral ordinary worn several manly cheerful furious timid diagonal
"""
_VERBS = """
walk run jog sprint dash jump hop skip leap squat sit stand bow bend wave clap kick punch raise lift lower
turn spin rotate twist step sidestep move crawl crouch kneel lie lay fall roll dance throw catch swing reach
grab hold pick put place push pull climb descend march stretch stop start begin continue go come take make
give bring keep lean shake nod point look face stagger stumble limp sneak stomp slash call respond greet
lead guide salute swim pour drink eat type write wipe clean stir play bounce dribble shoot balance pace
return repeat cross open close touch rub scratch hit strike strut shuffle tiptoe hurry rush stroll wander
say seem use change show gesture extend back shout perform
"""
_IRREGULAR = """
ran:run sat:sit stood:stand went:go goes:go bent:bend lay:lie lies:lie lying:lie fell:fall fallen:fall
threw:throw thrown:throw caught:catch held:hold took:take taken:take made:make gave:give brought:bring
kept:keep leapt:leap leant:lean knelt:kneel swung:swing began:begin came:come said:say spun:spin crept:creep
strode:stride
"""
_NOUNS = dict(feet="foot", people="people", men="man", women="woman", children="child", bus="bus")


def _kinds():
    kinds, kind = {}, ""
    for word in _KINDS.split():
        if word.endswith(":"):
            kind = word[:-1]
        else:
            kinds.setdefault(word, kind)  # the first list that has a word counts
    return kinds


def _inflections():
    forms = dict(pair.split(":") for pair in _IRREGULAR.split())
    for verb in _VERBS.split():
        stem = verb[:-1] if verb.endswith("e") else verb
        doubled = verb + verb[-1] if re.fullmatch(r".*[^aeiou][aeiou][bdgmnpt]", verb) else stem
        third = (
            verb + "es"
            if re.search(r"(s|x|ch|sh|o)$", verb)
            else re.sub(r"([^aeiou])y$", r"\1ie", verb) + "s"
        )
        past = re.sub(r"([^aeiou])y$", r"\1i", doubled) + "ed"
        for form in (verb, third, doubled + "ing", stem + "ing", past, stem + "ed"):
            forms.setdefault(form, verb)
    return forms


_KIND = _kinds()
_VERB_FORMS = _inflections()


def tag(text):
    """A caption -> its words as lemma/POS, as HumanML3D has them: by spaCy where installed, else by lists.

    The list knows the words of human motion; one that it does not know counts as a noun.
    """
    tagger = _spacy()
    if tagger is None:
        return _tag_by_list(text)
    tokens = []
    for token in tagger(text.replace("-", "")):
        word = re.sub(r"[^\w']", "", token.text)
        if word:
            lemma = token.lemma_ if token.pos_ in ("NOUN", "VERB") and word != "left" else word
            tokens.append(f"{lemma.replace('/', '')}/{token.pos_}")
    return tuple(tokens)


def tagger_name():
    return "a word list (install spacy and en_core_web_sm for better ones)" if _spacy() is None else "spaCy"


_loaded = []


def _spacy():
    if not _loaded:
        try:
            import spacy

            _loaded.append(spacy.load("en_core_web_sm"))
        except (ImportError, OSError):  # not installed, or its English model is not
            _loaded.append(None)
    return _loaded[0]


def _tag_by_list(text):
    tokens, before = [], ""
    for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower().replace("-", "")):
        kind, lemma = _KIND.get(word), word
        if kind is None and word in _VERB_FORMS and before not in ("DET", "ADJ"):
            kind, lemma = "VERB", _VERB_FORMS[word]
        elif kind is None:
            kind = "NUM" if word.isdigit() else "ADV" if word.endswith("ly") else "NOUN"
            if kind == "NOUN":
                lemma = _NOUNS.get(word) or re.sub(r"(?<=[^su])s$", "", re.sub(r"(?<=.)ies$", "y", word))
        tokens.append(f"{lemma}/{kind}")
        before = kind
    return tuple(tokens)


_LEFTS = "left leftward leftwards lefthand lefthanded leftmost lefty".split()  # noqa: SIM905
_SIDES = {word: word.replace("left", "right") for word in _LEFTS} | {"clockwise": "counterclockwise"}
_SIDES |= {right: left for left, right in _SIDES.items()}
_SIDES |= {"anticlockwise": "clockwise"}
_NOT_A_SIDE = re.compile(
    r"right (?:away|now|after|before|behind|in front|there|here|as|when)\b|\ball right\b", re.I
)
_WORD = re.compile(r"counter[- ]clockwise|anti[- ]clockwise|[^\W_]+", re.I)


def swap_sides(text):
    """A caption as it is true of the mirror image: left <-> right, clockwise <-> counterclockwise."""
    kept = [range(*match.span()) for match in _NOT_A_SIDE.finditer(text)]

    def swap(match):
        word = match.group()
        other = _SIDES.get(re.sub(r"[- ]", "", word.lower()))
        if other is None or any(match.start() in span for span in kept):
            return word
        if word.isupper() and len(word) > 1:
            return other.upper()
        return other.capitalize() if word[0].isupper() else other

    return _WORD.sub(swap, text)


def swap_token_sides(tokens):
    """word/POS tokens of the mirror image."""
    words = [token.rsplit("/", 1) for token in tokens]
    swapped = swap_sides(" ".join(word for word, _ in words)).split(" ")
    return tuple(f"{word}/{kind}" for word, (_, kind) in zip(swapped, words))


@dataclass(frozen=True)
class Described:
    """A line of a caption file."""

    captions: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    split: str = ""
    content: str = ""
    style: str = ""


def read_captions(file):
    """A .jsonl or .csv of captions -> {name: Described}. Raises BadInput with the line.

    Fields: `name` (or `file`: the path below the folder, with or without .bvh), `captions` (jsonl: a list) or
    `caption` (several rows of one name add up), and, where wanted, tokens (jsonl), split, content, style.
    """
    file = Path(file)
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput(f"{file} does not exist") from None
    except UnicodeDecodeError:
        raise BadInput(f"{file} is not a text file in UTF-8") from None
    try:
        rows = _csv_rows(text) if file.suffix.lower() == ".csv" else _json_rows(text)
    except ValueError as error:
        raise BadInput(f"{file}: {error}") from None
    described = {}
    for number, row in rows:
        try:
            name, what = _describe(row)
        except (ValueError, TypeError, AttributeError) as error:
            raise BadInput(f"{file}:{number}: {error}") from None
        if name in described:
            old = described[name]
            what = Described(
                old.captions + what.captions, old.tokens + what.tokens, old.split, old.content, old.style
            )
        described[name] = what
    if not described:
        raise BadInput(f"{file} holds no captions")
    return described


def _csv_rows(text):
    return enumerate(parse_csv(text), start=2)


def _json_rows(text):
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError:
                yield number, None  # refused by _describe, with its line


def _describe(row):
    if not isinstance(row, dict):
        raise ValueError('not a line of the form {"name": ..., "captions": [...]}')
    name = row.get("name") or row.get("file")
    captions = row.get("captions") or row.get("caption") or ()
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(name, str) or not captions or not all(isinstance(text, str) for text in captions):
        raise ValueError("needs name (or file) and captions (or caption)")
    captions = tuple(re.sub(r"[\s#]+", " ", text).strip() for text in captions)
    if not all(captions):
        raise ValueError("a caption is empty")
    tokens = row.get("tokens") or [tag(text) for text in captions]
    if not all(isinstance(word, str) for words in tokens for word in words):
        raise ValueError("tokens are not lists of words")
    name = re.sub(r"\.bvh$", "", name.replace("\\", "/"), flags=re.I)
    labels = (str(row.get(key) or "") for key in ("split", "content", "style"))
    return name, Described(captions, tuple(map(tuple, tokens)), *labels)
