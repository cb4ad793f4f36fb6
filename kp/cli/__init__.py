"""The commands: ``kp``, ``evaluate.py`` and ``train_homographic.py``. They read settings, call the packages and print.

It may import every package; no package imports it.
"""

import os

# before torch is imported: idle OpenMP threads sleep, and do not take the cores of other programs
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
