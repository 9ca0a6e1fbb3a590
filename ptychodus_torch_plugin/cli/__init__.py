"""The command line `ptychodus-torch-plugin`: one file per command."""
