"""Which Ptychodus the plugin knows, and the names under which the two find each other."""

from __future__ import annotations

SUPPORTED_PTYCHODUS = ((1, 7), (1, 8))
"""From which release on, and from which on no more."""

LIBRARY_NAME = 'PINN'
"""Name of the library in Ptychodus; keys of its algorithms begin with `pinn_`."""

LIBRARY_GROUP = 'ptychodus_torch_plugin.libraries'
"""Entry points that, called with Ptychodus' `SettingsRegistry`, return a `ReconstructorLibrary`."""

VIEW_GROUP = 'ptychodus_torch_plugin.views'
"""Entry points of the same names that, called with the library and Ptychodus' `FileDialogFactory`,
return the `ReconstructorViewControllerFactory` of its panels."""
