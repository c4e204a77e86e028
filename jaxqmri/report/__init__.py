"""Figures, colours and the page that shows the maps."""
