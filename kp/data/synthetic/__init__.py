"""Synthetic images and their exact corners: ``render`` draws a mixture of the families of the other modules."""
