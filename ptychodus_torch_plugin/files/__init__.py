"""File formats: every convention of a file is undone here, at the border."""
