"""Pure parts of federated learning: tensors in, tensors out; no files, no configuration, no models."""
