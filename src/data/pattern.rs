//! From what a user calls the data to the folders and files that are meant: lists of paths, braces, globs.
//!
//! Promise: a path that exists is itself, whatever letters it has; everything else must match something, and what does not is an error that names
//! it; a path that is meant twice is an error too. Matches come sorted, so that a set is the same however its pattern was written.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::braces;
use crate::error::{Error, Result};

/// Names of a kind that are listed in a message.
const NAMED: usize = 3;

/// Where the data is, as a user says it: a path, a pattern, or a list of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places(Vec<PathBuf>);

/// A folder or file of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it lies.
    pub path: PathBuf,
    /// Whether it was named as it is, or by braces; what a glob happened to find need not be data.
    pub named: bool,
}

impl Places {
    /// Of a list of paths or patterns.
    pub fn new(patterns: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self(patterns.into_iter().map(Into::into).collect())
    }

    /// The paths and patterns as they were given.
    pub fn patterns(&self) -> &[PathBuf] {
        &self.0
    }

    /// Whether nothing at all, or an empty text, is named.
    pub fn is_blank(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|p| p.as_os_str().is_empty())
    }

    /// Every folder and file that is meant, sorted, where more than one is.
    pub fn find(&self) -> Result<Vec<Place>> {
        let mut found = Vec::new();
        for pattern in &self.0 {
            find(pattern, &mut found)?;
        }
        found.sort_by(|a: &Place, b| a.path.cmp(&b.path));
        // The same file under two names is found out too, where the names lead to one place.
        let mut seen: HashMap<PathBuf, &Path> = HashMap::new();
        for Place { path, .. } in &found {
            let real = if found.len() > 1 { path.canonicalize().unwrap_or_else(|_| path.clone()) } else { path.clone() };
            if let Some(before) = seen.insert(real, path) {
                let other = if before == path { String::new() } else { format!(", which is {} as well", before.display()) };
                return Err(Error::data(path, format!("is named twice in the list of the data{other}: its pictures would count twice")));
            }
        }
        Ok(found)
    }

    /// Where the names of the samples begin: the place itself where there is one, else the folder that all of them lie in.
    pub fn root(found: &[Place]) -> PathBuf {
        let [first, rest @ ..] = found else { return PathBuf::new() };
        if rest.is_empty() {
            return first.path.clone();
        }
        let mut root = first.path.parent().unwrap_or(Path::new("")).to_owned();
        while !rest.iter().all(|place| place.path.starts_with(&root)) && root.pop() {}
        if root.as_os_str().is_empty() { PathBuf::from(".") } else { root }
    }
}

impl<P: Into<PathBuf>> From<P> for Places {
    fn from(path: P) -> Self {
        Self(vec![path.into()])
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, pattern) in self.0.iter().enumerate() {
            write!(f, "{}{}", if i == 0 { "" } else { ", " }, pattern.display())?;
        }
        Ok(())
    }
}

/// One text is written as that text, as it was before there were lists.
impl Serialize for Places {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0[..] {
            [one] => one.serialize(serializer),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Places {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Places;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text, a path or a pattern, or a list of such")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Places, E> {
                Ok(Places::from(text))
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Places, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = seq.next_element::<String>()? {
                    all.push(text.into());
                }
                Ok(Places(all))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// Appends what one pattern stands for.
fn find(literal: &Path, found: &mut Vec<Place>) -> Result<()> {
    if std::fs::symlink_metadata(literal).is_ok() {
        found.push(Place { path: literal.to_owned(), named: true });
        return Ok(());
    }
    // A pattern is text; what is not can only be a name.
    let pattern = literal.to_str().ok_or_else(|| Error::data(literal, "does not exist"))?;
    if let Some((scheme, _)) = pattern.split_once(':').filter(|(s, rest)| rest.starts_with("//") || *s == "pipe") {
        return Err(Error::data(pattern, format!("is no path: nothing is read over {scheme}; copy the data here, or mount it")));
    }
    let each = braces::expand(pattern).map_err(|message| Error::data(pattern, message))?;
    let mut missing = Vec::new();
    for one in &each {
        let path = Path::new(one);
        if std::fs::symlink_metadata(path).is_ok() {
            found.push(Place { path: path.to_owned(), named: true });
        } else if one.contains(['*', '?', '[']) {
            if glob_into(one, found)? == 0 {
                missing.push(one.as_str());
            }
        } else {
            missing.push(one);
        }
    }
    match missing[..] {
        [] => Ok(()),
        [one] if one == pattern && !pattern.contains(['*', '?', '[']) => Err(Error::data(pattern, "does not exist")),
        [one] if one == pattern => Err(Error::data(pattern, "matches nothing")),
        _ => {
            let names = missing.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
            let more = if missing.len() > NAMED { ", …" } else { "" };
            Err(Error::data(pattern, format!("{} of the {} paths that it stands for match nothing: {names}{more}", missing.len(), each.len())))
        }
    }
}

/// Appends what a glob matches, in its order; hidden files must be named, as in shells.
fn glob_into(pattern: &str, found: &mut Vec<Place>) -> Result<usize> {
    let options = glob::MatchOptions { case_sensitive: true, require_literal_separator: true, require_literal_leading_dot: true };
    let before = found.len();
    for entry in glob::glob_with(pattern, options).map_err(|e| Error::data(pattern, format!("is no pattern: {}", e.msg)))? {
        let path = entry.map_err(|e| Error::data(e.path(), format!("cannot be listed: {}", e.error())))?;
        found.push(Place { path, named: false });
    }
    Ok(found.len() - before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in files {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        dir
    }

    /// What the patterns below `dir` find, or the error.
    fn names(dir: &Path, patterns: &[&str]) -> Result<Vec<String>, String> {
        let found = Places::new(patterns.iter().map(|p| format!("{}/{p}", dir.display()))).find().map_err(|e| e.to_string())?;
        Ok(found.iter().map(|place| place.path.strip_prefix(dir).unwrap().display().to_string()).collect())
    }

    #[test]
    fn braces_and_globs_find_files_and_name_what_they_do_not_find() {
        let dir = folder(&["train-0.tar", "train-1.tar", "extra-0.tar", ".train-2.tar", "a{b,c}.tar", "[x].tar"]);
        let dir = dir.path();
        assert_eq!(names(dir, &["train-{0..1}.tar"]).unwrap(), ["train-0.tar", "train-1.tar"]);
        assert_eq!(names(dir, &["{train,extra}-*.tar"]).unwrap(), ["extra-0.tar", "train-0.tar", "train-1.tar"]);
        assert_eq!(names(dir, &["train-1.tar", "train-[0].tar"]).unwrap(), ["train-0.tar", "train-1.tar"]);
        // What exists is what it is called.
        assert_eq!(names(dir, &["a{b,c}.tar", "[x].tar"]).unwrap(), ["[x].tar", "a{b,c}.tar"]);
        let error = |patterns: &[&str]| names(dir, patterns).unwrap_err();
        assert!(error(&["train-{0..9}.tar"]).contains("8 of the 10 paths that it stands for match nothing: "), "{}", error(&["train-{0..9}.tar"]));
        assert!(error(&["train-{0..9}.tar"]).contains("train-2.tar") && error(&["{train,other}-*.tar"]).contains("other-*.tar"));
        assert!(error(&["nothing*"]).contains("nothing*: matches nothing") && error(&["gone"]).contains("gone: does not exist"));
        assert!(error(&["train-*.tar", "train-{0..1}.tar"]).contains("train-0.tar: is named twice"));
        assert!(error(&["***"]).contains("is no pattern"));
        assert!(Places::from("s3://bucket/{0..9}.tar").find().unwrap_err().to_string().contains("nothing is read over s3"));
    }

    #[test]
    fn one_path_is_written_as_text_and_several_as_a_list() {
        #[derive(Serialize, Deserialize, PartialEq, Debug)]
        struct Data {
            path: Places,
        }
        for (text, places) in [("path = \"a\"\n", Places::from("a")), ("path = [\"a\", \"b-*.tar\"]\n", Places::new(["a", "b-*.tar"]))] {
            let data: Data = toml::from_str(text).unwrap();
            assert_eq!(data.path, places);
            assert_eq!(toml::to_string(&data).unwrap(), text);
        }
        assert!(toml::from_str::<Data>("path = 3").unwrap_err().to_string().contains("or a list"));
    }

    #[test]
    fn names_begin_where_all_places_lie() {
        let place = |path: &str| Place { path: path.into(), named: true };
        assert_eq!(Places::root(&[place("/a/b")]), Path::new("/a/b"));
        assert_eq!(Places::root(&[place("/a/b/1"), place("/a/b/2")]), Path::new("/a/b"));
        assert_eq!(Places::root(&[place("/a/b/1"), place("/a/c/2")]), Path::new("/a"));
        assert_eq!(Places::root(&[place("1"), place("b/2")]), Path::new("."));
    }
}
