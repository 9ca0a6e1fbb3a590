"""Models that PtychoPINN trained, read without it, without its frameworks, and as data alone."""
