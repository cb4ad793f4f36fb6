"""``python -m kp``, the same as the command ``kp``."""

import sys


def main() -> int:
    """Run a command; returns its exit code. A missing package is one line that says how to install it."""
    try:
        from kp.cli.main import main as run

        return run()
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] == "kp":
            raise
        print(f"kp: error: this command needs the package {error.name}: pip install 'kp[all]'", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
