"""Features: one pass over the images, kept on disk by content."""
