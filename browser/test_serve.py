"""The server's page in a real browser: judgements appear, nothing the judge writes runs,
everything can be reached by keyboard, and it fits a phone."""

import contextlib
import json
import os
import pathlib
import tempfile
import time
import unittest

import fixtures
import page
import serving
from webdriver import Browser

OUT = pathlib.Path(os.environ.get("PATARM_BROWSER_OUT", serving.ROOT / "target" / "browser"))
KEY = "a-key-for-the-browser-test"
PROMPT = "A train leaves at 9:40 and arrives at 11:05. How long is the journey?"
CTRL, ENTER, TAB, ESC = "\ue009", "\ue007", "\ue004", "\ue00c"

UNLABELLED = """
return [...document.querySelectorAll('input, select, textarea, button')]
  .filter(e => !e.labels?.length && !e.textContent.trim() && !e.ariaLabel).map(e => e.id);
"""
COPIED = """
window.copied = null;
navigator.clipboard.writeText = async text => { window.copied = text; };
"""


class Serving(unittest.TestCase):
    """A server, a browser, and what a person does with them."""

    @classmethod
    def setUpClass(cls):
        cls.stack = contextlib.ExitStack()
        OUT.mkdir(parents=True, exist_ok=True)
        cls.engine = cls.stack.enter_context(serving.engine())
        cls.url = cls.stack.enter_context(serving.serve("--model", f"judge=openai:{cls.engine}#m"))
        cls.browser = cls.stack.enter_context(Browser())

    @classmethod
    def tearDownClass(cls):
        cls.stack.close()

    def setUp(self):
        self.browser.resize(*page.WIDTHS["desktop"])
        self.browser.scheme("light")
        self.load(self.url)

    def load(self, url):
        self.browser.open(url)
        self.until("return document.querySelectorAll('#stats dd').length > 3")
        self.browser.run(COPIED)

    def until(self, script, timeout_s=60):
        deadline = time.monotonic() + timeout_s
        while not self.browser.run(script):
            self.assertLess(time.monotonic(), deadline, f"{script}: {self.status()}")
            time.sleep(0.05)

    def status(self):
        return self.text("#status")

    def text(self, selector):
        return self.browser.run("return document.querySelector(arguments[0])?.textContent", selector)

    def value(self, selector, value):
        self.browser.run(
            "const e = document.querySelector(arguments[0]); e.value = arguments[1];", selector, value
        )

    def fill(self, responses, votes=1):
        self.value("#prompt", PROMPT)
        for index, response in enumerate(responses):
            if index > 0:
                self.browser.click("#add")
            self.value(f"#response-{index}", response)
        self.value("#votes", str(votes))

    def judge(self):
        self.browser.click("#judge")
        self.finished()

    def finished(self):
        self.until("return document.querySelector('#stop').hidden")
        self.assertRegex(self.status(), "^Done in ")

    def keys(self, *keys):
        down = [{"type": "keyDown", "value": key} for key in keys]
        up = [{"type": "keyUp", "value": key} for key in reversed(keys)]
        source = {"type": "key", "id": "keyboard", "actions": down + up}
        self.browser.call("POST", "/actions", {"actions": [source]})

    def focused(self):
        return self.browser.run("return document.activeElement.id || document.activeElement.className")


class Page(Serving):
    """A judge whose words are known."""

    def test_votes_criteria_and_scores_appear(self):
        self.browser.type("#prompt", PROMPT)
        self.browser.type("#response-0", "1 hour and 25 minutes.")
        self.value("#votes", "3")
        self.keys(CTRL, ENTER)
        self.finished()
        self.assertEqual(len(self.browser.find(".vote")), 3)
        self.assertRegex(self.text(".card .score"), r"^\d")
        self.assertIn("over 3 votes", self.text(".card .note"))
        self.assertEqual(len(self.browser.find(".strip circle")), 3)
        self.assertIn("Correctness 60 %", self.text(".vote .part"))
        self.assertIn("It states the result", self.text(".vote"))
        page.check_console(self, self.browser)

    def test_two_responses_are_ranked_and_compared(self):
        self.fill(["85 minutes", "1 hour and 25 minutes, because 9:40 to 10:40 is one hour."])
        self.judge()
        self.assertEqual(len(self.browser.find("#cards .card")), 2)
        self.assertRegex(self.text("#verdict"), "leads by|No response leads")
        self.browser.click("#compare")
        self.finished()
        # The engine prefers whatever is shown second, so the orders disagree.
        self.assertEqual(self.text("#comparison .score"), "tie")
        self.assertIn("disagree", self.text("#comparison .note"))
        self.assertEqual(len(self.browser.find("#comparison .vote")), 2)

    def test_nothing_untrusted_runs(self):
        self.fill([serving.HOSTILE, f"B {serving.HOSTILE}"], votes=2)
        self.judge()
        self.browser.click("#compare")
        self.finished()
        self.browser.run("document.querySelectorAll('details').forEach(d => d.open = true);")
        self.assertEqual(self.browser.run("return document.title"), "patarm: judge a response")
        self.assertEqual(self.browser.run("return document.images.length"), 0)
        self.assertIn("<img src=x", self.text("#cards"))
        page.check_console(self, self.browser)

    def test_a_judgement_without_a_score_says_why(self):
        self.fill(["unparsed"], votes=2)
        self.judge()
        self.assertEqual(self.text(".card .score"), "–")
        self.assertIn("score not number", self.text(".vote .badge"))
        self.assertIn("seven", self.text(".vote"))

    def test_copies_are_complete(self):
        self.fill(["It's 85 minutes."])
        self.judge()
        self.browser.click("#copy-json")
        self.until("return window.copied")
        copied = json.loads(self.browser.run("return window.copied"))
        self.assertEqual(copied["judged"][0]["request"]["response"], "It's 85 minutes.")
        self.assertEqual(len(copied["judged"][0]["reply"]["judgements"]), 1)
        self.browser.click("#copy-curl")
        self.until("return window.copied.startsWith('curl')")
        command = self.browser.run("return window.copied")
        self.assertIn(f"'{self.url}/v1/judge'", command)
        self.assertIn("It'\\''s 85 minutes.", command)

    def test_keyboard_alone_and_labels(self):
        self.assertEqual(self.browser.run(UNLABELLED), [])
        order = []
        for _ in range(7):
            self.keys(TAB)
            order.append(self.focused())
        expected = ["skip", "prompt", "response-0", "task", "votes", "add", "judge"]
        self.assertEqual(order, expected)
        self.keys(ENTER)
        self.assertRegex(self.status(), "^Fill in")
        self.assertEqual(self.focused(), "prompt")

    def test_escape_stops(self):
        self.fill(["a slow answer"])
        self.browser.click("#judge")
        self.until("return !document.querySelector('#stop').hidden")
        self.keys(ESC)
        self.assertEqual(self.status(), "Stopped.")
        self.until("return document.querySelector('#stop').hidden")

    def test_layout_and_pictures(self):
        self.value("#prompt", PROMPT)
        page.save_screenshots(self.browser, OUT, "serve-empty")
        self.fill(["85 minutes", serving.HOSTILE, "averylongword" * 30, "unparsed"], votes=3)
        self.assertTrue(self.browser.run("return document.querySelector('#add').hidden"))
        self.judge()
        page.check_layout(self, self.browser)
        page.save_screenshots(self.browser, OUT, "serve-judged")
        self.browser.run("document.querySelectorAll('details').forEach(d => d.open = true);")
        page.check_layout(self, self.browser)

    def test_a_key_is_asked_for_and_kept_in_memory_only(self):
        with tempfile.NamedTemporaryFile("w", suffix=".keys") as keys:
            keys.write(KEY + "\n")
            keys.flush()
            arguments = ["--model", f"judge=openai:{self.engine}#m", "--api-key-file", keys.name]
            with serving.serve(*arguments) as url:
                self.load(url)
                self.fill(["85 minutes"])
                self.browser.click("#judge")
                self.until("return document.activeElement.id === 'key'")
                self.browser.type("#key", KEY)
                self.judge()
                self.browser.click("#copy-curl")
                self.until("return window.copied")
                command = self.browser.run("return window.copied")
                self.assertNotIn(KEY, command)
                self.assertIn("$PATARM_API_KEY", command)
                stored = "return [localStorage.length, sessionStorage.length, document.cookie]"
                self.assertEqual(self.browser.run(stored), [0, 0, ""])
                # The browser reports the refusal that asked for the key.
                self.browser.console()

    def test_statistics_are_alive(self):
        before = self.text("#stats dd")
        self.fill(["85 minutes"])
        self.judge()
        self.until(f"return document.querySelector('#stats dd').textContent !== '{before}'")


@unittest.skipUnless(os.environ.get("PATARM_TEST_MODEL"), "PATARM_TEST_MODEL is not set")
class Streaming(Serving):
    """Text shows while the judge still writes, with a judge that runs here."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        model = os.environ["PATARM_TEST_MODEL"]
        cls.url = cls.stack.enter_context(
            serving.serve("--model", model, "--template", "patarm-short", "--max-tokens", "48")
        )

    def test_text_streams_in(self):
        self.fill(["1 hour and 25 minutes."], votes=2)
        self.browser.click("#judge")
        self.until("return document.querySelector('.vote .part p')?.textContent.length > 3", 120)
        self.assertFalse(self.browser.run("return document.querySelector('#stop').hidden"))
        self.browser.screenshot(OUT / "serve-writing.png")
        self.until("return document.querySelector('#stop').hidden", 240)
        self.assertEqual(len(self.browser.find(".vote")), 2)


@unittest.skipUnless(os.environ.get("PATARM_TEST_MODEL"), "PATARM_TEST_MODEL is not set")
class HeatMaps(Serving):
    """Values of tokens and steps, on the page and in a report, from models trained here."""

    STEPS = ["9:40 to 10:40 is one hour.", "10:40 to 11:05 is 25 minutes \U0001f642."]

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = pathlib.Path(cls.stack.enter_context(tempfile.TemporaryDirectory(prefix="patarm-heat-")))
        pairs = [{"prompt": f"{PROMPT} ({n})", "chosen": " ".join(cls.STEPS), "rejected": "No idea."} for n in range(8)]
        fixtures.write_rows(folder / "pairs.jsonl", pairs)
        steps = [{"id": f"s{n}", "prompt": f"{PROMPT} ({n})", "steps": cls.STEPS, "labels": [1, n % 2]} for n in range(8)]
        fixtures.write_rows(folder / "steps.jsonl", steps)
        named = []
        cls.runs = {}
        for family, data in (("q_rm", "pairs"), ("process_reward", "steps")):
            cls.runs[family] = folder / family
            changes = [f"model={os.environ['PATARM_TEST_MODEL']}", f"data.train={folder / data}.jsonl",
                       f"{family}.schedule.steps=1", f"{family}.schedule.batch=2", "parameters.freeze_below=29",
                       f"{family}.head={{ kind = \"normal\", std = 0.05 }}"]
            changes = [part for change in changes for part in ("--set", change)]
            fixtures.patarm("train", serving.ROOT / f"recipes/{family}.toml", "--out", cls.runs[family], *changes)
            named += ["--model", f"{family}={cls.runs[family]}"]
        cls.url = cls.stack.enter_context(serving.serve(*named))

    def heat(self, model, response):
        """The parts of the heat map of a response, with the class of each."""
        self.value("#model", model)
        self.fill([response])
        self.judge()
        page.check_layout(self, self.browser)
        page.save_screenshots(self.browser, OUT, f"serve-heat-{model}")
        return self.browser.run(
            "return [...document.querySelectorAll('.heat span')].map(e => [e.textContent, e.className]);")

    def test_tokens_are_coloured(self):
        response = " ".join(self.STEPS)
        parts = self.heat("q_rm", response)
        self.assertTrue("".join(text for text, _ in parts).startswith(response))
        self.assertEqual({name for _, name in parts}, {"high", "low"})

    def test_steps_are_coloured(self):
        response = "\n\n".join(self.STEPS)
        parts = self.heat("process_reward", response)
        self.assertEqual([text for text, _ in parts], [self.STEPS[0] + "\n\n", self.STEPS[1]])
        self.assertEqual({name for _, name in parts}, {"high", "low"})

    def test_a_report_shows_them(self):
        for family, run in self.runs.items():
            out = OUT / f"heat-{family}.html"
            fixtures.patarm("report", run, "--out", out)
            self.browser.open(out.as_uri())
            self.browser.run("document.querySelectorAll('details').forEach(d => d.open = true);")
            page.check_layout(self, self.browser)
            count = "return document.querySelectorAll('pre span[class^=high], pre span[class^=low]').length"
            self.assertGreater(self.browser.run(count), 3)
            self.browser.screenshot(OUT / f"report-heat-{family}.png")


if __name__ == "__main__":
    unittest.main()
