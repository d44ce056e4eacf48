"""Debian's Chromium, headless, which shows the page of a service."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

needs_chromium = pytest.mark.skipif(
    shutil.which("chromium") is None
    or shutil.which("chromedriver") is None
    or importlib.util.find_spec("selenium") is None,
    reason="needs chromium, chromedriver and selenium: apt-get install chromium chromium-driver; pip install selenium",
)
WAIT_S = 120.0
PHONE = (390, 844)
DESK = (1280, 900)


class Browser:
    """One tab of it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def fresh(self) -> None:
        """Another tab in place of this one, which knows and says nothing of what was before."""
        before = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        after = self.driver.current_window_handle
        self.driver.switch_to.window(before)
        self.driver.close()
        self.driver.switch_to.window(after)
        self.complaints()

    def open(self, url: str, size: tuple[int, int] = DESK, scheme: str = "light") -> None:
        """Of a new page, on a screen of so many pixels, for somebody who wants this color scheme."""
        self.look(size, scheme)
        self.driver.get("about:blank")  # else another "#..." of the same address is the same page
        self.driver.get(url)

    def look(self, size: tuple[int, int], scheme: str) -> None:
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        wanted = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})

    def run(self, script: str, *values: Any) -> Any:
        """What a script returns, where `$(id)` is the element of this id."""
        return self.driver.execute_script(f"const $ = (id) => document.getElementById(id); {script}", *values)

    def text(self, id_: str) -> str:
        """What is to be read in an element; "" where it is hidden."""
        return self.run("return $(arguments[0]).innerText", id_)

    def click(self, id_: str) -> None:
        """As with a mouse: what is hidden, or covered, cannot be clicked."""
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.ID, id_).click()

    def write(self, id_: str, text: str) -> None:
        from selenium.webdriver.common.by import By

        self.driver.find_element(By.ID, id_).send_keys(text)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Looks again and again until `condition` is true; what it gave. A browser tells nobody when something
        happens."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.driver, WAIT_S, 0.2).until(lambda _: condition(), f"expected {what}")

    def until_text(self, id_: str, text: str) -> None:
        self.until(lambda: text in self.text(id_), f"{text!r} in #{id_}")

    def asked(self) -> set[str]:
        """The origins of all that the page has asked for."""
        return set(self.run("return performance.getEntriesByType('resource').map((e) => new URL(e.name).origin)"))

    def complaints(self) -> list[str]:
        """What the browser has had to complain of since the last time: errors of scripts, a policy that was broken,
        what was not there."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """One with a profile of its own."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", "--force-color-profile=srgb"):
        options.add_argument(argument)
    if os.getuid() == 0:
        options.add_argument("--no-sandbox")  # it does not start as root with one
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
