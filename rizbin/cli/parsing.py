"""Words of the command line into values; tyro's framed complaints into one sentence."""

import contextlib
import difflib
import io
import re
from collections.abc import Sequence
from typing import Any

from rizbin.core.errors import RizbinError


def near(word: str, known: list[str]) -> str:
    """Advice for a word that is not among the known ones."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}."


_WITHOUT_THINGS = frozenset(
    word
    for line in (
        "a an the and or of with without on in under over above below at by near next to left right two three from",
        "behind beside between is are",
    )
    for word in line.split()
)
"""Words that nobody asks for alone: as arguments by themselves they are words of a prompt without its quotes."""


def check_quotes(prompts: Sequence[str], before: str) -> None:
    """Raises RizbinError where a prompt came word by word, since its quotes were left out.

    before: the command up to its prompts, for the advice.
    """
    if len(prompts) > 1 and any(one.casefold().strip(".,") in _WITHOUT_THINGS for one in prompts):
        whole = " ".join(prompts).replace('"', "'")
        raise RizbinError(
            f"{len(prompts)} prompts were given, one of them without a thing; put all words of a prompt in quotes: "
            f'{before} "{whole}".'
        )


def parse(target: Any, words: list[str], name: str, *, repeat: bool = False) -> Any:
    """What tyro makes of the words; its framed complaints become one sentence.

    repeat: a flag with several values is given once for each.
    """
    import tyro

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config = (tyro.conf.UseAppendAction,) if repeat else ()
            return tyro.cli(target, args=words, prog=f"rizbin {name}", config=config)
    except SystemExit as end:
        if end.code in (0, None):
            raise
    raise RizbinError(_complaint(said.getvalue(), name))


def _complaint(framed: str, name: str) -> str:
    """tyro's framed error as one sentence; what is not recognized here comes through in tyro's own words."""
    bare = [re.sub(r"[╭╮╰╯│─]|-{9,}", " ", line).strip() for line in framed.splitlines()]
    said = re.split(r"\n{2,}", "\n".join(bare[1:]).strip("\n"))  # without the title; rules have become empty lines
    reason = " ".join(said[0].split()).rstrip(".")
    reason = re.sub(r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not a whole number", reason)
    reason = re.sub(r"could not convert string to float: (.*)", r"\1 is not a number", reason)
    reason = re.sub(r"^Missing from [^:]*: (\S+) .*", r"\1 is missing", reason)
    close = re.search(r"--[\w.-]+", said[1]) if said[1:] and said[1].startswith("Perhaps") else None
    advice = f"did you mean {close.group()}?" if close else f"`rizbin {name} --help` lists what there is."
    return f"{reason[:1].upper()}{reason[1:]}; {advice}"
