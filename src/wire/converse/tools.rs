//! The tools that a request offers, and how they may be chosen.
//!
//! Invariant: a choice that the model cannot be held to is refused or noted, never weakened in silence; `none` means
//! none: the tools stay at home, and what was called before goes as text.

use serde_json::{Map, Value, json};

use super::{Request, Tool, ToolChoice, ToolConfig, family::Habits, labels, schema};
use crate::{
    catalog,
    job::FidelityAction,
    wire::{
        Reading, Refusal,
        fidelity::Ledger,
        parameters::{Effective, short},
    },
};

/// Tools that a request may offer: far above what any model copes with.
const MOST_TOOLS: usize = 1_000;

/// How the caller wants a tool chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Choice {
    /// As the model likes.
    Free,
    /// Some tool.
    Some,
    /// This one, by the name it goes under.
    This(String),
}

/// The tools of a request.
#[derive(Debug)]
pub(super) struct Toolbox {
    pub offered: Vec<Tool>,
    pub choice: Choice,
    /// One call at a time, please.
    one_at_a_time: bool,
}

impl Toolbox {
    /// Whether an answer must be a call of one of the caller's own tools.
    pub(super) fn must_be_called(&self) -> bool {
        self.choice != Choice::Free
    }

    /// Whether there is nothing to call: what the conversation holds of calls then goes as text.
    pub(super) fn is_empty(&self) -> bool {
        self.offered.is_empty()
    }

    /// Reads what the request says of tools, in both of OpenAI's forms.
    pub(super) fn read(
        effective: &Effective<'_>,
        habits: Habits<'_>,
        reading: &mut Reading,
        ledger: &mut Ledger<'_>,
    ) -> Result<Self, Refusal> {
        let mut toolbox = Self { offered: Vec::new(), choice: Choice::Free, one_at_a_time: false };
        let wish = Wish::read(effective)?;
        if let Some(tools) = effective.get("tools") {
            let list = list("tools", tools)?;
            for (place, tool) in list.iter().enumerate() {
                toolbox.offer(&format!("tools[{place}]"), tool, &wish, habits, reading, ledger)?;
            }
        }
        if let Some(functions) = effective.get("functions") {
            let list = list("functions", functions)?;
            if !list.is_empty() {
                let detail = "the older form goes as `tools`; calls in the answer come as `tool_calls`";
                ledger.inexact("functions", FidelityAction::Emulated, detail)?;
            }
            for (place, function) in list.iter().enumerate() {
                toolbox.put(&format!("functions[{place}]"), function, habits, reading, ledger)?;
            }
        }
        toolbox.choose(effective, wish, habits, ledger)?;
        Ok(toolbox)
    }

    fn offer(
        &mut self,
        param: &str,
        tool: &Value,
        wish: &Wish<'_>,
        habits: Habits<'_>,
        reading: &mut Reading,
        ledger: &mut Ledger<'_>,
    ) -> Result<(), Refusal> {
        let Some(fields) = tool.as_object() else {
            return Err(Refusal::of(param, format!("{param}: must be an object")));
        };
        match fields.get("type").and_then(Value::as_str) {
            Some("function") => {}
            Some(kind) => return ledger.breach(param, &format!("Bedrock Converse has no tools of type {kind:?}")),
            None => {
                return Err(Refusal::of(format!("{param}.type"), format!("{param}.type: must be \"function\"")));
            }
        }
        for (name, _) in fields.iter().filter(|(_, value)| !value.is_null()) {
            if !matches!(name.as_str(), "type" | "function") {
                ledger.breach(format!("{param}.{name}"), "this release does not know this field of a tool")?;
            }
        }
        let function = fields.get("function").unwrap_or(&Value::Null);
        let name = function.get("name").and_then(Value::as_str).unwrap_or_default();
        if wish.allowed.as_ref().is_some_and(|allowed| !allowed.contains(&name)) {
            return ledger.inexact(
                param,
                FidelityAction::Emulated,
                "not among the allowed tools, so it is not offered",
            );
        }
        self.put(&format!("{param}.function"), function, habits, reading, ledger)
    }

    fn put(
        &mut self,
        param: &str,
        function: &Value,
        habits: Habits<'_>,
        reading: &mut Reading,
        ledger: &mut Ledger<'_>,
    ) -> Result<(), Refusal> {
        let Some(name) = function.get("name").and_then(Value::as_str).filter(|name| !name.is_empty()) else {
            return Err(Refusal::of(format!("{param}.name"), format!("{param}.name: must be a name")));
        };
        let sent = labels::clean(name);
        if sent != name {
            let detail = format!("goes as {sent:?}, which Bedrock takes, and comes back as it was");
            ledger.inexact(format!("{param}.name"), FidelityAction::Emulated, detail)?;
            reading.tool_names.insert(sent.clone(), name.to_owned());
        }
        if self.offered.iter().any(|tool| tool.name == sent) {
            return Err(Refusal::of(format!("{param}.name"), format!("{param}.name: {name:?} stands twice")));
        }
        let mut strict = None;
        for (field, value) in function.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null()) {
            match field.as_str() {
                "name" | "description" | "parameters" => {}
                "strict" if value == &Value::Bool(false) => {}
                "strict" if value == &Value::Bool(true) && habits.takes_strict_tools() => strict = Some(true),
                "strict" if value == &Value::Bool(true) => {
                    let detail = "the model's arguments are not held to the schema word by word";
                    ledger.inexact(format!("{param}.strict"), FidelityAction::Dropped, detail)?;
                }
                "strict" => {
                    return Err(Refusal::of(
                        format!("{param}.strict"),
                        format!("{param}.strict: must be true or false"),
                    ));
                }
                field => {
                    ledger.breach(format!("{param}.{field}"), "this release does not know this field of a tool")?;
                }
            }
        }
        let description = match function.get("description") {
            None | Some(Value::Null) => name,
            // Bedrock wants a description; an empty one says no more than the name.
            Some(Value::String(text)) if text.trim().is_empty() => name,
            Some(Value::String(text)) => text,
            Some(_) => {
                let param = format!("{param}.description");
                return Err(Refusal::of(param.as_str(), format!("{param}: must be a string")));
            }
        };
        let input_schema = input_schema(&format!("{param}.parameters"), function.get("parameters"), habits, ledger)?;
        self.offered.push(Tool { name: sent, description: description.to_owned(), input_schema, strict });
        Ok(())
    }

    fn choose(
        &mut self,
        effective: &Effective<'_>,
        wish: Wish<'_>,
        habits: Habits<'_>,
        ledger: &mut Ledger<'_>,
    ) -> Result<(), Refusal> {
        let one_at_a_time = match effective.get("parallel_tool_calls") {
            None | Some(Value::Bool(true)) => false,
            Some(Value::Bool(false)) => true,
            Some(other) => {
                let message = format!("parallel_tool_calls: must be true or false, not {}", short(other));
                return Err(Refusal::of("parallel_tool_calls", message));
            }
        };
        if self.offered.is_empty() {
            return match wish.choice {
                Wanted::Auto | Wanted::Nothing => Ok(()),
                Wanted::Some | Wanted::This(_) => {
                    let message = format!("{}: there is no tool to choose", wish.param);
                    Err(Refusal::of(wish.param, message))
                }
            };
        }
        let of_tools = if effective.get("tools").is_some() { "tools" } else { "functions" };
        if wish.choice == Wanted::Nothing {
            self.offered.clear();
            let detail = "Bedrock cannot be told to leave tools alone: they are not offered at all";
            return ledger.inexact(wish.param, FidelityAction::Emulated, detail);
        }
        if !habits.takes_tools() {
            self.offered.clear();
            return ledger.breach(of_tools, "the model takes no tools");
        }
        let choice = match wish.choice {
            Wanted::Auto | Wanted::Nothing => Choice::Free,
            Wanted::Some => Choice::Some,
            Wanted::This(name) => {
                let sent = labels::clean(name);
                if !self.offered.iter().any(|tool| tool.name == sent) {
                    let message = format!("{}: {name:?} is not among the tools", wish.param);
                    return Err(Refusal::of(wish.param, message));
                }
                Choice::This(sent)
            }
        };
        if choice == Choice::Free || habits.tool_choice() == catalog::ToolChoice::Any {
            self.choice = choice;
        } else {
            ledger.breach(wish.param, "the model cannot be made to call a tool; it may choose to")?;
        }
        if one_at_a_time {
            if habits.is_claude() {
                self.one_at_a_time = true;
            } else {
                let detail = "the model cannot be held to one call at a time";
                ledger.inexact("parallel_tool_calls", FidelityAction::Dropped, detail)?;
            }
        }
        Ok(())
    }

    /// Puts the tools into the request.
    pub(super) fn pack(self, habits: Habits<'_>, request: &mut Request) {
        if self.offered.is_empty() {
            return;
        }
        let tool_choice = match self.choice {
            Choice::Some => Some(ToolChoice::Any),
            Choice::This(name) => Some(ToolChoice::Tool(name)),
            // Beside Claude's own field, the choice must be said.
            Choice::Free => self.one_at_a_time.then_some(ToolChoice::Auto),
        };
        if self.one_at_a_time && habits.is_claude() {
            let fields = &mut request.additional_model_request_fields;
            fields.insert("tool_choice".to_owned(), json!({ "disable_parallel_tool_use": true }));
        }
        request.tool_config = Some(ToolConfig { tools: self.offered, tool_choice });
    }
}

/// What the caller says of choosing.
struct Wish<'a> {
    param: &'static str,
    choice: Wanted<'a>,
    allowed: Option<Vec<&'a str>>,
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Auto,
    Nothing,
    Some,
    This(&'a str),
}

impl<'a> Wish<'a> {
    fn read(effective: &'a Effective<'_>) -> Result<Self, Refusal> {
        let (param, value) = match (effective.get("tool_choice"), effective.get("function_call")) {
            (None, None) => return Ok(Self { param: "tool_choice", choice: Wanted::Auto, allowed: None }),
            (Some(value), _) => ("tool_choice", value),
            (None, Some(value)) => ("function_call", value),
        };
        let odd = || {
            let message = format!("{param}: must be auto, required, none or a tool, not {}", short(value));
            Refusal::of(param, message)
        };
        let word = |word: Option<&str>| match word {
            Some("auto") => Ok(Wanted::Auto),
            Some("none") => Ok(Wanted::Nothing),
            Some("required") => Ok(Wanted::Some),
            _ => Err(odd()),
        };
        let named =
            |tool: &'a Value| tool.pointer("/function/name").or_else(|| tool.get("name")).and_then(Value::as_str);
        let mut allowed = None;
        let choice = match value.get("type").and_then(Value::as_str) {
            Some("allowed_tools") => {
                // OpenAI nests them under the type's own name.
                let rules = value.get("allowed_tools").filter(|rules| rules.is_object()).unwrap_or(value);
                let tools = list(param, rules.get("tools").ok_or_else(odd)?)?;
                allowed = Some(tools.iter().map(|tool| named(tool).ok_or_else(odd)).collect::<Result<_, _>>()?);
                word(rules.get("mode").map_or(Some("auto"), Value::as_str))?
            }
            Some("function") | None if value.is_object() => Wanted::This(named(value).ok_or_else(odd)?),
            _ => word(value.as_str())?,
        };
        Ok(Self { param, choice, allowed })
    }
}

fn list<'a>(name: &str, value: &'a Value) -> Result<&'a [Value], Refusal> {
    match value {
        Value::Array(items) if items.len() > MOST_TOOLS => {
            Err(Refusal::of(name, format!("{name}: {} tools; {MOST_TOOLS} are taken", items.len())))
        }
        Value::Array(items) => Ok(items),
        _ => Err(Refusal::of(name, format!("{name}: must be a list, not {}", short(value)))),
    }
}

/// A tool's parameters as Converse takes them.
fn input_schema(
    param: &str,
    parameters: Option<&Value>,
    habits: Habits<'_>,
    ledger: &mut Ledger<'_>,
) -> Result<Value, Refusal> {
    let nothing = Value::Object(Map::new());
    let given = parameters.filter(|parameters| !parameters.is_null()).unwrap_or(&nothing);
    let inlined = schema::inlined(given).map_err(|why| Refusal::of(param, format!("{param}: {why}")))?;
    if inlined.cut {
        ledger.inexact(param, FidelityAction::Approximated, CUT)?;
    }
    let Some(mut schema) = schema::as_input(inlined.schema) else {
        return Err(Refusal::of(param, format!("{param}: must describe an object, not {}", short(given))));
    };
    if habits.is_nova()
        && let Some(fields) = schema.as_object_mut()
    {
        // Nova overlooks tools whose schema holds more at its root.
        let before = fields.len();
        fields.retain(|name, _| matches!(name.as_str(), "type" | "properties" | "required"));
        if fields.len() < before {
            let detail = "Nova takes type, properties and required at the root of a schema: the rest is left out";
            ledger.inexact(param, FidelityAction::Approximated, detail)?;
        }
    }
    Ok(schema)
}

/// What is said of a schema whose references cannot all be written out.
pub(super) const CUT: &str =
    "references that lead back into themselves or out of the schema cannot be written out: they go as open objects";
