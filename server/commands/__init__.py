"""Subcommands of `waypost`, one module each; heavy imports happen inside the commands."""
