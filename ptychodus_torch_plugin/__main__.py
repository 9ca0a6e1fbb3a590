"""`python -m ptychodus_torch_plugin` is the command line."""

from ptychodus_torch_plugin.cli.app import main

if __name__ == '__main__':
    main()
