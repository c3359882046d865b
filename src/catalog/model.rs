//! What is known of one model.

use super::Api;
use super::prices::Prices;

/// Whether a model still serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifecycle {
    /// It does, with no end announced.
    Active,
    /// It does until this day.
    EndsOn(jiff::civil::Date),
    /// It no longer does; since this day, where known.
    Ended(Option<jiff::civil::Date>),
}

/// How a model cuts text into tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Tokenizer {
    /// OpenAI's since gpt-4o.
    O200k,
    /// Taken to be OpenAI's since gpt-4o: the maker has not said.
    O200kAssumed,
    /// OpenAI's before.
    Cl100k,
    /// Claude's up to 4.6.
    Claude4,
    /// Claude's from 4.7 on.
    Claude5,
    /// Amazon Nova's.
    Nova,
    /// Llama's since 3.
    Llama,
    /// Not known.
    #[default]
    Other,
}

/// What may be forced of the tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToolChoice {
    /// The field is refused.
    None,
    /// The model chooses; no tool can be forced.
    Auto,
    /// A tool can be forced.
    #[default]
    Any,
}

/// How an answer can be held to a JSON schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Schema {
    /// Not at all.
    #[default]
    None,
    /// By a tool that the model is forced to use.
    Tool,
    /// By the provider.
    Native,
    /// By the provider while the model reasons, else by a tool.
    NativeWithReasoning,
}

/// How a model is told to reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Reasoning {
    /// It does not.
    #[default]
    None,
    /// `reasoning: { effort }`.
    Effort,
    /// `reasoning_effort`.
    ReasoningEffort,
    /// A number of tokens.
    Budget,
    /// By itself, with an effort.
    Adaptive,
    /// By itself, and it cannot be turned off.
    Always,
    /// Amazon Nova's own field.
    Nova,
}

/// When `temperature` and `top_p` are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sampling {
    /// Always.
    #[default]
    Free,
    /// Only with reasoning effort `none`.
    WithoutReasoning,
    /// Never.
    Refused,
}

/// Where tokens can be counted without a call that costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CountTokens {
    /// Nowhere.
    #[default]
    None,
    /// On the Bedrock runtime.
    Runtime,
    /// On Bedrock's Mantle endpoint.
    Mantle,
}

/// What a message to a model may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Input {
    /// Images.
    pub image: bool,
    /// Documents such as PDF.
    pub document: bool,
    /// Videos.
    pub video: bool,
}

/// What a model can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capabilities {
    /// What a message may hold besides text.
    pub input: Input,
    /// Tools at all.
    pub tools: bool,
    /// What may be forced of them.
    pub tool_choice: ToolChoice,
    /// `strict` on a tool.
    pub strict_tools: bool,
    /// Images in a tool's result.
    pub tool_result_images: bool,
    /// How an answer can be held to a JSON schema.
    pub schema: Schema,
    /// How it is told to reason.
    pub reasoning: Reasoning,
    /// The efforts that it takes, weakest first.
    pub efforts: Vec<String>,
    /// When `temperature` and `top_p` are taken.
    pub sampling: Sampling,
    /// It goes on from a last message of its own.
    pub assistant_prefill: bool,
    /// It heeds system messages in the middle of a conversation.
    pub mid_conversation_system: bool,
    /// The least output bound that it takes.
    pub least_max_tokens: u64,
    /// Bedrock's own OpenAI-form endpoint serves it.
    pub chat_completions: bool,
    /// Where its tokens can be counted.
    pub count_tokens: CountTokens,
}

impl Default for Capabilities {
    fn default() -> Self {
        Self {
            input: Input::default(),
            tools: true,
            tool_choice: ToolChoice::default(),
            strict_tools: false,
            tool_result_images: false,
            schema: Schema::default(),
            reasoning: Reasoning::default(),
            efforts: Vec::new(),
            sampling: Sampling::default(),
            assistant_prefill: false,
            mid_conversation_system: false,
            least_max_tokens: 1,
            chat_completions: false,
            count_tokens: CountTokens::default(),
        }
    }
}

/// What is known of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Model {
    /// The base id, without the geography of an inference profile.
    pub id: String,
    /// Whose protocol serves it.
    pub api: Api,
    /// Prompt and output together, in tokens.
    pub context_window: Option<u64>,
    /// Longest prompt, in tokens, where it is shorter than the window.
    pub max_input_tokens: Option<u64>,
    /// Longest output, in tokens.
    pub max_output_tokens: Option<u64>,
    /// What a Bedrock call asks for when nobody says how many tokens.
    pub default_max_tokens: u64,
    /// In-region and geographic prices.
    pub prices: Option<Prices>,
    /// Prices of the `global.` profile, where they differ.
    pub global_prices: Option<Prices>,
    /// Output tokens count this many times against Bedrock's quota.
    pub burndown: u32,
    /// OpenAI parameter names that the model refuses, such as `temperature`; `assistant_prefill` stands for a last
    /// message of the assistant.
    pub refuses: Vec<String>,
    /// Pairs of parameters that the model refuses together.
    pub refuses_together: Vec<(String, String)>,
    /// How it cuts text into tokens.
    pub tokenizer: Tokenizer,
    /// Geographies that have an inference profile for it, such as `us` and `global`.
    pub profiles: Vec<String>,
    /// It is served by inference profiles alone.
    pub needs_profile: bool,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Whether it still serves.
    pub lifecycle: Lifecycle,
    /// What the provider itself recommends instead.
    pub replacement: Option<String>,
    /// What to use instead, best first: as a target would name it.
    pub substitutes: Vec<String>,
}

impl Model {
    /// Output bound of a Bedrock call when neither the job nor the catalogue says: room for an ordinary answer, little
    /// enough to reserve against a quota.
    pub const DEFAULT_MAX_TOKENS: u64 = 4_096;

    /// A model of which nothing is known yet.
    pub fn new(api: Api, id: &str) -> Self {
        Self {
            id: id.to_owned(),
            api,
            context_window: None,
            max_input_tokens: None,
            max_output_tokens: None,
            default_max_tokens: Self::DEFAULT_MAX_TOKENS,
            prices: None,
            global_prices: None,
            burndown: 1,
            refuses: Vec::new(),
            refuses_together: Vec::new(),
            tokenizer: match api {
                Api::OpenAi => Tokenizer::O200k,
                Api::Bedrock => Tokenizer::Other,
            },
            profiles: Vec::new(),
            needs_profile: false,
            capabilities: Capabilities::default(),
            lifecycle: Lifecycle::Active,
            replacement: None,
            substitutes: Vec::new(),
        }
    }

    /// Whether it refuses a parameter outright.
    pub fn refuses(&self, parameter: &str) -> bool {
        self.refuses.iter().any(|refused| refused == parameter)
    }

    /// Whether it no longer serves on `day`.
    pub fn has_ended(&self, day: jiff::civil::Date) -> bool {
        match self.lifecycle {
            Lifecycle::Active => false,
            Lifecycle::EndsOn(end) => end <= day,
            Lifecycle::Ended(_) => true,
        }
    }
}
