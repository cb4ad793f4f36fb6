"""Where image pairs come from: synthetic scenes, photometric changes, HPatches folders, built-in photographs.

It imports ``models`` (for keypoints that are exported) and what lies below.
"""
