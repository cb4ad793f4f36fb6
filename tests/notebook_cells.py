"""What test_notebooks.py runs in a process of its own: the cells of a notebook, as Jupyter would, without its start."""

import json
import os
import sys
from pathlib import Path


def main():
    """Run the cells in the file ``argv[1]``; the file ``argv[2]`` gets what they show, as media types, and stderr."""
    import matplotlib

    matplotlib.use("module://matplotlib_inline.backend_inline")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    notebook, into = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    os.chdir(notebook["folder"])
    shell, shown, errors = InteractiveShell.instance(), [], ""
    for code in notebook["code"]:
        with capture_output() as captured:
            shell.display_trap.hook = sys.displayhook  # of the value that a cell ends with
            result = shell.run_cell(code)
        result.raise_error()
        shown += [sorted(output.data) for output in captured.outputs]
        errors += captured.stderr
    into.write_text(json.dumps({"shown": shown, "errors": errors}))
