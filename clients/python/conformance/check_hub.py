"""``huggingface_hub``'s InferenceClient against a server with a scalar model: ``check_hub.py URL``."""

from __future__ import annotations

import sys

from _report import Report
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError


def main() -> None:
    url = sys.argv[1]
    report = Report("huggingface_hub", "huggingface_hub")
    client = InferenceClient(model=f"{url}/predict")
    try:
        labels = client.text_classification("Grass is green.")
        # The client takes the first of the list it gets; text-embeddings-inference answers
        # one text with a flat list, so that is the only element.
        report.check("text_classification reads /predict", isinstance(labels.score, float), labels)
        again = client.text_classification("Grass is green.")
        report.check("and repeat", again == labels, again)
    except HfHubHTTPError as error:
        report.check("text_classification reads /predict", False, str(error))
    chat = InferenceClient(base_url=f"{url}/v1")
    try:
        answer = chat.chat_completion(
            [{"role": "user", "content": "Hi"}], model="patarm", max_tokens=4
        )
        report.check("chat_completion", bool(answer.choices), answer)
    except HfHubHTTPError as error:
        status = error.response.status_code
        report.check("chat_completion is refused as such by a scalar model", status in (400, 404), error)
    report.finish()


if __name__ == "__main__":
    main()
