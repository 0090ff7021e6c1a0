"""One paper, one file: each builds an Algorithm from the seats."""
