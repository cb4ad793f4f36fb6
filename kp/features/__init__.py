"""What is done with keypoints: descriptors, matches, export to ONNX.

It imports ``data`` and what lies below; never ``training`` or ``evaluation``.
"""
