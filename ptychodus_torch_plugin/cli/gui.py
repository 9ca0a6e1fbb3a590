"""`gui`: Ptychodus with the plugin."""

import typer

OPTIONS_OF_PTYCHODUS = {
    'ignore_unknown_options': True,
    'allow_extra_args': True,
    'help_option_names': [],
}


def gui(context: typer.Context) -> int:
    """Start Ptychodus with the plugin; takes all options of the program 'ptychodus'.

    For installations where Ptychodus does not find the plugin by itself; 'doctor' says so.
    """
    from ptychodus_torch_plugin.integration.launcher import launch

    return launch(context.args)
