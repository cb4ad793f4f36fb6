"""Studies: ablations, statistics of the data sets, speed.

It imports ``training`` and what lies below.
"""
