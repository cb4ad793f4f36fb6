"""Measure interest-point detectors on HPatches sequences, or on the built-in photographs. See --help."""

import sys

from kp.cli.evaluate import main

if __name__ == "__main__":
    sys.exit(main())
