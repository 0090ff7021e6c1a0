"""The base model, its adapter, and the one local training loop."""
