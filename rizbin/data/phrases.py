"""The noun phrases of a caption: "A man riding a horse on the beach." is "a man", "a horse" and "the beach".

No model is read and nothing is downloaded. Words are classed by short lists and by their endings, and a caption is cut
where English ends a noun phrase: at punctuation, conjunctions, prepositions, pronouns and verbs. Captions of the
embedded world are split exactly; captions written by people are split as well as lists of words can do it.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

MAX_PHRASES = 12
"""Most phrases of one caption. The busiest preset of the embedded world names six; descriptions on the web go on."""
MAX_WORDS = 8
"""Most words of a phrase that has a determiner; what is longer is a sentence that was not understood."""
MAX_WORDS_BARE = 4
"""The same without a determiner: past this it is a title, a list of keywords, or another language."""
MAX_CHARACTERS = 1_000
"""Characters of a caption that are read; text encoders read about 300."""


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


ARTICLES = _words("a an the some any this that these those its his her their my your our")
"""Articles, and the determiners that stand in their place."""
AMOUNTS = _words("several many few")
NUMBERS = _words("one two three four five six seven eight nine ten eleven twelve dozen hundred")
ADJECTIVES = _words(
    "red yellow green blue purple pink brown black white gray grey golden beige violet turquoise cyan magenta",
    "crimson scarlet maroon navy teal colorful colored bright dark pale shiny striped spotted small big large",
    "tiny little huge giant tall short long old new young cute beautiful fluffy furry round square wooden metallic",
)
"""Colors, sizes and the like, which say what something is like and are hardly ever part of its name."""
MATERIALS = _words("orange gold silver light metal plastic glass leather stone")
"""The same words say what something is like and what it is: "an orange car", "an orange"."""
_DETERMINERS = ARTICLES | AMOUNTS | _words("each every another both all half various no")
_BEFORE_DETERMINERS = _words("all both half")
# Sometimes part of a name ("hot dog"), so that a phrase must not lose them.
_MORE_ADJECTIVES = _words(
    "very happy sad empty full open wet dry clean dirty hot cold lovely pretty nice great good high low wide narrow",
    "thick thin fat heavy modern ancient vintage antique elderly female male adult sunny cloudy snowy grassy sandy",
    "rocky dusty busy quiet different other same blonde blond bald double single multiple lone fresh raw ripe",
)
PLACES = _words(
    "left right top bottom center centre middle front back side sides background foreground corner edge end ends",
    "distance upper lower far near rear other others same next first second last third way ways lot lots one ones",
)
"""No object by themselves: "on the left", "at the top right", "in the background"."""
ABOUT = _words(
    "picture pictures photo photos photograph photographs image images scene scenes view views shot shots",
    "close-up closeup painting drawing sketch illustration render rendering portrait snapshot selfie screenshot",
    "footage video videos",
)
"""What a caption says of the image itself, where "of" or "with" follows."""
GROUPS = _words(
    "group groups pair pairs couple couples bunch bunches herd flock set row rows pile kind kinds type types",
    "number variety series collection array part parts piece pieces",
)
"""Amounts: no phrase of their own where another with a determiner follows ("a group of three zebras")."""

_SIDES = _words("left right")
_BETWEEN = _words(
    "with without on onto in into inside at by near nearby beside besides behind under underneath below beneath",
    "above over against between among amid across around along alongside through throughout from to toward",
    "towards plus versus vs while who whom whose which that than as when where if because for after before during",
    "about off out up down away next outside within via per like upon past since until till beyond i you he she",
    "it we they him them me us himself herself itself themselves what something someone everyone there here",
    "there's it's that's he's she's they're we're i'm don't not but so then just also too together still now",
    "today yesterday only even instead almost upside close is are was were be been being am has have had do does",
    "did could will would should may might must let's see sees saw seen show shows shown showing contains contain",
    "made taken worn drawn held built done given lit sat stood lay lain ate rode ran wore flew went came got took",
    "gave hung laid rode",
)
"""Never inside a noun phrase: prepositions, pronouns, adverbs, auxiliaries, and verbs that are no nouns."""
_VERBS = _words(
    "sits stands lies rides runs walks plays holds wears eats looks carries flies jumps sleeps drinks drives",
    "reads talks works waits watches throws catches hits kicks swings pulls pushes rests leans hangs grows shines",
    "covers surrounds features includes uses takes makes gets gives goes comes moves poses smiles performs",
    "prepares enjoys leads follows faces chases crosses fills lays leaves lives turns travels attends arrives",
    "celebrates speaks swims",
)
"""Verbs of one subject, and sometimes plural nouns: verbs where a noun stands before them."""
_PLURAL_VERBS = _words(
    "can sit stand lie ride run walk play hold wear eat look carry fly jump sleep drink drive read talk work wait",
    "watch throw catch hit kick swing pull push rest lean hang grow shine cover surround feature include use take",
    "make get give go come move pose smile perform prepare enjoy lead follow face chase cross fill live turn",
    "travel attend arrive swim",
)
"""Verbs of several subjects, and often nouns: verbs where a plural stands before them."""
_PLURALS = _words("men women people children mice geese sheep deer fish oxen feet teeth cattle police")
_ING_NOUNS = _words(
    "building buildings ceiling painting wedding evening morning clothing pudding dumpling duckling railing",
    "awning meeting parking lighting crossing earring outing landing bowling darling herring lightning sibling",
    "sapling inning pudding drawing sterling starling viking offspring anything everything nothing stocking icing",
    "frosting topping carving",
)
_ED_NOUNS = _words("seed weed steed breed reed moped feed speed need deed bobsled watershed")
_LY_NOUNS = _words(
    "family butterfly dragonfly firefly fly belly jelly lily holly bully doily ally supply italy july gully",
    "assembly lolly monopoly anomaly barfly mayfly gadfly",
)
# Words of other languages that are hardly ever English ones; where they outnumber English ones, nothing is split.
_FOREIGN = _words(
    "el la los las un una unos unas en con por para del der das und ein eine einen einem mit auf im von zu den",
    "dem le les des du une et dans avec sur pour au aux il lo gli di della nel che uma com em het een van op",
    "met och med til de da e y o ve bir ile nad w z na po dla og och av",
)
_JUNK = re.compile(
    r"[#@][\w-]+|https?://\S+|www\.\S+|\b[\w-]+\.(?:jpe?g|png|gif|webp|bmp|tiff?|com|org|net)\b|\b\w*_\w*"
)
_MAYBE_JUNK = re.compile(r"[#@_/]|\.\w")
_TOKEN = re.compile(r"[^\W_]+(?:[-'\u2019][^\W_]+)*|[^\w\s]+|[\n\r_]")

_CLASSES: dict[str, str] = {
    **dict.fromkeys(ADJECTIVES | MATERIALS | _MORE_ADJECTIVES, "adjective"),
    **dict.fromkeys(_ING_NOUNS | _ED_NOUNS | _LY_NOUNS, "noun"),
    **dict.fromkeys(_VERBS, "verb"),
    **dict.fromkeys(_PLURAL_VERBS, "plural verb"),
    **dict.fromkeys(_DETERMINERS, "determiner"),
    **dict.fromkeys(NUMBERS, "number"),
    **dict.fromkeys(_BETWEEN, "between"),
    **dict.fromkeys(_SIDES, "side"),
    **dict.fromkeys(("and", "or", "&", ","), "and"),
    "of": "of",
}
_ENGLISH = frozenset({"determiner", "number", "between", "and", "of"})
_CONTENT = frozenset({"noun", "adjective", "verb", "plural verb", "ing", "ed", "digits", "side"})
_STARTS = frozenset({"determiner", "number", "digits", "adjective", "noun", "plural verb", "ed", "ly", "side"})


class Token(NamedTuple):
    """A word or a run of punctuation."""

    word: str
    start: int
    end: int
    kind: str


class NounPhrase(NamedTuple):
    """A noun phrase, and where it stands."""

    text: str
    """Lower case, as the caption has it: "two small cats"."""
    start: int
    """Position of its first character in the lower-cased caption."""
    end: int
    """Position after its last."""


def phrases(caption: str) -> list[str]:
    """The noun phrases of a caption, lower case, with determiners and adjectives, in the order of the caption.

    Each is a piece of the lower-cased caption and no two overlap; at most `MAX_PHRASES`, of at most `MAX_WORDS` words.
    Sides and words about the image itself are left out ("on the left", "an image of"), as are links, file names and
    hashtags.

    The list is empty where nothing was understood: other languages and alphabets, lists of keywords, hashtags alone,
    a bare title. The whole caption is then the one phrase that there is.
    """
    return [phrase.text for phrase in phrases_with_spans(caption)]


@lru_cache(maxsize=65_536)
def phrases_with_spans(caption: str) -> tuple[NounPhrase, ...]:
    """The noun phrases that `phrases` finds, each with its position in the lower-cased caption."""
    text = caption.lower()
    tokens = _tokens(text)
    english = sum(token.kind in _ENGLISH for token in tokens if token.word[0].isalpha())
    foreign = sum(token.word in _FOREIGN for token in tokens)
    if not english or foreign > english:
        return ()
    result: list[NounPhrase] = []
    position = 0
    while position < len(tokens) and len(result) < MAX_PHRASES:
        end = _end(tokens, position)
        if end > position:
            if _is_phrase(tokens, position, end):
                first, last = tokens[position].start, tokens[end - 1].end
                result.append(NounPhrase(text[first:last], first, last))
            position = end
        else:
            position += 1
    return tuple(result)


def _tokens(text: str) -> list[Token]:
    beginning = text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS].rsplit(maxsplit=1)[0]
    # Punctuation of the same length, so that positions stay.
    if _MAYBE_JUNK.search(beginning):
        beginning = _JUNK.sub(lambda match: ";" * len(match.group()), beginning)
    return [Token(match[0], *match.span(), _kind(match[0])) for match in _TOKEN.finditer(beginning)]


@lru_cache(maxsize=65_536)
def _kind(word: str) -> str:
    """The class of a word, by the lists and else by its ending; "between" for punctuation."""
    known = _CLASSES.get(word)
    if known is not None:
        return known
    if not word[0].isalnum():
        return "between"
    if word[0].isdigit():
        return "digits" if word.isdigit() else "noun"
    for ending in ("ing", "ed", "ly"):
        stem = word.removesuffix(ending)
        # "king", "red" and "sky" are no such forms: what stands before the ending has a vowel.
        if stem != word and any(letter in "aeiouy" for letter in stem):
            return ending
    return "noun"


def _end(tokens: Sequence[Token], first: int) -> int:
    """The position after the noun phrase that starts at `first`; `first` itself where none can."""
    if tokens[first].kind not in _STARTS:
        return first
    headed = False  # whether a word has come that names an object
    position = first
    while position < len(tokens):
        kind = tokens[position].kind
        following = tokens[position + 1].kind if position + 1 < len(tokens) else "between"
        if kind == "noun":
            headed = True
        elif kind == "and":
            if headed or not _joins_adjectives(tokens, first, position):
                break
        elif kind == "of":
            named = headed or tokens[position - 1].word in MATERIALS  # "a glass of milk"
            if not named or _stands_apart(tokens, position, following):
                break
        elif kind in ("between", "determiner", "number"):
            if kind == "between" or (position > first and not _adds_amount(tokens, first, position)):
                break
        elif headed:
            if _ends_headed(kind, tokens[position - 1].word, following):
                break
        elif kind not in ("adjective", "digits") and not (kind in ("ing", "ed", "ly") and following in _CONTENT):
            headed = True
        position += 1
    return position


def _adds_amount(tokens: Sequence[Token], first: int, position: int) -> bool:
    """Whether a determiner or number goes on with those before it: "all the dogs", "a few dogs", "the two dogs"."""
    before = tokens[position - 1]
    return position == first + 1 and (
        before.word in _BEFORE_DETERMINERS
        or (before.kind == "determiner" and (tokens[position].kind == "number" or tokens[position].word in AMOUNTS))
    )


def _joins_adjectives(tokens: Sequence[Token], first: int, position: int) -> bool:
    """Whether "and" or a comma stands between two adjectives: "a black and white cat", "a small, furry dog"."""
    return (
        first < position < len(tokens) - 2
        and tokens[position - 1].kind in ("adjective", "ed")
        and tokens[position + 1].kind in ("adjective", "ed")
        and tokens[position + 2].kind in _CONTENT | {"and"}
    )


def _stands_apart(tokens: Sequence[Token], position: int, following: str) -> bool:
    """Whether "of" ends a phrase: "the side of the road", but "a loaf of bread"."""
    word = tokens[position - 1].word
    return word in PLACES or word in ABOUT or following not in _CONTENT


def _ends_headed(kind: str, before: str, following: str) -> bool:
    """Whether a word of this kind ends a phrase that has its noun already."""
    if kind == "ed":  # "a car parked on", but "a brick walled garden"
        return following not in _CONTENT
    if kind == "plural verb":
        return before in _PLURALS or (before.endswith("s") and not before.endswith("ss"))
    return kind in ("ing", "ly", "verb", "side")


def _is_phrase(tokens: Sequence[Token], first: int, end: int) -> bool:
    """Whether these words name an object."""
    content = [
        token for token in tokens[first:end] if token.kind not in ("determiner", "number", "digits", "and", "of")
    ]
    if not any(len(token.word) > 1 and token.word[0].isalpha() for token in content):
        return False
    last = content[-1]
    has_determiner = tokens[first].kind in ("determiner", "number", "digits")
    if end - first > (MAX_WORDS if has_determiner else MAX_WORDS_BARE):
        return False
    if all(token.word in PLACES for token in content):
        return False
    if all(token.kind == "adjective" for token in content):
        return has_determiner and last.word in MATERIALS
    if not has_determiner and all(token.kind in ("ed", "ly", "plural verb") for token in content):
        return False
    after = tokens[end].word if end < len(tokens) else ""
    if last.word in ABOUT:
        return after not in ("of", "with", "showing", "shows", "that", "in", "from")
    if last.word in GROUPS:
        return after != "of"
    return True
