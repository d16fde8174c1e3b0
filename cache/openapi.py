"""The service's description: OpenAPI 3.1, with an example of every answer. The tests fuzz the service by it."""

from typing import Any

from cache.request import MAX_BATCH, MAX_BODY, MAX_QUERY_STRING
from labels.normalise import MAX_QUERY_CHARS, NORMALISATION_VERSION
from labels.task import Task

Json = dict[str, Any]
VERSION = "1"
QUERY: Json = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_QUERY_CHARS,
    "pattern": r"^[^\u0000]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000]*$",  # something to read, and no NUL
}


def describe(task: type[Task], prefix: str = "", keyed: bool = False) -> Json:
    """The description of the service of a task, mounted at `prefix`; `keyed` where API keys are wanted."""
    answer = _answer_schema(task)
    paths = {
        "/v1/lookup": {"get": _get(task), "post": _post(task)},
        "/healthz": {"get": _plain("Whether the process is up.", {"200": _status("It is.", {"status": "ok"})})},
        "/readyz": {"get": _readyz()},
        "/metrics": {"get": _metrics()},
        "/openapi.json": {"get": _plain("This description.", {"200": _json("It.", {"type": "object"}, {})})},
    }
    if keyed:
        for path, method in (("/v1/lookup", "get"), ("/v1/lookup", "post"), ("/metrics", "get")):
            operation = paths[path][method]
            operation["security"] = [{"key": []}, {"bearer": []}]
            operation["responses"]["401"] = _error("No API key.", "wanted an API key: send `Authorization: Bearer KEY`")
    schemes = {
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        "bearer": {"type": "http", "scheme": "bearer"},
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stillhouse lookup",
            "version": VERSION,
            "description": "What does this query name? The cache answers, else the student, else nobody, within a deadline.",
        },
        "servers": [{"url": prefix or "/"}],
        "paths": paths,
        "components": {
            "schemas": {"Answer": answer, "Value": _value_schema(task), "Error": ERROR},
            **({"securitySchemes": schemes} if keyed else {}),
        },
    }


ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "What was wanted, what came."}},
    "additionalProperties": False,
}


def _value_schema(task: type[Task]) -> Json:
    return task.model_json_schema(ref_template="#/components/schemas/Value/$defs/{model}")


def _answer_schema(task: type[Task]) -> Json:
    number, text = {"type": ["number", "null"]}, {"type": ["string", "null"]}
    properties = {
        "query": {"type": "string", "description": "The query in normal form."},
        "value": {"anyOf": [{"$ref": "#/components/schemas/Value"}, {"type": "null"}]},
        "source": {"enum": ["cache", "student", "tail-cache", "none"], "description": "Who says so."},
        "release": text | {"description": "The release that the answer is of."},
        "confidence": number | {"description": "0 to 1."},
        "age": {"type": ["integer", "null"], "description": "Seconds since the answer was made."},
        "reason": {"type": "string", "description": "Why there is no value."},
        "milliseconds": {"type": "number", "description": "How long it took here."},
    }
    return {"type": "object", "required": [*properties], "properties": properties, "additionalProperties": False}


def _get(task: type[Task]) -> Json:
    parameters = [
        _parameter("q", True, QUERY, "As typed.", "milk"),
        _parameter("task", False, {"const": task.name}, "Refuses to answer where another task is served."),
        _parameter(
            "normalisation", False, {"const": NORMALISATION_VERSION}, "As `task`, for the queries' normal form."
        ),
        REQUEST_ID,
    ]
    found = _json('The answer; `source` is "none" where there is none.', {"$ref": "#/components/schemas/Answer"})
    found["content"]["application/json"]["examples"] = {
        "found": {"value": _example_answer(task)},
        "none": {"value": _example_answer(task, found=False)},
    }
    return {
        "operationId": "lookup",
        "summary": "What does this query name?",
        "parameters": parameters,
        "responses": {
            "200": found,
            "400": _error("No usable query.", "wanted a query, got an empty one; give some text"),
            "414": _error(
                "Too long.", f"the query string is too long: wanted at most {MAX_QUERY_STRING:,} bytes, got 50,000"
            ),
            **_common(),
        },
    }


def _post(task: type[Task]) -> Json:
    body = {
        "type": "object",
        "required": ["queries"],
        "properties": {
            "queries": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_BATCH,
                "items": QUERY,
            },
            "task": {"enum": [task.name, None]},
            "normalisation": {"enum": [NORMALISATION_VERSION, None]},
        },
        "additionalProperties": False,
    }
    answers = {"type": "array", "items": {"$ref": "#/components/schemas/Answer"}}
    schema = {
        "type": "object",
        "required": ["answers"],
        "properties": {"answers": answers},
        "additionalProperties": False,
    }
    one = _example_answer(task)
    return {
        "operationId": "lookup_many",
        "summary": f"Up to {MAX_BATCH:,} queries at once; answers in their order, all of one release.",
        "parameters": [REQUEST_ID],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": body, "example": {"queries": ["milk", "oat milk"]}}},
        },
        "responses": {
            "200": _json("The answers.", schema, {"answers": [one, _example_answer(task, "oat milk", False)]}),
            "400": _error("No usable batch.", "wanted a query, got an empty one; give some text"),
            "408": _error("The body did not come.", "wanted the body within 10 s"),
            "413": _error("Too large.", f"wanted a body of at most {MAX_BODY:,} bytes; send fewer queries at once"),
            "415": _error("No JSON.", "wanted content-type: application/json; send the queries as JSON"),
            **_common(),
        },
    }


def _readyz() -> Json:
    schema = {
        "type": "object",
        "required": ["status"],
        "properties": {
            "status": {"enum": ["ready", "not ready"]},
            "release": {"type": "string"},
            "reason": {"type": "string"},
        },
        "additionalProperties": False,
    }
    why = {"status": "not ready", "reason": "no release is published yet; run `stillhouse night`"}
    return _plain(
        "Whether a release is served.",
        {
            "200": _json("It is.", schema, {"status": "ready", "release": "ra9cf7ced14"}),
            "503": _json("It is not, and why.", schema, why),
        },
    )


def _metrics() -> Json:
    text = {"schema": {"type": "string"}, "example": 'stillhouse_answer_seconds_count{source="cache"} 12.0\n'}
    found = {"description": "Prometheus's text format.", "content": {"text/plain": text}}
    return _plain(
        "Counts by source, latency, the student's queue and breaker, the release.", {"200": found, **_common()}
    )


def _plain(summary: str, responses: Json) -> Json:
    return {"summary": summary, "responses": responses}


def _common() -> Json:
    """What may come for any lookup."""
    often = _error("Too often.", "wanted at most 100 requests a second")
    often["headers"] = {"Retry-After": {"schema": {"type": "integer"}, "description": "Seconds."}}
    return {"429": often, "503": _error("Not started.", "the service has not been started")}


def _error(description: str, example: str) -> Json:
    return _json(description, {"$ref": "#/components/schemas/Error"}, {"error": example})


def _status(description: str, example: Json) -> Json:
    schema = {"type": "object", "required": ["status"], "properties": {"status": {"const": "ok"}}}
    return _json(description, schema, example)


def _json(description: str, schema: Json, example: Json | None = None) -> Json:
    content: Json = {"schema": schema} | ({} if example is None else {"example": example})
    return {"description": description, "content": {"application/json": content}}


def _parameter(name: str, required: bool, schema: Json, description: str, example: str | None = None) -> Json:
    told = {"name": name, "in": "query", "required": required, "schema": schema, "description": description}
    return told | ({} if example is None else {"example": example})


REQUEST_ID: Json = {
    "name": "X-Request-ID",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "Taken over into the answer and the log where it is 1 to 128 of A-Z a-z 0-9 . _ : / + = -",
}


def _example_answer(task: type[Task], query: str = "milk", found: bool = True) -> Json:
    value = {name: [] if "list" in str(field.annotation) else "" for name, field in task.model_fields.items()}
    value |= {name: query for name in list(value)[:1] if value[name] == ""}
    return {
        "query": query,
        "value": value if found else None,
        "source": "cache" if found else "none",
        "release": "ra9cf7ced14",
        "confidence": 0.93 if found else None,
        "age": 41_000 if found else None,
        "reason": "" if found else "no answer within 300 ms",
        "milliseconds": 0.021 if found else 300.4,
    }
