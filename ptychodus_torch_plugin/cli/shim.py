"""`install-shim` and `uninstall-shim`: make Ptychodus find the plugin by itself, or no more."""

import typer


def install_shim() -> None:
    """Write the file by which Ptychodus finds the plugin into Ptychodus' folder.

    Needed only where 'doctor' says that Ptychodus does not find it by itself.
    """
    from ptychodus_torch_plugin.integration import shim

    typer.echo(shim.install_shim())


def uninstall_shim() -> None:
    """Remove the file that 'install-shim' wrote."""
    from ptychodus_torch_plugin.integration import shim

    typer.echo(shim.uninstall_shim())
