"""Combiners: layers that join members into one model."""
