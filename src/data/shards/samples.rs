//! Which members of a shard belong together, by WebDataset's conventions.
//!
//! A sample's key is its name up to the first dot of the base name, and what follows says what a member is, in any case. The picture is the member whose
//! extension has no further dot: `key.seg.png` beside `key.jpg` is something else, and is counted as passed over. So is what belongs to a key that has a
//! class or a text of its own. Where nothing belongs together (a tar file of plain folders), dots are letters of names like any others.
//! The class is in `key.cls`, else in `key.json`; only where no sample of a shard has one, the folder is the class.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::data::dataset::found::{Class, PassedOver};
use crate::error::{Error, Result};

/// What samples of WebDataset and img2dataset have beside their picture: nobody misses it there.
const SIDECARS: [&str; 7] = ["json", "txt", "caption", "index", "id", "meta", "md5"];

/// What a member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// A picture that can be read.
    Image,
    /// A `.cls` text.
    Class(String),
    /// A `.json` with the class in it, if there is one.
    Json(Option<String>),
    /// Anything else.
    Other,
}

/// A file inside a tar.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Member {
    pub name: String,
    pub offset: u64,
    pub length: u64,
    pub kind: Kind,
}

/// A name without its last extension, and that extension.
fn stem(name: &str) -> (&str, &str) {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    name[base..].rfind('.').map_or((name, ""), |dot| (&name[..base + dot], &name[base + dot + 1..]))
}

/// A name up to the first dot of its base name.
fn key(name: &str) -> &str {
    let base = name.rfind('/').map_or(0, |slash| slash + 1);
    name[base..].find('.').map_or(name, |dot| &name[..base + dot])
}

/// The samples of a shard, sorted by name. `json_first` says that the user named the key of the class, so that it counts more than a `.cls`; `outer` is the
/// class of pictures that have none and lie in no folder.
pub(super) fn samples(
    path: &Path,
    mut members: Vec<Member>,
    json_first: bool,
    outer: &Class,
    passed: &mut PassedOver,
) -> Result<Vec<(Member, Class)>> {
    members.sort_by(|a, b| a.name.cmp(&b.name));
    refuse_twins(path, &members)?;
    let single = |member: &Member| key(&member.name) == stem(&member.name).0;
    // Keys that something belongs to.
    let keys: HashSet<String> = members.iter().filter(|m| single(m)).map(|m| key(&m.name).to_owned()).collect();
    let mut texts: HashMap<String, (Arc<str>, bool)> = HashMap::new();
    let pictures: HashSet<String> = members.iter().filter(|m| m.kind == Kind::Image).map(|m| key(&m.name).to_owned()).collect();
    let (mut images, mut kept) = (Vec::new(), HashMap::new());
    for member in members {
        let own = stem(&member.name).0.to_owned();
        let (text, is_json) = match &member.kind {
            Kind::Image if !single(&member) && keys.contains(key(&member.name)) => {
                passed.count(&member.name[key(&member.name).len()..].to_lowercase(), 1);
                continue;
            }
            Kind::Image => {
                images.push(member);
                continue;
            }
            Kind::Class(text) => (text, false),
            Kind::Json(Some(text)) => (text, true),
            Kind::Json(None) | Kind::Other
                if pictures.contains(key(&member.name)) && SIDECARS.iter().any(|known| stem(&member.name).1.eq_ignore_ascii_case(known)) =>
            {
                continue;
            }
            Kind::Json(None) | Kind::Other => {
                passed.file(&member.name);
                continue;
            }
        };
        let text: Arc<str> = text.trim().into();
        match texts.get(&own) {
            Some((before, was_json)) => {
                if !json_first {
                    same(path, &own, before, &text)?;
                }
                if *was_json != json_first {
                    texts.insert(own, (text, is_json));
                }
            }
            None => drop(texts.insert(own, (text, is_json))),
        }
    }
    for image in &images {
        // A picture and a mask of one name and two formats: which is which cannot be told.
        let own = stem(&image.name).0;
        if texts.contains_key(own)
            && let Some(other) = kept.insert(own.to_owned(), image.name.clone())
        {
            return Err(Error::data(path, format!("the sample {own} has two pictures, {other} and {}: keep one", image.name)));
        }
    }
    let idle = texts.keys().filter(|own| !kept.contains_key(own.as_str())).count();
    passed.count("classes without a picture", idle as u64);
    Ok(images
        .into_iter()
        .map(|image| {
            let class = match (texts.get(stem(&image.name).0), image.name.split_once('/')) {
                (Some((text, _)), _) => Class::text(text),
                (None, Some((folder, _))) => Class::Folder(folder.into()),
                (None, None) => outer.clone(),
            };
            (image, class)
        })
        .collect())
}

/// Refuses two class numbers of one sample; a number and a name may well mean the same.
fn same(path: &Path, own: &str, one: &str, other: &str) -> Result<()> {
    match (one.parse::<f64>(), other.parse::<f64>()) {
        (Ok(a), Ok(b)) if a.to_bits() != b.to_bits() => {
            Err(Error::data(path, format!("the sample {own} has two classes, {one} in one member and {other} in another")))
        }
        _ => Ok(()),
    }
}

/// Refuses two members of one name and extension; `members` are sorted.
fn refuse_twins(path: &Path, members: &[Member]) -> Result<()> {
    let mut seen: HashMap<(String, String), &str> = HashMap::new();
    for member in members {
        let (own, extension) = stem(&member.name);
        if let Some(other) = seen.insert((own.to_owned(), extension.to_lowercase()), &member.name) {
            let which = if other == member.name { "twice".into() } else { format!("twice, as {other} too") };
            return Err(Error::data(path, format!("holds {} {which}: which one is meant cannot be told", member.name)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(all: &[(&str, &str)]) -> Vec<Member> {
        let kind = |name: &str, text: &str| match stem(name).1.to_lowercase().as_str() {
            "png" | "jpg" => Kind::Image,
            "cls" => Kind::Class(text.to_owned()),
            "json" => Kind::Json((!text.is_empty()).then(|| text.to_owned())),
            _ => Kind::Other,
        };
        all.iter().map(|(name, text)| Member { name: (*name).to_owned(), offset: 0, length: 0, kind: kind(name, text) }).collect()
    }

    /// Pictures with their classes, and what was passed over.
    fn found(all: &[(&str, &str)], json_first: bool) -> Result<(Vec<String>, Vec<String>), String> {
        let mut passed = PassedOver::default();
        let samples = samples(Path::new("x.tar"), members(all), json_first, &Class::None, &mut passed).map_err(|e| e.to_string())?;
        let shown = samples.iter().map(|(m, class)| format!("{} {}", m.name, class.name().unwrap_or("-"))).collect();
        Ok((shown, passed.kinds.iter().map(|(kind, n)| format!("{n} {kind}")).collect()))
    }

    fn own(all: &[&str]) -> Vec<String> {
        all.iter().map(|text| (*text).to_owned()).collect()
    }

    #[test]
    fn masks_are_no_second_samples() {
        let all = [("d/0.cls", "2"), ("d/0.jpg", ""), ("d/0.seg.png", ""), ("d/1.CLS", "10"), ("d/1.JPG", ""), ("d/1.Seg.PNG", ""), ("d/1.txt", "")];
        assert_eq!(found(&all, false), Ok((own(&["d/0.jpg 2", "d/1.JPG 10"]), own(&["2 .seg.png"]))));
        // Where only parts of a sample are there, none of them is the picture.
        let all = [("0.cls", "2"), ("0.left.png", ""), ("0.right.png", "")];
        assert_eq!(found(&all, false), Ok((vec![], own(&["1 .left.png", "1 .right.png", "1 classes without a picture"]))));
    }

    #[test]
    fn dots_are_letters_where_nothing_belongs_together() {
        let all = [("cat/a.1.png", ""), ("cat/a.2.png", ""), ("v1.5/b.png", ""), ("c.x.jpg", ""), ("c.x.cls", "wolf")];
        assert_eq!(found(&all, false).unwrap().0, own(&["c.x.jpg wolf", "cat/a.1.png cat", "cat/a.2.png cat", "v1.5/b.png v1.5"]));
        // Two pictures of one name are two, unless one class text is for both.
        let two = [("cat/a.jpg", ""), ("cat/a.png", "")];
        assert_eq!(found(&two, false).unwrap().0.len(), 2);
        let one = [("cat/a.jpg", ""), ("cat/a.png", ""), ("cat/a.cls", "1")];
        assert!(found(&one, false).unwrap_err().contains("the sample cat/a has two pictures, cat/a.jpg and cat/a.png"));
    }

    #[test]
    fn one_key_twice_is_refused() {
        for twins in [[("a.jpg", ""), ("a.jpg", "")], [("a.jpg", ""), ("a.JPG", "")], [("a.cls", "1"), ("a.CLS", "1")]] {
            let error = found(&twins, false).unwrap_err();
            assert!(error.contains("x.tar: holds a.") && error.contains("twice"), "{error}");
        }
        assert_eq!(found(&[("a/0.jpg", ""), ("b/0.jpg", "")], false).unwrap().0.len(), 2);
    }

    #[test]
    fn a_class_may_be_in_json() {
        let all =
            [("0.jpg", ""), ("0.json", "3"), ("1.jpg", ""), ("1.json", ""), ("2.jpg", ""), ("2.json", "5"), ("2.cls", "cat"), ("info.json", "")];
        assert_eq!(found(&all, false), Ok((own(&["0.jpg 3", "1.jpg -", "2.jpg cat"]), own(&["1 .json"]))));
        assert_eq!(found(&all, true).unwrap().0, own(&["0.jpg 3", "1.jpg -", "2.jpg 5"]));
        assert!(found(&[("2.jpg", ""), ("2.json", "5"), ("2.cls", "4")], false).unwrap_err().contains("has two classes"));
        assert_eq!(found(&[("2.jpg", ""), ("2.json", "-1")], false).unwrap().0, own(&["2.jpg -"]));
    }
}
