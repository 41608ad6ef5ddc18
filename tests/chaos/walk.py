"""A random walk through everything that people, clouds and clocks do to a model, with what must be true on the way.

Every operation has a process of its own, whose clock goes by the walk's. What is done by hand goes to a cloud directly.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lockstep import errors
from lockstep.errors import LockstepError
from lockstep.operations.replicate import replicate
from lockstep.operations.status import status
from lockstep.rules.deeds import mapping, text, texts
from lockstep.rules.state import CONDEMNED_TAG, VERDICT_TAG
from lockstep.rules.traffic import TrafficSplit
from lockstep.stores.ledger import Entry
from tests.chaos.killing import NEVER, Ended, Killer
from tests.chaos.truth import check_serving, entries_since, size, unannounced
from tests.integration.deployed import Deployed
from tests.integration.fleets import Traffic, registered

LABELS = st.sampled_from(["1", "2", "3"])
CLOUDS = st.sampled_from(["aws", "azure", "gcp"])
#: Where the process is killed, mostly nowhere.
KILLS = st.one_of(st.just(NEVER), st.integers(1, 20))
FAULTS = st.sampled_from(["down", "fail", "throttle", "stale"])
HOUR = 3600.0
LATE = 0.5  # seconds in which what was asked for by hand shows in a cloud's log


class Walk(RuleBasedStateMachine):
    """One walk over the shared model; `deployed`, `killer` and `config` are set before the first."""

    deployed: Deployed
    killer: Killer
    config: Path
    #: A further version's files; "" where there are none.
    further: str

    def __init__(self) -> None:
        super().__init__()
        self.deployed.restore()
        self.known = {version.label: version for version in (self.deployed.v1, self.deployed.v2, self.deployed.v3)}
        self.since = time.time()
        self.ahead = 0.0
        self.clocks: list[tuple[int, float]] = [(0, 0.0)]  # from which entry on by how much the clock was ahead
        self.by_hand: list[tuple[str, float, float]] = []
        self.faulty: set[str] = set()
        self.registered = False
        self.expected = {self.deployed.v2.digest}
        self.entries = size(self.deployed)

    # -- what people ask Lockstep for ------------------------------------------------------------------------------

    @rule(label=LABELS, at=KILLS)
    def deploy(self, label: str, at: int) -> None:
        """A rollout, which ends by itself, with an error, or killed at one of its steps."""
        with Traffic(self.deployed.fleet, self.deployed.outcomes).flowing(0.1):
            ended = self._run("canary_deploy", label, at)
        passed = ended.passed
        promoting = (
            passed[passed.index("after ledger promote.intent") :] if "after ledger promote.intent" in passed else ()
        )
        if "after mlflow set_alias champion" in promoting:
            self.expected = {self.known[label].digest, *(self.expected if ended.error or ended.killed else ())}

    @rule(label=st.one_of(st.just(""), LABELS), at=KILLS)
    def roll_back(self, label: str, at: int) -> None:
        """A rollback to a version, or to what is known to be good."""
        ended = self._run("rollback", label, at)
        begun = [entry for entry in entries_since(self.deployed, self.entries) if entry.kind == "rollback.intent"]
        done = not ended.killed and (not ended.error or ended.error.startswith("SplitError"))
        for entry in begun:
            target = text(entry.body, "digest")
            self.expected = {target, *(() if done else self.expected)}
        if not begun and done:  # one that was killed before has been finished
            self.expected |= {version.digest for version in self.known.values() if version.label == label or not label}

    @rule(at=KILLS)
    def reconcile(self, at: int) -> None:
        """As the schedule does."""
        self._run("reconcile", "", at)

    @rule(what=st.sampled_from(["condemn", "lift"]), label=LABELS)
    def condemn_or_lift(self, what: str, label: str) -> None:
        """Refused for what serves."""
        self._run(what, label)

    @precondition(lambda self: self.further and not self.registered)
    @rule()
    def register_and_replicate(self) -> None:
        """A further version, registered again by every walk that does so: it is the same one."""
        self.registered = True
        with contextlib.suppress(LockstepError):
            version = registered(self.deployed.fleet, self.further)
            replicate(self.deployed.fleet, version)
        self._told("register_and_replicate")

    # -- what happens to it ----------------------------------------------------------------------------------------

    @rule(name=CLOUDS, what=st.sampled_from(["traffic", "retire", "foreign"]))
    def change_by_hand(self, name: str, what: str) -> None:
        """Somebody moves traffic, removes a slot without traffic, or makes one, in the vendor's console."""
        cloud, model, began = self.deployed.fleet.cloud(name), self.deployed.model, time.time()
        with contextlib.suppress(LockstepError):
            ready = [slot for slot in cloud.observe(model).slots if slot.ready]
            idle = [slot for slot in ready if slot.weight == 0]
            if what == "traffic" and len(ready) > 1:
                cloud.set_traffic(model, TrafficSplit.of({ready[0].name: 40, ready[1].name: 60}))
            elif what == "retire" and idle:
                cloud.retire(model, idle[0].name)
            elif what == "foreign":
                cloud.prepare(self.deployed.v3)
        self.by_hand.append((name, began, time.time() + LATE))
        time.sleep(LATE)  # a change that is still under way has no event yet that could be waited for
        self._told("change_by_hand", name, what)

    @rule(name=CLOUDS, kind=FAULTS)
    def break_cloud(self, name: str, kind: str) -> None:
        """One more fault, until all are mended."""
        self.deployed.control.fault(name, kind, **({"count": 5} if kind == "throttle" else {"seconds": 600.0}))
        self.faulty.add(name)
        self._told("break_cloud", name, kind)

    @precondition(lambda self: bool(self.faulty))
    @rule()
    def mend_clouds(self) -> None:
        """All faults end."""
        self.deployed.control.clear()
        self.faulty.clear()
        self._told("mend_clouds")

    @rule(hours=st.integers(1, 48))
    def time_passes(self, hours: int) -> None:
        """By the clock of all that is done from now on."""
        self.ahead += hours * HOUR
        self.clocks.append((size(self.deployed), self.ahead))
        self._told("time_passes", hours)

    # -- what must be true -----------------------------------------------------------------------------------------

    @invariant()
    def no_condemned_version_serves_untold(self) -> None:
        """Whatever answers from a condemned version is shown as out of step."""
        if self.faulty:
            return
        fleet = self.deployed.fleet
        found = status(fleet)
        condemned = {one.version.slot for one in fleet.registry.record(fleet.model).versions if one.condemned}
        for cloud in found.state.clouds:
            served = {slot.name for slot in cloud.slots if slot.weight > 0}
            if served & condemned:
                assert cloud.cloud in found.out_of_step, f"{cloud.cloud} serves {served}, untold"
            assert sum(slot.weight for slot in cloud.slots) == 100, cloud
            assert all(slot.ready for slot in cloud.slots if slot.weight > 0), cloud

    @invariant()
    def the_desired_version_is_sound(self) -> None:
        """It is sealed, was not judged bad, and is not condemned."""
        registry = self.deployed.fleet.registry
        champion = registry.desired(self.deployed.model).champion  # refused when its seal's tag is not one
        assert champion is not None
        tags = registry.tags(champion)
        assert CONDEMNED_TAG not in tags, tags
        assert tags.get(VERDICT_TAG) != "fail", tags
        assert champion.digest in self.expected, f"{champion} is none of {self.expected}"

    @invariant()
    def nothing_is_changed_unannounced(self) -> None:
        """Every change in a cloud's log has an intent before it, but for those by hand."""
        assert self._unannounced() == []

    def teardown(self) -> None:
        """Faults stop, reconcile runs: every cloud serves exactly what it should, by digest."""
        self.deployed.control.clear()
        for _ in range(4):  # what a rollback leaves for a while goes after it, also after one that is finished only now
            self.time_passes(1)
            before = size(self.deployed)
            ended = self._run("reconcile", "")
            if size(self.deployed) == before:
                break
        champion = self.deployed.fleet.registry.desired(self.deployed.model).champion
        assert champion is not None
        assert not ended.error or "SplitError" not in ended.error, ended.error
        self.the_desired_version_is_sound()
        check_serving(self.deployed, champion)
        assert self._unannounced() == []

    # -- within ----------------------------------------------------------------------------------------------------

    def _run(self, operation: str, label: str, at: int = NEVER) -> Ended:
        self.entries = size(self.deployed)
        before = self.deployed.fleet.registry.desired(self.deployed.model).fallback
        ended = self.killer.run(self.config, self.deployed.model, operation, label, at, ahead=self.ahead)
        self._told(operation, label, at, f"-> {ended.error or 'done'}" if not ended.killed else "-> killed")
        kind = ended.error.partition(":")[0]
        assert not kind or issubclass(getattr(errors, kind, type(None)), LockstepError), ended.error
        after = self.deployed.fleet.registry.desired(self.deployed.model).fallback
        for entry in entries_since(self.deployed, self.entries):
            if before is not None and after == before and entry.kind == "retire.intent":
                retired = [name for slots in mapping(entry.body, "clouds").values() for name in _names(slots)]
                assert before.slot not in retired or "altered" in str(entry.body), f"the fallback was retired: {entry}"
        return ended

    def _told(self, *step: object) -> None:
        print("step:", *step)

    def _clock(self, entry: Entry) -> float:
        return next(ahead for first, ahead in reversed(self.clocks) if entry.number >= first)

    def _unannounced(self) -> list[str]:
        return [
            told
            for told in unannounced(self.deployed, self.since, self._clock)
            if not any(told.startswith(f"{name} ") and a <= float(told.split()[-1]) <= b for name, a, b in self.by_hand)
        ]


def _names(slots: object) -> tuple[str, ...]:
    return texts({"slots": slots}, "slots")
