"""How long a network takes on a device that is not at hand: features of its ops, fits, predictions with a band."""
