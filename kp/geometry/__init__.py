"""Coordinates, homographies and measures of homographies.

``coords`` states the one coordinate convention. It is the only module that samples or warps images. The package imports
``support`` and ``config``.
"""
