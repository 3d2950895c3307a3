"""Checks that every page of this repository must pass, whatever it shows."""

WIDTHS = {"phone": (390, 844), "desktop": (1280, 900)}
SCHEMES = ("light", "dark")

# Elements that stick out to the right of the window. What scrolls inside a box of its
# own does not make the page scroll.
OVERFLOWING = """
const width = document.documentElement.clientWidth;
const scrolls = e => { for (let p = e.parentElement; p; p = p.parentElement)
  if (['auto', 'scroll', 'hidden'].includes(getComputedStyle(p).overflowX)) return true;
  return false; };
return [...document.body.querySelectorAll('*')]
  .filter(e => !e.closest('svg') || e.tagName === 'svg')
  .filter(e => e.getBoundingClientRect().right > width + 1 && !scrolls(e))
  .slice(0, 5)
  .map(e => `${e.tagName}.${e.className} to ${e.getBoundingClientRect().right} of ${width}: `
    + e.textContent.slice(0, 60));
"""

# Texts whose contrast with what is behind them is below 4.5, or 3 for large ones
# (WCAG 2.2, success criterion 1.4.3).
LOW_CONTRAST = """
const canvas = document.createElement('canvas');
canvas.width = canvas.height = 1;
const context = canvas.getContext('2d', { willReadFrequently: true });
const rgba = colour => { context.clearRect(0, 0, 1, 1); context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1); return [...context.getImageData(0, 0, 1, 1).data]; };
const behind = e => { for (let p = e; p; p = p.parentElement) {
    const colour = rgba(getComputedStyle(p).backgroundColor);
    if (colour[3] > 250) return colour; }
  return rgba(getComputedStyle(document.documentElement).colorScheme.includes('dark')
    && matchMedia('(prefers-color-scheme: dark)').matches ? '#121212' : '#ffffff'); };
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const poor = [];
for (const e of document.body.querySelectorAll('*')) {
  const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
  const box = e.getBoundingClientRect();
  if (!own || !box.width || !box.height || e.closest('svg')) continue;
  const style = getComputedStyle(e);
  const [a, b] = [light(rgba(style.color)), light(behind(e))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const size = parseFloat(style.fontSize);
  const large = size >= 24 || size >= 18.66 && parseInt(style.fontWeight) >= 700;
  if (contrast < (large ? 3 : 4.5))
    poor.push(`${e.tagName}.${e.className} ${contrast.toFixed(2)}: ${e.textContent.slice(0, 40)}`);
}
return poor.slice(0, 8);
"""


def check_layout(test, browser):
    """Nothing overflows at either width and every text can be read in either scheme."""
    for width, size in WIDTHS.items():
        browser.resize(*size)
        for scheme in SCHEMES:
            browser.scheme(scheme)
            where = f"{width}, {scheme}"
            sizes = browser.run(
                "const d = document.documentElement; return [d.scrollWidth, d.clientWidth];"
            )
            test.assertLessEqual(sizes[0], sizes[1], where)
            test.assertEqual(browser.run(OVERFLOWING), [], where)
            test.assertEqual(browser.run(LOW_CONTRAST), [], where)


def save_screenshots(browser, folder, name):
    """One picture a width and scheme."""
    folder.mkdir(parents=True, exist_ok=True)
    for width, size in WIDTHS.items():
        browser.resize(*size)
        for scheme in SCHEMES:
            browser.scheme(scheme)
            browser.screenshot(folder / f"{name}-{width}-{scheme}.png")
    browser.resize(*WIDTHS["desktop"])
    browser.scheme("light")


def check_console(test, browser):
    """No error and no breach of the content policy."""
    bad = [m["message"] for m in browser.console() if m["level"] in ("SEVERE", "WARNING")]
    test.assertEqual(bad, [])
