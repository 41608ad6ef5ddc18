"""Take the picture of the status page: python docs/picture_page.py (minutes; needs chromium on PATH).

A real agent over the sandbox: one model with a canary and live traffic, another one in step.
"""

from __future__ import annotations

import secrets
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

import yaml

DOCS: Final = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from bench.many import set_up  # noqa: E402
from bench.scene import Scene, scene  # noqa: E402
from demo.model import load_data, train  # noqa: E402
from demo.names import CLOUDS, MODEL  # noqa: E402
from lockstep.operations.fleet import Fleet  # noqa: E402
from lockstep.operations.switch import move_all  # noqa: E402
from lockstep.rules.state import CHAMPION, FALLBACK, Version  # noqa: E402

PICTURE: Final = DOCS / "pictures" / "status-page.png"
LARGEST: Final = 300_000  # bytes
OTHER: Final = "churn"
WATCHED: Final = 65.0  # seconds of a canary that the picture shows
ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync")


def main() -> None:
    """Set the scene, roll a canary out, and take the picture in the middle of it."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("no chromium on PATH: on Debian, apt-get install chromium")
    with scene((MODEL, OTHER)) as on:
        on.deploy_both()
        fleets, versions = set_up(on, (OTHER,))
        serve(fleets[0], *versions[OTHER])
        token = secrets.token_hex(24)
        configure(on, token)
        picture(on, token, chromium)
    sys.stdout.write(f"{PICTURE}: {PICTURE.stat().st_size} bytes\n")


def serve(fleet: Fleet, old: Version, new: Version) -> None:
    """The newer version serves the model that no traffic comes to, the older one is its way back."""
    fleet.registry.set_alias(new, CHAMPION)
    fleet.registry.set_alias(old, FALLBACK)
    result = move_all(fleet, new, fleet.observe(), CLOUDS, "the first version of the year")
    assert not result.reasons, result.reasons


def configure(on: Scene, token: str) -> None:
    """A patient rollout, and somebody who may look at the page."""
    path = on.folder / "lockstep.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    rollout = {"steps": [25, 50, 100], "step_seconds": 25, "patience": 600, "look_every": 1, "min_requests": 30}
    data["fleets"]["default"]["rollout"] = rollout
    data["agent"] = {"port": 0, "refresh_every": 3, "tokens": {"ann": {"role": "approver", "token": token}}}
    path.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")


def picture(on: Scene, token: str, chromium: str) -> None:
    """Start the agent, register a version, deploy it as a canary, look."""
    from playwright.sync_api import sync_playwright

    from lockstep.agent.alert_rules import AlertRules
    from lockstep.agent.assembly import Agent
    from lockstep.agent.server import Server
    from lockstep.operations.canary import canary_deploy
    from lockstep.operations.register import register
    from lockstep.operations.replicate import replicate

    fleet = replace(on.fleet(), actor="alice")
    images = {cloud.name: cloud.image for cloud in fleet.clouds}
    version = register(fleet.registry, MODEL, train(load_data(), "v2"), keys=fleet.keys, images=images)
    replicate(fleet, version)
    server = Server(Agent(on.config(), AlertRules()))
    server.start()
    try:
        server.agent.refresher.wait_until_warm(120.0)
        with on.flowing(), sync_playwright() as playwright:
            rollout = threading.Thread(target=canary_deploy, args=(fleet, version), daemon=True)
            rollout.start()
            time.sleep(WATCHED)
            browser = playwright.chromium.launch(executable_path=chromium, args=list(ARGUMENTS))
            page = browser.new_page(viewport={"width": 1180, "height": 900}, color_scheme="light")
            page.goto(f"{server.address}/")
            page.fill("#token", token)
            page.press("#token", "Enter")
            page.wait_for_selector("#models figure")
            page.screenshot(path=PICTURE, full_page=True)
            browser.close()
    finally:
        server.stop()
    if PICTURE.stat().st_size > LARGEST:
        sys.exit(f"{PICTURE} has {PICTURE.stat().st_size} bytes, more than {LARGEST}")


if __name__ == "__main__":
    main()
