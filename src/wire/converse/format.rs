//! What an answer must look like: text, some JSON, or JSON by a schema.
//!
//! Invariant: a schema that is carried holds the answer, by the service or by a tool that must be called; where neither
//! is to be had, the request is refused, and only a loose target asks for it in words.

use serde_json::{Value, json};

use super::{
    Block, OutputConfig, Request, Tool,
    family::Habits,
    schema::{self, Closed},
    tools::{CUT, Choice, Toolbox},
};
use crate::{
    catalog::Schema,
    job::FidelityAction,
    wire::{
        Reading, Refusal,
        fidelity::Ledger,
        parameters::{Effective, short},
    },
};

/// The tool that stands for a schema.
const JSON_TOOL: &str = "json_tool_call";
/// Asks for JSON in words.
const JSON_LINE: &str =
    "Answer with one JSON object and nothing else: no words before or after it, and no code fence around it.";

/// How an answer is held to its form.
#[derive(Debug)]
pub(super) enum Format {
    /// It is not.
    Free,
    /// By a line of system text; the answer is freed of what stands around the JSON.
    Words(String),
    /// By the service.
    Native { config: OutputConfig, strict: bool },
    /// By a tool that must be called.
    Tool(Tool),
}

impl Format {
    /// Whether the model must call a tool because of it.
    pub(super) fn forces_a_tool(&self) -> bool {
        matches!(self, Self::Tool(_))
    }

    /// Reads `response_format`. `thinks`: whether the model is asked to reason.
    pub(super) fn read(
        effective: &Effective<'_>,
        habits: Habits<'_>,
        thinks: bool,
        toolbox: &Toolbox,
        ledger: &mut Ledger<'_>,
    ) -> Result<Self, Refusal> {
        let Some(format) = effective.get("response_format") else { return Ok(Self::Free) };
        match format.get("type").and_then(Value::as_str) {
            Some("text") => Ok(Self::Free),
            Some("json_object") => {
                let detail = "asked for in a line of system text; what stands around the JSON is taken off";
                ledger.inexact("response_format", FidelityAction::Emulated, detail)?;
                Ok(Self::Words(JSON_LINE.to_owned()))
            }
            Some("json_schema") => by_schema(format, habits, thinks, toolbox, ledger),
            _ => {
                let message = format!(
                    "response_format.type: must be text, json_object or json_schema, not {}",
                    short(format.get("type").unwrap_or(format))
                );
                Err(Refusal::of("response_format.type", message))
            }
        }
    }

    /// Puts the form into the request; a tool that stands for it goes with the others.
    pub(super) fn pack(self, habits: Habits<'_>, toolbox: &mut Toolbox, reading: &mut Reading, request: &mut Request) {
        match self {
            Self::Free => {}
            Self::Words(line) => {
                request.system.push(Block::Text(line));
                reading.json_text = true;
            }
            Self::Native { config, strict } => {
                if strict && habits.is_of("openai.") {
                    let fields = &mut request.additional_model_request_fields;
                    fields.insert("text".to_owned(), json!({ "format": { "strict": true } }));
                }
                request.output_config = Some(config);
            }
            Self::Tool(tool) => {
                // Beside other tools the model may call one of those first.
                toolbox.choice = if toolbox.is_empty() { Choice::This(tool.name.clone()) } else { Choice::Some };
                reading.json_tool = Some(tool.name.clone());
                toolbox.offered.push(tool);
            }
        }
    }
}

fn by_schema(
    format: &Value,
    habits: Habits<'_>,
    thinks: bool,
    toolbox: &Toolbox,
    ledger: &mut Ledger<'_>,
) -> Result<Format, Refusal> {
    const AT: &str = "response_format.json_schema.schema";
    let parts = format.get("json_schema");
    let text = |name: &str| parts.and_then(|parts| parts.get(name)).and_then(Value::as_str).map(str::to_owned);
    let Some(given) = parts.and_then(|parts| parts.get("schema")).filter(|schema| schema.is_object()) else {
        return Err(Refusal::of(AT, format!("{AT}: must be a JSON schema")));
    };
    let strict = parts.and_then(|parts| parts.get("strict")) == Some(&Value::Bool(true));
    let inlined = schema::inlined(given).map_err(|why| Refusal::of(AT, format!("{AT}: {why}")))?;
    if toolbox.must_be_called() {
        let detail = "every answer is a call of a tool, so there is no text for the schema to hold";
        ledger.note_always("response_format", FidelityAction::Dropped, detail);
        return Ok(Format::Free);
    }
    if inlined.cut {
        ledger.inexact(AT, FidelityAction::Approximated, CUT)?;
    }
    let by_tool = || habits.tool_choice() == crate::catalog::ToolChoice::Any;
    let mut way = match habits.schema() {
        Schema::NativeWithReasoning if thinks => Schema::Native,
        Schema::NativeWithReasoning if by_tool() => Schema::Tool,
        // A model that always reasons and cannot be made to call a tool: the service's own way is the only one.
        Schema::NativeWithReasoning => Schema::Native,
        way => way,
    };
    let mut schema = inlined.schema;
    if way == Schema::Native {
        let mut closed = schema.clone();
        match schema::close(&mut closed) {
            Closed::Already => {}
            Closed::Now => {
                let detail = "objects without `additionalProperties` take none on Bedrock";
                ledger.inexact(AT, FidelityAction::Approximated, detail)?;
            }
            Closed::Never if by_tool() => way = Schema::Tool,
            Closed::Never => {
                let detail = "the service holds answers to schemas whose objects name all their properties only";
                ledger.breach_as("response_format", FidelityAction::Approximated, detail)?;
                return Ok(Format::Words(in_words(&schema)));
            }
        }
        if way == Schema::Native {
            let config = OutputConfig { name: text("name"), description: text("description"), schema: closed };
            return Ok(Format::Native { config, strict });
        }
    }
    if way == Schema::None || way == Schema::NativeWithReasoning {
        let detail = "the model's answers cannot be held to a schema";
        ledger.breach_as("response_format", FidelityAction::Approximated, detail)?;
        return Ok(Format::Words(in_words(&schema)));
    }
    let detail = "held to the schema by a tool that the model must call; the call's input becomes the answer's text";
    ledger.inexact("response_format", FidelityAction::Emulated, detail)?;
    schema = match schema::as_input(schema) {
        Some(schema) => schema,
        None => return Err(Refusal::of(AT, format!("{AT}: must describe an object, not {}", short(given)))),
    };
    let mut name = JSON_TOOL.to_owned();
    while toolbox.offered.iter().any(|tool| tool.name == name) {
        name.push('_');
    }
    let description = text("description").filter(|text| !text.trim().is_empty());
    let description = description.unwrap_or_else(|| "Gives the final answer to the user.".to_owned());
    let strict = (strict && habits.takes_strict_tools()).then_some(true);
    Ok(Format::Tool(Tool { name, description, input_schema: schema, strict }))
}

fn in_words(schema: &Value) -> String {
    format!("{JSON_LINE} It must fit this JSON schema: {schema}")
}
