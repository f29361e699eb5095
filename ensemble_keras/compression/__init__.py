"""Compression: members and ensembles made smaller for real: fewer channels, one student, fewer bits."""
