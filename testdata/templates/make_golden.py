"""Renders cases.json with every template here through transformers' own Jinja set-up.

    python testdata/templates/make_golden.py

Needs `transformers`. Writes NAME.golden.json beside each NAME.jinja.
"""

import datetime
import json
from pathlib import Path

import jinja2
from transformers.utils import chat_template_utils

HERE = Path(__file__).parent
BOS, EOS = "<|bos|>", "<|eos|>"


class FixedDate(datetime.datetime):
    """A clock that always shows midnight of one day."""

    day_shown = (2024, 12, 31)

    @classmethod
    def now(cls, tz=None):
        return cls(*cls.day_shown, tzinfo=tz)


def message(native):
    result = {"role": native["role"], "content": "".join(part["text"] for part in native["content"])}
    calls = native.get("tool_calls", [])
    if calls:
        result["tool_calls"] = [
            ({"id": call["id"]} if "id" in call else {})
            | {
                "type": "function",
                "function": {"name": call["name"], "arguments": json.loads(call["arguments"])},
            }
            for call in calls
        ]
    return result


def tool(native):
    function = {"name": native["name"], "description": native["description"]}
    function["parameters"] = json.loads(native["parameters"])
    return {"type": "function", "function": function}


def render(template, case):
    options = dict(case["options"])
    date = options.pop("date")
    FixedDate.day_shown = (date["year"], date["month"], date["day"])
    conversation = case["conversation"]
    tools = [tool(native) for native in conversation.get("tools", [])] or None
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            [[message(native) for native in conversation["messages"]]],
            tools=tools,
            chat_template=template,
            bos_token=BOS,
            eos_token=EOS,
            **options,
        )
    except jinja2.exceptions.TemplateError as error:
        return {"name": case["name"], "error": str(error)}
    return {"name": case["name"], "text": rendered[0]}


def main():
    chat_template_utils.datetime = FixedDate
    cases = json.loads((HERE / "cases.json").read_text(encoding="utf-8"))
    for path in sorted(HERE.glob("*.jinja")):
        template = path.read_text(encoding="utf-8")
        golden = [render(template, case) for case in cases]
        text = json.dumps(golden, ensure_ascii=False, indent=1)
        path.with_suffix(".golden.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
