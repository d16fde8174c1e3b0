"""`stillhouse review` and its commands. Heavy imports come after parsing, as in flows/cli.py."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from flows.options import JsonOption, ProfileOption, SetOption, WorkOption, err, out, settings_of, show

review_commands = typer.Typer(
    help="The page people verify labels on, and what their verdicts say.", rich_markup_mode="rich"
)


@review_commands.callback()
def review(
    context: typer.Context,
    profile: ProfileOption = "laptop",
    host: Annotated[str | None, typer.Option(help="Loopback unless told. \\[default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="\\[default: 8018]")] = None,
    work: WorkOption = None,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the first reviewer's page in the browser.")
    ] = False,
    set_: SetOption = None,
) -> None:
    """Serve the page people verify labels on; each reviewer's link is printed.

    Who may review is a setting: [bold]--set 'review.reviewers=["ana", "ben"]'[/]; without it, you. What they say is in the
    cache at once, and in the next night's gate, training and examples.
    """
    if context.invoked_subcommand:
        return
    settings = settings_of(profile, work, set_, review__host=host, review__port=port)
    from cache.serve import run as serve_app
    from flows.reviewing import links, serve_review

    if open_:
        typer.launch(links(settings)[0]["link"])
    serve_review(settings, serve_app)


@review_commands.command("status")
def review_status(
    profile: ProfileOption = "laptop", work: WorkOption = None, set_: SetOption = None, as_json: JsonOption = False
) -> None:
    """How far people are, how right the teacher is by their verdicts so far, and how well reviewers agree."""
    settings = settings_of(profile, work, set_)
    from flows.reviewing import status
    from flows.tables import answer_table

    found = status(settings)
    show(found, as_json, lambda: answer_table(found))


@review_commands.command("links")
def review_links(
    profile: ProfileOption = "laptop", work: WorkOption = None, set_: SetOption = None, as_json: JsonOption = False
) -> None:
    """Print each reviewer's own link; whoever has it signs in as them."""
    settings = settings_of(profile, work, set_)
    from flows.reviewing import links

    rows = links(settings)
    show(rows, as_json, lambda: "\n".join(f"{row['reviewer']}  {row['link']}" for row in rows))


@review_commands.command("export")
def review_export(
    file: Annotated[Path, typer.Argument(help="Where to write it.")],
    format_: Annotated[str, typer.Option("--format", help="jsonl, label-studio or argilla.")] = "jsonl",
    profile: ProfileOption = "laptop",
    work: WorkOption = None,
    set_: SetOption = None,
) -> None:
    """Write what people are asked, and what they said, for another tool to take."""
    settings = settings_of(profile, work, set_)
    from flows.reviewing import export

    out.print(export(settings, file, format_), soft_wrap=True)


@review_commands.command("import")
def review_import(
    file: Annotated[Path, typer.Argument(help="What another tool wrote; its format is recognised.")],
    profile: ProfileOption = "laptop",
    work: WorkOption = None,
    set_: SetOption = None,
) -> None:
    """Take verdicts given elsewhere. What can't be taken is listed, and exits with 1; taking a file twice adds nothing."""
    settings = settings_of(profile, work, set_)
    from flows.reviewing import take_in

    taken, problems = take_in(settings, file)
    out.print(f"{taken:,} verdicts taken")
    for problem in problems:
        err.print(f"[bold red]not taken:[/] {escape(problem)}", soft_wrap=True)
    if problems:
        raise typer.Exit(1)
