"""Captions of the demo set: sentences for each action, with lemma/POS tokens as HumanML3D has them.

A sentence has placeholders: {who}, {his}, {side} left or right, {how} slowly or quickly, {times}; the last
two may stay empty.
"""

PEOPLE = (
    ("a person", "their"),
    ("someone", "their"),
    ("a man", "his"),
    ("a woman", "her"),
    ("the person", "their"),
)
TIMES = {1: "", 2: "twice", 3: "three times", 4: "four times", 5: "five times"}
WALK = (
    "{who} walks forward {how}",
    "{who} is walking straight ahead {how}",
    "{who} {how} walks in a straight line",
    "{who} takes several steps forward {how}",
    "{who} walks ahead {how}",
)
SENTENCES = {
    "walk": WALK,
    "walk_slow": WALK,
    "walk_fast": WALK,
    "walk_curve": (
        "{who} walks in a curve to the {side}",
        "{who} walks forward and curves to the {side}",
        "{who} is walking in an arc to the {side}",
        "{who} walks along a path that bends to the {side}",
    ),
    "walk_around": (
        "{who} walks forward, turns around and walks back",
        "{who} walks ahead and then turns around and returns",
        "{who} walks forward and comes back",
        "{who} turns around while walking and goes back to the start",
    ),
    "backward": (
        "{who} walks backwards {how}",
        "{who} takes several steps back {how}",
        "{who} is stepping backwards {how}",
        "{who} {how} moves backward",
    ),
    "side": (
        "{who} sidesteps to the {side} {how}",
        "{who} steps sideways to the {side} {how}",
        "{who} moves to the {side} with side steps {how}",
        "{who} {how} shuffles sideways to the {side}",
    ),
    "run": (
        "{who} runs forward",
        "{who} is running straight ahead",
        "{who} jogs forward",
        "{who} runs in a straight line",
    ),
    "crouch": (
        "{who} walks forward while crouching {how}",
        "{who} {how} sneaks forward in a crouch",
        "{who} crouches down and walks forward {how}",
        "{who} moves forward with bent knees close to the ground {how}",
    ),
    "jump": (
        "{who} jumps up {times}",
        "{who} is jumping in place {times}",
        "{who} jumps straight up into the air {times}",
        "{who} leaps up on the spot {times}",
    ),
    "jump_forward": (
        "{who} jumps forward {times}",
        "{who} leaps forward with both feet {times}",
        "{who} jumps ahead {times}",
        "{who} is jumping forward with both legs {times}",
    ),
    "hop": (
        "{who} hops on {his} {side} foot {times}",
        "{who} hops in place on the {side} leg {times}",
        "{who} is hopping on {his} {side} leg {times}",
        "{who} bounces on the {side} foot {times}",
    ),
    "squat": (
        "{who} squats down and stands up {times} {how}",
        "{who} squats {times} {how}",
        "{who} bends {his} knees into a squat and rises {times} {how}",
        "{who} is doing squats {times} {how}",
    ),
    "sit": (
        "{who} sits down {how}",
        "{who} sits down on a chair {how}",
        "{who} {how} takes a seat",
        "{who} {how} lowers into a chair",
    ),
    "stand_up": (
        "{who} stands up from a chair {how}",
        "{who} gets up from a chair {how}",
        "{who} {how} rises from a seat",
        "{who} is sitting and then stands up {how}",
    ),
    "bow": (
        "{who} bows {how}",
        "{who} {how} takes a bow",
        "{who} bends forward to bow {how}",
        "{who} bows down to greet {how}",
    ),
    "wave": (
        "{who} waves with {his} {side} hand {how}",
        "{who} raises the {side} hand and waves {how}",
        "{who} is waving {his} {side} hand {how}",
        "{who} {how} waves hello with the {side} arm",
    ),
    "clap": (
        "{who} claps {his} hands {times}",
        "{who} is clapping {times}",
        "{who} claps {times}",
        "{who} claps both hands together {times}",
    ),
    "kick": (
        "{who} kicks with {his} {side} leg {times} {how}",
        "{who} kicks forward with the {side} foot {times} {how}",
        "{who} lifts {his} {side} leg and kicks {times} {how}",
        "{who} is kicking with {his} {side} foot {times} {how}",
    ),
    "punch": (
        "{who} punches with {his} {side} hand {times} {how}",
        "{who} punches forward with {his} {side} fist {times} {how}",
        "{who} strikes with the {side} fist {times} {how}",
        "{who} is boxing with {his} {side} arm {times} {how}",
    ),
    "raise": (
        "{who} raises {his} {side} arm {how}",
        "{who} lifts the {side} arm above the head {how}",
        "{who} puts {his} {side} hand up in the air {how}",
        "{who} {how} raises and lowers {his} {side} arm",
    ),
    "raise_both": (
        "{who} raises both arms {how}",
        "{who} lifts both arms above the head {how}",
        "{who} puts both hands up in the air {how}",
        "{who} {how} raises and lowers both arms",
    ),
    "turn": (
        "{who} turns to the {side} on the spot {how}",
        "{who} turns to {his} {side} in place {how}",
        "{who} {how} rotates to the {side}",
        "{who} is turning to the {side} while standing {how}",
    ),
    "turn_around": (
        "{who} turns around on the spot {how}",
        "{who} turns to face the other way {how}",
        "{who} makes a half turn in place {how}",
        "{who} {how} turns around to look behind",
    ),
    "stand_walk": (
        "{who} stands up from a chair and walks forward",
        "{who} gets up from a seat and then walks ahead",
        "{who} rises from a chair and walks away",
    ),
}
# word or word:lemma; where a word stands twice, the later tag wins
_TAGGED = {
    "DET": "a an the both",
    "PRON": "someone their his her that",
    "CCONJ": "and",
    "NUM": "three four five",
    "AUX": "is",
    "ADP": "in on to with from into along while after before above",
    "ADV": """forward ahead slowly quickly backwards backward back sideways twice up down then together around
        away behind hello first finally afterwards""",
    "ADJ": "several bent close half other",
    "VERB": """walks:walk walking:walk takes:take curves:curve bends:bend turns:turn turning:turn
        stepping:step returns:return comes:come goes:go moves:move steps:step shuffles:shuffle
        sidesteps:sidestep runs:run running:run jogs:jog crouching:crouch sneaks:sneak crouches:crouch
        jumps:jump jumping:jump leaps:leap hops:hop hopping:hop bounces:bounce squats:squat stands:stand
        standing:stand rises:rise doing:do sits:sit sitting:sit lowers:lower gets:get bows:bow greet
        look face waves:wave waving:wave raises:raise claps:clap clapping:clap kicks:kick lifts:lift
        kicking:kick punches:punch strikes:strike boxing:box puts:put rotates:rotate makes:make
        stops:stop taking:take going:go moving:move sidestepping:sidestep shuffling:shuffle leaping:leap
        squatting:squat bending:bend lowering:lower bowing:bow punching:punch striking:strike raising:raise
        lifting:lift putting:put rotating:rotate""",
    "NOUN": """person man woman line curve arc path start knees:knee ground crouch place air spot side
        feet:foot foot legs:leg leg times:time squat chair seat bow hands:hand hand arms:arm arm fist
        head way turn""",
}
# words that our sentences use in two ways: (word before, word) -> token
_BY_CONTEXT = {
    ("side", "steps"): "step/NOUN",
    ("several", "steps"): "step/NOUN",
    ("doing", "squats"): "squat/NOUN",
    ("to", "bow"): "bow/VERB",
    ("a", "straight"): "straight/ADJ",
}


def _lexicon():
    words = {"straight": "straight/ADV"}
    for tag, entries in _TAGGED.items():
        for entry in entries.split():
            word, _, lemma = entry.partition(":")
            words[word] = f"{lemma or word}/{tag}"
    return words


LEXICON = _lexicon()
LIMBS = {"hand", "arm", "leg", "foot", "fist"}


def tokens(caption):
    """Caption -> its words as lemma/POS, without punctuation; KeyError for a word outside LEXICON."""
    words = caption.replace(",", "").rstrip(".").split()
    out = []
    for before, word, after in zip(["", *words], words, [*words[1:], ""]):
        if word in ("left", "right"):
            out.append(f"{word}/{'ADJ' if after in LIMBS else 'NOUN'}")
        else:
            out.append(_BY_CONTEXT.get((before, word)) or LEXICON[word])
    return out


def captions(action, side, how, reps, rng):
    """3-4 different sentences about one clip."""
    sentences = SENTENCES[action]
    out = []
    for index in rng.permutation(len(sentences))[:4]:
        who, his = PEOPLE[rng.integers(len(PEOPLE))]
        text = sentences[index].format(who=who, his=his, side=side, how=how, times=TIMES.get(reps, ""))
        out.append(" ".join(text.split()))
    return out
