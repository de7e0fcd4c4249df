//! JSON that can be read in one way only: a name that stands twice in an object is an error.
//!
//! Of two equal names one reader takes the first and another the last, and what one has checked the other uses.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};

/// Reads an object. It nests as deep as `serde_json` goes, which is 128.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice::<Unambiguous>(bytes) {
        Ok(Unambiguous(Value::Object(object))) => Ok(object),
        Ok(_) => Err("is no JSON object".to_owned()),
        // What stands there is not shown: it may be anything.
        Err(error) if error.is_data() => Err(error.to_string()),
        Err(error) => Err(format!("is no JSON (byte {} of line {})", error.column(), error.line())),
    }
}

struct Unambiguous(Value);

impl<'de> Deserialize<'de> for Unambiguous {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Values).map(Self)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Value, E> {
        Ok(Value::Bool(yes))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("a number is too large"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unambiguous(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut object = BTreeMap::new();
        while let Some((name, Unambiguous(value))) = entries.next_entry::<String, _>()? {
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("has a name twice"));
            }
        }
        Ok(Value::Object(object.into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_once() {
        let read = |text: &str| object(text.as_bytes());
        let text = r#"{"a":[1,-2,3.5,null,true,{"b":"\u00e9"}],"c":{"a":1}}"#;
        assert_eq!(Value::Object(read(text).unwrap()), serde_json::from_str::<Value>(text).unwrap());
        for twice in [r#"{"a":1,"a":1}"#, r#"{"x":{"a":1,"b":2,"a":1}}"#, r#"{"x":[{"a":1,"\u0061":1}]}"#] {
            assert!(read(twice).unwrap_err().contains("twice"), "{twice}");
        }
        for no_object in ["[1]", "1", "null", "\"a\""] {
            assert_eq!(read(no_object).unwrap_err(), "is no JSON object");
        }
        for no_json in ["", "{", "{\"a\":}", "{} {}", "{\"a\":1e999}", "{'a':1}"] {
            assert!(read(no_json).is_err(), "{no_json}");
        }
        let deep = format!("{{\"a\":{}{}}}", "[".repeat(1000), "]".repeat(1000));
        assert!(read(&deep).is_err());
    }
}
