//! Which part of a set the name of a folder or shard stands for.
//!
//! Roles are whole words, in any case: a name is cut where a letter meets something else, and where a small letter meets a capital.
//! `train-0.tar`, `imagenet_val2017.tar` and `ImageNetTrain.tar` have roles; `carnival`, `retrieval` and `restrained` have none.

/// A part of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Images to train on.
    Train,
    /// Images to validate with.
    Val,
    /// Images without classes, whatever their folders are called.
    Unlabelled,
    /// Images that are kept back: nothing uses them where there is another part.
    Test,
}

impl Part {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Train, Self::Val, Self::Unlabelled, Self::Test];

    /// `training`, `validation`, `unlabelled`, `test`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "training",
            Self::Val => "validation",
            Self::Unlabelled => "unlabelled",
            Self::Test => "test",
        }
    }
}

/// Words that stand for a part.
const WORDS: [(&str, Part); 15] = [
    ("train", Part::Train),
    ("training", Part::Train),
    ("trainset", Part::Train),
    ("val", Part::Val),
    ("valid", Part::Val),
    ("validation", Part::Val),
    ("eval", Part::Val),
    ("evaluation", Part::Val),
    ("valset", Part::Val),
    ("unlabelled", Part::Unlabelled),
    ("unlabeled", Part::Unlabelled),
    ("test", Part::Test),
    ("testing", Part::Test),
    ("testset", Part::Test),
    ("tests", Part::Test),
];

/// Words that may stand beside a role in the name of a folder.
const FILLERS: [&str; 6] = ["set", "split", "data", "images", "imgs", "img"];

/// The words of a name, in small letters; numbers are words too.
fn words(name: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut last: Option<char> = None;
    for c in name.chars() {
        let new = match last {
            None => true,
            Some(last) => last.is_numeric() != c.is_numeric() || (last.is_lowercase() && c.is_uppercase()),
        };
        if !c.is_alphanumeric() {
            last = None;
            continue;
        }
        if new {
            all.push(String::new());
        }
        if let Some(word) = all.last_mut() {
            word.extend(c.to_lowercase());
        }
        last = Some(c);
    }
    all
}

fn part_of(word: &str) -> Option<Part> {
    WORDS.iter().find(|(known, _)| *known == word).map(|(_, part)| *part)
}

/// The part that a shard's name stands for; an error names two that it could.
pub(super) fn of_shard(name: &str) -> Result<Option<Part>, [Part; 2]> {
    let mut parts: Vec<Part> = words(name).iter().filter_map(|word| part_of(word)).collect();
    parts.sort();
    parts.dedup();
    match parts[..] {
        [] => Ok(None),
        [part] => Ok(Some(part)),
        // What has no labels is there to be trained on.
        [Part::Train, Part::Unlabelled] => Ok(Some(Part::Unlabelled)),
        [one, other, ..] => Err([one, other]),
    }
}

/// The part that a folder's name stands for: one role, alone or with numbers and words like `set` and `images`.
pub(super) fn of_folder(name: &str) -> Option<Part> {
    let mut role = None;
    for word in words(name) {
        match (part_of(&word), role) {
            (Some(part), None) => role = Some(part),
            (None, _) if FILLERS.contains(&word.as_str()) || word.chars().all(char::is_numeric) => {}
            _ => return None,
        }
    }
    role
}

/// Two names without roles that are the same but for `train` and another role inside of a word, as `mytrain.tar` and `myval.tar`.
pub(super) fn hidden<'a>(names: &[&'a str]) -> Option<[&'a str; 2]> {
    let mut seen: Vec<(String, &str, &'a str)> = Vec::new();
    for &name in names {
        let small = name.to_lowercase();
        for role in ["train", "val", "test"] {
            for (at, _) in small.match_indices(role) {
                let rest = format!("{}|{}", &small[..at], &small[at + role.len()..]);
                if let Some((.., other)) = seen.iter().find(|(known, of, _)| *known == rest && *of != role) {
                    return Some([other, name]);
                }
                seen.push((rest, role, name));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_whole_words() {
        use Part::{Test, Train, Unlabelled, Val};
        for (name, part) in [
            ("train-0000.tar", Some(Train)),
            ("TRAIN.tar", Some(Train)),
            ("sprites-train.tar.gz", Some(Train)),
            ("train0001.tgz", Some(Train)),
            ("imagenet_val2017.tar", Some(Val)),
            ("ImageNetVal-3.tar", Some(Val)),
            ("coco.validation.7.tar", Some(Val)),
            ("stl10-train-unlabeled.tar", Some(Unlabelled)),
            ("test-1.tar", Some(Test)),
            ("carnival-000.tar", None),
            ("retrieval-000000.tar", None),
            ("restrained.tar", None),
            ("interval_training-shoes.tar", Some(Train)),
            ("evaluation.tar", Some(Val)),
            ("trainval.tar", None),
            ("contest.tar", None),
            ("000000.tar", None),
        ] {
            assert_eq!(of_shard(name), Ok(part), "{name}");
        }
        assert_eq!(of_shard("train-val-0.tar"), Err([Train, Val]));
    }

    #[test]
    fn folders_have_a_role_and_no_other_word() {
        use Part::{Test, Train, Unlabelled, Val};
        for (name, part) in [
            ("train", Some(Train)),
            ("Train", Some(Train)),
            ("training", Some(Train)),
            ("train2017", Some(Train)),
            ("Training_Set", Some(Train)),
            ("Val", Some(Val)),
            ("validation", Some(Val)),
            ("test", Some(Test)),
            ("unlabeled2017", Some(Unlabelled)),
            ("train_station", None),
            ("bullet train", None),
            ("train_val", None),
            ("valley", None),
            ("images", None),
            ("2017", None),
        ] {
            assert_eq!(of_folder(name), part, "{name}");
        }
    }

    #[test]
    fn roles_inside_of_words_are_seen_where_names_are_alike_otherwise() {
        assert_eq!(hidden(&["a.tar", "mytrain-0.tar", "myval-0.tar"]), Some(["mytrain-0.tar", "myval-0.tar"]));
        assert_eq!(hidden(&["carnival-0.tar", "restrained-0.tar", "retrieval-0.tar"]), None);
    }
}
