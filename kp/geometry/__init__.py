"""Coordinates, homographies and their measures.

``coords`` states the one coordinate convention and is the only module that samples or warps. It imports ``support``
and ``config``.
"""
