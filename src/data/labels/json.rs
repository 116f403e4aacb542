//! The class in the JSON object of a sample: a `.json` member of a shard, or a line of `metadata.jsonl`.

use serde_json::{Map, Value};

/// Keys that hold a class where the user names none. Captions and addresses are no classes, so nothing else is taken.
const KEYS: [&str; 3] = ["label", "cls", "class"];

/// Longest text that is taken for a class, in bytes.
pub(in crate::data) const LONGEST_CLASS: usize = 4096;

/// The class that an object names under `key`, or under one of the usual keys; `None` where there is none, or `null`.
pub(in crate::data) fn class(object: &Map<String, Value>, key: Option<&str>) -> Result<Option<String>, String> {
    if let Some(key) = key {
        return object.get(key).map_or(Ok(None), |value| text(key, value));
    }
    let mut found: Option<(&str, String)> = None;
    for key in KEYS {
        // A list of boxes, say, is no class; where the user names the key, it is an error.
        let Some(Ok(Some(value))) = object.get(key).map(|value| text(key, value)) else { continue };
        match &found {
            Some((other, before)) if *before != value => {
                return Err(format!("says {before:?} under {other:?} and {value:?} under {key:?}: data.label_key says which is the class"));
            }
            _ => found = Some((key, value)),
        }
    }
    Ok(found.map(|(_, value)| value))
}

/// The class in what was read of a `.json` member.
pub(in crate::data) fn class_of(parsed: serde_json::Result<Value>, key: Option<&str>) -> Result<Option<String>, String> {
    match parsed {
        Ok(Value::Object(object)) => class(&object, key),
        // Annotations of other kinds, or what Python writes for numbers that are none.
        _ if key.is_none() => Ok(None),
        Ok(_) => Err("holds no JSON object".into()),
        Err(e) => Err(format!("is no JSON: {e}")),
    }
}

fn text(key: &str, value: &Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.len() > LONGEST_CLASS => Err(format!("{key:?} has {} bytes: a class has at most {LONGEST_CLASS}", text.len())),
        Value::String(text) => Ok(Some(text.trim().to_owned())),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Bool(_) => Err(format!("{key:?} is {value}: a class is text or a whole number")),
        Value::Array(_) => Err(format!("{key:?} is a list: a picture has one class")),
        Value::Object(_) => Err(format!("{key:?} is an object: a class is text or a whole number")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_under_a_usual_key_or_under_the_one_that_is_named() {
        let class = |text: &str, key| class_of(serde_json::from_str(text), key);
        assert_eq!(class(r#"{"caption": "a cat", "label": 3}"#, None), Ok(Some("3".into())));
        assert_eq!(class(r#"{"class": " cat ", "cls": "cat"}"#, None), Ok(Some("cat".into())));
        assert_eq!(class(r#"{"caption": "a cat", "url": "x"}"#, None), Ok(None));
        assert_eq!(class(r#"{"label": null}"#, None), Ok(None));
        assert_eq!(class(r#"{"breed": "pug", "label": 3}"#, Some("breed")), Ok(Some("pug".into())));
        assert_eq!(class(r#"{"label": 3}"#, Some("breed")), Ok(None));
        assert_eq!(class("[1, 2]", None), Ok(None));
        assert!(class(r#"{"label": 3, "cls": 4}"#, None).unwrap_err().contains("data.label_key"));
        assert_eq!(class(r#"{"label": [1]}"#, None), Ok(None));
        assert_eq!(class(r#"{"label": 3, "similarity": NaN}"#, None), Ok(None));
        assert!(class(r#"{"label": [1]}"#, Some("label")).unwrap_err().contains("is a list"));
        assert!(class(r#"{"label": true}"#, Some("label")).unwrap_err().contains("is true"));
        assert!(class("[1]", Some("label")).unwrap_err().contains("holds no JSON object"));
        assert!(class("{", Some("label")).unwrap_err().contains("is no JSON"));
        // Deep nesting is an error of the reader, not the end of its stack.
        assert!(class(&"[".repeat(100_000), Some("label")).is_err());
    }
}
