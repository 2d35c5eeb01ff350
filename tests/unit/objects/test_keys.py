"""Keys, names and headers."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.errors import InvalidInput
from resilient.storage.objects._keys import (
    check_filename,
    check_key,
    check_owner,
    disposition,
    make_key,
    sanitise,
)


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".",
        "..",
        "../a.jpg",
        "a/../b",
        "/etc/passwd",
        "a/b.jpg",
        "a\\b",
        "a\nb",
        "a\x00b",
        "a\u202eb",
        "x" * 256,
        "a..b",
    ],
)
def test_a_dangerous_file_name_is_refused(name):
    """A folder, a way upwards, an absolute path, a control character, emptiness and length are refused."""
    with pytest.raises(InvalidInput):
        check_filename(name)


@pytest.mark.parametrize(
    "owner", ["", ".", "..", "bob/", "a/b", "/a", "a\\b", ".hidden", "a..b", "a\tb", "x" * 129, 7, None, "${filename}"]
)
def test_a_dangerous_owner_is_refused(owner):
    """An owner is one level of a key and no more."""
    with pytest.raises(InvalidInput):
        check_owner(owner)


@pytest.mark.parametrize("key", ["", "a/../b", "..", "./a", "a/.", "a\nb", "x" * 1025, "ü" * 513, None])
def test_a_key_whose_link_would_mean_another_is_refused(key):
    """Parts that clients shorten, control characters and over-long keys get no link."""
    with pytest.raises(InvalidInput):
        check_key(key)


@pytest.mark.parametrize("key", ["a b", "a+b", "a%2Fb", "ü/日本", "/lead", "a//b", "..a", "x" * 1024])
def test_an_unusual_key_is_taken(key):
    """A key may hold spaces, plus signs, percent signs, unicode and a leading slash."""
    assert check_key(key) == key


@given(st.text(max_size=300))
def test_a_sanitised_name_is_harmless(name):
    """Whatever comes in, what comes out is a short plain name."""
    safe = sanitise(name)
    assert 0 < len(safe) <= 100
    assert set(safe) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
    assert not safe.startswith(".")
    assert "/" not in safe


@given(st.text(min_size=1, max_size=255))
def test_a_header_cannot_be_broken_out_of(name):
    """A file name that is accepted makes one header of printable ASCII with two quotes."""
    try:
        header = disposition(name, inline=False)
    except InvalidInput:
        return
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2


def test_two_keys_for_one_name_differ():
    """Two uploads of one name by one owner in the same moment are two objects."""
    keys = {make_key("users/{owner}/", "alice", "a.jpg") for _ in range(100)}
    assert len(keys) == 100
    assert all(key.startswith("users/alice/") and key.endswith("/a.jpg") for key in keys)


@given(st.text(max_size=50), st.text(max_size=50))
def test_no_key_leaves_its_prefix(owner, name):
    """Any owner and name that are accepted give a key under the owner's prefix, without a way upwards."""
    try:
        key = make_key("users/{owner}/", owner, name)
    except InvalidInput:
        return
    assert key.startswith(f"users/{owner}/")
    assert len(key.removeprefix(f"users/{owner}/").split("/")) == 2
    assert ".." not in key
    assert not any(unicodedata.category(char) == "Cc" for char in key)


def test_characters_that_are_not_seen_are_refused():
    """Control characters, turned text, half a character, ends of lines and paragraphs."""
    for char in ("\n", "\u202e", "\ud800", "\u2028", "\u2029"):
        for check in (check_owner, check_filename):
            with pytest.raises(InvalidInput):
                check(f"a{char}b")


def test_half_a_character_is_no_key():
    """It has no UTF-8, so no link."""
    with pytest.raises(InvalidInput, match="control character"):
        check_key("a\ud800b")


def test_names_may_be_as_long_as_is_said():
    """The longest owner, file name and key are allowed."""
    assert check_owner("x" * 128) == "x" * 128
    assert check_filename("x" * 255) == "x" * 255
    assert check_key("ü" * 512) == "ü" * 512
    with pytest.raises(InvalidInput, match="1 to 255"):
        check_filename("")


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("._-a.jpg", "a.jpg"),
        ("Xa-_.jpg", "Xa-_.jpg"),
        ("photos-", "photos-"),
        ("a.tar.gz", "a.tar.gz"),
        ("é.x", "e.x"),
        ("日本", "file"),
        ("noending", "noending"),
        ("s" * 200, "s" * 100),
        ("s" * 200 + ".jpg", "s" * 96 + ".jpg"),
        ("a." + "s" * 200 + ".jpg", "a." + "s" * 94 + ".jpg"),
        ("s" * 200 + "." + "e" * 10, "s" * 89 + "." + "e" * 10),
        ("s" * 200 + "." + "e" * 11, "s" * 100),
    ],
)
def test_a_sanitised_name_keeps_its_ending(name, plain):
    """At most a hundred characters, of which an ending of ten is kept; a long one is no ending."""
    assert sanitise(name) == plain


def test_a_new_key_cannot_be_guessed():
    """128 random bits stand between the owner and the name."""
    first, second = (make_key("users/{owner}/", "alice", "a.jpg") for _ in range(2))
    assert first != second
    users, owner, random, name = first.split("/")
    assert (users, owner, name) == ("users", "alice", "a.jpg")
    assert len(bytes.fromhex(random)) == 16
