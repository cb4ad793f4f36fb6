"""Errors as one line of text."""


def one_line(error: BaseException, longest: int = 200) -> str:
    """The message of an error without line breaks, at most ``longest`` characters.

    The operating system's own words where there are some, without the path that they name; the class where there is no
    message at all.
    """
    inner = getattr(error, "reason", error)  # what urllib wraps
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return " ".join(str(text).split())[:longest]
