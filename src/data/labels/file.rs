//! Label files: which class each image of a flat folder has.
//!
//! One line an image, `name class`, with a tab, a comma or spaces between, as in the lists of Caffe and mmpretrain; a CSV file with a header; or one
//! class number a line in the order of the images' sorted names, as the ground truth of ImageNet's development kit. Which of these it is holds for the whole
//! file: a line that is otherwise is an error.

use std::path::Path;
use std::sync::Arc;

use super::table::{Row, Table};
use super::{MOST_BYTES, read};
use crate::error::{Error, Result};

/// Names of a column that holds the images' names, as they are found in the world.
const NAME_COLUMNS: [&str; 11] = ["file_name", "filename", "file", "image", "image_name", "imageid", "image_id", "img", "name", "path", "id"];

/// Names of a column that holds the class.
const CLASS_COLUMNS: [&str; 8] = ["label", "class", "cls", "class_name", "category", "target", "synset", "predictionstring"];

/// What a label file holds.
#[derive(Debug)]
pub(in crate::data) enum LabelFile {
    /// A class for each name.
    Named(Table),
    /// Class numbers in the order of the sorted images.
    Ordered(Vec<Arc<str>>),
}

impl LabelFile {
    /// Reads a file. `key` names the column of the class, where there is a header.
    pub fn open(path: &Path, key: Option<&str>) -> Result<Self> {
        let text = read(path, MOST_BYTES)?;
        let wrong = |message: String| Error::data(path, message);
        let lines: Vec<(usize, &str)> =
            text.lines().enumerate().map(|(at, line)| (at + 1, line.trim())).filter(|(_, line)| !line.is_empty()).collect();
        if lines.is_empty() {
            return Err(wrong("holds no line".into()));
        }
        let all = |letter: fn(char) -> bool| lines.iter().all(|(_, line)| line.contains(letter));
        let csv = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("csv"));
        let rows = if csv || (!all(|c| c == '\t') && all(|c| c == ',')) {
            rows_of_csv(&text, key).map_err(wrong)?
        } else if all(|c| c == '\t') {
            lines.iter().filter_map(|(at, line)| line.rsplit_once('\t').map(|(name, class)| row(*at, name, class))).collect()
        } else if all(char::is_whitespace) {
            lines.iter().filter_map(|(at, line)| line.rsplit_once(char::is_whitespace).map(|(name, class)| row(*at, name, class))).collect()
        } else if lines.iter().all(|(_, line)| number(line)) {
            return Ok(Self::Ordered(lines.iter().map(|(_, line)| Arc::from(*line)).collect()));
        } else {
            let odd = |(_, line): &&(usize, &str)| !line.contains(char::is_whitespace) && !line.contains(',');
            let (at, line) = lines.iter().find(odd).unwrap_or(&lines[0]);
            let how = "each must read `name class` with a tab, a comma or spaces between, or each hold one class number";
            return Err(wrong(format!("line {at} is {:?}: {how}, all lines alike", short(line))));
        };
        if rows.is_empty() {
            return Err(wrong("names no image".into()));
        }
        Ok(Self::Named(Table::new(path, rows)?))
    }
}

fn row(line: usize, name: &str, class: &str) -> Row {
    Row { name: name.trim().to_owned(), class: class.trim().into(), line }
}

fn number(text: &str) -> bool {
    text == "-1" || (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()))
}

fn short(text: &str) -> String {
    text.chars().take(60).collect()
}

/// The names of the first line's columns.
pub(super) fn header_of_csv(text: &str) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    reader.headers().map(|names| names.iter().map(str::to_owned).collect()).unwrap_or_default()
}

/// Rows of a CSV text with a header or without one: then its two columns are name and class.
pub(super) fn rows_of_csv(text: &str, key: Option<&str>) -> Result<Vec<Row>, String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).trim(csv::Trim::All).from_reader(text.as_bytes());
    let mut records = reader.records();
    let line_of = |record: &csv::StringRecord| record.position().map_or(0, |p| p.line() as usize);
    let first = records.next().ok_or("holds no line")?.map_err(|e| e.to_string())?;
    let header: Vec<String> = first.iter().map(str::to_lowercase).collect();
    let find = |names: &[&str]| names.iter().find_map(|name| header.iter().position(|column| column == name));
    let columns = || header.join(", ");
    let (name, class, headed) = match (find(&NAME_COLUMNS), key) {
        (Some(name), Some(key)) => {
            let class = header.iter().position(|column| *column == key.to_lowercase());
            (name, class.ok_or_else(|| format!("has no column {key}, which data.label_key names: there are {}", columns()))?, true)
        }
        (Some(name), None) => match find(&CLASS_COLUMNS) {
            Some(class) => (name, class, true),
            None if header.len() == 2 => (name, 1 - name, true),
            None => return Err(format!("has no column that is known for a class: there are {}; data.label_key names it", columns())),
        },
        (None, Some(key)) => return Err(format!("has no column for the names of the images beside {key}: there are {}", columns())),
        (None, None) if header.len() == 2 => (0, 1, false),
        (None, None) => return Err(format!("has {} columns without a header like file_name,label: {}", header.len(), short(&columns()))),
    };
    // Kaggle's ImageNet: a class, then boxes.
    let boxes = headed && header[class] == "predictionstring";
    let mut rows = Vec::new();
    for record in (!headed).then_some(Ok(first)).into_iter().chain(records) {
        let record = record.map_err(|e| e.to_string())?;
        let line = line_of(&record);
        if record.len() != header.len() {
            return Err(format!("line {line} has {} columns, the first {}", record.len(), header.len()));
        }
        let text = &record[class];
        rows.push(row(line, &record[name], if boxes { text.split_whitespace().next().unwrap_or("") } else { text }));
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::rng::Stream;

    fn open(name: &str, text: &str, key: Option<&str>) -> Result<Vec<(String, String)>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        let names = ["1.png", "2.png", "b c.png"].map(str::to_owned);
        match LabelFile::open(&path, key).map_err(|e| e.to_string())? {
            LabelFile::Ordered(numbers) => Ok(numbers.iter().map(|n| (String::new(), n.to_string())).collect()),
            LabelFile::Named(table) => {
                let (classes, _) = table.assign(&names, false, |_| false).map_err(|e| e.to_string())?;
                Ok(names.into_iter().zip(classes).filter_map(|(name, class)| Some((name, class?.to_string()))).collect())
            }
        }
    }

    #[test]
    fn every_form_gives_the_same_rows() {
        let wanted = Ok(vec![("1.png".to_owned(), "n1".to_owned()), ("b c.png".to_owned(), "n 2".to_owned())]);
        assert_eq!(open("l.txt", "1.png\tn1\nb c.png\tn 2\n", None), wanted);
        assert_eq!(open("l.txt", "1.png,n1\r\n\r\n\"b c.png\",n 2\r\n", None), wanted);
        assert_eq!(open("l.csv", "\u{feff}file_name,width,Label\n1.png,9,n1\nb c.png,9,n 2\n", None), wanted);
        assert_eq!(open("l.csv", "breed,ID\nn1,1\nn 2,b c\n", None), wanted);
        assert_eq!(open("l.csv", "id,width,breed\n1,9,n1\nb c,9,n 2\n", Some("breed")), wanted);
        assert_eq!(open("l.csv", "ImageId,PredictionString\n1,n1 2 3 4 5\n", None), Ok(vec![("1.png".into(), "n1".into())]));
        // Spaces: the class is the last word.
        assert_eq!(open("l.txt", "1.png n1\nb c.png   n2", None), Ok(vec![("1.png".into(), "n1".into()), ("b c.png".into(), "n2".into())]));
        assert_eq!(open("l.txt", "3\n-1\n07\n", None), Ok(["3", "-1", "07"].map(|n| (String::new(), n.to_owned())).to_vec()));
    }

    #[test]
    fn what_is_no_label_file_is_refused_with_its_line() {
        let error = |name: &str, text: &str, key| open(name, text, key).unwrap_err();
        assert!(error("l.txt", "1.png cat\n2.png\n", None).contains("line 2 is \"2.png\""));
        assert!(error("l.txt", "3\n4\ncat\n", None).contains("line 1 is \"3\""));
        assert!(error("l.txt", " \n", None).contains("holds no line"));
        assert!(error("l.csv", "a,b,c\n1,2,3\n", None).contains("3 columns without a header"));
        assert!(error("l.csv", "id,width,breed\n1,2,3\n", None).contains("data.label_key"));
        assert!(error("l.csv", "id,label\n1,2,3\n", None).contains("line 2 has 3 columns"));
        assert!(error("l.csv", "id,label\n1,2\n", Some("breed")).contains("has no column breed"));
        assert!(LabelFile::open(Path::new("/nowhere/l.txt"), None).unwrap_err().to_string().contains("/nowhere/l.txt: cannot be read"));
    }

    #[test]
    fn any_bytes_are_read_or_refused() {
        let dir = tempfile::tempdir().unwrap();
        let letters = b"1a,\t\n \"\r\xff\0-.";
        for case in 0..3_000 {
            let mut stream = Stream::new(23, case, 0, 0);
            let bytes: Vec<u8> = (0..stream.below(40)).map(|_| letters[stream.below(letters.len() as u64) as usize]).collect();
            let path = dir.path().join(if case % 2 == 0 { "l.txt" } else { "l.csv" });
            std::fs::write(&path, bytes).unwrap();
            let _ = LabelFile::open(&path, None);
        }
    }
}
