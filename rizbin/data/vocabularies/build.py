"""Builds the small vocabulary: byte-pair merges for short English captions of everyday things.

Two steps, each of which gives the same file again:

    python -m rizbin.data.vocabularies.build words     # words.txt: words and weights, from installed packages
    python -m rizbin.data.vocabularies.build merges    # small.txt.gz: the merges learned from words.txt

`words.txt` stays in the tree because its sources change with the versions of Python, open_clip and timm: the categories
of the embedded world, the names of emoji in Python's `unicodedata` (Unicode licence), the ImageNet class names and
caption templates in open_clip (MIT), and how often words occur in the WordNet definitions of ImageNet's categories in
timm (WordNet licence). The words that captions are built of are listed below.

Algorithm: byte-pair encoding, Sennrich et al., arXiv 1508.07909. File format: that of open_clip's SimpleTokenizer (a
header line, then one merge a line, no newline at the end).
"""

import gzip
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from rizbin.data.scenes.captions import plural
from rizbin.data.scenes.vocabulary import CODES

HERE = Path(__file__).parent
WORDS = HERE / "words.txt"
MERGES = HERE / "small.txt.gz"
MERGE_COUNT = 1534
"""Merges; with 256 bytes, 256 bytes that end a word and 2 special tokens they make 2048 tokens."""
WORD_COUNT = 4000
HEADER = "#version: rizbin small 1"

GRAMMAR = """
a an the of in on at to and or with without no not near next beside between behind before after under below above over
by from into onto inside outside left right top bottom upper lower middle center corner side edge front back background
one two three four five six seven eight nine ten zero many several few some both each other another same only
small tiny little medium big large huge giant long short tall wide thin thick round square
red green blue yellow orange purple pink brown black white gray grey golden silver cyan magenta turquoise beige
dark light bright pale colorful plain striped textured cluttered gradient empty full pattern
there is are was has have it its this that these those which who where here show shows shown showing contains see seen
photo picture image drawing icon painting sketch scene view symbol sign emoji cartoon clip art illustration
close far away together alone standing sitting lying running flying facing looking holding wearing made
person man woman boy girl child people face hand eye hair head body cat dog bird fish horse cow tree flower leaf plant
house building car bus truck train boat ship plane bicycle road street city sky sea sun moon star cloud rain snow fire
water food fruit apple banana bread cake cup bottle glass table chair bed book ball box bag hat shoe shirt
"""
"""Words of captions, above all those of the embedded world's grammar."""
GRAMMAR_WEIGHT, CATEGORY_WEIGHT, PLURAL_WEIGHT = 20000, 6000, 1000
EMOJI_WEIGHT, CLASS_WEIGHT, DEFINITION_WEIGHT = 200, 20, 1
"""Grammar is in every caption, the embedded world's categories are next; the rest is what real captions hold."""
NO_THING = r"\b(FACE|SYMBOL|SIGN|SIGNS|SQUARED|MARK|HAND|FINGER|ARROW|DIGRAM|TRIGRAM|BUTTON|CHESS|ELECTRIC|LOT OF)\b"
"""Emoji whose names hold one of these words are no things that one meets in an image."""


def collect_words() -> Counter[str]:
    """Words with their weights from the sources named above; needs open_clip and timm."""
    import timm
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES, OPENAI_IMAGENET_TEMPLATES

    weights: Counter[str] = Counter()
    definitions = Path(timm.__file__).parent / "data/_info/imagenet_synset_to_definition.txt"
    for line in definitions.read_text(encoding="utf-8").splitlines():
        _add(weights, line.partition("\t")[2], DEFINITION_WEIGHT)
    for text in [*IMAGENET_CLASSNAMES, *(template("") for template in OPENAI_IMAGENET_TEMPLATES)]:
        _add(weights, text, CLASS_WEIGHT)
    _add(weights, _each_once(_emoji_names()), EMOJI_WEIGHT)
    _add(weights, _each_once(CODES), CATEGORY_WEIGHT)
    _add(weights, _each_once(plural(name) for name in CODES), PLURAL_WEIGHT)
    _add(weights, _each_once([GRAMMAR]), GRAMMAR_WEIGHT)
    return Counter(dict(sorted(weights.items(), key=lambda item: (-item[1], item[0]))[:WORD_COUNT]))


def learn(weights: dict[str, int], count: int) -> list[tuple[str, str]]:
    """The first `count` merges, the pair with the greatest weight first; ties in alphabetical order."""
    spelled: dict[str, tuple[str, ...]] = {word: (*word[:-1], word[-1] + "</w>") for word in weights}
    pair_weight: Counter[tuple[str, str]] = Counter()
    words_with: dict[tuple[str, str], set[str]] = defaultdict(set)

    def tally(word: str, sign: int) -> None:
        for pair in zip(spelled[word], spelled[word][1:], strict=False):
            pair_weight[pair] += sign * weights[word]
            words_with[pair].add(word)

    for word in weights:
        tally(word, 1)
    merges: list[tuple[str, str]] = []
    made: set[str] = set()
    while len(merges) < count:
        pair = min(pair_weight, key=lambda pair: (-pair_weight[pair], pair))
        if pair_weight[pair] <= 0:
            raise ValueError(f"the words give {len(merges)} merges only")
        # Two merges with the same result would be one token, and leave a hole in SimpleTokenizer's numbering.
        if "".join(pair) in made:
            del pair_weight[pair]
            continue
        merges.append(pair)
        made.add("".join(pair))
        for word in sorted(words_with.pop(pair)):
            tally(word, -1)
            spelled[word] = _join(spelled[word], pair)
            tally(word, 1)
        pair_weight.pop(pair, None)
    return merges


def pack(merges: list[tuple[str, str]]) -> bytes:
    """The merges as SimpleTokenizer reads them; the same bytes for the same merges (no time, no name in the header)."""
    text = "\n".join([HEADER, *(" ".join(pair) for pair in merges)])
    return gzip.compress(text.encode("utf-8"), mtime=0)


def read_words(path: Path = WORDS) -> dict[str, int]:
    """Words and weights of `words.txt`."""
    pairs = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {word: int(weight) for word, weight in pairs}


def _add(weights: Counter[str], text: str, weight: int) -> None:
    for word in re.findall(r"[a-z]+", text.lower()):
        if len(word) <= 16:
            weights[word] += weight


def _each_once(texts: Iterable[str]) -> str:
    return " ".join(sorted({word for text in texts for word in text.split()}))


def _emoji_names() -> Iterator[str]:
    """Unicode's names of pictographs; arrows, ornaments and alchemy between the blocks are left out."""
    for code in (*range(0x2600, 0x2700), *range(0x1F300, 0x1F650), *range(0x1F680, 0x1F700), *range(0x1F900, 0x1FB00)):
        name = unicodedata.name(chr(code), "")
        if unicodedata.category(chr(code)) == "So" and not re.search(NO_THING, name):
            yield name


def _join(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """The word with every occurrence of the pair made one piece."""
    pieces: list[str] = []
    position = 0
    while position < len(word):
        if word[position : position + 2] == pair:
            pieces.append("".join(pair))
            position += 2
        else:
            pieces.append(word[position])
            position += 1
    return tuple(pieces)


def main(step: str) -> None:
    """Writes `words.txt` or `small.txt.gz`."""
    if step == "words":
        lines = (f"{word} {weight}\n" for word, weight in collect_words().items())
        WORDS.write_text("".join(lines), encoding="utf-8")
    elif step == "merges":
        MERGES.write_bytes(pack(learn(read_words(), MERGE_COUNT)))
    else:
        sys.exit(f"'{step}' is no step; the steps are: words, merges.")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) == 2 else "")
