"""The command line: `waypost`. Exit codes: 0 done, 1 refused or found wanting, 2 wrong usage, 3 no server there."""

from __future__ import annotations

import typer

from server.commands import bench, check, client, config, decisions, dlq, init, removal, run, train
from server.logs import configure

app = typer.Typer(
    name="waypost",
    help="Feature store and decision server for personalizing customer journeys.",
    epilog="Start with: waypost init my_repo && waypost check --repo my_repo && waypost up --repo my_repo",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
    rich_markup_mode="markdown",
)
for module in (init, check, run, client, decisions, train, removal, bench):
    module.register(app)
app.add_typer(config.app, name="config")
app.add_typer(dlq.app, name="dlq")


def main() -> None:
    """Entry point of the `waypost` program."""
    configure()
    app()


if __name__ == "__main__":
    main()
