//! What was found where a set lies, in one line: so that nothing is left out in silence.
//!
//! `569 pictures: 240 training in 3 classes, 60 validation, 269 unlabelled; not used here: validation; passed over: 3 .heic, 1 .txt`

use std::fmt;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::found::PassedOver;
use super::roles::Part;

/// Kinds and names that are told one by one, at most so many of each.
const MOST_NAMED: usize = 8;

/// What one part of a set holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartSummary {
    /// Which one.
    pub part: Part,
    /// Its images.
    pub pictures: usize,
    /// Those of them that have a class.
    pub labelled: usize,
    /// Its shards.
    pub shards: usize,
    /// Those of them whose images are not counted: nobody needs them, and they would have to be unpacked.
    pub uncounted: usize,
    /// Whether the command uses it.
    pub used: bool,
    /// Whether it was held out of the training part.
    pub held_out: bool,
    /// Why it cannot be read, where nobody needs it.
    pub unreadable: Option<String>,
}

/// What was found where a set lies. Displayed, it is one line; names in it are as the file system has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The parts that are there.
    pub parts: Vec<PartSummary>,
    /// Number of classes.
    pub classes: usize,
    /// Files that are no images by kind (`.txt`), the most frequent first.
    pub passed_over: Vec<(String, u64)>,
    /// What else is passed over, by name.
    pub passed_by_name: Vec<String>,
    /// What is used, but looks wrong.
    pub notes: Vec<String>,
    /// Compressed shards, which are read from an unpacked copy.
    pub unpacked: u64,
}

impl Summary {
    /// Images in all parts.
    pub fn pictures(&self) -> usize {
        self.parts.iter().map(|p| p.pictures).sum()
    }

    /// Whether anything here may be a mistake: pictures that are passed over, or a thing that has to be named.
    pub fn is_suspicious(&self) -> bool {
        let odd = |kind: &str| !kind.starts_with('.') || PassedOver::is_picture(kind);
        let unreadable = self.parts.iter().any(|p| p.unreadable.is_some());
        unreadable || !self.passed_by_name.is_empty() || !self.notes.is_empty() || self.passed_over.iter().any(|(kind, _)| odd(kind))
    }

    /// The same where so many labelled images of training are held out as the validation part.
    #[must_use]
    pub fn holding_out(&self, images: usize) -> Self {
        let mut parts = Vec::new();
        for mut part in self.parts.iter().filter(|p| p.part != Part::Val).cloned() {
            let is_training = part.part == Part::Train;
            if is_training {
                part.pictures -= images;
                part.labelled -= images;
            }
            parts.push(part);
            if is_training {
                let (pictures, labelled) = (images, images);
                let part = Part::Val;
                parts.push(PartSummary { part, pictures, labelled, shards: 0, uncounted: 0, used: true, held_out: true, unreadable: None });
            }
        }
        Self { parts, ..self.clone() }
    }

    /// Takes over what a scan did not take for images.
    pub(super) fn pass_over(&mut self, passed: &PassedOver) {
        self.passed_over = passed.kinds.iter().map(|(kind, n)| (kind.clone(), *n)).collect();
        self.passed_over.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        self.passed_by_name.clone_from(&passed.named);
        self.notes.clone_from(&passed.notes);
        self.unpacked = passed.unpacked;
        if !passed.empty.is_empty() {
            self.notes.push(format!("{} without pictures ({})", counted(passed.empty.len(), "folder", "folders"), several(&passed.empty)));
        }
        if !passed.alike.is_empty() {
            let names = counted(passed.alike.len(), "name differs", "names differ");
            self.notes.push(format!("{names} from another by case only ({})", several(&passed.alike)));
        }
    }
}

fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn several(names: &[String]) -> String {
    let mut all = names.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > MOST_NAMED {
        all += &format!(" and {} more", names.len() - MOST_NAMED);
    }
    all
}

impl Summary {
    /// `240 training in 3 classes (10 without a class)`.
    fn part(&self, f: &mut fmt::Formatter<'_>, p: &PartSummary) -> fmt::Result {
        write!(f, "{} {}", p.pictures, p.part.name())?;
        if p.uncounted > 0 {
            write!(f, " and {} not counted", counted(p.uncounted, "compressed shard", "compressed shards"))?;
        }
        if p.held_out {
            f.write_str(" (held out of training)")?;
        }
        match (p.part, p.pictures, p.labelled) {
            (_, 0, _) | (Part::Unlabelled, ..) => Ok(()),
            (_, _, 0) => f.write_str(" without classes"),
            (part, pictures, labelled) => {
                if part == Part::Train {
                    write!(f, " in {}", counted(self.classes, "class", "classes"))?;
                }
                if labelled < pictures { write!(f, " ({} without a class)", pictures - labelled) } else { Ok(()) }
            }
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&counted(self.pictures(), "picture", "pictures"))?;
        for (i, p) in self.parts.iter().enumerate() {
            f.write_str(if i == 0 { ": " } else { ", " })?;
            self.part(f, p)?;
        }
        for p in &self.parts {
            if let Some(why) = &p.unreadable {
                write!(f, "; {} cannot be read: {why}", p.part.name())?;
            }
        }
        let unused: Vec<&str> = self.parts.iter().filter(|p| !p.used && p.pictures + p.uncounted > 0).map(|p| p.part.name()).collect();
        if !unused.is_empty() {
            write!(f, "; not used here: {}", unused.join(", "))?;
        }
        if !self.passed_over.is_empty() || !self.passed_by_name.is_empty() {
            let kinds = self
                .passed_over
                .iter()
                .take(MOST_NAMED)
                .map(|(kind, n)| if kind.starts_with('.') { format!("{n} {kind}") } else { format!("{kind} ({n})") });
            let more: u64 = self.passed_over.iter().skip(MOST_NAMED).map(|(_, n)| n).sum();
            let more = (more > 0).then(|| format!("{more} of other kinds"));
            let named = (!self.passed_by_name.is_empty()).then(|| several(&self.passed_by_name));
            write!(f, "; passed over: {}", kinds.chain(more).chain(named).collect::<Vec<_>>().join(", "))?;
        }
        if self.unpacked > 0 {
            write!(f, "; {} read from unpacked copies", counted(self.unpacked as usize, "compressed shard", "compressed shards"))?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

impl Serialize for Summary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let parts: serde_json::Map<String, Value> = self
            .parts
            .iter()
            .map(|p| {
                let mut part = json!({"pictures": p.pictures, "with_class": p.labelled, "shards": p.shards, "used": p.used});
                if p.held_out {
                    part["held_out"] = json!(true);
                }
                if p.uncounted > 0 {
                    part["shards_not_counted"] = json!(p.uncounted);
                }
                if let Some(why) = &p.unreadable {
                    part["unreadable"] = json!(why);
                }
                (p.part.name().to_owned(), part)
            })
            .collect();
        let kinds: serde_json::Map<String, Value> = self.passed_over.iter().map(|(kind, n)| (kind.clone(), json!(n))).collect();
        json!({
            "pictures": self.pictures(), "classes": self.classes, "parts": parts, "passed_over": kinds,
            "passed_over_by_name": self.passed_by_name, "unpacked_shards": self.unpacked, "notes": self.notes,
        })
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_names_everything() {
        let part = |part, pictures, labelled, used| PartSummary {
            part,
            pictures,
            labelled,
            shards: 0,
            uncounted: 0,
            used,
            held_out: false,
            unreadable: None,
        };
        let mut all = Summary {
            parts: vec![part(Part::Train, 240, 240, true), part(Part::Val, 60, 60, true), part(Part::Unlabelled, 269, 0, true)],
            classes: 3,
            ..Summary::default()
        };
        assert_eq!(all.to_string(), "569 pictures: 240 training in 3 classes, 60 validation, 269 unlabelled");
        assert!(!all.is_suspicious());
        let mut passed = PassedOver::default();
        ["x.HEIC", "a.txt", "y.heic", "z.heic"].iter().for_each(|name| passed.file(name));
        all.pass_over(&passed);
        assert!(all.to_string().ends_with("269 unlabelled; passed over: 3 .heic, 1 .txt") && all.is_suspicious());
        all.parts[1].used = false;
        all.parts[0].labelled = 230;
        passed.named.push("the shard extra.tar, which is no part".into());
        passed.empty.push("eel".into());
        all.pass_over(&passed);
        assert_eq!(
            all.to_string(),
            "569 pictures: 240 training in 3 classes (10 without a class), 60 validation, 269 unlabelled; not used here: validation; \
             passed over: 3 .heic, 1 .txt, the shard extra.tar, which is no part; 1 folder without pictures (eel)"
        );
        let held = serde_json::to_value(all.holding_out(40)).unwrap();
        assert_eq!((&held["pictures"], &held["parts"]["validation"]["held_out"]), (&json!(509), &json!(true)));
        assert!(
            all.holding_out(40)
                .to_string()
                .starts_with("509 pictures: 200 training in 3 classes (10 without a class), 40 validation (held out of training), 269")
        );
        let json = serde_json::to_value(&all).unwrap();
        assert_eq!((&json["pictures"], &json["passed_over"][".heic"], &json["parts"]["validation"]["used"]), (&json!(569), &json!(3), &json!(false)));
    }

    #[test]
    fn odd_extensions_are_counted_together() {
        let mut passed = PassedOver::default();
        ["README", "a.b c", "x.\u{1b}[2J", "y.aveeeeeeeeeeeeeery"].iter().for_each(|name| passed.file(name));
        let kinds: Vec<(&str, u64)> = passed.kinds.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
        assert_eq!(kinds, [("files with odd extensions", 3), ("files without extension", 1)]);
    }
}
