"""Views on a model file: what is in it, and whether it is sound."""
