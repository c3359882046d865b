//! Whether a request fits a model.
//!
//! Invariant: what is said not to fit cannot, as far as the tokens are known; what may fit is left to the provider.

use super::{Model, tokens::Bounds};

/// How a request stands to a model's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// It fits, or the model's limits are not known.
    Fits,
    /// It may.
    MayFit,
    /// It cannot.
    TooLong(Limit),
}

/// The limit that a request goes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Of the answer.
    Output {
        /// What was asked for.
        asked: u64,
        /// What the model gives.
        most: u64,
    },
    /// Of the prompt.
    Input {
        /// The longest prompt.
        most: u64,
    },
    /// Of both together.
    Window {
        /// What the answer may take of it.
        output: u64,
        /// The window.
        most: u64,
    },
}

impl Model {
    /// How a prompt and an answer of at most `output` tokens stand to this model's limits.
    pub fn fit(&self, prompt: Bounds, output: Option<u64>) -> Fit {
        if let (Some(asked), Some(most)) = (output, self.max_output_tokens)
            && asked > most
        {
            return Fit::TooLong(Limit::Output { asked, most });
        }
        let Some((room, limit)) = self.room(output) else { return Fit::Fits };
        if prompt.most <= room {
            Fit::Fits
        } else if prompt.least > room {
            Fit::TooLong(limit)
        } else {
            Fit::MayFit
        }
    }

    /// The longest prompt that leaves room for an answer of `output` tokens, and the limit that it comes from.
    pub fn room(&self, output: Option<u64>) -> Option<(u64, Limit)> {
        let output = output.unwrap_or(0);
        let window = self.context_window.map(|most| (most.saturating_sub(output), Limit::Window { output, most }));
        let input = self.max_input_tokens.map(|most| (most, Limit::Input { most }));
        [window, input].into_iter().flatten().min_by_key(|(room, _)| *room)
    }
}

impl Limit {
    /// What goes over it, in words, for a prompt of so many tokens.
    pub fn exceeded_by(&self, prompt: Bounds) -> String {
        let tokens = match prompt {
            Bounds { least, most } if least == most => format!("{most} tokens"),
            Bounds { least, most } if least < most => format!("some {least} to {most} tokens"),
            Bounds { least, .. } => format!("more than {least} tokens"),
        };
        match self {
            Self::Output { asked, most } => format!("its answers have at most {most} tokens, not {asked}"),
            Self::Input { most } => format!("its prompts have at most {most} tokens, this one has {tokens}"),
            Self::Window { output: 0, most } => format!("its window is {most} tokens, the prompt has {tokens}"),
            Self::Window { output, most } => {
                format!("its window is {most} tokens, the prompt has {tokens} and the answer may have {output}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::Api;

    #[test]
    fn limits_are_kept_to_the_token() {
        let model = Model {
            context_window: Some(1_000),
            max_input_tokens: Some(900),
            max_output_tokens: Some(200),
            ..Model::new(Api::OpenAi, "m")
        };
        let sure = |tokens| Bounds { least: tokens, most: tokens };
        for (prompt, output, expected) in [
            (sure(800), Some(200), Fit::Fits),
            (sure(801), Some(200), Fit::TooLong(Limit::Window { output: 200, most: 1_000 })),
            (sure(900), Some(100), Fit::Fits),
            (sure(901), Some(1), Fit::TooLong(Limit::Input { most: 900 })),
            (sure(901), None, Fit::TooLong(Limit::Input { most: 900 })),
            (sure(1), Some(201), Fit::TooLong(Limit::Output { asked: 201, most: 200 })),
            (Bounds { least: 800, most: 801 }, Some(200), Fit::MayFit),
        ] {
            assert_eq!(model.fit(prompt, output), expected, "{prompt:?} {output:?}");
        }
        let unknown = Model::new(Api::Bedrock, "m");
        assert_eq!(unknown.fit(sure(u64::MAX), Some(u64::MAX)), Fit::Fits);
        assert_eq!(
            Limit::Window { output: 200, most: 1_000 }.exceeded_by(sure(801)),
            "its window is 1000 tokens, the prompt has 801 tokens and the answer may have 200"
        );
        assert_eq!(
            Limit::Input { most: 900 }.exceeded_by(Bounds { least: 950, most: 1_200 }),
            "its prompts have at most 900 tokens, this one has some 950 to 1200 tokens"
        );
    }
}
