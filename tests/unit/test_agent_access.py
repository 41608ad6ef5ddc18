"""Who is let in: tokens, roles, guesses, sessions, forms of other sites."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from lockstep.agent.access import (
    FREE,
    LONGEST_WAIT,
    PEERS,
    Access,
    DeniedError,
    Guesses,
    Role,
    WaitError,
    neighbourhood,
)
from lockstep.agent.page_sign_in import local
from lockstep.agent.sessions import SESSIONS, Sessions, same_origin
from lockstep.agent_settings import AgentSettings, TokenSettings

ALICE, VERA = "alice-" + "a" * 30, "vera-" + "v" * 30


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def access(clock: Clock) -> Access:
    tokens = {
        "alice": TokenSettings.model_validate({"role": "operator", "token": ALICE}),
        "vera": TokenSettings.model_validate({"role": "viewer", "token": VERA}),
    }
    return Access(tokens, clock)


def test_a_token_names_its_person_and_role() -> None:
    found = access(Clock()).person(ALICE, "10.0.0.1")
    assert (found.name, found.role) == ("alice", Role.OPERATOR)
    assert access(Clock()).person(VERA, "10.0.0.1").role < Role.OPERATOR < Role.APPROVER


@given(st.text(max_size=60))
def test_no_other_text_is_a_token(text: str) -> None:
    with pytest.raises(DeniedError):
        access(Clock()).person(text, "10.0.0.1")


def test_nobody_is_let_in_without_tokens() -> None:
    nobody = Access({}, Clock())
    assert not nobody.anybody
    with pytest.raises(DeniedError):
        nobody.person("", "10.0.0.1")


def guess(tried: Access, number: int, peer: str = "10.0.0.1") -> None:
    with pytest.raises(DeniedError):
        tried.person(f"guess {number}", peer)


def test_guessing_takes_longer_and_longer_and_right_tokens_wait_as_well() -> None:
    clock = Clock()
    tried = access(clock)
    waits = []
    for number in range(FREE + 12):
        guess(tried, number)
        if number < FREE - 1:
            continue
        with pytest.raises(WaitError) as told:
            tried.person(ALICE, "10.0.0.1")
        waits.append(told.value.seconds)
        clock.now += told.value.seconds
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (1, LONGEST_WAIT)
    assert tried.person(ALICE, "10.0.0.1").name == "alice"
    for number in range(FREE - 1):  # and its wrong ones are forgotten
        guess(tried, number)
    assert tried.person(ALICE, "10.0.0.1").name == "alice"


def test_a_program_with_an_old_token_locks_nobody_out() -> None:
    tried = access(Clock())
    for _ in range(100):
        guess(tried, 1)
    assert tried.person(ALICE, "10.0.0.1").name == "alice"


def test_one_peer_does_not_make_another_wait() -> None:
    tried = access(Clock())
    for number in range(FREE):
        guess(tried, number)
    with pytest.raises(WaitError):
        tried.person(ALICE, "10.0.0.1")
    assert tried.person(ALICE, "10.0.0.2").name == "alice"


def test_guesses_are_bounded_in_memory() -> None:
    guesses = Guesses(Clock())
    for number in range(PEERS + 500):
        guesses.wrong(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", "wrong")
    assert len(guesses) == PEERS


def test_all_addresses_of_a_network_of_ipv6_are_one_peer() -> None:
    assert neighbourhood("2001:db8::1") == neighbourhood("2001:db8::ffff:1") != neighbourhood("2001:db8:0:1::1")
    assert neighbourhood("10.0.0.1") != neighbourhood("10.0.0.2")
    assert len(neighbourhood("x" * 5000)) <= 64


def test_addresses_of_ipv4_are_peers_of_their_own_on_a_socket_for_both() -> None:
    assert neighbourhood("::ffff:198.51.100.7") == neighbourhood("198.51.100.7")
    assert neighbourhood("::ffff:198.51.100.7") != neighbourhood("::ffff:203.0.113.9")
    assert neighbourhood("fe80::1%eth0") == "fe80::/64"


@pytest.mark.parametrize("proxy", ["*", "0.0.0.0/0", "::/0", "10.0.0.*", "proxy.example", "10.0.0.1/8", ""])
def test_everybody_is_no_proxy_that_is_believed(proxy: str) -> None:
    with pytest.raises(ValidationError):
        AgentSettings(proxies=("127.0.0.1", proxy))
    assert AgentSettings(proxies=("127.0.0.1", "10.1.0.0/16", "::1")).proxies[1] == "10.1.0.0/16"


def test_a_session_ends_by_itself_and_by_hand() -> None:
    clock = Clock()
    sessions = Sessions(60.0, clock)
    person = access(clock).person(ALICE, "10.0.0.1")
    first, second = sessions.begin(person), sessions.begin(person)
    found = sessions.find(first)
    assert found is not None
    assert found.sent(found.csrf)
    assert not found.sent("")
    sessions.end(first)
    assert sessions.find(first) is None
    other = sessions.find(second)
    assert other is not None
    assert other.csrf != found.csrf
    clock.now += 61.0
    assert sessions.find(second) is None
    assert len(sessions) == 0
    assert sessions.find("") is None


def test_sessions_are_bounded_in_memory() -> None:
    sessions = Sessions(60.0, Clock())
    person = access(Clock()).person(ALICE, "10.0.0.1")
    for _ in range(SESSIONS + 10):
        sessions.begin(person)
    assert len(sessions) == SESSIONS


@pytest.mark.parametrize(
    ("origin", "referer", "site", "ours"),
    [
        ("http://agent:8420", "", "", True),
        ("http://agent:8420", "", "same-origin", True),
        ("", "http://agent:8420/models/churn", "same-origin", True),
        ("HTTP://AGENT:8420", "", "", True),
        ("", "", "", False),
        ("null", "", "", False),
        ("http://evil.example", "", "", False),
        ("http://agent", "", "", False),
        ("http://agent:8420.evil.example", "", "", False),
        ("http://agent:8420@evil.example", "", "", False),
        ("http://evil.example", "http://agent:8420/", "", False),
        ("http://agent:8420", "", "cross-site", False),
        ("http://agent:8420", "", "same-site", False),
        ("http://agent:8420", "", "none", False),
        ("http://[", "", "", False),
    ],
)
def test_only_forms_of_our_own_pages_are_taken(origin: str, referer: str, site: str, ours: bool) -> None:
    assert same_origin("agent:8420", origin, referer, site) is ours


@pytest.mark.parametrize("following", ["/", "/models/churn", "/models/a%20b?x=1"])
def test_signing_in_goes_on_to_our_own_pages(following: str) -> None:
    assert local(following) == following


@pytest.mark.parametrize(
    "following",
    [
        "",
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "\\\\evil",
        "/a\r\nSet-Cookie: x=1",
        "javascript:1",
    ],
)
def test_signing_in_goes_on_to_no_other_place(following: str) -> None:
    assert local(following) == "/"
