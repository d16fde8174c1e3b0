"""The commands about releases: releases, rollback, diff. Heavy imports come after parsing, as in flows/cli.py."""

from typing import Annotated

import typer

from flows.options import JsonOption, ProfileOption, SetOption, WorkOption, out, settings_of, show


def releases(
    profile: ProfileOption = "laptop", work: WorkOption = None, set_: SetOption = None, as_json: JsonOption = False
) -> None:
    """The releases that were served, the latest last: entries, traffic they were forecast to answer, memory, student.

    [bold]stillhouse rollback RELEASE[/] serves a kept one again; [bold]stillhouse diff[/] says what the last one changed.
    """
    settings = settings_of(profile, work, set_)
    from flows.releases import list_releases
    from flows.tables import releases_table

    rows = list_releases(settings)
    show(rows, as_json, lambda: releases_table(rows))


def rollback(
    release: Annotated[str | None, typer.Argument(help="A release; the one before the current unless told.")] = None,
    profile: ProfileOption = "laptop",
    work: WorkOption = None,
    set_: SetOption = None,
) -> None:
    """Serve an earlier release again, in one atomic step, once every server of lookups has its student ready.

    Where the record of the one served was lost, that one is served again. What people said since stays: it is given whatever
    the release. [bold]stillhouse releases[/] lists those that are kept.
    """
    settings = settings_of(profile, work, set_)
    from flows.online import roll_back

    served = roll_back(settings, release)
    out.print(f"release {served.release} is served: {served.entries:,} entries of night {served.night}")


def diff(
    before: Annotated[str | None, typer.Argument(help="A release; the one before the other unless told.")] = None,
    after: Annotated[str | None, typer.Argument(help="Another one; the current unless told.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Show so many labels, the most frequent first; 0: all.")] = 50,
    profile: ProfileOption = "laptop",
    work: WorkOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """What changed between two releases: labels added, removed and changed, by the last night's traffic.

    [bold]stillhouse diff[/] says what the current release changed; [bold]stillhouse diff rA rB[/] compares any two that are
    kept.
    """
    settings = settings_of(profile, work, set_)
    from flows.releases import changes
    from flows.tables import changes_table

    found = changes(settings, before, after, limit)
    show(found, as_json, lambda: changes_table(found))


def add_release_commands(app: typer.Typer) -> None:
    """Put the commands on the command line."""
    for command in (releases, rollback, diff):
        app.command()(command)
