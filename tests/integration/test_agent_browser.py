"""The status page in a real browser: by keyboard alone, for people who listen, in the dark, on a narrow screen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.integration.agents import OPERATOR, Running, running_agent
from tests.integration.deployed import Deployed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

CHROMIUM: Final = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE: Final = 60_000.0  # milliseconds
#: Text whose contrast with what is behind it is below 4.5, as (text, ratio).
CONTRASTS: Final = """() => {
  const channel = v => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; };
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = node => {
    for (let at = node; at; at = at.parentElement) {
      const [r, g, b, a = 1] = parse(getComputedStyle(at).backgroundColor);
      if (a > 0.99) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode.textContent.trim(), node = walker.currentNode.parentElement;
    if (!text || !node.checkVisibility() || node.closest(".hidden, svg")) continue;
    const pair = [light(parse(getComputedStyle(node).color)), light(behind(node))];
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) found.push([text, ratio]);
  }
  return found;
}"""

pytestmark = [
    pytest.mark.timeout(400),
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on PATH: on Debian, apt-get install chromium"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        yield started
        started.close()


@pytest.fixture(scope="module")
def agent(two_versions: Deployed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_agent(two_versions, tmp_path_factory.mktemp("agent")) as running:
        yield running


@pytest.fixture
def page(browser: Browser, agent: Running) -> Iterator[Page]:
    """Signed in as an operator; whatever the browser complains about fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(PATIENCE)
    opened = context.new_page()
    complaints: list[str] = []
    opened.on("pageerror", lambda error: complaints.append(str(error)))
    opened.on("console", lambda told: complaints.append(told.text) if told.type in ("error", "warning") else None)
    opened.goto(f"{agent.base}/")
    opened.fill("#token", OPERATOR)
    opened.press("#token", "Enter")
    opened.wait_for_selector("#models")
    yield opened
    context.close()
    assert [one for one in complaints if "status of 401" not in one] == []  # a session that a test ends


def focused(page: Page) -> str:
    return str(page.evaluate("() => (document.activeElement.innerText || document.activeElement.id || '').trim()"))


def tab_to(page: Page, wanted: str) -> None:
    """Press the tabulator until what is called so has the focus."""
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        seen.append(focused(page))
        if seen[-1] == wanted:
            return
    raise AssertionError(f"{wanted!r} cannot be reached: {seen}")


def names(page: Page) -> list[tuple[str, str]]:
    """Role and name of everything that can have the focus, as a screen reader is told."""
    session = page.context.new_cdp_session(page)
    nodes: list[dict[str, Any]] = session.send("Accessibility.getFullAXTree")["nodes"]
    found = []
    for node in nodes:
        properties = {one["name"]: one["value"].get("value") for one in node.get("properties", ())}
        role = str(node.get("role", {}).get("value", ""))
        if properties.get("focusable") and not node.get("ignored") and role not in ("RootWebArea", "main"):
            found.append((role, str(node.get("name", {}).get("value", ""))))
    return found


def test_a_rollback_by_keyboard_alone(page: Page, agent: Running, deployed: Deployed) -> None:
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the content"
    tab_to(page, deployed.model)
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/models/{deployed.model}")
    tab_to(page, "Roll back…")
    page.keyboard.press("Enter")
    page.wait_for_url("**/rollback")
    page.wait_for_function(
        "text => document.querySelector('#plan').innerText.includes(text)", arg=deployed.v1.digest[:12]
    )
    tab_to(page, "reason")
    page.keyboard.type("the keyboard says so")
    tab_to(page, f"Roll back {deployed.model} on every cloud")
    page.keyboard.press("Enter")
    page.wait_for_url("**/intents/*")
    page.wait_for_selector("#progress .badge.done")
    page.wait_for_function("() => document.querySelector('#said').innerText.includes('every cloud was verified')")
    assert deployed.answers() == deployed.everywhere(deployed.v1)
    entry = deployed.fleet.ledger.entries(deployed.model, "rollback.intent", last=1)[0]
    assert (entry.actor, entry.body["reason"]) == ("olga", "the keyboard says so")


def test_everything_has_a_name_and_tables_have_headers(page: Page, agent: Running) -> None:
    for path in ("/", f"/models/{agent.model}", f"/models/{agent.model}/rollback", "/intents"):
        page.goto(agent.base + path)
        unnamed = [role for role, name in names(page) if not name]
        assert unnamed == [], path
        assert page.evaluate("() => [...document.querySelectorAll('th')].filter(one => !one.scope).length") == 0
        assert page.evaluate("() => [...document.querySelectorAll('table')].filter(one => !one.caption).length") == 0
        assert page.evaluate("() => document.querySelectorAll('h1').length") == 1
        assert page.evaluate("() => document.documentElement.lang") == "en"
    page.goto(f"{agent.base}/")
    assert page.locator("[role=status]").count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_both_schemes(page: Page, agent: Running, scheme: Any) -> None:
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    for path in ("/", f"/models/{agent.model}", f"/models/{agent.model}/rollback", "/intents", "/sign-in"):
        page.goto(agent.base + path)
        assert page.evaluate(CONTRASTS) == [], path
    ground = page.evaluate("() => getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(16, 22, 21)") == (scheme == "dark")
    moving = "() => [...document.querySelectorAll('*')].filter(one => getComputedStyle(one).animationName !== 'none')"
    assert page.evaluate(f"({moving})().length") == 0


def test_a_narrow_screen_is_not_wider_than_itself(page: Page, agent: Running) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    for path in ("/", f"/models/{agent.model}", f"/models/{agent.model}/rollback", "/intents", "/sign-in"):
        page.goto(agent.base + path)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390, path


def test_the_page_renews_itself_and_keeps_the_focus(page: Page, agent: Running) -> None:
    page.goto(f"{agent.base}/")
    page.focus("#model-1")
    with page.expect_response("**/parts/models"):
        pass
    page.wait_for_function("() => document.activeElement.id === 'model-1'")
    agent.agent.sessions.end(next(one["value"] for one in page.context.cookies() if one["name"] == "lockstep_session"))
    # At the next look, which nobody had to ask for; of two that find it out the second ends the first one's way.
    page.wait_for_function("() => location.pathname === '/sign-in'")


def test_what_an_alert_says_is_shown_and_not_run(page: Page, agent: Running, tmp_path: Path) -> None:
    evil = "<img src=x onerror=document.title='run'><script>document.title='run'</script>"
    agent.agent.desk.ask_rollback(agent.model, "no-such-version", evil, evil)
    page.goto(f"{agent.base}/intents")
    assert page.get_by_text(evil).count() >= 1
    assert page.title() == "Intents · Lockstep"
    assert page.locator("main img, main script").count() == 0
