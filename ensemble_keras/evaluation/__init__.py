"""Evaluation: what the model is worth, as numbers, plots and a page."""
