"""Walking a switch: clouds do not wait for each other, and what goes wrong is said and never swallowed."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from lockstep.errors import DeploymentFailedError, NotFoundError, OvertakenError
from lockstep.operations.walk import Hands, Tell, walk
from lockstep.rules.switch import Announced, Close, Ended, Ending, Kind, Place, Switch, after, next_step

CLOUDS = ("aws", "azure", "gcp")


def announced(kind: Kind = Kind.ROLLBACK, cold: tuple[str, ...] = ()) -> Switch:
    return after(Switch.of(kind, CLOUDS, cold), Announced())


class Done:
    """Hands that write down what they did, and fail where they are told to."""

    def __init__(self, fails: Mapping[str, str] | None = None) -> None:
        self.did: list[str] = []
        self.fails = dict(fails or {})
        self.gate: Callable[[str], None] = lambda what: None

    def hands(self) -> Hands:
        def work(verb: str, place: Place) -> Callable[[tuple[str, ...], Tell], None]:
            def do(clouds: tuple[str, ...], tell: Tell) -> None:
                for cloud in clouds:
                    self.gate(f"{verb} {cloud}")
                    self.did.append(f"{verb} {cloud}")
                    tell(Ended(cloud, place, 1.0, self.fails.get(f"{verb} {cloud}", "")))

            return do

        return Hands(
            lambda: self.did.append("commit"),
            work("prepare", Place.PREPARING),
            work("flip", Place.FLIPPING),
            work("take back", Place.TAKING_BACK),
        )


def test_a_warm_rollback() -> None:
    done = Done({"flip azure": "busy"})
    switch = walk(announced(), done.hands())
    assert done.did == ["commit", "flip aws", "flip azure", "flip gcp"]
    assert switch.result.ending is Ending.SPLIT
    assert switch.result.reasons == {"azure": "busy"}


def test_the_others_are_flipped_while_a_cold_cloud_is_prepared() -> None:
    done, flipped = Done(), threading.Event()

    def gate(what: str) -> None:
        if what == "flip azure":
            flipped.set()
        if what == "prepare aws":
            assert flipped.wait(10), "azure waited for aws"

    done.gate = gate
    switch = walk(announced(cold=("aws",)), done.hands())
    assert switch.result.ending is Ending.DONE
    assert done.did.index("flip azure") < done.did.index("prepare aws") < done.did.index("flip aws")


def test_a_promotion_that_cannot_finish_is_taken_back() -> None:
    done = Done({"flip gcp": "down"})
    switch = walk(announced(Kind.PROMOTION), done.hands())
    assert done.did == [*(f"flip {cloud}" for cloud in CLOUDS), *(f"take back {cloud}" for cloud in CLOUDS)]
    assert switch.at(Place.BACK) == CLOUDS


def test_an_error_of_a_step_is_the_reason_of_those_that_were_not_told_of() -> None:
    done = Done()

    def gate(what: str) -> None:
        if what == "flip azure":
            raise DeploymentFailedError("no more disk", hint="make room")

    done.gate = gate
    assert walk(announced(), done.hands()).result.reasons == {
        "azure": "no more disk (make room)",
        "gcp": "no more disk (make room)",
    }


@pytest.mark.parametrize("cold", [(), CLOUDS])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("a mistake"), NotFoundError("no alias")])
@pytest.mark.parametrize("where", ["prepare azure", "flip aws", "flip gcp", "commit"])
def test_a_promotion_is_taken_back_whatever_stops_it(error: BaseException, where: str, cold: tuple[str, ...]) -> None:
    done, troubles = Done(), list[BaseException]()

    def gate(what: str) -> None:
        if what == where:
            raise error

    done.gate = gate
    hands = done.hands()

    def commit() -> None:
        gate("commit")
        hands.commit()

    switch = walk(announced(Kind.PROMOTION, cold), replace(hands, commit=commit, trouble=troubles.append))
    if where == "prepare azure" and not cold:
        assert (switch.committed, troubles) == (True, [])
        return
    assert troubles == [error]
    assert "commit" not in done.did
    back = [] if where == "prepare azure" else [f"take back {cloud}" for cloud in CLOUDS]
    assert [what for what in done.did if what.startswith("take back")] == back
    assert next_step(switch) == Close(Ending.TAKEN_BACK if back else Ending.NOWHERE)


def test_a_promotion_that_is_overtaken_takes_nothing_back() -> None:
    done = Done()

    def gate(what: str) -> None:
        if what == "flip azure":
            raise OvertakenError("another one decided")

    done.gate = gate
    with pytest.raises(OvertakenError):
        walk(announced(Kind.PROMOTION), done.hands())
    assert done.did == ["flip aws"]


def test_a_way_back_that_is_interrupted_is_not_begun_again() -> None:
    done = Done({"flip aws": "down"})

    def gate(what: str) -> None:
        if what == "take back azure":
            raise KeyboardInterrupt

    done.gate = gate
    with pytest.raises(KeyboardInterrupt):
        walk(announced(Kind.PROMOTION), done.hands())


@pytest.mark.parametrize("cold", [(), ("aws",), CLOUDS])
@pytest.mark.parametrize("error", [OvertakenError("another one decided"), ZeroDivisionError("a mistake")])
def test_what_no_cloud_is_to_blame_for_ends_the_walk(error: Exception, cold: tuple[str, ...]) -> None:
    done = Done()

    def gate(what: str) -> None:
        raise error

    done.gate = gate
    with pytest.raises(type(error)):
        walk(announced(cold=cold), done.hands())


def test_a_decision_that_cannot_be_made_flips_nothing() -> None:
    done = Done()

    def refuse() -> None:
        raise NotFoundError("the version is gone")

    hands = done.hands()
    with pytest.raises(NotFoundError):
        walk(announced(), Hands(refuse, hands.prepare, hands.flip, hands.take_back))
    assert done.did == []


def test_an_operation_that_is_overtaken_in_its_last_step_says_so() -> None:
    done = Done()
    hands = done.hands()

    def flip(clouds: tuple[str, ...], tell: Tell) -> None:
        hands.flip(clouds, tell)
        raise OvertakenError("another one decided")

    with pytest.raises(OvertakenError):
        walk(announced(), Hands(hands.commit, hands.prepare, flip, hands.take_back))
