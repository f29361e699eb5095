"""Backbones: networks from raw pixels to features."""
