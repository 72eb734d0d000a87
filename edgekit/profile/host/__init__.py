"""A profile of the machine at hand: small networks timed in an engine, and costs of kernels fitted to them."""
