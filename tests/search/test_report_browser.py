"""The report opened in a browser: moved, hovered over, selected, on a phone and in the dark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

from search.contents import EPSILONS
from search.report import report
from search.rundir import RunDir
from tests import bundles
from tests.browser import chromium, complaints, requests, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SPACE = {"student.width": {"int": [4, 64]}, "inner_rate": {"float": [0.01, 1.0], "log": True},
         "student.head": {"choice": ["prototype", "shared"]}}  # fmt: skip
FIGURES = ("f-front", "f-parallel", "f-importances", "f-accuracy", "f-ms", "f-thresholds",
           "f-by-trials", "f-by-hours")  # fmt: skip


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with something for every figure."""
    home = tmp_path_factory.mktemp("report")
    sweep = {"space": SPACE, "constraints": ["quality_drop <= 0.05"]}
    run = RunDir.open(bundles.run(home / "run", [], sweep=sweep))
    for number in range(24):
        width = 4 + (number * 37) % 61
        config = {"student.width": width, "inner_rate": 0.01 * 1.2**number,
                  "student.head": ("prototype", "shared")[number % 2]}  # fmt: skip
        found = bundles.metrics(0.4 + width / 200, 100 * width, 0.2 + 0.1 * width)
        if number % 6 == 5:
            failure = {"kind": "diverged", "reason": "the loss became nan", "iteration": 2}
            bundles.add(run, number, state="FAIL", failure=failure, config=config)
            continue
        found["quality_drop"] = 0.1 if number == 3 else 0.01
        bundles.add(run, number, metrics=found, config=config)
        bundles.scored(run, number)
    return report(run.path, home / "report.html")[0]


@pytest.fixture
def window(page: Path, tmp_path: Path) -> Iterator[Chrome]:
    with chromium(tmp_path) as window:
        opened(window, page)
        yield window
        assert complaints(window) == []
        assert requests(window) == []


def opened(window: Chrome, page: Path) -> None:
    window.get(page.as_uri())
    until(lambda: window.execute_script("return document.documentElement.dataset.ready"))


def text(window: Chrome, name: str) -> str:
    return window.find_element(By.ID, name).text


def show(window: Chrome, name: str) -> Any:
    """Scroll to a figure and wait until it is drawn."""
    found = window.find_element(By.ID, name)
    scroll = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})"
    window.execute_script(scroll, found)
    until(lambda: found.find_elements(By.CSS_SELECTOR, "svg.main-svg"))
    return found


def give(window: Chrome, name: str, value: object) -> None:
    """Set an input as a hand would, its listeners told."""
    window.execute_script(
        "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input'))",
        window.find_element(By.ID, name), str(value),
    )  # fmt: skip


def test_every_figure_is_drawn(window: Chrome) -> None:
    for name in FIGURES:
        show(window, name)
    assert text(window, "n-failures").startswith("By kind")
    assert "diverged" in text(window, "t-failures")


def test_a_still_picture_holds_the_place_of_the_front_until_it_answers(
    window: Chrome, page: Path, tmp_path: Path
) -> None:
    said = window.execute_script("return {...document.documentElement.dataset}")
    assert 0 < int(said["shown"]) < int(said["ready"])
    show(window, "f-front")
    assert not window.find_elements(By.CSS_SELECTOR, ".still")
    held = tmp_path / "held.html"  # as long as Plotly is not read
    held.write_text(page.read_text().replace("  read();", "  return;", 1))
    window.get(held.as_uri())
    until(lambda: window.execute_script("return document.documentElement.dataset.shown"))
    (still,) = window.find_elements(By.CSS_SELECTOR, "#f-front .still")
    assert still.size["height"] > 200
    assert window.execute_script("return arguments[0].naturalWidth", still) == 770
    give(window, "bound-accuracy", 10)  # words and tables answer already
    assert "--min accuracy=0.1" in text(window, "pick")


def test_the_slider_changes_what_a_threshold_costs(window: Chrome) -> None:
    show(window, "f-thresholds")
    said = []
    for step in (0, EPSILONS.index(0.05), len(EPSILONS) - 1):
        give(window, "epsilon", step)
        assert text(window, "epsilon-value") == f"{100 * EPSILONS[step]:.2f} %"
        said.append((text(window, "traded"), text(window, "t-thresholds")))
    assert len(set(said)) == 3


def test_hovering_over_a_point_shows_its_trial(window: Chrome) -> None:
    figure = show(window, "f-front")
    point = figure.find_elements(By.CSS_SELECTOR, ".scatterlayer .points path")[-1]
    ActionChains(window).move_to_element(point).perform()
    shown = until(lambda: figure.find_elements(By.CSS_SELECTOR, ".hoverlayer .hovertext"))
    assert "trial " in shown[0].text
    assert "student_params" in shown[0].text


def test_a_limit_moves_the_front_and_the_command(window: Chrome) -> None:
    before = text(window, "selection")
    give(window, "bound-student_params", 2000)
    after = text(window, "selection")
    assert before != after
    assert int(after.split()[0]) < int(before.split()[0])
    assert "--max student_params=2000" in text(window, "pick")
    give(window, "bound-accuracy", 99)
    assert text(window, "selection").endswith("loosen a limit.")
    assert "--min accuracy=0.99" in text(window, "pick")


def test_choosing_a_trial_shows_the_commands_that_repeat_it(window: Chrome) -> None:
    button = window.find_elements(By.CSS_SELECTOR, "#t-front button")[-1]
    number = button.text
    button.click()
    said = text(window, "point")
    assert f"Trial {number}: complete" in said
    assert f"--pick {number} -o student-{number}" in said
    assert "fewtune train" in said


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (1280, True)])
def test_on_a_phone_and_in_the_dark(page: Path, tmp_path: Path, width: int, dark: bool) -> None:
    with chromium(tmp_path, width=width, dark=dark) as window:
        opened(window, page)
        for name in FIGURES:
            show(window, name)
        wider = "const page = document.documentElement; return page.scrollWidth - page.clientWidth"
        assert window.execute_script(wider) == 0  # nothing sticks out sideways
        paper = window.execute_script("return getComputedStyle(document.body).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") is not dark
        assert complaints(window) == []
        assert requests(window) == []


def test_a_request_and_a_complaint_would_be_noticed(tmp_path: Path) -> None:
    """The two that must be empty above are not empty by themselves."""
    bad = tmp_path / "bad.html"
    bad.write_text("<script src='http://127.0.0.1:9/x.js'></script><script>nothing()</script>")
    with chromium(tmp_path) as window:
        window.get(bad.as_uri())
        assert any("nothing is not defined" in line for line in complaints(window))
        assert requests(window) == ["http://127.0.0.1:9/x.js"]
