"""Who is at the page: a signed link starts a session, a signed cookie carries it. Nothing is kept on the server."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import uuid4

from itsdangerous import BadSignature, SignatureExpired, Signer, URLSafeTimedSerializer

from labels.errors import StillhouseError

LINK_SALT, SESSION_SALT, CSRF_SALT = "stillhouse link", "stillhouse session", "stillhouse csrf"
SESSION_HOURS = 12
DAY, HOUR = 24 * 60 * 60, 60 * 60
ASK = "ask for a new link: whoever runs Stillhouse gets it from `stillhouse review`"


class SignInError(StillhouseError):
    """Nobody is signed in: the link or the session is not valid, ended, or names nobody among the reviewers."""


@dataclass(frozen=True, slots=True)
class Session:
    """A reviewer at a browser, from the opening of a link until twelve hours without use."""

    reviewer: str
    id: str


class SignIn:
    """Makes and reads the signed texts. `secret` signs them, `days` is how long a link can be opened."""

    def __init__(self, secret: bytes, reviewers: Sequence[str], days: float = 30) -> None:
        self.reviewers, self.days = frozenset(reviewers), days
        self._links = URLSafeTimedSerializer(secret, salt=LINK_SALT)
        self._sessions = URLSafeTimedSerializer(secret, salt=SESSION_SALT)
        self._csrf = Signer(secret, salt=CSRF_SALT)

    def token(self, name: str) -> str:
        """The token of a reviewer's link: `/sign-in?token=…`. Raises SignInError where `name` is no reviewer."""
        return str(self._links.dumps(self._known(name)))

    def reviewer(self, token: str) -> str:
        """Who a link's token names. Raises SignInError where it is not valid, too old, or names no reviewer."""
        try:
            return self._known(str(self._links.loads(token, max_age=int(self.days * DAY))))
        except SignatureExpired:
            raise SignInError(f"This sign-in link has expired: it was good for {self.days:g} days; {ASK}.") from None
        except BadSignature:
            raise SignInError(f"This sign-in link is not valid; {ASK}.") from None

    def begin(self, name: str) -> Session:
        """A new session of a reviewer."""
        return Session(name, uuid4().hex)

    def cookie(self, session: Session) -> str:
        """The session as its cookie holds it; made anew at each answer, so that it ends after hours without use."""
        return str(self._sessions.dumps([session.reviewer, session.id]))

    def session(self, cookie: str | None) -> Session:
        """The session in a cookie. Raises SignInError where there is none, it ended, or it names no reviewer."""
        if not cookie:
            raise SignInError(f"You are not signed in. Open your sign-in link, or {ASK}.")
        try:
            reviewer, number = self._sessions.loads(cookie, max_age=SESSION_HOURS * HOUR)
        except SignatureExpired:
            raise SignInError(
                f"Your session ended after {SESSION_HOURS} hours without use. Open your sign-in link again, or {ASK}."
            ) from None
        except BadSignature:
            raise SignInError(f"Your session is not valid. Open your sign-in link again, or {ASK}.") from None
        return Session(self._known(reviewer), number)

    def csrf(self, session: Session) -> str:
        """What every form of the session carries, so that no other site can send one."""
        return self._csrf.get_signature(session.id).decode()

    def csrf_fits(self, session: Session, token: str) -> bool:
        """Whether a form's token is this session's."""
        return bool(self._csrf.verify_signature(session.id.encode(), token.encode()))

    def _known(self, name: str) -> str:
        if name not in self.reviewers:
            raise SignInError(f"{name!r} is not among the reviewers (any more); {ASK}.")
        return name
