"""Train an interest-point detector on synthetic geometry: no photograph, no download, no flag needed. See --help."""

import sys

from kp.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
