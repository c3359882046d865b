"""Holds Converse requests against the service's own model, which AWS publishes with botocore.

Reads one JSON object a line, {"name", "body"}, and prints a line for every fault, then how many were checked.
botocore validates shapes, required members and ranges; what it leaves to the service (enums, patterns, lengths) is
checked here. A body must also be what botocore itself would send for it.
"""

import base64
import json
import re
import sys

from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.serialize import create_serializer
from botocore.validate import ParamValidator

MODEL = ServiceModel(Loader().load_service_model("bedrock-runtime", "service-2"), "bedrock-runtime")
CONVERSE = MODEL.operation_model("Converse")
SERIALIZER = create_serializer("rest-json")


def decoded(value, shape):
    """The same parameters with bytes where the model has bytes."""
    if shape.type_name == "structure" and isinstance(value, dict) and not shape.is_document_type:
        return {k: decoded(v, shape.members[k]) if k in shape.members else v for k, v in value.items()}
    if shape.type_name == "list" and isinstance(value, list):
        return [decoded(item, shape.member) for item in value]
    if shape.type_name == "map" and isinstance(value, dict):
        return {key: decoded(item, shape.value) for key, item in value.items()}
    if shape.type_name == "blob" and isinstance(value, str):
        return base64.b64decode(value, validate=True)
    return value


def faults(value, shape, path):
    """What botocore does not check."""
    if shape.type_name == "structure" and not shape.is_document_type:
        for name, member in value.items():
            if name in shape.members:
                yield from faults(member, shape.members[name], f"{path}.{name}")
    elif shape.type_name == "list":
        yield from length(len(value), shape, path)
        for place, item in enumerate(value):
            yield from faults(item, shape.member, f"{path}[{place}]")
    elif shape.type_name == "map":
        yield from length(len(value), shape, path)
        for key, item in value.items():
            yield from faults(key, shape.key, f"{path}.{key}")
            yield from faults(item, shape.value, f"{path}.{key}")
    elif shape.type_name == "string":
        yield from length(len(value), shape, path)
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is not in the enum {shape.enum}"
        pattern = shape.metadata.get("pattern")
        # Patterns of the model are Java's, whose \\s knows ASCII alone.
        if pattern and not re.fullmatch(pattern, value, re.ASCII):
            yield f"{path}: {value!r} does not fit the pattern {pattern}"
    elif shape.type_name in ("integer", "long", "float", "double"):
        most = shape.metadata.get("max")
        if most is not None and value > most:
            yield f"{path}: {value} is above {most}"


def length(count, shape, path):
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and count < least:
        yield f"{path}: length {count} is below {least}"
    if most is not None and count > most:
        yield f"{path}: length {count} is above {most}"


def check(body):
    shape = CONVERSE.input_shape
    try:
        params = {"modelId": "m", **decoded(body, shape)}
    except ValueError as error:
        return [f"bytes: {error}"]
    report = ParamValidator().validate(params, shape)
    if report.has_errors():
        return report.generate_report().splitlines()
    found = list(faults(params, shape, "body"))
    if not found:
        sent = json.loads(SERIALIZER.serialize_to_request(params, CONVERSE)["body"])
        if sent != body:
            found.append(f"botocore would send {json.dumps(sent)}, not {json.dumps(body)}")
    return found


def main():
    count = 0
    for line in sys.stdin:
        case = json.loads(line)
        for fault in check(case["body"]):
            print(f"{case['name']}: {fault}")
        count += 1
    print(f"{count} requests checked")


if __name__ == "__main__":
    main()
