"""Every error that the package raises on purpose.

Each class stands for one kind of defect and also derives from the built-in exception that a
caller would expect (`ValueError` for a bad value, `RuntimeError` for a missing framework, ...), so
that programs can catch either.  A message says what happened, what was expected and how to mend it.
"""

from __future__ import annotations


class PluginError(Exception):
    """Base of all errors of this package; the command line turns it into exit code 2."""


class ConfigError(PluginError, ValueError):
    """A configuration has an unknown field, a value out of range, or a contradiction."""


class ShapeError(PluginError, ValueError):
    """An array has the wrong number of axes, the wrong lengths, or the wrong dtype."""


class ScanValueError(PluginError, ValueError):
    """The numbers of a scan make no sense: NaN, negative counts, nothing but zeros, no patterns."""


class ScanFileError(PluginError, ValueError):
    """A scan file is truncated, of an unknown kind, ambiguous, or lacks a key."""


class InputNotFoundError(PluginError, FileNotFoundError):
    """A file that the user named does not exist."""


class OutputError(PluginError, OSError):
    """An output cannot be written; whatever stood there before is untouched."""


class UnknownBackendError(PluginError, ValueError):
    """A backend was asked for that nobody provides."""


class BackendUnavailableError(PluginError, RuntimeError):
    """A known backend was asked for whose framework is missing, too old, or broken."""


class TrainingError(PluginError, RuntimeError):
    """Training cannot start or go on (no data left, loss not finite, resume from another run)."""


class BundleError(PluginError, ValueError):
    """A model bundle cannot be read; `bundle.archive` has one subclass per defect."""
