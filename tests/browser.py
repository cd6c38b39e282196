"""Headless Chromium for tests of what people look at; skipped, with the reason, without it."""

from __future__ import annotations

import json
import shutil
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--no-first-run")  # fmt: skip
PATIENCE_S = 60  # a busy machine; how long things take is measured, not tested
OWN = ("file:", "data:", "blob:", "about:", "chrome:", "chrome-untrusted:")


@contextmanager
def chromium(
    home: Path, *, width: int = 1280, height: int = 900, dark: bool = False
) -> Iterator[webdriver.Chrome]:
    """A browser with a fresh profile under ``home``; it records its console and its requests."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        missing = "chromium" if browser is None else "chromedriver"
        pytest.skip(f"{missing} is not installed")
    options = Options()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={home / 'profile'}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    window = webdriver.Chrome(options=options, service=Service(driver))
    try:
        window.set_page_load_timeout(PATIENCE_S)
        sizes = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        window.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [theme]})
        yield window
    finally:
        window.quit()


def until(said: Callable[[], Any]) -> Any:
    """Wait until something is true, and return it."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := said()):
        assert time.monotonic() < deadline, "it never became true"
        time.sleep(0.05)
    return found


def complaints(window: webdriver.Chrome) -> list[str]:
    """What the console has said since it was last asked, warnings too."""
    return [line["message"] for line in window.get_log("browser")]


def requests(window: webdriver.Chrome, allowed: tuple[str, ...] = OWN) -> list[str]:
    """The addresses asked for since the last time that do not begin as allowed."""
    entries = [json.loads(line["message"])["message"] for line in window.get_log("performance")]
    asked = [
        str(entry["params"]["request"]["url"])
        for entry in entries
        if entry["method"] == "Network.requestWillBeSent"
    ]
    assert asked, "no request was recorded, not even the page's own"
    return [url for url in asked if not url.startswith(allowed)]
