"""``flask resilient …``: the commands of the extension."""

from __future__ import annotations

import click
from flask import current_app
from flask.cli import AppGroup

from resilient.errors import ConfigurationError
from resilient.health.lines import exit_code, lines

__all__ = ["group"]

group = AppGroup("resilient", help="What is known of this application's dependencies.")


@group.command("health")
@click.option("--view", default="ready", show_default=True, help="live, ready, startup, all, or a group.")
def _health(view: str) -> None:
    """Run the checks and tell each; ends with 0 (welcome), 1 (not) or 2 (cannot be asked)."""
    state = current_app.extensions["resilient"]
    if state.health is None:
        click.echo("this application has no health: pass health= to Resilient", err=True)
        raise SystemExit(2)
    state.health.observe()  # this process serves nobody
    try:
        report = state.health.report(view)
    except ConfigurationError as error:  # no such view
        click.echo(str(error), err=True)
        raise SystemExit(2) from None
    for line in lines(report):
        click.echo(line)
    raise SystemExit(exit_code(report))
