"""Takes the pictures of the guides: report and board of a finished run, in headless Chromium.

    fewtune sweep --trials 12 --name quickstart
    fewtune extend runs/quickstart --trials 8
    python -m docs.figures runs/quickstart

Each of ``SHOTS`` becomes a PNG beside this file, of at most 200 KB. Needs Chromium and its driver.
"""

from __future__ import annotations

import argparse
import base64
import io
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from search.board import command
from search.report import report
from search.rundir import RunDir

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
MOST = 200_000  # bytes of a picture
COLOURS = 128  # of its palette
PATIENCE_S = 90
PLAIN_COLOURS, PLAIN_SHARE = 50, 0.98  # of an empty page: its colours, and what the first fills
SETTLE_S = 2.0  # what a page takes to draw what has just come into view
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
         "--no-first-run", "--hide-scrollbars")  # fmt: skip


@dataclass(frozen=True)
class Shot:
    """One picture.

    Attributes:
        page: Of the report: an element, from whose top the picture starts; of the board: the name
            of a dashboard.
        height: In pixels; all are ``width`` wide.
        settle_s: What the page takes to draw what is then in view.
        prepare: JavaScript that comes before it.
        width: In pixels.
    """

    page: str
    height: int
    settle_s: float = SETTLE_S
    prepare: str = ""
    width: int = 1280


REPORT = {
    "report-front": Shot("s-front", 900),
    "report-patterns": Shot("s-patterns", 560),
    "report-thresholds": Shot(
        "s-thresholds",
        720,
        prepare="const e = document.getElementById('epsilon'); e.value = e.max / 2;"
        "e.dispatchEvent(new Event('input', {bubbles: true}));",
    ),
}
BOARD = {
    "board-search": Shot("custom_scalars", 800, settle_s=15),
    "board-images": Shot("images", 880, settle_s=15),
}


def main() -> None:
    """Write every picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=HERE)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as home, browser(Path(home)) as window:
        page = report(args.run, Path(home) / "report.html")[0]
        for name, shot in REPORT.items():
            window.get(page.as_uri())
            _until(window, "return document.documentElement.dataset.ready")
            save(args.out / f"{name}.png", taken(window, shot))
        with served(args.run) as address:
            for name, shot in BOARD.items():
                window.get("about:blank")  # the name of a dashboard alone loads nothing anew
                window.get(f"{address}/#{shot.page}")
                save(args.out / f"{name}.png", loaded(window, shot))


@contextmanager
def browser(home: Path) -> Iterator[webdriver.Chrome]:
    """A browser with a fresh profile."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("chromium-browser") or ""
    for flag in (*FLAGS, f"--user-data-dir={home / 'profile'}"):
        options.add_argument(flag)
    window = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield window
    finally:
        window.quit()


@contextmanager
def served(run: Path) -> Iterator[str]:
    """TensorBoard on a run, as ``fewtune board`` starts it; its address.

    The board shows the directory that it reads: here the one that was given, relative or not.
    """
    folder = RunDir.open(run).tensorboard
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [str(run / folder.name) if w == str(folder) else w for w in command(run, port=port)]
    server = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not _answers(f"{address}/data/runs") and time.monotonic() < deadline:
            time.sleep(0.5)
        yield address
    finally:
        server.terminate()
        server.wait()


def taken(window: webdriver.Chrome, shot: Shot) -> bytes:
    """Return the picture of what is open, as PNG."""
    sizes = {"width": shot.width, "height": shot.height, "deviceScaleFactor": 1, "mobile": False}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", sizes)
    window.execute_script(
        "document.getElementById(arguments[0])?.scrollIntoView({behavior: 'instant'})", shot.page
    )
    time.sleep(shot.settle_s)
    window.execute_script(shot.prepare)
    time.sleep(SETTLE_S)
    return base64.b64decode(window.get_screenshot_as_base64())


def loaded(window: webdriver.Chrome, shot: Shot) -> bytes:
    """Return the picture when something is to be seen, or when that takes too long."""
    deadline = time.monotonic() + PATIENCE_S
    while blank(picture := taken(window, shot)) and time.monotonic() < deadline:
        pass
    return picture


def blank(picture: bytes) -> bool:
    """Tell whether a picture shows no more than a page that is still empty."""
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    colours = image.getcolors(2**24) or []
    most = max(count for count, _ in colours) / (image.width * image.height)
    return len(colours) <= PLAIN_COLOURS or most >= PLAIN_SHARE


def save(file: Path, picture: bytes) -> None:
    """Write a picture with few colours.

    Raises:
        SystemExit: It is too large for a document.
    """
    image = Image.open(io.BytesIO(picture)).convert("RGB")
    image.quantize(COLOURS, dither=Image.Dither.NONE).save(file, optimize=True)
    if file.stat().st_size > MOST:
        raise SystemExit(f"{file} has {file.stat().st_size} bytes, more than {MOST}.")


def _until(window: webdriver.Chrome, said: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not window.execute_script(said):
        if time.monotonic() > deadline:
            raise SystemExit(f"The page was not ready within {PATIENCE_S} s.")
        time.sleep(0.1)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address) as answer:
            return bool(answer.status == 200 and b"trial" in answer.read())
    except OSError:  # nobody there yet, or a connection that is dropped
        return False


if __name__ == "__main__":
    main()
