import time

import pytest
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from evals.page.sign_in import LINK_SALT, SESSION_SALT, SignIn, SignInError

SECRET = b"only of the tests"
HOURS = 60 * 60


class Yesterday(TimestampSigner):
    def get_timestamp(self):
        return int(time.time()) - 13 * HOURS


def aged(salt, payload):
    """What was truly signed 13 hours ago."""
    return URLSafeTimedSerializer(SECRET, salt=salt, signer=Yesterday).dumps(payload)


@pytest.fixture
def sign_in():
    return SignIn(SECRET, ["ann", "Jürgen Groß"])


def test_a_link_names_its_reviewer(sign_in):
    for name in ("ann", "Jürgen Groß"):
        assert sign_in.reviewer(sign_in.token(name)) == name


def test_only_a_reviewer_gets_a_link(sign_in):
    with pytest.raises(SignInError, match="'eve' is not among the reviewers"):
        sign_in.token("eve")


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "\0", "é" * 1000, "WyJhbm4iXQ.aaaaaa.bbbbbb"])
def test_what_was_not_signed_here_is_not_valid(sign_in, token):
    with pytest.raises(SignInError, match=r"not valid; ask for a new link.*`stillhouse review`"):
        sign_in.reviewer(token)


def test_a_changed_token_and_anothers_secret_are_not_valid(sign_in):
    token = sign_in.token("ann")
    for forged in (SignIn(b"another", ["ann"]).token("ann"), token[:-2] + "xx", "x" + token):
        with pytest.raises(SignInError, match="not valid"):
            sign_in.reviewer(forged)


def test_an_old_link_says_for_how_long_it_was_good():
    with pytest.raises(SignInError, match=r"expired: it was good for 0.5 days; ask for a new link"):
        SignIn(SECRET, ["ann"], days=0.5).reviewer(aged(LINK_SALT, "ann"))


def test_a_removed_reviewer_can_neither_enter_nor_stay(sign_in):
    after = SignIn(SECRET, ["Jürgen Groß"])
    with pytest.raises(SignInError, match="not among the reviewers"):
        after.reviewer(sign_in.token("ann"))
    with pytest.raises(SignInError, match="not among the reviewers"):
        after.session(sign_in.cookie(sign_in.begin("ann")))


def test_a_session_survives_its_cookie(sign_in):
    session = sign_in.begin("ann")
    assert sign_in.session(sign_in.cookie(session)) == session
    assert sign_in.begin("ann") != session


def test_a_session_ends_after_twelve_hours_without_use(sign_in):
    with pytest.raises(SignInError, match="ended after 12 hours without use"):
        sign_in.session(aged(SESSION_SALT, ["ann", "id"]))


@pytest.mark.parametrize("cookie", [None, "", "x.y.z"])
def test_without_a_session_one_is_told_to_open_the_link(sign_in, cookie):
    with pytest.raises(SignInError, match="pen your sign-in link"):
        sign_in.session(cookie)


def test_a_link_is_no_session_and_a_session_no_link(sign_in):
    with pytest.raises(SignInError, match="not valid"):
        sign_in.session(sign_in.token("ann"))
    with pytest.raises(SignInError, match="not valid"):
        sign_in.reviewer(sign_in.cookie(sign_in.begin("ann")))


def test_a_csrf_token_fits_its_own_session_alone(sign_in):
    mine, other = sign_in.begin("ann"), sign_in.begin("ann")
    assert sign_in.csrf_fits(mine, sign_in.csrf(mine))
    for token in (sign_in.csrf(other), "", "x", "é"):
        assert not sign_in.csrf_fits(mine, token)
