"""One file for each project that takes a detector of its own kind: hloc, glue-factory, vismatch.

None is imported by kp; each needs the project that it is for.
"""
