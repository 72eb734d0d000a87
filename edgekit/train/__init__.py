"""Training what gets deployed: networks with several exits. Needs edgekit-sdk[train]."""
