"""The one family of errors that is meant for the person at the keyboard."""


class RizbinError(Exception):
    """Says in one sentence what was wrong, where, and what to do next.

    The command line shows the sentence and exits 2; a traceback is for our own faults.
    """

    def __str__(self) -> str:
        """The sentence as any terminal and any file takes it.

        Names of files and columns stand in it, and those may hold bytes that are no UTF-8, or control characters that
        would move a terminal's cursor.
        """
        return printable(super().__str__())


def printable(text: str) -> str:
    """The text with lone surrogates and control characters, line breaks and tabs aside, spelled out as in Python."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" or not _harmful(letter) else repr(letter)[1:-1]
        for letter in text
    )


def _harmful(letter: str) -> bool:
    return ord(letter) < 32 or 0x7F <= ord(letter) < 0xA0 or 0xD800 <= ord(letter) < 0xE000
