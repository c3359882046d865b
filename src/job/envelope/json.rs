//! From JSON text to fields.
//!
//! Invariant: repeated keys are refused at every depth, because two readers that each pick another one would see two
//! different jobs. Text that is not JSON is said to be that, with line and column.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{
    EnvelopeError, MAX_JOB_BYTES,
    fields::{Field, Fields, cut, recognise, refuse},
};

/// Reads JSON text.
pub(super) fn from_json(json: &[u8]) -> Result<Fields, EnvelopeError> {
    if json.len() > MAX_JOB_BYTES {
        return Err(refuse(
            None,
            format!(
                "the job has {} bytes; at most {MAX_JOB_BYTES} are taken. Send large inputs by reference",
                json.len()
            ),
        ));
    }
    let reading = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(json);
    let outcome = EnvelopeSeed { reading: &reading }
        .deserialize(&mut deserializer)
        .and_then(|fields| deserializer.end().map(|()| fields));
    outcome.unwrap_or_else(|error| {
        let message = if error.is_data() { error.to_string() } else { format!("the job is not valid JSON: {error}") };
        let field: Option<Field> = reading.get().filter(|_| error.is_data());
        Err(refuse(field.map(Field::name), message))
    })
}

/// Reads the outer object; `reading` holds the field being read, for the error.
struct EnvelopeSeed<'a> {
    reading: &'a Cell<Option<Field>>,
}

impl<'de> DeserializeSeed<'de> for EnvelopeSeed<'_> {
    type Value = Result<Fields, EnvelopeError>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EnvelopeSeed<'_> {
    type Value = Result<Fields, EnvelopeError>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a job, which is a JSON object")
    }

    /// The outer error is the JSON's, the inner one the job's; the first of the job's is kept while reading on, so that
    /// text that is not JSON at all is always said to be that.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Fields::default();
        let mut problem = None;
        while let Some(key) = map.next_key::<String>()? {
            match recognise(&key) {
                Ok(field) => {
                    self.reading.set(Some(field));
                    let value = map.next_value_seed(UniqueKeys)?;
                    problem = problem.or(fields.put(field, value).err());
                }
                Err(error) => {
                    map.next_value::<IgnoredAny>()?;
                    problem = problem.or(Some(error));
                }
            }
        }
        Ok(problem.map_or(Ok(fields), Err))
    }
}

/// Any JSON value whose objects, at every depth, name each key once.
struct UniqueKeys;

impl<'de> DeserializeSeed<'de> for UniqueKeys {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(UniqueKeys)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = access.next_key::<String>()? {
            let value = access.next_value_seed(UniqueKeys)?;
            match map.entry(key) {
                serde_json::map::Entry::Vacant(slot) => {
                    slot.insert(value);
                }
                serde_json::map::Entry::Occupied(slot) => {
                    return Err(A::Error::custom(format_args!("the key `{}` is given twice", cut(slot.key()))));
                }
            }
        }
        Ok(Value::Object(map))
    }
}
