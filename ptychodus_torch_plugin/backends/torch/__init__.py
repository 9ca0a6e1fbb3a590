"""The PyTorch backend, trained by Lightning."""
