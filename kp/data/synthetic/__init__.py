"""Synthetic images with exact corners. ``render`` draws a mixture of families; the other modules draw one kind each."""
