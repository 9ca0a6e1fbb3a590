"""For all tests: what is random is the same every time, and a busy machine fails nobody."""

from hypothesis import settings

settings.register_profile('steady', deadline=None, derandomize=True, print_blob=True)
settings.load_profile('steady')
