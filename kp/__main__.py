"""``python -m kp``: the same as the command ``kp``."""

import sys

from kp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
