//! Shards that hold pictures which lie in the folders beside them as well: the archive that they were unpacked from.

use std::collections::HashSet;

use super::found::{Found, Source};
use crate::data::shards::Shard;
use crate::error::{Error, Result};

/// The last folder and the name of a path.
fn last_two(path: &str) -> String {
    let parts: Vec<&str> = path.rsplit(['/', '\\']).take(2).collect();
    parts.into_iter().rev().collect::<Vec<_>>().join("/")
}

fn member(found: &Found) -> Option<(u32, &str)> {
    if let Source::Member { shard, name, .. } = &found.source { Some((*shard, name)) } else { None }
}

/// Refuses a shard all of whose pictures have the folder and the name of one in `files`. `members` are those of all shards, one after the other.
pub(super) fn refuse(files: &[Found], members: &[Found], shards: &[Shard]) -> Result<()> {
    if files.is_empty() || members.is_empty() {
        return Ok(());
    }
    let known: HashSet<String> = files.iter().map(|f| last_two(&f.source.path(shards))).collect();
    for own in members.chunk_by(|a, b| member(a).map(|m| m.0) == member(b).map(|m| m.0)) {
        if let Some((shard, _)) = member(&own[0])
            && own.iter().filter_map(member).all(|(_, name)| name.contains('/') && known.contains(&last_two(name)))
        {
            let message = "holds the pictures of the folders beside it once more: move it out of the set";
            return Err(Error::data(&shards[shard as usize].path, message));
        }
    }
    Ok(())
}
