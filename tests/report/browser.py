"""Pages as a browser lays them out."""

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

# Of each picture: its size, the size of its smallest letters, its texts that are cut off, and those
# that lie over one another.
MEASURE = """
<script>
addEventListener("load", () => {
  const pictures = [...document.querySelectorAll("figure svg")].map(svg => {
    const frame = svg.getBoundingClientRect(), scale = frame.width / svg.viewBox.baseVal.width;
    const all = [...svg.querySelectorAll("text")];
    const texts = all.map(text => [text.textContent, text.getBoundingClientRect()]);
    const cut = texts.filter(([_, r]) => r.left < frame.left - 1 || r.right > frame.right + 1
      || r.top < frame.top - 1 || r.bottom > frame.bottom + 1).map(([text]) => text);
    const over = [];
    texts.forEach(([a, r], i) => texts.slice(i + 1).forEach(([b, s]) => {
      if (Math.min(r.right, s.right) - Math.max(r.left, s.left) > 1
        && Math.min(r.bottom, s.bottom) - Math.max(r.top, s.top) > 3) over.push([a, b]);
    }));
    const letters = all.map(text => scale * parseFloat(getComputedStyle(text).fontSize));
    return {width: frame.width, height: frame.height, cut, over, texts: texts.length,
      letters: Math.min(...letters), colour: getComputedStyle(all[0]).fill};
  });
  parent.postMessage(JSON.stringify({inner: innerWidth, pictures,
    scroll: document.documentElement.scrollWidth,
    back: getComputedStyle(document.body).backgroundColor}), "*");
});
</script>
"""

# A window has a least width; a frame has none.
FRAME = """<!DOCTYPE html>
<style>:root { color-scheme: light dark }</style>
<script>
addEventListener("message", event => {
  document.body.innerHTML = "<pre>" + btoa(unescape(encodeURIComponent(event.data))) + "</pre>";
});
</script>
<body><iframe src="page.html" style="width: WIDTHpx; height: 2000px; border: 0"></iframe></body>
"""


def laid_out(page: Path, width: int, folder: Path, is_dark: bool = False) -> dict[str, Any]:
    """What `MEASURE` finds where a page is shown in this width.

    Skips the test where there is no browser.
    """
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip(f"no browser was found: {', '.join(NAMES)}")
    (folder / "page.html").write_text(page.read_text() + MEASURE)
    frame = folder / "frame.html"
    frame.write_text(FRAME.replace("WIDTH", str(width)))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,2000"]
    options += [f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=10000"]
    if is_dark:
        options.append("--blink-settings=preferredColorScheme=0")
    command = [browser, *options, "--dump-dom", frame.as_uri()]
    found = subprocess.run(command, capture_output=True, text=True, timeout=240)
    shown = re.search(r"<pre>([\w+/=]+)</pre>", found.stdout)
    assert shown, found.stderr[-2000:]
    return dict(json.loads(base64.b64decode(shown[1])))
