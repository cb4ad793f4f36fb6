"""The detector and what it is made of: encoders, score-map head, keypoints, weights and their cost.

It imports ``geometry`` and what lies below.
"""
