"""The one exception that means: what was given is wrong, our code is not."""


class BadInput(Exception):
    """Bad flags, files or data. The message is one line: what is wrong, in which file, what to do about it.

    `utils.cli.run` prints it without a traceback and exits with 2; any other exception is our fault (exit 1).
    """
