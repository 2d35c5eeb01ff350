"""Sealed tokens."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.errors import ConfigurationError, Refused
from resilient.storage.objects._token import Grant, Sealer

GRANT = Grant("upload", "photos", "alice", "users/alice/1/a.jpg", 1, 10, "image/jpeg", 1000)
TOKEN = Sealer(["one"]).seal(GRANT)


def test_a_token_opens_with_any_secret_of_the_list():
    """After a new secret is put in front, tokens of the old one are still good."""
    assert Sealer(["two", "one"]).open(TOKEN, purpose="upload", now=0) == GRANT


def test_a_token_of_a_dropped_secret_is_refused():
    """Once the old secret is gone, so are its tokens."""
    with pytest.raises(Refused):
        Sealer(["two"]).open(TOKEN, purpose="upload", now=0)


def test_a_token_is_refused_for_another_purpose_and_after_its_end():
    """Purpose and expiry are part of what is sealed."""
    sealer = Sealer(["one"])
    with pytest.raises(Refused, match="purpose"):
        sealer.open(TOKEN, purpose="download", now=0)
    sealer.open(TOKEN, purpose="upload", now=999.9)
    with pytest.raises(Refused, match="expired"):
        sealer.open(TOKEN, purpose="upload", now=1000)


@given(st.integers(0, len(TOKEN) - 1), st.characters(codec="ascii"))
def test_a_token_changed_in_one_character_is_refused(index, char):
    """No character of a token is free to change."""
    changed = TOKEN[:index] + char + TOKEN[index + 1 :]
    if changed != TOKEN:
        with pytest.raises(Refused):
            Sealer(["one"]).open(changed, purpose="upload", now=0)


@given(st.one_of(st.text(max_size=200), st.just("." * 5000), st.none(), st.just(TOKEN + "="), st.just(TOKEN + ".x")))
def test_what_is_no_token_is_refused(text):
    """Anything at all may be handed in; it is refused, not stumbled over."""
    with pytest.raises(Refused):
        Sealer(["one"]).open(text, purpose="upload", now=0)


def test_the_secret_itself_is_not_the_key():
    """A token cannot be forged by something else that signs with the same secret."""
    import hmac

    body = base64.urlsafe_b64decode(TOKEN.partition(".")[0] + "==")
    mac = base64.urlsafe_b64encode(hmac.digest(b"one", body, "sha256")).rstrip(b"=").decode()
    with pytest.raises(Refused):
        Sealer(["one"]).open(f"{TOKEN.partition('.')[0]}.{mac}", purpose="upload", now=0)


def test_secrets_are_checked_where_they_are_given():
    """A string instead of a list, and an empty secret, are mistakes told at once; none at all, when it is needed."""
    with pytest.raises(ConfigurationError):
        Sealer("secret")
    with pytest.raises(ConfigurationError):
        Sealer(["good", ""])
    with pytest.raises(ConfigurationError):
        Sealer([]).seal(GRANT)
    with pytest.raises(ConfigurationError):
        Sealer([]).open(TOKEN, purpose="upload", now=0)


def test_a_secret_may_be_text_or_bytes():
    """Both ways of writing one secret are the same secret."""
    assert Sealer([b"one"]).seal(GRANT) == TOKEN
    with pytest.raises(ConfigurationError):
        Sealer([b""])


def test_a_token_may_be_of_any_length_up_to_the_longest():
    """Whatever the length of what it grants: it opens, up to 4,096 characters; a longer one is not even read."""
    for length in range(8):
        grant = Grant("upload", "photos", "a" * length, "k", 1, 10, "image/jpeg", 1000)
        assert Sealer(["one"]).open(Sealer(["one"]).seal(grant), purpose="upload", now=0) == grant
