"""The model bundle `wts.h5.zip`: safetensors and JSON in a zip, read without executing anything."""
