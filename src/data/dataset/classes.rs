//! Numbering of classes: by name, or the numbers that class texts hold.
//!
//! Numbers stay what they are. Where most pictures have numbers and a few have names, something is wrong with the few: they are named, and nothing is
//! numbered by its text.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::Path;

use super::found::{Class, Found, Source};
use crate::data::shards::Shard;
use crate::error::{Error, Result};

/// Largest class number a class text may hold.
const LARGEST_CLASS: usize = 1_000_000;

/// Pictures that are named in a message.
const NAMED: usize = 3;

/// What a class is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Label<'a> {
    Number(usize),
    Name(&'a str),
}

impl<'a> Label<'a> {
    /// Of a class; the error says why it can be none.
    fn of(class: &'a Class) -> Result<Option<Self>, String> {
        match class {
            Class::None => Ok(None),
            Class::Folder(name) => Ok(Some(Self::Name(name))),
            Class::Text(text) => Self::of_text(text).map(Some),
        }
    }

    /// A whole number, also when it is written as 7.0 or 007; what has other letters is a name.
    fn of_text(text: &'a str) -> Result<Self, String> {
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        let digits = whole.strip_prefix(['-', '+']).unwrap_or(whole);
        let numeral = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
        if digits.is_empty() || !numeral(digits) || !numeral(rest) || (rest.is_empty() && text.ends_with('.')) {
            return Ok(Self::Name(text));
        }
        if whole.starts_with('-') || rest.bytes().any(|b| b != b'0') {
            return Err(format!("class {text} is no class number: those are whole, from 0 on; -1 stands for no class"));
        }
        match digits.parse() {
            Ok(number) if number <= LARGEST_CLASS => Ok(Self::Number(number)),
            _ => Err(format!("class number {text} is larger than {LARGEST_CLASS}")),
        }
    }
}

/// Names of the classes of a set; a label is an index into them.
#[derive(Clone, Debug, Default)]
pub(super) struct Classes {
    pub names: Vec<String>,
    /// Whether texts are numbers, which then are the labels themselves.
    numbered: bool,
    /// What is used, but looks wrong.
    pub note: Option<String>,
}

/// Pictures with one kind of class: how many, and the first few.
#[derive(Default)]
struct Kind {
    count: usize,
    first: Vec<String>,
}

impl Kind {
    fn add(&mut self, found: &Found, shards: &[Shard]) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(format!("{} has {:?}", found.source.path(shards), found.class.name().unwrap_or_default()));
        }
    }

    fn listed(&self) -> String {
        format!("{}{}", self.first.join(", "), if self.count > NAMED { ", …" } else { "" })
    }
}

impl Classes {
    /// The classes of this list, which texts are numbers of.
    pub fn listed(names: &[String]) -> Self {
        Self { names: names.to_vec(), numbered: true, note: None }
    }

    /// Those of `found`. `root` is named in errors.
    pub fn of(found: &[Found], shards: &[Shard], root: &Path) -> Result<Self> {
        let (mut numbers, mut names) = (Kind::default(), Kind::default());
        let (mut largest, mut known) = (0, BTreeSet::new());
        for one in found {
            match Label::of(&one.class).map_err(|message| Error::data(one.source.path(shards), message))? {
                None => continue,
                Some(Label::Number(number)) => {
                    numbers.add(one, shards);
                    largest = largest.max(number);
                }
                Some(Label::Name(_)) => names.add(one, shards),
            }
            known.extend(one.class.name());
        }
        match (numbers.count, names.count) {
            (1.., 0) => Ok(Self { names: (0..=largest).map(|n| n.to_string()).collect(), numbered: true, note: None }),
            (with_number @ 1.., with_name @ 1..) if with_number >= with_name => {
                let message = format!(
                    "the classes of {with_number} pictures are numbers, those of {with_name} are not: {}; class numbers and names do not go together",
                    names.listed()
                );
                Err(Error::data(root, message))
            }
            (with_number, with_name) => {
                let message = || {
                    format!(
                        "classes of {with_number} pictures are numbers, those of {with_name} are names: all are taken for names ({})",
                        numbers.listed()
                    )
                };
                let note = (with_number > 0).then(message);
                Ok(Self { names: known.into_iter().map(str::to_owned).collect(), numbered: false, note })
            }
        }
    }

    /// Adds the classes of `other` that are not here, behind those that are.
    pub fn extend(&mut self, other: Self) {
        if self.numbered != other.numbered && !other.names.is_empty() {
            // Names beside numbers: labelling says which image is wrong.
            return;
        }
        let known: HashSet<String> = self.names.iter().cloned().collect();
        self.names.extend(other.names.into_iter().filter(|name| !known.contains(name)));
    }

    /// Appends `found` to `samples`, each with its label.
    pub fn label(&self, found: Vec<Found>, shards: &[Shard], samples: &mut Vec<(Source, Option<u32>)>) -> Result<()> {
        let by_name: HashMap<&str, u32> = self.names.iter().map(String::as_str).zip(0..).collect();
        for Found { source, class } in found {
            let fits = |number: usize| u32::try_from(number).ok().filter(|n| (*n as usize) < self.names.len());
            let label = match (Label::of(&class).map_err(|message| Error::data(source.path(shards), message))?, class.name()) {
                (Some(Label::Number(number)), _) if self.numbered => Some(fits(number)),
                (Some(_), Some(text)) if !self.numbered => Some(by_name.get(text).copied()),
                (Some(_), _) => Some(None),
                (None, _) => None,
            };
            if label == Some(None) {
                let text = class.name().unwrap_or_default();
                let number = matches!(Label::of(&class), Ok(Some(Label::Number(_))));
                let unlike = match (number, self.numbered) {
                    (true, false) => ", whose classes are names: a number does not say which",
                    (false, true) => ", whose classes are numbers",
                    _ => "",
                };
                return Err(Error::data(source.path(shards), format!("class {text:?} does not occur in training{unlike}")));
            }
            samples.push((source, label.flatten()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn found(texts: &[&str]) -> Vec<Found> {
        let one = |(i, text): (usize, &&str)| Found { source: Source::File(format!("{i}.png").into()), class: Class::text(&Arc::from(*text)) };
        texts.iter().enumerate().map(one).collect()
    }

    fn labels(texts: &[&str]) -> Result<Vec<Option<u32>>, String> {
        let classes = Classes::of(&found(texts), &[], Path::new("set")).map_err(|e| e.to_string())?;
        let mut samples = Vec::new();
        classes.label(found(texts), &[], &mut samples).map_err(|e| e.to_string())?;
        Ok(samples.into_iter().map(|(_, label)| label).collect())
    }

    #[test]
    fn numbers_stay_what_they_are() {
        assert_eq!(labels(&["2", "10", "0"]), Ok(vec![Some(2), Some(10), Some(0)]));
        assert_eq!(labels(&["2", "-1", "10", ""]), Ok(vec![Some(2), None, Some(10), None]));
        assert_eq!(labels(&["2.0", "-1.0", "010"]), Ok(vec![Some(2), None, Some(10)]));
        assert_eq!(labels(&["wolf", "ape", "-1"]), Ok(vec![Some(1), Some(0), None]));
        // A folder's name is a name, whatever its letters.
        let folders: Vec<Found> = ["10", "2"].map(|name| Found { source: Source::File("x.png".into()), class: Class::Folder(name.into()) }).into();
        assert_eq!(Classes::of(&folders, &[], Path::new("set")).unwrap().names, ["10", "2"]);
    }

    #[test]
    fn odd_ones_are_named() {
        let error = labels(&["2", "10", "3", "data"]).unwrap_err();
        assert!(error.contains("set: the classes of 3 pictures are numbers, those of 1 are not: 3.png has \"data\""), "{error}");
        assert!(labels(&["2", "-2"]).unwrap_err().contains("1.png: class -2 is no class number"));
        assert!(labels(&["2", "0.5"]).unwrap_err().contains("1.png: class 0.5 is no class number"));
        assert!(labels(&["2", "99999999999999999999999"]).unwrap_err().contains("is larger than"));
        // Letters and digits, most of them letters: names, with a word.
        let classes = Classes::of(&found(&["a", "b", "1"]), &[], Path::new("set")).unwrap();
        assert!(classes.names == ["1", "a", "b"] && classes.note.unwrap().contains("2.png has \"1\""));
    }

    #[test]
    fn numbers_do_not_stand_for_names_of_the_other_part() {
        let classes = |texts: &[&str]| Classes::of(&found(texts), &[], Path::new("set")).unwrap();
        let error = |train: &[&str], val: &[&str]| classes(train).label(found(val), &[], &mut Vec::new()).unwrap_err().to_string();
        assert!(error(&["wolf", "ape"], &["1"]).contains("\"1\" does not occur in training, whose classes are names"));
        assert!(error(&["1", "0"], &["ape"]).contains("whose classes are numbers"));
        assert!(error(&["1", "0"], &["2"]).ends_with("\"2\" does not occur in training"));
    }
}
