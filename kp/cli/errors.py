"""How every command ends: an error is one line on stderr and an exit code."""

import sys
from collections.abc import Callable

from kp.support.errors import explained, one_line

ERROR, INTERRUPTED = 1, 130  # exit codes


def exit_code(
    program: str,
    action: Callable[[], object],
    expected: tuple[type[Exception], ...] = (),
    interrupted: Callable[[], str] = lambda: "interrupted",
    error_code: int = ERROR,
) -> int:
    """Run ``action``; returns 0, or prints one line and returns the exit code of the error.

    ValueError, OSError and the ``expected`` classes are errors of the user's input or machine, and so is a lack of
    memory or a device that fails, of whatever class (:func:`kp.support.errors.explained`). Any other exception is a
    fault of kp and keeps its traceback. ``interrupted`` gives the message after Ctrl-C.
    """
    try:
        action()
    except KeyboardInterrupt:
        print(f"\n{program}: {interrupted()}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        text = explained(error)
        if text is None and not isinstance(error, (ValueError, OSError, *expected)):
            raise
        text = text or str(error) or one_line(error)
        print(f"{program}: error: {' '.join(text.split())}", file=sys.stderr)
        return error_code
    return 0
