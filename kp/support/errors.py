"""Errors as one line of text."""


def one_line(error: BaseException, max_length: int = 200) -> str:
    """The message of an error without line breaks, at most ``max_length`` characters.

    For an error of the operating system this is its own text, without the path. For an error without a message it is
    the name of its class.
    """
    inner = getattr(error, "reason", error)  # urllib wraps the first error
    text = getattr(inner, "strerror", None) or str(inner) or type(inner).__name__
    return " ".join(str(text).split())[:max_length]
