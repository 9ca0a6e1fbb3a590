"""Shim of ptychodus-torch-plugin: Ptychodus calls it when it starts, and it never fails."""


def register_plugins(registry: object) -> None:  # noqa: ARG001 - nothing of ours is in its categories
    """Add the reconstructors; if that is not possible, say why in the log."""
    try:
        from ptychodus_torch_plugin.integration.bridge import install

        install()
    except Exception as error:  # noqa: BLE001, RUF100 - Ptychodus must start, whatever is wrong here
        import logging

        text = 'ptychodus-torch-plugin is left out: %s: %s (%s)'
        logger = logging.getLogger('ptychodus_torch_plugin')
        logger.warning(text, type(error).__name__, error, __file__)
