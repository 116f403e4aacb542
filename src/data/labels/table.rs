//! Rows of (image, class): what a label file or a folder's metadata says, and which images it says it of.
//!
//! Promise: a row speaks of one image or of none, never of two; rows without an image are kept, to be told.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};

/// One row.
#[derive(Clone, Debug)]
pub(in crate::data) struct Row {
    /// The image's name as it is written.
    pub name: String,
    /// The text of its class.
    pub class: Arc<str>,
    /// Its line, counted from 1.
    pub line: usize,
}

/// A file of rows.
#[derive(Debug)]
pub(in crate::data) struct Table {
    /// The file.
    pub path: PathBuf,
    rows: Vec<Row>,
    by_name: HashMap<String, usize>,
}

/// Names as they are compared: without `./` in front, with `/` between folders.
fn plain(name: &str) -> String {
    name.replace('\\', "/").trim_start_matches("./").to_owned()
}

/// A name without its extension.
fn without_extension(name: &str) -> &str {
    name.rsplit_once('.')
        .map_or(name, |(stem, extension)| if extension.contains('/') || stem.is_empty() || stem.ends_with('/') { name } else { stem })
}

/// The class of each image, and the rows that speak of none.
type Assigned<'a> = (Vec<Option<Arc<str>>>, Vec<&'a Row>);

impl Table {
    /// Of rows. Two rows of one image must agree.
    pub fn new(path: &Path, rows: Vec<Row>) -> Result<Self> {
        let mut by_name: HashMap<String, usize> = HashMap::with_capacity(rows.len());
        for (at, row) in rows.iter().enumerate() {
            if let Some(before) = by_name.insert(plain(&row.name), at).map(|before| &rows[before])
                && before.class != row.class
            {
                let (first, second) = (before.line, row.line);
                let message = format!("lines {first} and {second} give {} two classes, {:?} and {:?}", row.name, &*before.class, &*row.class);
                return Err(Error::data(path, message));
            }
        }
        Ok(Self { path: path.to_owned(), rows, by_name })
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// The row that names `image`, a path below the set, and whether as a whole: else from one of its folders on, with its extension or without.
    fn row_of(&self, image: &str, whole: bool) -> Option<(usize, bool)> {
        let image = plain(image);
        if let Some(row) = self.by_name.get(image.as_str()) {
            return Some((*row, true));
        }
        let mut tail = if whole { None } else { Some(image.as_str()) };
        while let Some(name) = tail {
            if let Some(row) = self.by_name.get(name).or_else(|| self.by_name.get(without_extension(name))) {
                return Some((*row, false));
            }
            tail = name.split_once('/').map(|(_, rest)| rest);
        }
        None
    }

    /// The class of each image, and the rows that speak of none. `images` are paths below the set, which rows must name as a `whole`, or from any folder on.
    /// Where a row fits several, whole names are meant before others, and those for which `weak` holds last (they have a class already).
    pub fn assign(&self, images: &[String], whole: bool, weak: impl Fn(usize) -> bool) -> Result<Assigned<'_>> {
        let mut image_of: Vec<Option<(usize, (bool, bool))>> = vec![None; self.rows.len()];
        for (image, name) in images.iter().enumerate() {
            let Some((row, exact)) = self.row_of(name, whole) else { continue };
            let rank = (exact, !weak(image));
            match image_of[row] {
                Some((_, before)) if before > rank => {}
                Some((other, before)) if before == rank => {
                    let Row { name: written, line, .. } = &self.rows[row];
                    let message = format!("line {line}, {written}, fits both {} and {name}: write the folder too", images[other]);
                    return Err(Error::data(&self.path, message));
                }
                _ => image_of[row] = Some((image, rank)),
            }
        }
        let mut classes = vec![None; images.len()];
        let mut idle = Vec::new();
        for (row, image) in self.rows.iter().zip(image_of) {
            match image {
                Some((image, _)) => classes[image] = Some(Arc::clone(&row.class)),
                // A row that was repeated word for word.
                None if self.by_name.get(&plain(&row.name)).is_some_and(|last| !std::ptr::eq(&self.rows[*last], row)) => {}
                None => idle.push(row),
            }
        }
        Ok((classes, idle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(rows: &[(&str, &str)]) -> Result<Table> {
        let row = |(at, (name, class)): (usize, &(&str, &str))| Row { name: (*name).to_owned(), class: (*class).into(), line: at + 1 };
        Table::new(Path::new("labels.txt"), rows.iter().enumerate().map(row).collect())
    }

    fn classes(rows: &[(&str, &str)], images: &[&str]) -> Result<(Vec<Option<String>>, usize)> {
        let images: Vec<String> = images.iter().map(|name| (*name).to_owned()).collect();
        let table = table(rows)?;
        let (classes, idle) = table.assign(&images, false, |i| images[i].starts_with("train/"))?;
        Ok((classes.into_iter().map(|class| class.map(|text| text.to_string())).collect(), idle.len()))
    }

    #[test]
    fn names_fit_from_any_folder_on_and_without_extension() {
        let some = |text: &str| Some(text.to_owned());
        let images = ["val/x/1.JPEG", "val/2.JPEG", "val/3.tar.png"];
        assert_eq!(classes(&[("1", "a"), ("./val/2.JPEG", "b"), ("3.tar", "c")], &images).unwrap(), (vec![some("a"), some("b"), some("c")], 0));
        assert_eq!(classes(&[("x/1.JPEG", "a"), ("9.JPEG", "b")], &images).unwrap(), (vec![some("a"), None, None], 1));
        // A whole name is meant before a part of one.
        assert_eq!(classes(&[("1.png", "a")], &["x/1.png", "1.png"]).unwrap(), (vec![None, some("a")], 0));
        assert_eq!(classes(&[("x\\1.JPEG", "a"), ("x/1.JPEG", "a")], &images).unwrap(), (vec![some("a"), None, None], 0));
    }

    #[test]
    fn a_row_speaks_of_one_image() {
        let error = |rows: &[(&str, &str)], images: &[&str]| classes(rows, images).unwrap_err().to_string();
        assert!(error(&[("1.png", "a")], &["val/x/1.png", "val/y/1.png"]).contains("line 1, 1.png, fits both val/x/1.png and val/y/1.png"));
        assert!(error(&[("1.png", "a"), ("1.png", "b")], &[]).contains("lines 1 and 2 give 1.png two classes"));
        // An image that has no class is meant before one that has, in either order.
        let one = vec![None, Some("a".to_owned())];
        assert_eq!(classes(&[("1.png", "a")], &["train/cat/1.png", "val/1.png"]).unwrap(), (one.clone(), 0));
        assert_eq!(classes(&[("1.png", "a")], &["val/1.png", "train/cat/1.png"]).unwrap(), (one.into_iter().rev().collect(), 0));
    }
}
