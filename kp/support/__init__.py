"""Helpers for every package: safe file writing, devices, signals, one-line errors, a process pool.

It imports nothing else of kp.
"""
