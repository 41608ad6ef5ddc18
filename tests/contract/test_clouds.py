"""What every cloud must do, asked through the public verbs alone. Run over each cloud that `lockstep.clouds` holds.

`tests/live/test_live_clouds.py` runs the same tests against real accounts.
"""

from __future__ import annotations

import re
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import obstore
import pytest

from lockstep.errors import (
    BusyError,
    CredentialsError,
    DeploymentFailedError,
    LockstepError,
    NotFoundError,
    RefusedError,
    RetryLaterError,
    ThrottledError,
    UnreachableError,
)
from lockstep.rules.state import CloudState, Version
from lockstep.rules.traffic import TrafficSplit
from tests.contract.clouds import (
    PATIENCE,
    Load,
    Subject,
    breast_cancer_rows,
    eventually,
    open_store,
    sandbox_settings,
    settings_classes,
)
from tests.contract.tampering import Tamperer, changed, refused, tamperer
from tests.model_files import ModelVersion
from tests.sandbox_control import Control, RunningSandbox


@pytest.fixture(scope="module", params=sorted(settings_classes()))
def subject(
    request: pytest.FixtureRequest, sandbox: RunningSandbox, model_versions: tuple[ModelVersion, ModelVersion]
) -> Subject:
    """One cloud of the sandbox, both versions uploaded."""
    home, settings = sandbox_settings(request.param, sandbox)
    if settings is None:
        pytest.skip(f"the sandbox runs without the home of {request.param}")
    model = f"contract-{uuid.uuid4().hex[:8]}"
    stable, canary = (
        Version(model, str(number), sealed.digest, f"{number}" * 32)
        for number, sealed in enumerate(model_versions, start=1)
    )
    made = Subject(
        kind=request.param,
        cloud=settings.connect(home or ""),
        stable=stable,
        canary=canary,
        rows=breast_cancer_rows(),
        objects={sealed.digest: sealed.objects() for sealed in model_versions},
        control=sandbox.control,
        sandbox_cloud=home,
    )
    for version in (stable, canary):
        made.upload(version, made.objects[version.digest])
    return made


@pytest.fixture
def pair(subject: Subject) -> Iterator[Subject]:
    """The cloud with both slots ready and all traffic on the stable one."""
    subject.have_both()
    yield subject
    if subject.control is not None:
        subject.control.clear()


@pytest.fixture
def faults(subject: Subject) -> Control:
    """The control address of the sandbox; real accounts have none."""
    if subject.control is None:
        pytest.skip("a real cloud cannot be told to fail")
    return subject.control


@pytest.fixture
def intruder(pair: Subject, faults: Control, request: pytest.FixtureRequest) -> Tamperer:
    """Somebody who changes the cloud's records with the vendor's own client."""
    return tamperer(pair, request.getfixturevalue("sandbox"))


def stable_only(subject: Subject) -> TrafficSplit:
    return TrafficSplit.all_to(subject.stable.slot)


def canary_only(subject: Subject) -> TrafficSplit:
    return TrafficSplit.all_to(subject.canary.slot)


def test_check_passes(subject: Subject) -> None:
    subject.cloud.check()


def test_every_permission_is_granted(subject: Subject) -> None:
    found = subject.cloud.permissions([subject.model])
    assert found.needed
    assert found.missing == ()
    assert subject.cloud.guide.startswith("docs/clouds.md#")


def test_what_is_taken_away_is_named_and_refused(subject: Subject) -> None:
    if subject.control is None or subject.sandbox_cloud is None:
        pytest.skip("a real account keeps its permissions")

    def lacks() -> set[str]:
        found = subject.cloud.permissions([subject.model])
        return {finding.need.permission for finding in (*found.missing, *found.unknown)}

    needed = {need.permission for need in subject.cloud.permissions([subject.model]).needed}
    with subject.control.denying(subject.sandbox_cloud, *needed):
        assert lacks() == needed
        with pytest.raises(CredentialsError) as caught:
            subject.cloud.check()
    assert caught.value.hint
    subject.cloud.check()
    with subject.control.denying(subject.sandbox_cloud, max(needed)):
        assert lacks() == {max(needed)}
    assert lacks() == set()


def test_names_and_places(subject: Subject) -> None:
    assert subject.model in subject.cloud.endpoint(subject.model)
    assert subject.cloud.console_url(subject.model).startswith("https://")
    assert subject.cloud.title
    assert subject.cloud.store().uri


def test_an_endpoint_that_does_not_exist_is_no_error(subject: Subject) -> None:
    absent = f"absent-{uuid.uuid4().hex[:8]}"
    state = subject.cloud.observe(absent)
    assert not state.exists
    assert state.slots == ()
    assert state.split is None
    assert subject.cloud.verify_traffic(absent, stable_only(subject)) is not True


def test_the_store_gives_back_what_was_put(subject: Subject) -> None:
    store = open_store(subject.cloud.store())
    for path, content in subject.objects[subject.stable.digest].items():
        assert bytes(obstore.get(store, f"{subject.stable.prefix}/{path}").bytes()) == content
    listed = {item["path"] for batch in obstore.list(store, subject.stable.prefix) for item in batch}
    assert f"{subject.stable.prefix}/COMMIT" in listed


def test_register_twice_makes_one_record(subject: Subject) -> None:
    first = subject.cloud.register(subject.stable)
    assert subject.cloud.register(subject.stable) == first
    assert subject.cloud.registered(subject.stable) == first
    assert first.cloud == subject.cloud.name
    assert first.resource
    assert first.console_url.startswith("https://")


def test_registered_goes_by_digest(subject: Subject) -> None:
    subject.cloud.register(subject.stable)
    other = Version(subject.model, subject.stable.label, "0" * 64)
    assert subject.cloud.registered(other) is None


def test_records_that_nobody_touched_attest_to_it(pair: Subject) -> None:
    for version in (pair.stable, pair.canary):
        assert pair.cloud.attest(version, pair.cloud.image) == ()
        assert pair.cloud.attest(version) == ()


def test_a_version_that_is_not_registered_is_said_to_be_missing(pair: Subject) -> None:
    absent = Version(pair.model, "77", "7" * 64)
    (told,) = pair.cloud.attest(absent, pair.cloud.image)
    assert str(absent) in told


def test_another_image_than_the_pinned_one_is_named(pair: Subject) -> None:
    pinned = f"{pair.cloud.image.rpartition(':')[0]}:{'1' * 64}"
    told = pair.cloud.attest(pair.stable, pinned)
    assert told
    assert all("image is" in one and pinned in one for one in told)


def test_attesting_only_looks_and_reports_trouble(pair: Subject, faults: Control) -> None:
    before = pair.observe()
    assert pair.sandbox_cloud is not None
    with faults.during(pair.sandbox_cloud, "fail", count=50), pytest.raises(RetryLaterError, match=pair.cloud.name):
        pair.cloud.attest(pair.stable, pair.cloud.image)
    assert pair.cloud.attest(pair.stable, pair.cloud.image) == ()
    assert pair.observe() == before


def test_what_somebody_changed_is_named(pair: Subject, intruder: Tamperer) -> None:
    for words, change in intruder.changes().items():
        with changed(pair, change):
            told = pair.cloud.attest(pair.stable, pair.cloud.image)
            assert any(re.search(words, one) for one in told), (words, told)
            assert pair.cloud.attest(pair.canary, pair.cloud.image) == (), words
        assert pair.cloud.attest(pair.stable, pair.cloud.image) == (), words


def test_what_cannot_be_changed_is_refused_by_the_service(pair: Subject, intruder: Tamperer) -> None:
    for words, act in intruder.refusals().items():
        assert words in refused(partial(act, pair)), words
    assert pair.cloud.attest(pair.stable, pair.cloud.image) == ()


def test_another_digest_under_the_same_slot_is_refused(pair: Subject) -> None:
    ours = pair.stable
    impostor = Version(ours.model, ours.label, ours.digest[:8] + "0" * 56)
    assert impostor.slot == ours.slot
    pair.upload(impostor, pair.objects[ours.digest])
    before = pair.observe()

    def deploy() -> None:
        pair.cloud.register(impostor)
        pair.cloud.prepare(impostor)

    with pytest.raises(RefusedError):
        deploy()
    assert pair.observe() == before


def test_the_first_slot_takes_everything(pair: Subject) -> None:
    state = pair.first
    assert state is not None
    assert state.exists
    assert not state.busy
    assert state.split == stable_only(pair)
    slot = state.slot(pair.stable.slot)
    assert slot is not None
    assert slot.ready
    assert (slot.label, slot.digest) == (pair.stable.label, pair.stable.digest)


def test_a_second_slot_takes_nothing(pair: Subject) -> None:
    assert pair.first is not None
    assert pair.second is not None
    assert pair.second.split == stable_only(pair)
    assert pair.second.slot(pair.stable.slot) == pair.first.slot(pair.stable.slot)
    slot = pair.second.slot(pair.canary.slot)
    assert slot is not None
    assert (slot.ready, slot.weight, slot.digest) == (True, 0, pair.canary.digest)


def test_prepare_twice_does_it_once(pair: Subject) -> None:
    before = pair.observe()
    pair.cloud.prepare(pair.canary)
    pair.cloud.prepare(pair.stable)
    assert pair.observe() == before


def test_traffic_follows_the_split(pair: Subject) -> None:
    split = TrafficSplit.canary(pair.stable.slot, pair.canary.slot, 40)
    pair.cloud.set_traffic(pair.model, split)
    assert pair.cloud.verify_traffic(pair.model, split) is True
    assert pair.cloud.verify_traffic(pair.model, stable_only(pair)) is False
    assert pair.observe().split == split
    versions = {version.slot: version for version in (pair.stable, pair.canary)}
    seen: set[str] = set()

    def both_answered() -> bool:
        answer = pair.cloud.invoke(pair.model, pair.rows)
        version = versions[answer.slot]
        assert (answer.label, answer.digest) == (version.label, version.digest)
        assert b"predictions" in answer.body
        assert 0 < answer.latency < PATIENCE
        seen.add(answer.slot)
        return seen == set(versions)

    assert eventually(both_answered)


def test_a_slot_can_be_asked_by_name(pair: Subject) -> None:
    pair.cloud.set_traffic(pair.model, TrafficSplit.canary(pair.stable.slot, pair.canary.slot, 30))
    for version in (pair.canary, pair.stable):
        answer = pair.cloud.invoke(pair.model, pair.rows, slot=version.slot, request_id=f"ask-{version.label}")
        assert (answer.slot, answer.label, answer.digest) == (version.slot, version.label, version.digest)
        assert answer.request_id == f"ask-{version.label}"
        assert answer.cloud == pair.cloud.name


def test_setting_the_same_traffic_again_is_fine(pair: Subject) -> None:
    before = pair.observe()
    pair.cloud.set_traffic(pair.model, stable_only(pair))
    assert pair.observe() == before


def test_traffic_to_an_unknown_slot_is_refused(pair: Subject) -> None:
    before = pair.observe()
    with pytest.raises(RefusedError, match="v9-unknown"):
        pair.cloud.set_traffic(pair.model, TrafficSplit.canary(pair.stable.slot, "v9-unknown", 10))
    assert pair.observe() == before


def test_traffic_to_a_slot_that_is_not_ready_is_refused(pair: Subject, faults: Control) -> None:
    third = pair.variant()
    pair.cloud.register(third)
    failures: list[BaseException] = []

    def prepare() -> None:
        try:
            pair.cloud.prepare(third)
        except BaseException as error:
            failures.append(error)

    def on_its_way() -> bool:
        state = pair.observe()
        slot = state.slot(third.slot)
        return state.busy or (slot is not None and not slot.ready)

    with pair.slow_deployments(1.5):
        thread = threading.Thread(target=prepare)
        thread.start()
        assert eventually(on_its_way)
        with pytest.raises((RefusedError, BusyError)):
            pair.cloud.set_traffic(pair.model, TrafficSplit.canary(pair.stable.slot, third.slot, 50))
        thread.join(timeout=90)
    assert not failures
    slot = pair.observe().slot(third.slot)
    assert slot is not None
    assert (slot.ready, slot.weight) == (True, 0)
    assert pair.cloud.verify_traffic(pair.model, stable_only(pair)) is True


def test_no_request_fails_while_traffic_flips(pair: Subject) -> None:
    with Load(pair) as load:
        for split in (canary_only(pair), stable_only(pair), canary_only(pair)):
            pair.cloud.set_traffic(pair.model, split)
            assert eventually(partial(lambda slot: load.slots[-1:] == [slot], split.weights[0][0]))
    assert load.failures == []
    assert {pair.stable.slot, pair.canary.slot} <= set(load.slots)


def test_many_endpoints_are_seen_by_few_calls(pair: Subject) -> None:
    absent = f"absent-{uuid.uuid4().hex[:8]}"
    closely = pair.observe()
    first = pair.cloud.observe_many([pair.model, absent])
    assert not first[absent].exists
    assert essence(first[pair.model]) == essence(closely)
    assert first[pair.model].mark
    began = time.time()
    again = pair.cloud.observe_many([pair.model, *(f"{absent}-{number}" for number in range(19))], first)
    assert again[pair.model] == first[pair.model]
    assert again[pair.model].mark == first[pair.model].mark
    if pair.control is not None:
        asked = [call for call in pair.control.calls(pair.sandbox_cloud, began) if "oken" not in str(call["operation"])]
        assert len(asked) <= 2, asked
    pair.cloud.set_traffic(pair.model, canary_only(pair))
    moved = pair.cloud.observe_many([pair.model], first)[pair.model]
    assert moved.split == canary_only(pair)
    assert moved.mark != first[pair.model].mark


def essence(state: CloudState) -> tuple[bool, TrafficSplit | None, list[tuple[str, bool, int]]]:
    """What a list and a close look agree upon."""
    return state.exists, state.split, [(slot.name, slot.ready, slot.capacity) for slot in state.slots]


def test_a_slot_can_be_given_more_instances(pair: Subject) -> None:
    before = pair.observe()
    pair.cloud.resize(pair.model, pair.canary.slot, 2)
    after = pair.observe()
    assert {slot.name: slot.capacity for slot in after.slots} == {pair.stable.slot: 1, pair.canary.slot: 2}
    assert after.split == before.split
    pair.cloud.resize(pair.model, pair.canary.slot, 2)
    pair.cloud.resize(pair.model, pair.canary.slot, 1)
    assert pair.observe() == before
    with pytest.raises(NotFoundError):
        pair.cloud.resize(pair.model, "v9-00000000", 2)


def test_retire_is_refused_with_traffic_and_done_without(pair: Subject) -> None:
    third = pair.variant()
    pair.cloud.register(third)
    pair.cloud.prepare(third)
    with pytest.raises(RefusedError, match=pair.stable.slot):
        pair.cloud.retire(pair.model, pair.stable.slot)
    pair.cloud.retire(pair.model, third.slot)
    pair.cloud.retire(pair.model, third.slot)
    state = pair.observe()
    assert {slot.name for slot in state.slots} == {pair.stable.slot, pair.canary.slot}
    assert state.split == stable_only(pair)
    assert pair.cloud.invoke(pair.model, pair.rows).slot == pair.stable.slot


@pytest.mark.parametrize("again", [False, True], ids=["kept", "deployed again"])
def test_measure_counts_requests_by_slot(pair: Subject, again: bool) -> None:
    since = datetime.now(UTC) - timedelta(minutes=2)
    if again:  # its new requests are counted beside the old ones, which may be of the same minute
        pair.cloud.set_traffic(pair.model, canary_only(pair))
        pair.cloud.invoke(pair.model, pair.rows)
        pair.cloud.set_traffic(pair.model, stable_only(pair))
        pair.cloud.retire(pair.model, pair.canary.slot)
        pair.cloud.prepare(pair.canary)

    def counts() -> dict[str, int]:
        found = pair.cloud.measure(pair.model, since, datetime.now(UTC) + timedelta(seconds=1))
        assert all(one.cloud == pair.cloud.name and one.errors == 0 for one in found)
        return {one.slot: one.requests for one in found}

    before = counts()
    pair.cloud.set_traffic(pair.model, TrafficSplit.canary(pair.stable.slot, pair.canary.slot, 50))
    sent = dict.fromkeys((pair.stable.slot, pair.canary.slot), 0)
    for _ in range(20):
        sent[pair.cloud.invoke(pair.model, pair.rows).slot] += 1
    assert all(sent.values())
    grown = {slot: before.get(slot, 0) + number for slot, number in sent.items()}
    limit = PATIENCE if pair.control is not None else 600.0
    assert eventually(lambda: all(counts().get(slot, 0) >= number for slot, number in grown.items()), limit)
    timed = pair.cloud.measure(pair.model, since, datetime.now(UTC) + timedelta(seconds=1))
    assert all(one.latency_mean is None or 0 < one.latency_mean < PATIENCE for one in timed)


@pytest.mark.parametrize(
    ("kind", "expected"), [("fail", RetryLaterError), ("throttle", ThrottledError), ("down", UnreachableError)]
)
def test_a_cloud_in_trouble_is_named_and_nothing_changes(
    pair: Subject, faults: Control, kind: str, expected: type[LockstepError]
) -> None:
    before = pair.observe()
    assert pair.sandbox_cloud is not None
    lasting = {} if kind == "down" else {"count": 50}
    began = time.monotonic()
    with faults.during(pair.sandbox_cloud, kind, **lasting):
        for verb in (
            lambda: pair.cloud.observe(pair.model),
            lambda: pair.cloud.set_traffic(pair.model, canary_only(pair)),
            lambda: pair.cloud.invoke(pair.model, pair.rows),
        ):
            with pytest.raises(expected) as raised:
                verb()
            assert pair.cloud.name in str(raised.value)
            assert raised.value.hint
    assert time.monotonic() - began < 30
    assert pair.observe() == before


def test_corrupted_bytes_are_never_deployed(pair: Subject, faults: Control) -> None:
    broken = pair.variant()
    pair.cloud.register(broken)
    assert pair.sandbox_cloud is not None
    faults.corrupt(pair.sandbox_cloud, f"{broken.prefix}/files/MLmodel")
    before = pair.observe()
    with pytest.raises(DeploymentFailedError, match=broken.label) as raised:
        pair.cloud.prepare(broken)
    assert raised.value.hint
    assert pair.observe() == before
    assert pair.cloud.invoke(pair.model, pair.rows).slot == pair.stable.slot


def test_a_stale_read_is_never_taken_for_success(pair: Subject, faults: Control) -> None:
    wanted = canary_only(pair)
    assert pair.sandbox_cloud is not None
    number = faults.fault(pair.sandbox_cloud, "stale")
    outcome: list[LockstepError] = []

    def move() -> None:
        try:
            pair.cloud.set_traffic(pair.model, wanted)
        except LockstepError as error:
            outcome.append(error)

    thread = threading.Thread(target=move)
    thread.start()
    try:
        assert eventually(lambda: pair.cloud.invoke(pair.model, pair.rows).slot == pair.canary.slot)
        assert pair.cloud.verify_traffic(pair.model, wanted) in (False, None)
    finally:
        faults.clear(number)
        thread.join(timeout=60)
    assert all(isinstance(error, RetryLaterError) for error in outcome)
    pair.cloud.set_traffic(pair.model, wanted)
    assert pair.cloud.verify_traffic(pair.model, wanted) is True
