"""One error per defect of a bundle; all of them are `BundleError`.

Text that comes from a file is quoted through `quoted`, so that a hostile name can neither flood a
terminal nor move its cursor.
"""

from __future__ import annotations

from ptychodus_torch_plugin.errors import BundleError, InputNotFoundError

_QUOTED_LENGTH = 80


class BundleNotFoundError(BundleError, InputNotFoundError):
    """The named file does not exist, or the named folder holds no bundle."""


class BundleAccessError(BundleError, OSError):
    """The operating system refuses to open the file."""


class NotABundleError(BundleError):
    """The file is something else than a bundle of this package."""


class ForeignBundleError(NotABundleError):
    """The file is a model archive of another program, which this package will not execute."""


class UnsafeMemberError(BundleError):
    """A member has a name, a kind or an encoding that no bundle may have."""


class BundleLimitError(BundleError):
    """Something is larger, longer or deeper than a bundle may be."""


class CorruptBundleError(BundleError):
    """The file was a bundle once: it is truncated, altered, or contradicts itself."""


class BundleVersionError(BundleError):
    """The bundle has a major format version that this release does not read."""


class BundleContentError(BundleError):
    """The manifest, the history, the probe or the preview says something that it may not say."""


class BundleWeightsError(BundleError):
    """Tensors are missing, unexpected, misshaped, of the wrong dtype, or not finite."""


def quoted(text: object) -> str:
    """Return `text` for a message: escaped, quoted and cut to a bounded length."""
    shown = str(text)
    return repr(shown if len(shown) <= _QUOTED_LENGTH else shown[:_QUOTED_LENGTH] + '...')
