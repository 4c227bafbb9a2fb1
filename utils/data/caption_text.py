"""Read, tag and mirror captions."""

import re
from dataclasses import dataclass
from functools import cache

from utils.data.clips import parse_caption
from utils.errors import BadInput
from utils.plain import composed, parse_json, read_csv, read_utf8

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
            kinds.setdefault(word, kind)  # a word keeps its first class
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
    """A caption -> its words as lemma/POS, as in HumanML3D: by spaCy if installed, else by word lists."""
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


@cache
def _spacy():
    try:
        import spacy

        return spacy.load("en_core_web_sm")
    except (ImportError, OSError):  # not installed, or its English model is not
        return None


def _tag_by_list(text):
    """Tags from the lists above; an unknown word is a number, an adverb in -ly, or else a noun."""
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


_LEFTS = ("left", "leftward", "leftwards", "lefthand", "lefthanded", "leftmost", "lefty")
_SIDES = {word: word.replace("left", "right") for word in _LEFTS} | {"clockwise": "counterclockwise"}
_SIDES |= {right: left for left, right in _SIDES.items()} | {"anticlockwise": "clockwise"}
_AT_ONCE = re.compile(
    r"(after|before|behind|in front|next to|beside|there|here|as|when|where|on|up|down|back)\b"
)
_REST = """
be is are was were stay stays stayed staying stand stands stood standing stop stops stopped stopping sit
sits sat sitting land lands landed landing start starts started starting begin begins began beginning get
gets got getting end ends ended ending lie lies lay lying kneel kneels knelt kneeling remain remains pause
pauses wait waits
"""


def _is_adverb(before, after):
    """Is "right" an adverb, not a side, judged by the word before and the two after it?

    It is one in "right now", "right away", "all right"; also before "after", "there", ... if it begins the
    caption or follows a verb without a direction ("stops right there"). After any other word it is a side
    ("turns right after a jump").
    """
    if before == "all" or re.match(r"now\b|away\b(?! from)", after):
        return True
    return before in ("", *_REST.split()) and bool(_AT_ONCE.match(after))


def _mirrored_words(words):
    """left <-> right, clockwise <-> counterclockwise; "" for the "counter" of "counter clockwise"."""
    plain = ["", *(word.lower() for word in words), "", ""]
    mirrored = []
    for i, word in enumerate(words, start=1):
        other = _SIDES.get(plain[i], word)
        if plain[i] in ("counter", "anti") and plain[i + 1] == "clockwise":
            other = ""
        elif plain[i] == "clockwise" and plain[i - 1] in ("counter", "anti"):
            word, other = words[i - 2], "clockwise"  # capitalised like the dropped word
        elif plain[i] == "right" and _is_adverb(plain[i - 1], f"{plain[i + 1]} {plain[i + 2]}"):
            other = word
        if other is not word and word.isupper() and len(word) > 1:
            other = other.upper()
        elif other is not word and word[0].isupper():
            other = other.capitalize()
        mirrored.append(other)
    return mirrored


def swap_sides(text):
    """A caption -> the caption of the mirror image."""
    text = re.sub(r"\b((counter|anti)?clock)[\s-]+(wise)\b", r"\1\3", text, flags=re.I)
    parts = re.split(r"([^\W_]+)", text)  # words at odd indices
    parts[1::2] = _mirrored_words(parts[1::2])
    for i in range(1, len(parts), 2):
        if not parts[i]:
            parts[i + 1] = ""
    return "".join(parts)


def swap_token_sides(tokens):
    """word/POS tokens of the mirror image; "counter/X clockwise/Y" becomes the one token "clockwise/Y"."""
    line = re.sub(r"\b((counter|anti)?clock)/\S+ (wise)/", r"\1\3/", " ".join(tokens), flags=re.I)
    pairs = [token.rpartition("/") for token in line.split()]
    words = _mirrored_words([word for word, _, _ in pairs])
    # a word like "left-handed" is one token
    words = [swap_sides(word) if "-" in word else word for word in words]
    return tuple(f"{word}/{kind}" for word, (_, _, kind) in zip(words, pairs) if word)


@dataclass(frozen=True)
class Described:
    """The entry of a name in a caption file."""

    captions: tuple[str, ...]
    tokens: tuple[tuple[str, ...], ...]
    split: str = ""
    content: str = ""
    style: str = ""


def read_captions(file):
    """A .jsonl or .csv of captions -> {name: Described}. Raises BadInput with the line.

    Fields: `name` (or `file`: the path below the folder, with or without .bvh), `captions` (jsonl: a list) or
    `caption` (rows with the same name are merged), and optionally tokens (jsonl: a list for each caption),
    split, content, style.
    """
    is_table = str(file).lower().endswith(".csv")
    if is_table:
        rows = enumerate(read_csv(file, ("name", "file"), ("caption", "captions")), start=2)
    else:
        rows = _json_rows(read_utf8(file))
    described = {}
    for number, row in rows:
        try:
            name, what = _describe(row)
        except (ValueError, TypeError, AttributeError) as error:
            raise BadInput(f"{file}:{number}: {error}") from None
        if name in described:
            what = _joined(described[name], what, f"{file}:{number}: {name}")
        described[name] = what
    if not described:
        raise BadInput(f"{file} holds no captions")
    return described


def _joined(old, new, where):
    """Two entries of one name as one. BadInput, which begins with `where`, if they contradict each other."""
    fields = {"captions": old.captions + new.captions, "tokens": old.tokens + new.tokens}
    for key in ("split", "content", "style"):
        before, now = getattr(old, key), getattr(new, key)
        if before and now and before != now:
            raise BadInput(f"{where} has {key} {now!r} here, {before!r} before: write one of them")
        fields[key] = before or now
    return Described(**fields)


def _json_rows(text):
    for number, line in enumerate(text.split("\n"), start=1):  # a text may contain other line separators
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
    captions = captions if isinstance(captions, (list, tuple)) else [captions]
    if not isinstance(name, str) or not captions or not all(isinstance(text, str) for text in captions):
        found = ", ".join(f"{key!r}: {value!r}"[:60] for key, value in list(row.items())[:10])
        raise ValueError(
            f"needs name (or file) and captions (or caption), texts; it has {found or 'nothing'}"
        )
    captions, own = zip(*map(_caption, captions))
    if not all(captions):
        raise ValueError("a caption is empty")
    tokens = row.get("tokens") or [words or tag(text) for text, words in zip(captions, own)]
    tokens = [tokens.split()] if isinstance(tokens, str) else tokens
    if not all(map(_is_list_of_texts, tokens if isinstance(tokens, list) else [tokens])):
        raise ValueError("tokens are not a list of words for each caption")
    name = composed(re.sub(r"\.bvh$", "", name.replace("\\", "/"), flags=re.I))
    labels = [str(row.get(key) or "") for key in ("split", "content", "style")]
    if half := re.search("[\ud800-\udfff]", " ".join([*captions, *sum(map(list, tokens), []), *labels])):
        raise ValueError(f"half a character, {half[0]!r}: a cut emoji perhaps, remove it")
    return name, Described(captions, tuple(map(tuple, tokens)), *labels)


def _is_list_of_texts(words):
    return isinstance(words, (list, tuple)) and all(isinstance(word, str) for word in words)


def _caption(text):
    """A caption, or a line of HumanML3D's texts -> the caption, its tokens (() if it has none)."""
    try:
        line, start, end = parse_caption(text)
    except ValueError:
        return re.sub(r"[\s#]+", " ", text).strip(), ()
    if end:
        raise ValueError(f"a caption of seconds {start:g} to {end:g}: cut the motion there, write #0.0#0.0")
    return re.sub(r"\s+", " ", line.text), line.tokens
