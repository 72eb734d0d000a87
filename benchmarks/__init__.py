"""Side-by-side measurements against peers; each module prints the command that reproduces it."""
