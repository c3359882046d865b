//! Whether an answer is what its request asked it to be: JSON of a schema, tool arguments of theirs.
//!
//! Invariant: pure, and it never blames an answer for a schema that cannot be understood.

use serde_json::Value;

/// Whether an OpenAI chat completion holds JSON, or tool arguments, that do not validate. A request that asks for neither
/// cannot be answered wrongly.
pub fn is_invalid(request: &Value, completion: &str) -> bool {
    let Ok(completion) = serde_json::from_str::<Value>(completion) else { return true };
    let choices = completion["choices"].as_array().map_or(&[][..], Vec::as_slice);
    choices.iter().any(|choice| {
        let message = &choice["message"];
        let calls = message["tool_calls"].as_array().map_or(&[][..], Vec::as_slice);
        calls.iter().any(|call| bad_call(request, call)) || (calls.is_empty() && bad_content(request, message))
    })
}

fn bad_call(request: &Value, call: &Value) -> bool {
    let name = &call["function"]["name"];
    let tools = request["tools"].as_array().map_or(&[][..], Vec::as_slice);
    let Some(tool) = tools.iter().find(|tool| tool["function"]["name"] == *name) else { return true };
    let Some(arguments) = call["function"]["arguments"].as_str() else { return true };
    let arguments = if arguments.trim().is_empty() { "{}" } else { arguments };
    match serde_json::from_str::<Value>(arguments) {
        Ok(arguments) => !fits(&arguments, &tool["function"]["parameters"]),
        Err(_) => true,
    }
}

fn bad_content(request: &Value, message: &Value) -> bool {
    let format = &request["response_format"];
    let schema = match format["type"].as_str() {
        Some("json_object") => &Value::Null,
        Some("json_schema") => &format["json_schema"]["schema"],
        _ => return false,
    };
    let Some(text) = message["content"].as_str() else { return true };
    match serde_json::from_str::<Value>(text) {
        Ok(value) => !fits(&value, schema),
        Err(_) => true,
    }
}

/// Whether a value fits a schema; one that is missing, or no schema, fits everything.
fn fits(value: &Value, schema: &Value) -> bool {
    if !schema.is_object() {
        return true;
    }
    jsonschema::validator_for(schema).map_or(true, |validator| validator.is_valid(value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_held_against_what_was_asked_for() {
        let plain = json!({ "messages": [] });
        let object = json!({ "response_format": { "type": "json_object" } });
        let schema = json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x",
            "schema": { "type": "object", "required": ["label"], "properties": { "label": { "type": "string" } } } } } });
        let tools = json!({ "tools": [{ "type": "function", "function": { "name": "find",
            "parameters": { "type": "object", "required": ["id"], "properties": { "id": { "type": "integer" } } } } }] });
        let said = |text: &str| json!({ "choices": [{ "message": { "content": text } }] }).to_string();
        let called = |name: &str, arguments: &str| {
            json!({ "choices": [{ "message": { "content": null, "tool_calls": [
                { "function": { "name": name, "arguments": arguments } }] } }] })
            .to_string()
        };
        for (request, completion, invalid) in [
            (&plain, said("anything"), false),
            (&plain, "no JSON at all".to_owned(), true),
            (&object, said("{}"), false),
            (&object, said("{"), true),
            (&object, said("```json\n{}\n```"), true),
            (&schema, said(r#"{"label": "a"}"#), false),
            (&schema, said(r#"{"label": 1}"#), true),
            (&schema, said("{}"), true),
            (&tools, said("no call is fine"), false),
            (&tools, called("find", r#"{"id": 3}"#), false),
            (&tools, called("find", r#"{"id": "3"}"#), true),
            (&tools, called("find", ""), true),
            (&tools, called("lose", r#"{"id": 3}"#), true),
            (&tools, called("find", r#"{"id": 3"#), true),
        ] {
            assert_eq!(is_invalid(request, &completion), invalid, "{request} {completion}");
        }
    }
}
