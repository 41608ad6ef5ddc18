"""What the page shows, drawn from values alone: charts, series, how a model is, and nothing that is not escaped."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lockstep.agent.api import model_as_json
from lockstep.agent.chart import Line, draw
from lockstep.agent.overview import CloudView, ModelView, Overview, Proved, SlotView, Tone
from lockstep.agent.page_words import SAID, is_behind, newest_rows, rows, summary
from lockstep.agent.rendering import assets, render
from lockstep.agent.series import Tracker
from lockstep.agent_settings import AgentSettings
from lockstep.rules.alerts.intent import Action, Intent, State
from lockstep.rules.deeds import Deed, Ending
from lockstep.rules.measurement import SlotMetrics
from lockstep.rules.state import DesiredState, Version
from lockstep.rules.waiting import Waiting
from tests.docs_snippets import snippets

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
V1, V2 = Version("churn", "1", "a" * 64), Version("churn", "2", "b" * 64)
VALUES = st.floats(min_value=0.0, max_value=1e9, allow_nan=False)


@given(st.lists(st.lists(st.tuples(st.floats(0, 1e9), st.none() | VALUES), min_size=2, max_size=20), max_size=4))
def test_whatever_is_drawn_is_well_formed_and_within_the_picture(lines: list[list[tuple[float, float | None]]]) -> None:
    drawn = draw(
        "Failed <answers>",
        [Line(f"version {i}", sorted(one, key=lambda point: point[0])) for i, one in enumerate(lines)],
        " %",
    )
    root = ElementTree.fromstring(str(drawn))
    if root.tag == "p":
        return
    picture = root.find("svg")
    assert picture is not None
    _, _, width, height = map(float, picture.attrib["viewBox"].split())
    for path in picture.iter("path"):
        numbers = [float(one) for one in re.findall(r"-?\d+(?:\.\d+)?", path.attrib["d"])]
        assert all(-0.5 <= number <= max(width, height) + 0.5 for number in numbers)
    assert "nan" not in str(drawn)
    assert "e+" not in str(drawn)
    assert "style=" not in str(drawn)  # which the page's policy forbids


def test_a_chart_has_its_numbers_in_words_too() -> None:
    drawn = str(draw("Failed answers", [Line("version 2", [(0.0, 1.0), (60.0, 2.5)])], " %"))
    assert 'aria-label="Failed answers: version 2 2.5 %"' in drawn


def test_series_are_the_differences_of_what_was_counted() -> None:
    tracker = Tracker(NOW, "v1")
    for minute, (aws, gcp) in enumerate([(60, 0), (180, 60), (180, 60)], 1):
        metrics = [
            SlotMetrics("aws", V1.slot, aws, aws // 10, latency_p95=0.1),
            SlotMetrics("gcp", V1.slot, gcp, 0, latency_p95=0.3),
            SlotMetrics("gcp", V2.slot, 999, 999),
        ]
        tracker.add(NOW + timedelta(minutes=minute), metrics)
    (series,) = tracker.series({V1.slot: "version 1"})
    assert [point.rate for point in series.points] == [60.0, 180.0, 0.0]
    assert [point.failed for point in series.points] == [0.1, 12 / 180, None]
    assert {point.latency for point in series.points} == {0.3}
    assert tracker.fits("v1", NOW + timedelta(hours=1))
    assert not tracker.fits("v1", NOW + timedelta(hours=3))
    assert not tracker.fits("v2", NOW)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=30))
def test_counts_that_a_cloud_corrects_never_give_less_than_nothing(counts: list[tuple[int, int]]) -> None:
    tracker = Tracker(NOW, "")
    for minute, (requests, errors) in enumerate(counts, 1):
        tracker.add(NOW + timedelta(minutes=minute), [SlotMetrics("aws", V1.slot, requests, errors)])
    (series,) = tracker.series({V1.slot: "version 1"})
    assert all(point.rate >= 0 and (point.failed is None or 0 <= point.failed <= 1) for point in series.points)


def slot(role: str = "champion", weight: int = 100, label: str = "2") -> SlotView:
    return SlotView(f"v{label}", label, "b" * 64, weight, True, "InService", 1, role)


def cloud(name: str = "aws", **changes: object) -> CloudView:
    given: dict[str, object] = {"slots": (slot(),), "proved": Proved.VERIFIED, "proved_at": NOW.timestamp(), **changes}
    return CloudView(name, "Amazon SageMaker", "https://console.example/", **given)  # type: ignore[arg-type]


def view(*clouds: CloudView, model: str = "churn", **changes: object) -> ModelView:
    given: dict[str, object] = {"at": NOW.timestamp(), "desired": DesiredState(model, V2, None, V1), **changes}
    return ModelView(model, clouds=clouds, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("found", "tone"),
    [
        (view(cloud()), Tone.IN_STEP),
        (view(cloud(slots=(slot(weight=75), slot("canary", 25, "3")))), Tone.CANARY),
        (view(cloud(unreachable="timed out", problem="timed out"), cloud("gcp")), Tone.UNKNOWN),
        (
            view(cloud(problem="serves v1 100 %, not v2"), cloud("gcp", unreachable="down", problem="down")),
            Tone.OUT_OF_STEP,
        ),
        (view(cloud(problem="serves v1", trailing="it could not follow"), cloud("gcp")), Tone.SPLIT),
        (view(cloud(slots=()), desired=DesiredState("churn", None)), Tone.NOTHING),
        (view(problem="MLflow does not answer"), Tone.UNKNOWN),
    ],
)
def test_the_worst_of_a_model_is_its_state(found: ModelView, tone: Tone) -> None:
    assert found.tone is tone


def test_the_summary_says_the_worst_first_and_changes_its_mark_with_its_words() -> None:
    good, bad = view(cloud()), view(cloud(problem="x", trailing="x"), model="fraud")
    one = summary(Overview({"churn": good}, ("churn",), ("aws",)))
    two = summary(Overview({"churn": good, "fraud": bad}, ("churn", "fraud", "late"), ("aws",)))
    assert one["text"] == "Every model is in step"
    assert two["text"] == "SPLIT: fraud; 1 in step; 1 not looked at yet"
    assert two["tone"] is Tone.SPLIT
    assert one["mark"] != two["mark"]
    assert one["mark"] == summary(Overview({"churn": good}, ("churn",), ("aws",)))["mark"]


def test_the_overview_is_as_old_as_its_oldest_look() -> None:
    found = Overview({"a": view(at=5.0), "b": view(at=3.0)}, ("a", "b"), ())
    assert found.oldest == 3.0
    assert Overview({"a": view(at=5.0)}, ("a", "b"), ()).oldest == 0.0


EVIL = "\"'><script>x</script><img src=x onerror=x>{{7*7}}"


class Tags(HTMLParser):
    """Tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}


def test_an_intent_s_page_waits_for_a_look_that_began_after_its_end() -> None:
    ended = NOW.timestamp()
    intent = Intent("i", "churn", "", "", Action.ROLLBACK, State.DONE, "", "ann", 1, ended - 2.0, ended)
    before, after = view(at=ended - 0.5), view(at=ended + 0.1)
    assert [is_behind(one, intent, ended + 3.0) for one in (before, after, None)] == [True, False, False]
    assert not is_behind(before, intent, ended + 3600.0), "no look succeeds: the page says when the last one was"
    assert not is_behind(before, replace(intent, state=State.RUNNING, ended=0.0), ended)
    shown = {"intent": intent, "said": SAID[intent.state], "view": before}
    assert "hx-get" in render("intent_part.html", **shown, behind=True)
    assert "hx-get" not in render("intent_part.html", **shown, behind=False)


def test_nothing_in_a_page_is_anything_but_text() -> None:
    desired = DesiredState(EVIL, Version(EVIL, EVIL, EVIL), Version(EVIL, EVIL, EVIL), None)
    deed = Deed(EVIL, EVIL, EVIL, 0.0, 1.0, Ending.FAILED, {"reason": EVIL, "error": EVIL, "version": EVIL}, (1,))
    clouds = (
        cloud(EVIL, slots=(SlotView(EVIL, EVIL, EVIL, 100, True, EVIL, 1, "canary"),), problem=EVIL, proof=EVIL),
        cloud("gcp", unreachable=EVIL, problem=EVIL, trailing=EVIL),
    )
    found = view(
        *clouds,
        model=EVIL,
        desired=desired,
        deeds=(deed,),
        notes=(EVIL,),
        writer=EVIL,
        held=EVIL,
        problem=EVIL,
        running=(EVIL,),
    )
    overview = Overview({EVIL: found}, (EVIL,), (EVIL, "gcp"))
    intent = Intent(EVIL, EVIL, EVIL, EVIL, Action.ROLLBACK, State.RUNNING, EVIL, EVIL, 1, 1.0, told=EVIL, to=EVIL)
    pages = [
        render(
            "models.html",
            overview=overview,
            titles={EVIL: EVIL, "gcp": EVIL},
            rollouts=[found],
            intents=[intent],
            deeds=newest_rows(overview),
        ),
        render("model_part.html", view=found, deeds=rows(found)),
        render("intent_part.html", intent=intent, said=SAID[intent.state], view=found, behind=True),
        render("problem.html", session=None, here="", heading=EVIL, problem=EVIL, hint=EVIL, back="/"),
        render("sign_in.html", session=None, here="", next=EVIL, problem=EVIL, anybody=True),
        render("summary.html", **summary(overview)),
    ]
    assert pages[1].count("Running: ") == 1, "and not to be mended"
    for page in pages:
        parsed = Tags()
        parsed.feed(page)
        assert parsed.tags.count("img") <= 1  # the page's own
        assert not {name for name in parsed.attributes if name.startswith("on") or name == "style"}
        assert "<script>" not in page
        assert "<img src=x" not in page
        assert "49" not in page.replace("{{7*7}}", "")


def test_an_approval_that_is_wanted_is_shown_with_the_way_to_answer_it() -> None:
    link = 'https://prefect.example/runs/flow-run/1?a="<b>'
    asked = Waiting(
        "q", "churn", "3", "c" * 64, "before-promotion", "May <b>?", ("50 %: <i>",), 60.0, 3660.0, link=link
    )
    there = replace(asked, model="tumour", since=30.0, link="", via="")
    views = {
        one.model: ModelView(one.model, 1.0, DesiredState(one.model, V1), approvals=(one,)) for one in (asked, there)
    }
    overview = Overview(views, tuple(views), ("aws",))
    shown = render(
        "models.html", overview=overview, titles={"aws": "AWS"}, rollouts=[], intents=(), deeds=newest_rows(overview)
    )
    assert shown.index("lockstep deploy tumour 3") < shown.index("Answer in Prefect"), "the oldest first"
    assert 'href="https://prefect.example/runs/flow-run/1?a=&#34;&lt;b&gt;"' in shown
    assert "May &lt;b&gt;?" in shown
    assert "50 %: &lt;i&gt;" in shown
    assert '<time datetime="1970-01-01T01:01:00+00:00">' in shown
    assert "waiting for an approval: tumour 3, churn 3" in str(summary(overview)["text"])
    told = str(model_as_json(views["churn"])["approvals"])
    assert "'gate': 'before-promotion'" in told
    assert f"'until': 3660.0, 'where': {f'answer in Prefect: {link}'!r}" in told
    nothing = Overview({"churn": replace(views["churn"], approvals=())}, ("churn",), ("aws",))
    shown = render(
        "models.html", overview=nothing, titles={"aws": "AWS"}, rollouts=[], intents=(), deeds=newest_rows(nothing)
    )
    assert "approval" not in shown


def test_assets_are_named_by_what_they_hold() -> None:
    found = assets()
    assert set(found) == {"page.css", "htmx.min.js", "icon.svg"}
    assert len({one.mark for one in found.values()}) == 3
    assert b"https://" not in found["page.css"].content  # nothing comes from elsewhere
    page = render("sign_in.html", session=None, here="", next="/", problem="", anybody=False)
    assert f"/static/page.css?v={found['page.css'].mark}" in page


def test_every_state_of_an_intent_has_its_words() -> None:
    assert set(SAID) == set(State)


def test_the_documented_settings_are_read_and_the_picture_is_small() -> None:
    page = Path("docs/agent.md")
    (snippet,) = (one for one in snippets(page) if one.mark == "agent")
    text = snippet.text.replace("${ALICE_TOKEN}", "a" * 48)
    found = AgentSettings.model_validate(yaml.safe_load(text)["agent"])
    assert found.tokens["alice"].role == "operator"
    picture = Path("docs/pictures/status-page.png")
    assert picture.name in page.read_text(encoding="utf-8")
    assert picture.stat().st_size < 300_000
