"""Families: kinds of networks, one module each, that a search chooses from."""
