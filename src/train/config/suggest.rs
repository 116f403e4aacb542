//! What may have been meant by a key or a word that there is not.

use toml::Table;

/// Keys that have no default, and so are in no configuration that was written out.
const WITHOUT_DEFAULT: [&str; 5] = ["optimizer.scale_lr_by_batch", "optimizer.backbone_lr", "model.depth", "model.blocks", "model.block"];

/// Words of other programs, and what they are here.
const OTHER_WORDS: [(&str, &str); 12] = [
    ("learning_rate", "lr"),
    ("batch_size", "batch"),
    ("batchsize", "batch"),
    ("epoch", "epochs"),
    ("num_epochs", "epochs"),
    ("max_epochs", "epochs"),
    ("num_workers", "workers"),
    ("wd", "weight_decay"),
    ("tau", "temperature"),
    ("nmb_prototypes", "prototypes"),
    ("num_prototypes", "prototypes"),
    ("epoch_queue_starts", "start_epoch"),
];

/// Where the last part of an unknown `key` is a key, in another table of `whole` or at the top: `lr` is `optimizer.lr`.
pub(super) fn elsewhere(key: &str, whole: &Table) -> Option<String> {
    let own = key.rsplit('.').next().unwrap_or(key);
    let own = OTHER_WORDS.iter().find(|(word, _)| *word == own).map_or(own, |(_, ours)| ours);
    let mut keys = Vec::new();
    collect(whole, "", &mut keys);
    keys.extend(WITHOUT_DEFAULT.iter().filter(|k| k.split('.').next().is_some_and(|table| whole.contains_key(table))).map(|k| (*k).to_owned()));
    keys.sort();
    keys.dedup();
    let meant: Vec<String> = keys.into_iter().filter(|k| k != key && k.rsplit('.').next() == Some(own)).collect();
    (!meant.is_empty()).then(|| format!("did you mean {}?", meant.join(" or ")))
}

/// Dotted names of all keys that hold a value.
fn collect(table: &Table, prefix: &str, keys: &mut Vec<String>) {
    for (key, value) in table {
        let path = format!("{prefix}{key}");
        match value.as_table() {
            Some(inner) => collect(inner, &format!("{path}."), keys),
            None => keys.push(path),
        }
    }
}

/// The allowed word that differs in at most two letters.
pub(super) fn closest<'a>(word: &str, allowed: &[&'a str]) -> Option<&'a str> {
    allowed.iter().map(|a| (distance(word, a), *a)).filter(|(d, a)| *d <= 2 && *d < a.len()).min().map(|(_, a)| a)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let cost = (diagonal + usize::from(x != y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row.last().copied().unwrap_or(0)
}
