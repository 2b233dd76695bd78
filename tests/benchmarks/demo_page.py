"""The demo in a real browser: what is dropped, what the page shows, and what it asks of whom.

python tests/benchmarks/demo_page.py URL PHOTO STORE --faces 6 --output DIR

needs selenium and Debian's chromium and chromium-driver. It drops PHOTO, a
text that is called .jpg, noise, PHOTO again, a picture from the (faked)
webcam, STORE and a file that is no store; screenshots lie in DIR. The last
line is one JSON object; in it `outside` is what the page asked of other hosts, `browsers_own`
what Chromium asked for by itself (its names are not resolved: nothing leaves the machine).
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

WAIT_S = 600
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --window-size=1200,1500 "
    "--disable-extensions --disable-default-apps --disable-domain-reliability "
    "--disable-component-extensions-with-background-pages --homepage=about:blank "
    "--disable-features=OptimizationHints,OptimizationGuideModelDownloading,"
    "OptimizationGuideOnDeviceModel,NetworkTimeServiceQuerying "
    "--use-fake-device-for-media-stream --use-fake-ui-for-media-stream"
)


def browser(folder):
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    log = f"--log-net-log={folder / 'net.json'}"
    for flag in (*FLAGS.split(), f"--user-data-dir={folder / 'profile'}", log):
        options.add_argument(flag)
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    service = webdriver.ChromeService("/usr/bin/chromedriver")
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(WAIT_S)
    return driver


class Page:
    def __init__(self, driver, output):
        self.driver, self.output, self.seen = driver, output, {}

    def wait(self, condition):
        return WebDriverWait(self.driver, WAIT_S).until(lambda _: condition())

    def all(self, selector):
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def drop(self, name, file, area, answer):
        """Hands a file to an area of the page and waits for another answer."""
        before = self.html(answer)
        start = time.monotonic()
        self.wait(lambda: self.all(f"{area} input[type=file]"))
        target = self.all(f"{area} button")[0].location_once_scrolled_into_view | (
            self.all(f"{area} button")[0].size
        )
        place = {"x": target["x"] + target["width"] / 2, "y": target["y"] + target["height"] / 2}
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            event = {"type": kind, "data": data, **place}
            self.driver.execute_cdp_cmd("Input.dispatchDragEvent", event)
        self.finish(name, answer, before, start)

    def finish(self, name, answer, before, start):
        self.wait(lambda: self.html(answer) not in ("", before))
        time.sleep(1)
        html = self.html(answer)
        alerts = [e.text for e in self.all(f"{answer} [role=alert]")]
        rows = [e.text for e in self.all(f"{answer} tr")]
        pictures = [e.get_attribute("alt") for e in self.all(f"{answer} img")]
        shows = {"alerts": alerts, "rows": rows, "pictures": pictures}
        self.seen[name] = shows | {"seconds": round(time.monotonic() - start, 1)}
        self.driver.save_screenshot(str(self.output / f"{name}.png"))
        print(name, json.dumps(self.seen[name], indent=1), flush=True)
        return html

    def click(self, selector):
        self.wait(lambda: self.all(selector))
        time.sleep(1)
        self.all(selector)[0].click()

    def html(self, answer):
        found = self.all(f"{answer} .prose")
        return found[0].get_attribute("innerHTML").strip() if found else ""

    def requests(self):
        """Addresses that the browser asked for, and what it wrote about errors."""
        urls = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.append(message["params"]["request"]["url"])
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        return [u for u in urls if not u.startswith(("chrome:", "data:", "blob:"))], messages


def asked_for(folder):
    """Every address that any part of the browser asked the network for."""
    entries = json.loads((folder / "net.json").read_text())["events"]
    found = {entry.get("params", {}).get("url", "") for entry in entries}
    return {url for url in found if url.startswith(("http", "ws"))}


def bad_files(folder):
    text, noise, store = (folder / n for n in ("text.jpg", "noise.png", "no-store.h5"))
    text.write_text("I am no photo.")
    store.write_text("I am no store.")
    pixels = np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)
    Image.fromarray(pixels).save(noise)
    return text, noise, store


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("photo", type=Path)
    parser.add_argument("store", type=Path)
    parser.add_argument("--faces", type=int, default=6)
    parser.add_argument("--output", type=Path, default=Path("."))
    args = parser.parse_args()
    args.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text, noise, no_store = bad_files(folder)
        driver = browser(folder)
        try:
            driver.get(args.url)
            page = Page(driver, args.output)
            area, answer = "#photo-input", "#photo-answer"
            page.drop("photo", args.photo.resolve(), area, answer)
            page.drop("text", text, area, answer)
            page.drop("noise", noise, area, answer)
            page.drop("photo-again", args.photo.resolve(), area, answer)
            before, start = page.html(answer), time.monotonic()
            page.all(f"{area} [aria-label='Capture from camera']")[0].click()
            page.click(f"{area} .access-wrap, {area} [title='grant webcam access']")
            page.click(f"{area} [aria-label='capture photo']")
            page.finish("webcam", answer, before, start)
            page.all("button[role=tab]")[1].click()
            area, answer = "#store-input", "#store-answer"
            page.drop("no-store", no_store, area, answer)
            page.drop("store", args.store.resolve(), area, answer)
            page.all("#store-table")[0].location_once_scrolled_into_view  # noqa: B018
            driver.save_screenshot(str(args.output / "table.png"))
            page.drop("no-store-again", no_store, area, answer)
            urls, messages = page.requests()
        finally:
            driver.quit()
        asked = asked_for(folder)
    print("\n".join(messages))
    here = urlsplit(args.url).netloc
    pages = {u for u in urls if urlsplit(u).scheme != "chrome-untrusted"}  # Chromium's new tab
    outside = sorted({u for u in pages if urlsplit(u).netloc != here})
    browsers_own = sorted({urlsplit(u).netloc for u in asked.difference(urls)} - {here})
    print(f"{len(urls)} requests of the page, {len(outside)} to other hosts", *outside, sep="\n")
    print(f"the browser itself asked for {len(browsers_own)} other hosts", *browsers_own, sep="\n")
    seen = page.seen
    good = len(seen["photo"]["rows"]) == args.faces + 1  # and a line of headers
    good &= seen["photo"]["rows"] == seen["photo-again"]["rows"] and not outside
    good &= len(seen["store"]["rows"]) > 4 and len(seen["store"]["pictures"]) == 1
    good &= all(len(seen[n]["alerts"]) == 1 for n in ("text", "noise", "no-store"))
    sentences = {name: shown["alerts"] for name, shown in seen.items() if shown["alerts"]}
    seconds = {name: shown["seconds"] for name, shown in seen.items()}
    result = {
        "good": bool(good),
        "requests": len(urls),
        "outside": outside,
        "browsers_own": browsers_own,
    }
    print(json.dumps(result | {"sentences": sentences, "seconds": seconds}))


if __name__ == "__main__":
    main()
