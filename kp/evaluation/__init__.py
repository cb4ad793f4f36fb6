"""How detectors are measured: metrics, protocols, baselines, the benchmark loop, result files.

It imports ``features`` and what lies below.
"""
