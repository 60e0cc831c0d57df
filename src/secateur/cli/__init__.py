"""The command line. Nothing heavy is imported before a command needs it: `secateur --help` answers at once."""

from secateur.cli.main import main

__all__ = ["main"]
