//! Finds the tensors in the tree of a file's values, under the names that `state_dict`s would give them.
//!
//! Promises: keys and attributes are joined by dots, items of lists have their numbers for names, and a module that was saved whole has
//! the names of its `state_dict`; every tensor that torch.load would give is found, in whatever it lies; nothing is visited without end.

use super::value::{Node, Tree, Value};
use super::{Found, TensorInfo};
use crate::weights::MAX_TENSORS;

/// Most containers around a tensor.
const MAX_DEPTH: usize = 64;
/// Longest name, in bytes.
const MAX_NAME: usize = 4096;

/// A container that is being looked through.
struct Frame {
    node: u32,
    next: usize,
    /// What stands before the names of its parts.
    prefix: String,
    /// Whether the node is the dictionary of an object's attributes, and whether it holds a module's parts.
    attributes: bool,
    table: bool,
    found: bool,
}

/// One part of a container.
struct Part {
    name: Option<String>,
    value: Value,
    attributes: bool,
    table: bool,
}

/// Finds all tensors below a value.
pub(super) fn tensors(tree: &Tree, root: Value) -> Result<Found, String> {
    let mut found = Found::default();
    let mut on_path = vec![false; tree.len()];
    // Seen through to the end, and whether without a tensor.
    let mut seen = vec![false; tree.len()];
    let mut barren = vec![false; tree.len()];
    let mut path: Vec<Frame> = Vec::new();
    let top = Part { name: None, value: root, attributes: false, table: false };
    visit(tree, top, &mut path, &mut found, &mut on_path, (&seen, &barren))?;
    let (mut parts, most) = (0, tree.most_parts());
    while let Some(frame) = path.last_mut() {
        parts += 1;
        if parts > most {
            return Err("a pickle with too many ways to its tensors".to_owned());
        }
        match part(tree, frame) {
            Some(part) => {
                frame.next += 1;
                visit(tree, part, &mut path, &mut found, &mut on_path, (&seen, &barren))?;
            }
            None => {
                let place = frame.node as usize;
                let with_tensors = frame.found;
                on_path[place] = false;
                seen[place] = true;
                barren[place] = !with_tensors;
                path.pop();
                if let Some(outer) = path.last_mut() {
                    outer.found |= with_tensors;
                }
            }
        }
    }
    Ok(found)
}

/// Notes a tensor, or begins to look through a container.
fn visit(
    tree: &Tree,
    part: Part,
    path: &mut Vec<Frame>,
    found: &mut Found,
    on_path: &mut [bool],
    (seen, barren): (&[bool], &[bool]),
) -> Result<(), String> {
    let (Some(node), Value::Node(place)) = (tree.node(part.value), part.value) else { return Ok(()) };
    let outer = path.last();
    let name = || {
        let prefix = outer.map_or("", |outer| outer.prefix.as_str());
        match &part.name {
            Some(name) if prefix.is_empty() => name.clone(),
            Some(name) => format!("{prefix}.{name}"),
            None => prefix.to_owned(),
        }
    };
    match node {
        Node::Tensor(_) | Node::Unusable(_) if path.len() > MAX_DEPTH => {
            return Err(format!("a tensor inside more than {MAX_DEPTH} lists and dictionaries"));
        }
        Node::Tensor(tensor) => found.add(name(), TensorInfo::Tensor(tensor.clone()))?,
        Node::Unusable(kind) => found.add(name(), TensorInfo::Unusable(kind.to_string()))?,
        Node::List(_) | Node::Dict(_) | Node::Object(_) => {
            let index = place as usize;
            // An object that others point to is looked through where it is met first, or as the module of another module.
            let again = seen[index] && matches!(node, Node::Object(_)) && !outer.is_some_and(|outer| outer.table);
            if on_path[index] || barren[index] || again {
                return Ok(());
            }
            let mut prefix = name();
            // Deeper than that there is no tensor to be named.
            if path.len() > MAX_DEPTH || prefix.len() > MAX_NAME {
                prefix = String::new();
            }
            on_path[index] = true;
            path.push(Frame { node: place, next: 0, prefix, attributes: part.attributes, table: part.table, found: false });
            return Ok(());
        }
        Node::Text(_) | Node::Global(_) | Node::Storage(_) => return Ok(()),
    }
    if let Some(outer) = path.last_mut() {
        outer.found = true;
    }
    if found.tensors.len() > MAX_TENSORS {
        return Err(format!("more than {MAX_TENSORS} tensors"));
    }
    Ok(())
}

/// The next part of a container.
fn part(tree: &Tree, frame: &Frame) -> Option<Part> {
    let index = frame.next;
    let plain = |name: String, value: Value| Part { name: Some(name), value, attributes: false, table: false };
    match tree.node(Value::Node(frame.node))? {
        Node::List(items) => {
            let value = *items.get(index)?;
            // The attributes in `__dict__` and `__slots__` are a tuple of two.
            if frame.attributes && matches!(tree.node(value), Some(Node::Dict(_))) {
                return Some(Part { name: None, value, attributes: true, table: false });
            }
            Some(plain(index.to_string(), value))
        }
        Node::Dict(pairs) => {
            let &(key, value) = pairs.get(index)?;
            let table = frame.attributes && matches!(tree.text(key), Some("_parameters" | "_buffers" | "_modules"));
            if table {
                return Some(Part { name: None, value, attributes: false, table: true });
            }
            Some(plain(key_name(tree, key, 0), value))
        }
        Node::Object(object) => {
            let (items, entries) = (object.items.len(), object.entries.len());
            if index < items {
                Some(plain(index.to_string(), object.items[index]))
            } else if index < items + entries {
                let (key, value) = object.entries[index - items];
                Some(plain(key_name(tree, key, 0), value))
            } else {
                let value = [object.arguments, object.state].get(index - items - entries).copied()?;
                Some(Part { name: None, value, attributes: index > items + entries, table: false })
            }
        }
        _ => None,
    }
}

/// A key as a part of a name.
fn key_name(tree: &Tree, key: Value, depth: usize) -> String {
    match key {
        Value::None => "None".to_owned(),
        Value::Bool(true) => "True".to_owned(),
        Value::Bool(false) => "False".to_owned(),
        Value::Int(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        Value::Opaque => "?".to_owned(),
        Value::Node(_) => match tree.node(key) {
            Some(Node::Text(text)) => text.to_string(),
            Some(Node::Global(name)) => name.to_string(),
            Some(Node::List(items)) if depth < 3 => {
                let items: Vec<String> = items.iter().take(8).map(|item| key_name(tree, *item, depth + 1)).collect();
                format!("({})", items.join(", "))
            }
            _ => "?".to_owned(),
        },
    }
}
