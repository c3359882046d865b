//! One field of a request: its type and its bounds, with OpenAI's words where they are not kept.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use crate::simulate::reply::Refused;

/// A field that is present.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field<'a> {
    pub name: &'a str,
    pub raw: &'a RawValue,
}

impl Field<'_> {
    fn got(&self) -> &'static str {
        match self.raw.get().bytes().next() {
            Some(b'"') => "a string",
            Some(b'{') => "an object",
            Some(b'[') => "an array",
            Some(b't' | b'f') => "a boolean",
            Some(b'n') => "null",
            _ => "a number",
        }
    }

    /// Whether it is null, which most fields take for absence.
    pub fn is_null(&self) -> bool {
        self.raw.get() == "null"
    }

    /// The value as some type.
    pub fn read<T: DeserializeOwned>(&self, expected: &str) -> Result<T, Refused> {
        serde_json::from_str(self.raw.get()).map_err(|_| self.mistyped(expected))
    }

    /// It is not what it should be.
    pub fn mistyped(&self, expected: &str) -> Refused {
        let (name, got) = (self.name, self.got());
        Refused::new(
            400,
            "invalid_type",
            format!("Invalid type for '{name}': expected {expected}, but got {got} instead."),
        )
        .param(name)
    }

    /// A number within bounds.
    pub fn number(&self, least: f64, most: f64) -> Result<f64, Refused> {
        let number: f64 = self.read("a decimal")?;
        if number < least {
            return Err(self.beyond("decimal below minimum value", "greater than or equal to", least, number));
        }
        if number > most {
            return Err(self.beyond("decimal above maximum value", "less than or equal to", most, number));
        }
        Ok(number)
    }

    fn beyond(&self, what: &str, side: &str, bound: f64, got: f64) -> Refused {
        let name = self.name;
        let code = if side.starts_with("less") { "decimal_above_max_value" } else { "decimal_below_min_value" };
        Refused::new(
            400,
            code,
            format!("Invalid '{name}': {what}. Expected a value {side} {bound}, but got {got} instead."),
        )
        .param(name)
    }

    /// A whole number of at least `least`.
    pub fn whole(&self, least: u64) -> Result<u64, Refused> {
        let number: i64 = self.read("an integer")?;
        u64::try_from(number).ok().filter(|number| *number >= least).ok_or_else(|| {
            let name = self.name;
            Refused::new(
                400,
                "integer_below_min_value",
                format!(
                    "Invalid '{name}': integer below minimum value. Expected a value >= {least}, but got {number} instead."
                ),
            )
            .param(name)
        })
    }

    /// A value that the provider knows and the simulation does not do.
    pub fn not_simulated(&self, instead: &str) -> Refused {
        let name = self.name;
        Refused::new(400, "unsupported_parameter", format!("The simulation does not do '{name}' yet: {instead}."))
            .param(name)
    }
}
