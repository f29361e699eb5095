"""Data: labelled images, read and decoded when needed."""
