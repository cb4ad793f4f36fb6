"""Descriptors of keypoints, matches, and the export of a detector to ONNX.

It imports ``data`` and lower packages, but not ``training`` or ``evaluation``.
"""
