"""Code: a network's graph as text of Python, from single values up to functions."""
