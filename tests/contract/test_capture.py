"""A request that a cloud captured is found again, with the slot that answered; over every cloud that can capture."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from lockstep.clouds.azureml import capture as azureml
from lockstep.clouds.sagemaker import capture as sagemaker
from lockstep.clouds.vertex import capture as vertex
from lockstep.errors import RefusedError
from lockstep.rules.measurement import CapturedRequest
from lockstep.rules.state import Version
from lockstep.rules.traffic import TrafficSplit
from tests.contract.clouds import Load, Subject, breast_cancer_rows, eventually, sandbox_settings
from tests.model_files import ModelVersion
from tests.sandbox_control import RunningSandbox

CAPTURING = ("azureml", "sagemaker", "vertex")


def made(
    kind: str, sandbox: RunningSandbox, model_versions: tuple[ModelVersion, ModelVersion], **changes: object
) -> Subject:
    home, settings = sandbox_settings(kind, sandbox, **changes)
    if settings is None:
        pytest.skip(f"the sandbox runs without the home of {kind}")
    model = f"captured-{uuid.uuid4().hex[:8]}"
    stable, canary = (
        Version(model, str(number), sealed.digest, f"{number}" * 32)
        for number, sealed in enumerate(model_versions, start=1)
    )
    subject = Subject(
        kind=kind,
        cloud=settings.connect(home or ""),
        stable=stable,
        canary=canary,
        rows=breast_cancer_rows(),
        objects={sealed.digest: sealed.objects() for sealed in model_versions},
        control=sandbox.control,
        sandbox_cloud=home,
    )
    for version in (stable, canary):
        subject.upload(version, subject.objects[version.digest])
    return subject


@pytest.fixture(scope="module", params=CAPTURING)
def capturing(
    request: pytest.FixtureRequest, sandbox: RunningSandbox, model_versions: tuple[ModelVersion, ModelVersion]
) -> Iterator[Subject]:
    """A cloud that captures every request, with two slots."""
    subject = made(request.param, sandbox, model_versions, capture_percent=100)
    subject.have_both()
    yield subject
    subject.give_back()


def rows_of(subject: Subject, request_id: str) -> list[dict[str, object]]:
    """The rows; with the id as one more column, as Vertex AI keeps no other that the caller knows."""
    return [{**row, "request_id": request_id} if subject.kind == "vertex" else row for row in subject.rows]


def around() -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now - timedelta(hours=1), now + timedelta(minutes=1)


def found(subject: Subject, request_id: str) -> tuple[CapturedRequest, ...]:
    captured = subject.cloud.captured(subject.model, request_id, *around())
    assert captured is not None
    return captured


def test_captured_requests_name_the_slot_that_answered(capturing: Subject) -> None:
    split = TrafficSplit.canary(capturing.stable.slot, capturing.canary.slot, 50)
    capturing.cloud.set_traffic(capturing.model, split)
    sent: dict[str, str] = {}
    began = datetime.now(UTC).replace(microsecond=0)
    while len(set(sent.values())) < 2:
        request_id = str(uuid.uuid4())
        answer = capturing.cloud.invoke(capturing.model, rows_of(capturing, request_id), request_id=request_id)
        assert answer.request_id == request_id
        sent[request_id] = answer.slot
    for request_id, slot in sent.items():
        assert eventually(partial(found, capturing, request_id))
        (one,) = found(capturing, request_id)
        assert (one.cloud, one.slot, one.request_id) == (capturing.cloud.name, slot, request_id)
        assert began <= one.at <= datetime.now(UTC)
        assert one.source


def test_an_id_that_nobody_sent_is_not_found(capturing: Subject) -> None:
    capturing.cloud.invoke(capturing.model, capturing.rows, request_id=str(uuid.uuid4()))
    assert found(capturing, str(uuid.uuid4())) == ()


def test_another_time_does_not_find_it(capturing: Subject) -> None:
    request_id = str(uuid.uuid4())
    capturing.cloud.invoke(capturing.model, rows_of(capturing, request_id), request_id=request_id)
    assert eventually(lambda: found(capturing, request_id))
    past = datetime.now(UTC) - timedelta(days=2)
    assert capturing.cloud.captured(capturing.model, request_id, past, past + timedelta(hours=1)) == ()


def test_too_much_to_look_through_is_refused_and_says_what_to_do(
    capturing: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    request_id = str(uuid.uuid4())
    for _ in range(2):
        capturing.cloud.invoke(capturing.model, rows_of(capturing, request_id), request_id=request_id)
    assert eventually(lambda: len(found(capturing, request_id)) == 2)
    if capturing.kind == "vertex":  # the question itself is bounded: the service bills and gives no more
        monkeypatch.setattr(vertex, "MOST_ROWS", 1)
        assert len(found(capturing, request_id)) == 1
        return
    module, limits = {
        "sagemaker": (sagemaker, ("MAX_OBJECTS", "MAX_BYTES")),
        "azureml": (azureml, ("MAX_BLOBS", "MAX_BYTES", "MAX_NAMED")),
    }[capturing.kind]
    for limit in limits:
        with monkeypatch.context() as patched:
            patched.setattr(module, limit, 0)
            began = datetime.now(UTC).timestamp()
            with pytest.raises(RefusedError, match="captured too much between") as caught:
                found(capturing, request_id)
        assert "--time" in caught.value.hint
        assert caught.value.cloud == capturing.cloud.name
        assert capturing.control is not None
        read = [call["operation"] for call in capturing.control.calls(capturing.sandbox_cloud, began)]
        assert not {"GetObject", "GetBlob"} & set(map(str, read)), "nothing is read for an answer that is refused"
    assert len(found(capturing, request_id)) == 2


def test_captures_come_late(capturing: Subject) -> None:
    control, flush = capturing.control, f"{capturing.sandbox_cloud}.capture.flush"
    assert control is not None
    before = control.delays({})[flush]
    control.delays({flush: 3.0})
    try:
        request_id = str(uuid.uuid4())
        capturing.cloud.invoke(capturing.model, rows_of(capturing, request_id), request_id=request_id)
        assert found(capturing, request_id) == ()
        assert eventually(lambda: found(capturing, request_id))
    finally:
        control.delays({flush: before})


def test_capture_costs_no_request(capturing: Subject) -> None:
    with Load(capturing) as load:
        third = capturing.variant()
        capturing.cloud.register(third)
        capturing.cloud.prepare(third)
        capturing.cloud.set_traffic(
            capturing.model, TrafficSplit.canary(capturing.stable.slot, capturing.canary.slot, 30)
        )
        capturing.cloud.retire(capturing.model, third.slot)
    assert load.failures == []
    assert load.slots


@pytest.mark.parametrize("kind", CAPTURING)
def test_turning_it_on_touches_nothing_before_the_next_deployment(
    kind: str, sandbox: RunningSandbox, model_versions: tuple[ModelVersion, ModelVersion]
) -> None:
    off = made(kind, sandbox, model_versions)
    off.cloud.register(off.stable)
    off.cloud.prepare(off.stable)
    sent = str(uuid.uuid4())
    off.cloud.invoke(off.model, rows_of(off, sent), request_id=sent)
    assert off.cloud.captured(off.model, sent, *around()) is None
    assert off.cloud.captured(f"{off.model}-absent", sent, *around()) is None

    home, settings = sandbox_settings(kind, sandbox, capture_percent=100)
    assert settings is not None
    on = settings.connect(home or "")
    began = datetime.now(UTC).timestamp()
    on.prepare(off.stable)
    assert on.captured(off.model, sent, *around()) is None
    changed = [call["operation"] for call in sandbox.control.calls(home, began) if changes(str(call["operation"]))]
    assert changed == []

    on.register(off.canary)
    on.prepare(off.canary)
    sent = str(uuid.uuid4())
    answer = on.invoke(
        off.model, rows_of(off, sent), slot=off.canary.slot if kind != "vertex" else None, request_id=sent
    )
    assert eventually(lambda: on.captured(off.model, sent, *around()))
    captured = on.captured(off.model, sent, *around())
    assert captured is not None
    assert [one.slot for one in captured] == [answer.slot]


def changes(operation: str) -> bool:
    """Whether an operation is one that defines or redefines what serves."""
    return operation.startswith(("Create", "Deploy", "Update", "event:deploy")) or operation.endswith("CreateOrUpdate")
