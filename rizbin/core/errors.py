"""The one family of errors that is meant for the person at the keyboard."""


class RizbinError(Exception):
    """Says in one sentence what was wrong, where, and what to do next.

    The command line shows the sentence and exits 2; a traceback is for our own faults.
    """
