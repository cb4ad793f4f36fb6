"""The commands: ``kp``, ``evaluate.py`` and ``train_homographic.py``. They read settings, call the packages and print.

It may import every package; no package imports it.
"""
