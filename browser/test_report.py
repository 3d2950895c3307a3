"""The report in a real browser: its figures are there, nothing overflows, it can be read
in both colour schemes and on paper, and nothing untrusted runs."""

import os
import pathlib
import re
import tempfile
import unittest

import fixtures
import page
from webdriver import Browser

OUT = pathlib.Path(os.environ.get("PATARM_BROWSER_OUT", fixtures.ROOT / "target" / "browser"))

# Drawings that have no extent or a coordinate that is no number.
BROKEN_FIGURES = """
return [...document.querySelectorAll('svg')]
  .filter(s => s.checkVisibility())
  .filter(s => { const b = s.getBoundingClientRect();
    return b.width < 40 || b.height < 16 || /NaN|inf/.test(s.innerHTML) || !s.children.length; })
  .map(s => s.getAttribute('aria-label'));
"""

# Labels in drawings that stick out of them.
CUT_LABELS = """
return [...document.querySelectorAll('svg')].filter(s => s.checkVisibility()).flatMap(s => {
  const outer = s.getBoundingClientRect();
  return [...s.querySelectorAll('text')].filter(t => { const b = t.getBoundingClientRect();
    return b.width && (b.left < outer.left - 1 || b.right > outer.right + 1
      || b.top < outer.top - 2 || b.bottom > outer.bottom + 2); }).map(t => t.textContent);
}).slice(0, 5);
"""


class Report(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="patarm-report-")
        root = pathlib.Path(cls.folder.name)
        made = fixtures.results(root)
        OUT.mkdir(parents=True, exist_ok=True)
        cls.pages = {}
        for name, folders in {
            "evaluation": [made["trained"]],
            "several": [made["cold"], made["trained"], made["steps"], made["run"]],
        }.items():
            cls.pages[name] = OUT / f"{name}.html"
            fixtures.patarm("report", *folders, "--out", cls.pages[name])
        cls.browser = Browser()

    @classmethod
    def tearDownClass(cls):
        cls.browser.close()
        cls.folder.cleanup()

    def each_page(self):
        for name, path in self.pages.items():
            with self.subTest(name):
                self.browser.open(path.as_uri())
                yield name

    def test_layout_in_every_width_and_scheme(self):
        for _ in self.each_page():
            self.browser.run("document.querySelectorAll('details').forEach(d => d.open = true);")
            page.check_layout(self, self.browser)

    def test_figures_are_drawn(self):
        self.browser.resize(*page.WIDTHS["desktop"])
        for name in self.each_page():
            figures = self.browser.run(
                "return [...document.querySelectorAll('svg')].map(s => s.getAttribute('aria-label'))"
            )
            expected = ["Scores by label", "Margins, right − wrong", "Calibration", "By subset"]
            if name == "several":
                expected += ["By class", "Loss"]
            for title in expected:
                self.assertTrue(any(title in figure for figure in figures), (title, figures))
            self.browser.run("document.querySelectorAll('details').forEach(d => d.open = true);")
            self.assertEqual(self.browser.run(BROKEN_FIGURES), [])
            self.assertEqual(self.browser.run(CUT_LABELS), [])

    def test_nothing_untrusted_runs(self):
        for _ in self.each_page():
            self.assertEqual(self.browser.run("return document.title"), "patarm")
            self.assertEqual(self.browser.run("return document.scripts.length"), 0)
            self.assertEqual(self.browser.run("return document.images.length"), 0)
            page.check_console(self, self.browser)

    def test_paper(self):
        for name in self.each_page():
            path = OUT / f"{name}.pdf"
            self.browser.print_pdf(path)
            pages = len(re.findall(rb"/Type\s*/Page[^s]", path.read_bytes()))
            self.assertTrue(1 <= pages <= 60, pages)
            self.assertGreater(path.stat().st_size, 40_000, "a page of nothing")

    def test_pictures_are_kept(self):
        for name in self.each_page():
            page.save_screenshots(self.browser, OUT, name)
            sizes = [path.stat().st_size for path in OUT.glob(f"{name}-*.png")]
            self.assertEqual(len(sizes), 4)
            self.assertGreater(min(sizes), 20_000)


if __name__ == "__main__":
    unittest.main()
