"""The review page as an ASGI app, at / or mounted under any prefix.

It works by plain forms; with its script the same addresses answer a fetch by JSON that holds HTML. An answer says
"saved" only after `ReviewQueue.submit` came back, so what was said is durable by then (invariant 5).
"""

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from evals.page.answer import AnswerError, read_answer
from evals.page.fault import FAULTS, status_of, words_of
from evals.page.guard import HEADERS, LOOPBACK, Guard
from evals.page.html import Html
from evals.page.request import RefusedError, read_form, root, seconds, sent, text, wants_json
from evals.page.show import Values, allowed, changes, show
from evals.page.sign_in import SESSION_HOURS, Session, SignIn, SignInError
from evals.queue import Given, ReviewQueue
from labels.errors import LeaseError
from labels.headers import DefaultHeaders
from labels.records import Decision
from labels.task import Task

COOKIE = "stillhouse_review"
SAID = {
    "right": "Saved: right.",
    "corrected": "Saved: corrected.",
    "cant_tell": "Saved: can't tell.",
    "skipped": "Skipped.",
    "undone": "Taken back. Answer it again.",
    "nothing": "There is nothing to take back.",
}


def create_app(queue: ReviewQueue, task: type[Task], sign_in: SignIn, hosts: Sequence[str] | None = None) -> FastAPI:
    """The page over `queue`, whose labels are `task`'s, for those that `sign_in` lets in.

    `hosts` are the names it may be asked by (this machine's own, without). Raises SettingsError where one of the task's
    guardrails can't be used.
    """
    page = Page(queue, task, sign_in)
    app = FastAPI(title="Stillhouse review", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, hosts=LOOPBACK if hosts is None else hosts)
    app.add_middleware(DefaultHeaders, headers=HEADERS)  # the outer one: what the guard refuses has them too
    for fault in FAULTS:
        app.add_exception_handler(fault, page.fault)
    for path, answer in (("/", page.home), ("/recent", page.recent), ("/sign-in", page.enter), ("/session", page.who)):
        app.add_api_route(path, answer, methods=["GET"], response_model=None)
    for path, act in (
        ("/verdict", page.verdict),
        ("/skip", page.skip),
        ("/undo", page.undo),
        ("/sign-out", page.leave),
    ):
        app.add_api_route(path, act, methods=["POST"], response_model=None)
    app.add_api_route("/static/{digest}/{name}", page.html.file, methods=["GET"], response_model=None)
    return app


class Page:
    """The page's answers. Those that touch the queue run in threads: its transactions wait for the disk."""

    def __init__(self, queue: ReviewQueue, task: type[Task], sign_in: SignIn) -> None:
        self.queue, self.task, self.sign_in = queue, task, sign_in
        self.html = Html(sign_in, allowed(task))

    def home(self, request: Request, said: str = "") -> Response:
        """The query to judge; what happens next where none is left."""
        session = self._session(request)
        work = self._work(session) | {"said": SAID.get(said, "")}
        return self._page(request, session, "review", work)

    def recent(self, request: Request) -> Response:
        """The reviewer's last verdicts."""
        session = self._session(request)
        given = [(one, anew, changes(self.task, one)) for one, anew in self.queue.recent(session.reviewer)]
        return self._page(request, session, "recent", {"given": given})

    def enter(self, request: Request, token: str = "") -> Response:
        """Open a sign-in link: the cookie is set, and a page without the token in its address follows by itself.

        By a Refresh and no redirect: to a redirect that began at a link in somebody's mail, browsers send no
        SameSite=Strict cookie.
        """
        session = self.sign_in.begin(self.sign_in.reviewer(token))
        answer = self._page(request, session, "entered", {})
        answer.headers.update({"Referrer-Policy": "no-referrer", "Refresh": f"0; url={root(request)}/"})
        return answer

    def who(self, request: Request) -> Response:
        """For the script: who is signed in, and the token that forms need now."""
        session = self._session(request)
        body = {"reviewer": session.reviewer, "csrf": self.sign_in.csrf(session)}
        return self._signed(request, session, JSONResponse(body))

    async def verdict(self, request: Request) -> Response:
        """Save what the reviewer says of the label they hold."""
        return await run_in_threadpool(self._verdict, request, *await self._form(request))

    async def skip(self, request: Request) -> Response:
        """Leave the label to others."""
        return await run_in_threadpool(self._skip, request, *await self._form(request))

    async def undo(self, request: Request) -> Response:
        """Take the last verdict back."""
        return await run_in_threadpool(self._undo, request, *await self._form(request))

    async def leave(self, request: Request) -> Response:
        """End the session, and give back what the reviewer holds."""
        session, _ = await self._form(request)
        await run_in_threadpool(self.queue.leave, session.reviewer)
        words = "You are signed out. To go on, open your sign-in link again."
        answer = self._message(request, None, "Signed out", words, 200)
        answer.delete_cookie(COOKIE, path=root(request) or "/")
        return answer

    def fault(self, request: Request, error: Exception) -> Response:
        """What went wrong, in words; everything that was typed is kept, and can be sent again."""
        status, words = status_of(error), words_of(error, request.method)
        session = self._maybe(request)
        if wants_json(request):
            more = self._next(request, session) if status == 409 and session else {}
            return JSONResponse({"message": words} | more, status)
        title = {401: "Please sign in", 409: "Not yours any more"}.get(status, "That did not work")
        again = [] if status == 409 else sent(request)
        return self._message(request, session, title, words, status, again)

    def _verdict(self, request: Request, session: Session, form: FormData) -> Response:
        reviewer, lease, note = session.reviewer, text(form, "lease"), text(form, "note").strip()
        decision, value = text(form, "decision"), None
        if item := self.queue.held(reviewer, lease):
            typed = {
                name: [str(one) for one in form.getlist(f"value.{name}") if one] for name in self.task.model_fields
            }
            try:
                answer = read_answer(self.task, item, decision, typed, note, text(form, "sure"))
            except AnswerError as error:
                return self._ask_again(request, session, Given(lease, item), typed, note, error)
            decision, value = answer.decision, answer.value
        # Without an item `submit` gives the verdict that this lease became before, or says that it is not theirs.
        said = self.queue.submit(reviewer, lease, cast(Decision, decision), value, note, seconds(form))
        return self._went_well(request, session, said.decision)

    def _skip(self, request: Request, session: Session, form: FormData) -> Response:
        with suppress(LeaseError):  # sent twice, or gone to another: there is nothing to leave
            self.queue.skip(session.reviewer, text(form, "lease"))
        return self._went_well(request, session, "skipped")

    def _undo(self, request: Request, session: Session, form: FormData) -> Response:
        """`last` is the verdict that the reviewer means: sent twice, it takes back one."""
        undone = self.queue.undo(session.reviewer, text(form, "last"))
        return self._went_well(request, session, "undone" if undone else "nothing")

    def _went_well(self, request: Request, session: Session, said: str) -> Response:
        """After what was asked for is durable: its receipt, and the labels to show next."""
        if not wants_json(request):
            return self._signed(request, session, RedirectResponse(f"{root(request)}/?said={said}", 303))
        body = {"message": SAID[said]} | self._next(request, session)
        return self._signed(request, session, JSONResponse(body))

    def _ask_again(
        self, request: Request, session: Session, given: Given, typed: Values, note: str, error: AnswerError
    ) -> Response:
        """The same label with what was typed, and at each field what is wrong there."""
        work = {"shown": show(given, self.task, typed), "error": error, "note": note}
        if wants_json(request):
            item = self.html.render("item", request, session, work)
            return self._signed(request, session, JSONResponse({"message": str(error), "item": item}, 422))
        return self._page(request, session, "review", self._work(session) | work | {"said": "", "ahead": None}, 422)

    def _work(self, session: Session) -> dict[str, Any]:
        """What the review page is made of: the label to show, the one ahead of it, and how far all is."""
        given = [show(one, self.task) for one in self.queue.take(session.reviewer, 2)]
        shown, ahead = [*given, None, None][:2]
        progress, last = self.queue.progress(session.reviewer), self._last(session)
        return {"shown": shown, "ahead": ahead, "progress": progress, "last": last, "error": None, "note": None}

    def _next(self, request: Request, session: Session) -> dict[str, Any]:
        """The same as HTML for the script; in words why not, where the queue can't be used."""
        try:
            work = self._work(session)
        except (OSError, sqlite3.OperationalError) as error:
            return {"trouble": words_of(error, "GET")}  # what was said before is durable all the same
        shown = [{"shown": one} for one in (work["shown"], work["ahead"]) if one]
        items = [self.html.render("item", request, session, work | one) for one in shown]
        return {
            "items": items or [self.html.render("done", request, session, work)],
            "progress": self.html.render("progress", request, session, work),
        }

    def _last(self, session: Session) -> str:
        """The id of the verdict that an undo would take back, "" for none."""
        last = self.queue.last(session.reviewer)
        return last.id if last else ""

    def _session(self, request: Request) -> Session:
        return self.sign_in.session(request.cookies.get(COOKIE))

    def _maybe(self, request: Request) -> Session | None:
        with suppress(SignInError):
            return self._session(request)
        return None

    async def _form(self, request: Request) -> tuple[Session, FormData]:
        """Who sends the form, and what it says. Raises SignInError or RefusedError."""
        form = await read_form(request)
        session = self._session(request)
        if not self.sign_in.csrf_fits(session, text(form, "csrf")):
            raise RefusedError("Not saved: this page is of an earlier session. What you typed is kept; try again.")
        return session, form

    def _page(self, request: Request, session: Session, name: str, work: dict[str, Any], status: int = 200) -> Response:
        page = HTMLResponse(self.html.render(name, request, session, work), status)
        return self._signed(request, session, page)

    def _message(
        self,
        request: Request,
        session: Session | None,
        title: str,
        words: str,
        status: int,
        again: Sequence[tuple[str, str]] = (),
    ) -> Response:
        """A page of a few words, with a form that sends `again` what came to nothing."""
        work = {"title": title, "words": words, "again": again, "action": request.url.path}
        return HTMLResponse(self.html.render("message", request, session, work), status)

    def _signed(self, request: Request, session: Session, answer: Response) -> Response:
        """The answer with the session's cookie made anew: its hours count from the last use."""
        answer.set_cookie(
            COOKIE, self.sign_in.cookie(session), max_age=SESSION_HOURS * 3600, path=root(request) or "/",
            secure=request.url.scheme == "https", httponly=True, samesite="strict",
        )  # fmt: skip
        return answer
