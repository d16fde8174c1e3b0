"""The command line. Heavy imports come after parsing, so that `--help` answers at once."""

import atexit
import errno
import json
import os
import sys
import traceback
from typing import Annotated

import typer
from rich.markup import escape

from demo.settings import demo_settings
from flows.environment import prepare_prefect
from flows.options import (
    CatalogueOption,
    JsonOption,
    LogOption,
    ProfileOption,
    SetOption,
    WorkOption,
    err,
    settings_of,
    show,
)
from flows.release_commands import add_release_commands
from flows.review_commands import review_commands
from flows.settings import DEFAULT_WORK, parse_sets
from flows.student_commands import add_student_commands
from labels.errors import StillhouseError
from labels.signals import sigterm_as_ctrl_c

GATE_REFUSED = 3
STOPPED = 130  # as shells have it for Ctrl-C
INTERRUPTED = "Query interrupted"  # DuckDB's RuntimeError in place of the KeyboardInterrupt that came amid a query

app = typer.Typer(
    help="Distil a large teacher into a cache for head queries and a small student for the tail, every night.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(review_commands, name="review", invoke_without_command=True)
add_student_commands(app)
add_release_commands(app)


@app.command()
def night(
    profile: ProfileOption = "laptop",
    log: LogOption = None,
    catalogue: CatalogueOption = None,
    gold: Annotated[str | None, typer.Option(help="Held-out right answers, to measure by.")] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Publish though the gate refuses; the release says so for good.")
    ] = False,
    work: WorkOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run one night: label, sample, train, measure, gate, publish, report.

    Run it again after a kill or on the same input: what is done is not done again. Columns are named by settings:
    [bold]--set log.query=search_term --set catalogue.title=name[/]. Exits 3 where the gate refuses to publish.
    """
    paths = {"log__path": log, "catalogue__path": catalogue, "gold__path": gold}
    settings = settings_of(profile, work, set_, **paths)
    from flows.night import check_inputs

    check_inputs(settings)  # here too: before the seconds that Prefect takes to import
    prepare_prefect(settings.folder)
    from flows.nightly import run_night
    from flows.screen import Screen
    from flows.tables import night_table

    summary = run_night(settings, Screen(), force=force)
    show(summary, as_json, lambda: night_table(summary, settings))
    if not summary["published"]:
        raise typer.Exit(GATE_REFUSED)


@app.command()
def label(
    profile: ProfileOption = "laptop",
    log: LogOption = None,
    catalogue: CatalogueOption = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Ask nothing: show three prompts, and the tokens, time and cost to expect."),
    ] = False,
    why: Annotated[
        str | None, typer.Option(metavar="QUERY", help="Say why this query would, or would not, be asked.")
    ] = None,
    work: WorkOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Only label: take the log, retrieve facts, ask the teacher what is new or changed.

    Run it again after a kill: what is labelled is not asked again. [bold]stillhouse night[/] does this and all the rest.
    """
    settings = settings_of(profile, work, set_, log__path=log, catalogue__path=catalogue)
    from flows.labelling import explain_one, forecast_labelling, run_labelling
    from flows.tables import answer_table, forecast_table

    if why is not None:
        answer = explain_one(settings, why)
        show(answer, as_json, lambda: answer_table(answer))
    elif dry_run:
        forecast = forecast_labelling(settings)
        show(forecast, as_json, lambda: forecast_table(forecast))
    else:
        summary = run_labelling(settings)
        show(summary, as_json, lambda: answer_table(summary))


@app.command()
def demo(
    work: WorkOption = None,
    rows: Annotated[int, typer.Option(help="Rows of the invented log.")] = 200_000,
    queries: Annotated[int, typer.Option(help="Distinct queries of the invented shop.")] = 9_000,
    set_: SetOption = None,
) -> None:
    """A whole night on an invented shop, with real parts and tiny models; then a few lookups."""
    settings = settings_of("laptop", work, set_, **demo_settings(work or DEFAULT_WORK))
    prepare_prefect(settings.folder)
    from flows.demo import run_demo

    if not run_demo(settings, rows, queries):
        raise typer.Exit(GATE_REFUSED)


@app.command()
def lookup(
    query: Annotated[str, typer.Argument(help="Any text a shopper may type.")],
    profile: ProfileOption = "laptop",
    work: WorkOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Ask the release being served: the cache answers, on a miss the student.

    Where this machine serves no student yet it is started for this one question (about half a minute); keep it
    running with [bold]stillhouse serve[/].
    """
    settings = settings_of(profile, work, set_)
    from flows.online import look_up
    from flows.tables import answer_table

    answer = look_up(settings, query)
    show(answer, as_json, lambda: answer_table(answer))


@app.command()
def serve(
    profile: ProfileOption = "laptop",
    host: Annotated[str | None, typer.Option(help="Loopback unless told. \\[default: 127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="\\[default: 8017]")] = None,
    work: WorkOption = None,
    set_: SetOption = None,
) -> None:
    """Serve lookups over HTTP: [bold]GET /v1/lookup?q=[/] and POST, /healthz, /readyz, /metrics, /openapi.json.

    The student rolls with the release: the next one is started and warmed before a switch, the old one stops after it.
    [bold]--set serve.workers=4[/] serves from so many processes; API keys come from STILLHOUSE_API_KEYS. The review page is
    at /review, by the links of [bold]stillhouse review links[/].
    """
    settings = settings_of(profile, work, set_, serve__host=host, serve__port=port)
    from flows.online import serve_lookups

    serve_lookups(settings)


@app.command()
def labels(
    what: Annotated[str | None, typer.Argument(help='Nothing, "SELECT …", or the word why.')] = None,
    query: Annotated[str | None, typer.Argument(help="The query to explain, after why.")] = None,
    profile: ProfileOption = "laptop",
    work: WorkOption = None,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """A summary of all labels; SQL over them ([bold]labels[/], [bold]verdicts[/], [bold]queries[/]); or why one is as it is.

    [bold]stillhouse labels "SELECT query, value FROM labels WHERE status = 'rejected'"[/]
    [bold]stillhouse labels why "verdant machine smoothie"[/]
    """
    settings = settings_of(profile, work, set_)
    from flows.browse import explain, run_sql, summary
    from flows.tables import one_by_one, rows_table

    if what == "why":
        rows = explain(settings, query or "")
        show(rows, as_json, lambda: one_by_one(rows))
    else:
        rows = run_sql(settings, what) if what else summary(settings)
        show(rows, as_json, lambda: rows_table(rows))


@app.command()
def schedule(profile: ProfileOption = "laptop", work: WorkOption = None, set_: SetOption = None) -> None:
    """Run the night every night, at the profile's cron line in its time zone; stop it with Ctrl-C."""
    settings = settings_of(profile, work, set_)
    changes = parse_sets(set_ or []) | ({"work": str(settings.folder)})
    prepare_prefect(settings.folder)
    from prefect.schedules import Cron

    from flows.nightly import nightly
    from flows.server import prefect_server
    from flows.waiting import resuming

    cron = settings.schedule
    err.print(f"The night runs at {cron.cron!r}, {cron.timezone}; Ctrl-C stops it. State: {settings.folder}")
    with prefect_server(settings.folder), resuming(settings):
        nightly.serve(
            name=f"stillhouse-{settings.profile}",
            schedule=Cron(cron.cron, timezone=cron.timezone),
            parameters={"profile": profile, "changes": changes},
            print_starting_message=False,
        )


@app.command()
def report(
    night: Annotated[str | None, typer.Argument(help="A night's id; the last one unless told.")] = None,
    profile: ProfileOption = "laptop",
    work: WorkOption = None,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = True,
    set_: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Open a night's report: one HTML page with plots and tables."""
    settings = settings_of(profile, work, set_)
    from flows.browse import night_folder

    page = night_folder(settings, night) / "report.html"
    summary = json.loads((page.parent / "summary.json").read_text(encoding="utf-8"))
    show(summary, as_json, lambda: str(page))
    if open_ and not as_json:
        typer.launch(page.as_uri())


@app.command()
def doctor(
    profile: ProfileOption = "laptop", work: WorkOption = None, set_: SetOption = None, as_json: JsonOption = False
) -> None:
    """Say what is installed, reachable and missing, and what to do about it. Exits 1 where something is missing."""
    settings = settings_of(profile, work, set_)
    from flows.doctor import examine
    from flows.tables import rows_table

    rows = examine(settings)
    show(rows, as_json, lambda: rows_table(rows))
    if not all(row["ok"] for row in rows):
        raise typer.Exit(1)


def main() -> None:
    """Run the command; every error of ours is one message on stderr and a non-zero exit."""
    with sigterm_as_ctrl_c():
        code = run()
    # DuckDB's and vLLM's bindings print leak reports while the interpreter is torn down; everything of ours is closed.
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def run() -> int:
    """The command's exit code; its errors are printed."""
    try:
        app()
    except SystemExit as ending:
        code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
        return stop() if code == STOPPED else code  # Typer makes that of a KeyboardInterrupt
    except StillhouseError as error:
        return fail(str(error))
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            traceback.print_exc()
            return 1
        what = f"the disk is full ({error.strerror}, writing {error.filename or 'the work folder'})"
        kept = "what was labelled, reviewed and released is kept. Free some space and run the same command again"
        return fail(f"{what}; {kept}")
    except Exception as error:
        if str(error) == INTERRUPTED:
            return stop()
        traceback.print_exc()
        return 1
    return 0


def stop() -> int:
    """Say that the command was told to end; its exit code."""
    err.print("stopped; run the same command again to go on where it stopped")
    return STOPPED


def fail(message: str) -> int:
    """One message on stderr; the exit code of an error."""
    err.print(f"[bold red]error:[/] {escape(message)}", soft_wrap=True)
    return 1


if __name__ == "__main__":
    main()
