//! `metadata.jsonl` and `metadata.csv` beside images, as in Hugging Face's imagefolder: a row an image, its path from there under `file_name`, its class
//! under `label`.

use std::path::Path;

use serde_json::Value;

use super::file::{header_of_csv, rows_of_csv};
use super::table::{Row, Table};
use super::{MOST_BYTES, json, read};
use crate::error::{Error, Result};

/// Names of such files.
const NAMES: [&str; 2] = ["metadata.jsonl", "metadata.csv"];

/// Whether a file name is that of metadata.
pub(in crate::data) fn is_metadata(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Reads the classes of a metadata file; `None` where it holds none (captions, say), with the names of its columns to tell. `key` names the column.
pub(in crate::data) fn open(path: &Path, key: Option<&str>) -> Result<Result<Table, Vec<String>>> {
    let text = read(path, MOST_BYTES)?;
    let wrong = |message: String| Error::data(path, message);
    let csv = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
    let rows = if csv {
        let header = header_of_csv(&text);
        let label = key.unwrap_or("label");
        if !header.iter().any(|column| column == label) {
            return Ok(Err(header));
        }
        if !header.iter().any(|column| column == "file_name") {
            return Err(wrong(format!("has no column file_name: there are {}", header.join(", "))));
        }
        rows_of_csv(&text, Some(label)).map_err(wrong)?
    } else {
        match rows_of_lines(&text, key).map_err(wrong)? {
            Ok(rows) => rows,
            Err(columns) => return Ok(Err(columns)),
        }
    };
    Ok(Ok(Table::new(path, rows)?))
}

type Rows = Result<Vec<Row>, Vec<String>>;

fn rows_of_lines(text: &str, key: Option<&str>) -> Result<Rows, String> {
    let (mut rows, mut columns) = (Vec::new(), Vec::new());
    let mut labelled = false;
    for (at, line) in text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())).filter(|(_, line)| !line.is_empty()) {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("line {at} is no JSON: {e}"))?;
        let Value::Object(object) = value else { return Err(format!("line {at} is no JSON object")) };
        let Some(Value::String(name)) = object.get("file_name") else { return Err(format!("line {at} has no text under file_name")) };
        labelled |= object.contains_key(key.unwrap_or("label"));
        let class = json::class(&object, Some(key.unwrap_or("label"))).map_err(|e| format!("line {at}: {e}"))?;
        rows.push(Row { name: name.clone(), class: class.unwrap_or_default().into(), line: at });
        columns.extend(object.keys().filter(|column| !columns.contains(*column)).cloned().collect::<Vec<_>>());
    }
    Ok(if labelled { Ok(rows) } else { Err(columns) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rng::Stream;

    fn classes(name: &str, text: &str, key: Option<&str>) -> Result<Result<Vec<Option<String>>, Vec<String>>, String> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(name), text).unwrap();
        let images = ["1.png", "in/2.png"].map(str::to_owned);
        let table = open(&dir.path().join(name), key).map_err(|e| e.to_string())?;
        Ok(table.map(|table| table.assign(&images, true, |_| false).unwrap().0.into_iter().map(|c| c.map(|c| c.to_string())).collect()))
    }

    #[test]
    fn rows_are_read_from_either_form() {
        let wanted = Ok(Ok(vec![Some("3".to_owned()), Some("cat".to_owned())]));
        let lines = "{\"file_name\": \"1.png\", \"label\": 3}\n{\"file_name\": \"in/2.png\", \"label\": \"cat\", \"text\": \"x\"}\n";
        assert_eq!(classes("metadata.jsonl", lines, None), wanted);
        assert_eq!(classes("metadata.csv", "file_name,text,label\n1.png,\"a, b\",3\nin/2.png,x,cat\n", None), wanted);
        let breed = "{\"file_name\": \"1.png\", \"breed\": 3}\n{\"file_name\": \"in/2.png\", \"breed\": \"cat\"}";
        assert_eq!(classes("metadata.jsonl", breed, Some("breed")), wanted);
        // Captions are no classes, and their columns can be told.
        assert_eq!(classes("metadata.jsonl", breed, None), Ok(Err(vec!["file_name".into(), "breed".into()])));
        assert_eq!(classes("metadata.csv", "file_name,text\n1.png,x\n", None), Ok(Err(vec!["file_name".into(), "text".into()])));
        assert_eq!(classes("metadata.jsonl", "{\"file_name\": \"1.png\", \"label\": null}", None), Ok(Ok(vec![Some(String::new()), None])));
    }

    #[test]
    fn rows_that_are_wrong_are_named() {
        let error = |name: &str, text: &str| classes(name, text, None).unwrap_err();
        assert!(error("metadata.jsonl", "{\"label\": 3}").contains("line 1 has no text under file_name"));
        assert!(error("metadata.jsonl", "{}\n").contains("file_name") && error("metadata.jsonl", "3").contains("line 1 is no JSON object"));
        assert!(error("metadata.jsonl", "{\"file_name\": \"1.png\", \"label\": [1]}").contains("line 1: \"label\" is a list"));
        assert!(error("metadata.csv", "label,text\n3,x\n").contains("no column file_name"));
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let words = ["{", "}", "\"file_name\"", ":", "\"label\"", "1", "\"a\"", ",", "\n", "null", "[", "]"];
        for case in 0..3_000 {
            let mut stream = Stream::new(29, case, 0, 0);
            let text: String = (0..stream.below(24)).map(|_| words[stream.below(words.len() as u64) as usize]).collect();
            let path = dir.path().join(NAMES[case as usize % 2]);
            std::fs::write(&path, text).unwrap();
            let _ = open(&path, None);
        }
    }
}
