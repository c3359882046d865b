"""Asks a simulated AWS Service Quotas with botocore's own client, and prints what it understood as one JSON object.

Argument: the endpoint. Standard input: a request's body as landbridge writes it; `request` shows what botocore sends
for the same parameters. botocore refuses answers and parameters that its service model does not have.
"""

import json
import sys

import botocore.session
from botocore.config import Config
from botocore.serialize import create_serializer

session = botocore.session.get_session()
client = session.create_client(
    "service-quotas",
    region_name="us-east-1",
    endpoint_url=sys.argv[1],
    aws_access_key_id="test",
    aws_secret_access_key="test",
    config=Config(retries={"max_attempts": 1}),
)
operation = client.meta.service_model.operation_model("ListServiceQuotas")
params = json.load(sys.stdin)
sent = create_serializer("json").serialize_to_request(params, operation)
headers = sent["headers"]
body = sent["body"]
quotas = []
for page in client.get_paginator("list_service_quotas").paginate(ServiceCode="bedrock", PaginationConfig={"PageSize": 50}):
    for quota in page["Quotas"]:
        unknown = set(quota) - set(operation.output_shape.members["Quotas"].member.members)
        assert not unknown, unknown
        quotas.append((quota["QuotaName"], quota["Value"]))
subject = "per minute for Anthropic Claude Haiku 4.5"
print(
    json.dumps(
        {
            "request": [json.loads(body), headers["X-Amz-Target"], headers["Content-Type"]],
            "quotas": len(quotas),
            "haiku": [value for name, value in quotas if name.startswith("Cross-region") and name.endswith(subject)],
        }
    )
)
