"""Writes what LiteLLM makes of the requests in requests.json, for a Claude, a Nova and a Llama model.

Not run by the tests: its output is kept in litellm.json. To renew it:
    python3 -m venv /some/venv && /some/venv/bin/pip install litellm==VERSION
    /some/venv/bin/python src/wire/golden/differential/litellm_oracle.py
"""

import importlib.metadata
import json
import os
import pathlib

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

from litellm.llms.bedrock.chat.converse_transformation import AmazonConverseConfig  # noqa: E402

HERE = pathlib.Path(__file__).parent
MODELS = [
    "us.anthropic.claude-haiku-4-5-20251001-v1:0",
    "us.amazon.nova-lite-v1:0",
    "us.meta.llama3-3-70b-instruct-v1:0",
]


def translate(model, body):
    body = json.loads(json.dumps(body))
    messages = body.pop("messages")
    config = AmazonConverseConfig()
    optional = config.map_openai_params(
        non_default_params=body, optional_params={}, model=model, drop_params=True
    )
    return config._transform_request(
        model=model, messages=messages, optional_params=optional, litellm_params={}, headers={}
    )


answers = []
for request in json.loads((HERE / "requests.json").read_text()):
    by_model = {}
    for model in MODELS:
        try:
            by_model[model] = translate(model, request["body"])
        except Exception as error:  # what it refuses is an answer too
            by_model[model] = {"refused": f"{type(error).__name__}: {error}"[:300]}
    answers.append({"name": request["name"], "models": by_model})
version = importlib.metadata.version("litellm")
(HERE / "litellm.json").write_text(json.dumps({"litellm": version, "answers": answers}, indent=1, sort_keys=True) + "\n")
