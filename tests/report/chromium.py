"""A real browser, and what goes wrong on a page in it."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>&lt;b&gt;\u2028'\""


class Opened:
    """A page, and what went wrong on it."""

    def __init__(self, browser: Browser, file: Path, **context: Any) -> None:
        self.context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | context))
        self.page: Page = self.context.new_page()
        self.trouble: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda m: self.trouble.append(m.text))
        self.page.on("pageerror", lambda e: self.trouble.append(str(e)))
        self.page.on("dialog", lambda d: (self.trouble.append(f"dialog {d.message}"), d.dismiss()))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(file.as_uri())

    def scroll_through(self) -> None:
        height = self.page.evaluate("document.documentElement.scrollHeight")
        for y in range(0, height + 1000, 1000):
            self.page.evaluate(f"window.scrollTo({{top: {y}, behavior: 'instant'}})")
            self.page.wait_for_timeout(40)

    def draw_all(self) -> None:
        """Draw all pictures, as before printing: what nobody has scrolled to is not drawn yet."""
        for event in ("beforeprint", "afterprint"):
            self.page.evaluate(f"dispatchEvent(new Event('{event}'))")

    def undrawn(self) -> list[str]:
        """Pictures in which no line was drawn."""
        found: list[str] = self.page.evaluate(
            "[...document.querySelectorAll('[data-picture]')].filter(h => !h.querySelector('svg.main-svg path[d]'))"
            ".map(h => h.dataset.picture)"
        )
        return found

    def width_at(self, width: int) -> int:
        """How wide the page is in a window of so many pixels: more where it scrolls sideways."""
        self.page.set_viewport_size({"width": width, "height": 844})
        self.page.wait_for_timeout(400)  # plotly waits for a window that comes to rest
        found: int = self.page.evaluate("document.documentElement.scrollWidth")
        return found

    def followed(self) -> list[tuple[str, str, float]]:
        """Each line of the verdicts, clicked: its name, the heading that it leads to, and where that section begins."""
        found = []
        for line in self.page.locator(".verdicts a").all():
            line.evaluate("a => a.click()")
            section = self.page.locator(f".claim{line.get_attribute('href')}")
            top: float = section.evaluate("e => e.getBoundingClientRect().top")
            found.append((line.locator("b").inner_text(), section.locator("h2").inner_text(), top))
        return found
