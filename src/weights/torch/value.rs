//! The values of a pickle, and what PyTorch's and Python's constructors among them mean.
//!
//! Promises: values that are shared are held once; together they may take [`BUDGET`] bytes and twice those of the pickle, and a
//! pickle that needs more is refused. A tensor lies inside its storage, or the file is refused.

use super::tensor::{Element, Storage, Tensor};
use crate::weights::tensor::DType;
use std::collections::BTreeMap;

/// Memory that the values of a file may take: those of 20,000 tensors. A training checkpoint of a ResNet-50 needs a tenth.
const BUDGET: u64 = 48_000_000;
/// What may come on top for each byte of a pickle: logs of millions of steps are lists of numbers.
const GROWTH: u64 = 2;
/// What a value with parts counts for.
const NODE: u64 = 96;
/// What a value inside another one counts for.
const VALUE: u64 = 32;

/// Python modules whose functions no weight file has any business calling.
const FORBIDDEN_MODULES: &[&str] =
    &["os", "posix", "nt", "subprocess", "sys", "shutil", "socket", "pty", "ctypes", "runpy", "importlib", "webbrowser", "commands"];

/// Built-in functions that run code; `getattr`, which mmengine's logs use, is not among them.
const FORBIDDEN_BUILTINS: &[&str] = &["eval", "exec", "execfile", "compile", "open", "__import__", "apply"];

/// A value: a plain one, or a place in the tree.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    /// Bytes, long texts and integers, and what is kept outside the pickle.
    Opaque,
    Node(u32),
}

/// A value with parts.
#[derive(Debug)]
pub(super) enum Node {
    Text(Box<str>),
    /// A class or function: `module.name`.
    Global(Box<str>),
    /// A list, tuple, set, frozen set or deque.
    List(Vec<Value>),
    /// A dictionary of any kind, with the attributes it has, if any, behind its entries.
    Dict(Vec<(Value, Value)>),
    Object(Box<Object>),
    Storage(Storage),
    Tensor(Tensor),
    /// A tensor of a kind that no weights here can have; which, to follow "is" in a sentence.
    Unusable(Box<str>),
}

/// An object of a class that means nothing here.
#[derive(Debug)]
pub(super) struct Object {
    pub arguments: Value,
    pub items: Vec<Value>,
    pub entries: Vec<(Value, Value)>,
    /// What `__setstate__` would get: mostly a dictionary of its attributes.
    pub state: Value,
}

/// All values of a file's pickles.
#[derive(Debug, Default)]
pub(super) struct Tree {
    nodes: Vec<Node>,
    /// Bytes of one element, and elements, of every storage that was named.
    pub storages: BTreeMap<Box<str>, (u64, u64)>,
    /// Tensors by their names in a tar of PyTorch 0.1, whose pickles refer to those.
    pub tar: BTreeMap<String, Value>,
    spent: u64,
    consumed: u64,
}

impl Tree {
    /// Counts bytes of memory; an error where they are too many.
    pub fn spend(&mut self, bytes: u64) -> Result<(), String> {
        self.spent = self.spent.saturating_add(bytes);
        let limit = BUDGET + GROWTH * self.consumed;
        if self.spent <= limit {
            return Ok(());
        }
        Err(format!("a pickle that would take more than {limit} bytes to read, which no weight file needs"))
    }

    /// Counts bytes that were read.
    pub fn consume(&mut self, bytes: u64) {
        self.consumed = self.consumed.saturating_add(bytes);
    }

    pub fn add(&mut self, node: Node) -> Result<Value, String> {
        let inside = match &node {
            Node::Text(text) | Node::Global(text) | Node::Unusable(text) => text.len() as u64,
            Node::List(items) => VALUE * items.len() as u64,
            Node::Dict(pairs) => 2 * VALUE * pairs.len() as u64,
            Node::Tensor(tensor) => 2 * VALUE * (1 + tensor.shape.len()) as u64,
            Node::Object(_) | Node::Storage(_) => 4 * VALUE,
        };
        self.spend(NODE + inside)?;
        self.nodes.push(node);
        u32::try_from(self.nodes.len() - 1).map(Value::Node).map_err(|_| "too many values".to_owned())
    }

    pub fn node(&self, value: Value) -> Option<&Node> {
        match value {
            Value::Node(place) => self.nodes.get(place as usize),
            _ => None,
        }
    }

    fn node_mut(&mut self, value: Value) -> Option<&mut Node> {
        match value {
            Value::Node(place) => self.nodes.get_mut(place as usize),
            _ => None,
        }
    }

    /// Parts that a walk may visit: each several times, for it may have several names.
    pub fn most_parts(&self) -> u64 {
        1_000_000 + 4 * (self.spent / VALUE)
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    pub fn text(&self, value: Value) -> Option<&str> {
        match self.node(value) {
            Some(Node::Text(text)) => Some(text),
            _ => None,
        }
    }

    pub fn list(&self, value: Value) -> Option<&[Value]> {
        match self.node(value) {
            Some(Node::List(items)) => Some(items),
            _ => None,
        }
    }

    /// The value of a dictionary or object under a text.
    pub fn field(&self, value: Value, key: &str) -> Option<Value> {
        let pairs = match self.node(value)? {
            Node::Dict(pairs) => pairs,
            Node::Object(object) => &object.entries,
            _ => return None,
        };
        pairs.iter().find(|(name, _)| self.text(*name) == Some(key)).map(|(_, value)| *value)
    }

    fn global(&self, value: Value) -> Option<&str> {
        match self.node(value) {
            Some(Node::Global(name)) => Some(name),
            _ => None,
        }
    }

    /// `list.extend`, `set.update`.
    pub fn append(&mut self, list: Value, items: &[Value]) -> Result<(), String> {
        self.spend(VALUE * items.len() as u64)?;
        match self.node_mut(list) {
            Some(Node::List(list)) => list.extend(items),
            Some(Node::Object(object)) => object.items.extend(items),
            _ => return Err("a pickle appends to what is no list".to_owned()),
        }
        Ok(())
    }

    /// `dict.update`.
    pub fn insert(&mut self, dict: Value, pairs: &[(Value, Value)]) -> Result<(), String> {
        self.spend(2 * VALUE * pairs.len() as u64)?;
        match self.node_mut(dict) {
            Some(Node::Dict(dict)) => dict.extend(pairs),
            Some(Node::Object(object)) => object.entries.extend(pairs),
            _ => return Err("a pickle puts entries into what is no dictionary".to_owned()),
        }
        Ok(())
    }

    /// Gives an object its state.
    pub fn build(&mut self, object: Value, state: Value) -> Result<(), String> {
        // Attributes of an ordered dictionary: PyTorch keeps versions of modules there.
        if let (Some(Node::Dict(_)), Some(Node::Dict(attributes))) = (self.node(object), self.node(state)) {
            let attributes = attributes.clone();
            return self.insert(object, &attributes);
        }
        match self.node_mut(object) {
            Some(Node::Object(object)) => object.state = state,
            Some(Node::List(_)) => return self.append(object, &[state]),
            // Attributes of tensors and classes.
            _ => {}
        }
        Ok(())
    }

    /// What calling a class or function with these arguments stands for.
    pub fn call(&mut self, callable: Value, arguments: Value) -> Result<Value, String> {
        let name: Box<str> = self.global(callable).unwrap_or("an object").into();
        let (module, function) = name.rsplit_once('.').unwrap_or(("", &name));
        let outer = module.split('.').next().unwrap_or_default();
        let builtin = matches!(module, "builtins" | "__builtin__");
        if FORBIDDEN_MODULES.contains(&outer) || builtin && FORBIDDEN_BUILTINS.contains(&function) {
            return Err(format!("its pickle calls {name}, which no weight file needs; nothing was executed"));
        }
        self.spend(VALUE * self.list(arguments).unwrap_or_default().len() as u64)?;
        let parts = self.list(arguments).unwrap_or_default().to_vec();
        let first = parts.first().copied();
        match (module, function) {
            ("torch._utils", function) if function.starts_with("_rebuild_") => return self.rebuild(function, &parts),
            // A tensor of another class: what would make it, that class, its arguments, attributes.
            ("torch._tensor", "_rebuild_from_type" | "_rebuild_from_type_v2") => {
                if let [make, _, arguments, ..] = parts[..] {
                    return self.call(make, arguments);
                }
            }
            ("collections", "OrderedDict" | "defaultdict") => {
                // The last argument, behind the function that makes defaults.
                let pairs = parts.last().map(|part| self.pairs(*part)).transpose()?.flatten().unwrap_or_default();
                return self.add(Node::Dict(pairs));
            }
            ("collections", "deque") | ("torch", "Size") => return self.items(first),
            (_, "dict") if builtin => {
                let pairs = first.map(|part| self.pairs(part)).transpose()?.flatten().unwrap_or_default();
                return self.add(Node::Dict(pairs));
            }
            (_, "set" | "frozenset" | "list" | "tuple" | "bytearray") if builtin => return self.items(first),
            // An object of a class, as protocols 0 and 1 write it: class, its first built-in base, that one's value. Its state follows.
            ("copyreg" | "copy_reg", "_reconstructor") => {
                let value = parts.get(2).copied().unwrap_or(Value::None);
                let entries = self.pairs(value)?.filter(|_| matches!(self.node(value), Some(Node::Dict(_))));
                let items = if entries.is_some() { None } else { self.list(value).map(<[Value]>::to_vec) };
                let (items, entries) = (items.unwrap_or_default(), entries.unwrap_or_default());
                return self.add(Node::Object(Box::new(Object { arguments: Value::None, items, entries, state: Value::None })));
            }
            // As protocol 2 writes it to be read by others.
            ("copyreg" | "copy_reg", "__newobj__" | "__newobj_ex__") => {
                if let Some(class) = first {
                    let arguments = self.add(Node::List(parts[1..].to_vec()))?;
                    return self.call(class, arguments);
                }
            }
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") => return self.unusable("a NumPy array"),
            _ => {}
        }
        self.add(Node::Object(Box::new(Object { arguments, items: Vec::new(), entries: Vec::new(), state: Value::None })))
    }

    /// A list of the items of a list; of anything else an empty one.
    fn items(&mut self, list: Option<Value>) -> Result<Value, String> {
        let items = list.and_then(|list| self.list(list)).unwrap_or_default().to_vec();
        self.add(Node::List(items))
    }

    /// The entries of a dictionary, or of a list of pairs.
    fn pairs(&mut self, value: Value) -> Result<Option<Vec<(Value, Value)>>, String> {
        let length = match self.node(value) {
            Some(Node::Dict(pairs)) => pairs.len(),
            Some(Node::List(items)) => items.len(),
            _ => return Ok(None),
        };
        self.spend(2 * VALUE * length as u64)?;
        let pair = |item: &Value| match self.list(*item) {
            Some(&[key, value]) => Some((key, value)),
            _ => None,
        };
        Ok(match self.node(value) {
            Some(Node::Dict(pairs)) => Some(pairs.clone()),
            _ => self.list(value).unwrap_or_default().iter().map(pair).collect(),
        })
    }

    fn unusable(&mut self, kind: impl Into<Box<str>>) -> Result<Value, String> {
        self.add(Node::Unusable(kind.into()))
    }

    /// A function of `torch._utils` that makes a tensor.
    fn rebuild(&mut self, function: &str, parts: &[Value]) -> Result<Value, String> {
        match function {
            "_rebuild_parameter" | "_rebuild_parameter_with_state" | "_rebuild_device_tensor_from_cpu_tensor" => {
                return Ok(parts.first().copied().unwrap_or(Value::None));
            }
            "_rebuild_qtensor" => return self.unusable("quantised"),
            "_rebuild_meta_tensor_no_storage" => return self.unusable("without values (on the device meta)"),
            "_rebuild_nested_tensor" => return self.unusable("a nested tensor"),
            _ if function.starts_with("_rebuild_sparse") => return self.unusable("sparse"),
            "_rebuild_tensor" | "_rebuild_tensor_v2" | "_rebuild_tensor_v3" => {}
            _ => return self.unusable(format!("made by torch._utils.{function}")),
        }
        let &[storage, offset, shape, strides, ref rest @ ..] = parts else {
            return Err("a tensor without storage, offset, shape and strides".to_owned());
        };
        let Some(Node::Storage(storage)) = self.node(storage) else { return self.unusable("without a storage in this file") };
        let storage = storage.clone();
        // Signs and conjugates that are taken when the values are used.
        let flags = rest.last().map(|last| self.pairs(*last)).transpose()?.flatten().unwrap_or_default();
        if flags.iter().any(|(_, value)| *value == Value::Bool(true)) {
            return self.unusable("a view that negates or conjugates another tensor");
        }
        let dtype = match function {
            "_rebuild_tensor_v3" => {
                let name = rest.get(2).and_then(|dtype| self.global(*dtype)).unwrap_or_default().trim_start_matches("torch.").to_owned();
                match named_dtype(&name) {
                    Some(dtype) => dtype,
                    None => return self.unusable(format!("of type {name}")),
                }
            }
            _ => match storage.element {
                Element::Plain(dtype) => dtype,
                Element::Untyped => DType::U8,
                Element::Other(kind, _) => return self.unusable(kind),
            },
        };
        let tensor = Tensor::new(&storage, dtype, self.size(offset)?, self.sizes(shape)?, self.sizes(strides)?)?;
        self.add(Node::Tensor(tensor))
    }

    fn size(&self, value: Value) -> Result<u64, String> {
        match value {
            Value::Int(number) => u64::try_from(number).map_err(|_| format!("a tensor or storage with a size of {number}")),
            _ => Err("a tensor or storage whose size is no number".to_owned()),
        }
    }

    fn sizes(&self, value: Value) -> Result<Vec<usize>, String> {
        let sizes = self.list(value).ok_or("a tensor whose shape is no list")?;
        sizes.iter().map(|size| self.size(*size).and_then(|size| usize::try_from(size).map_err(|error| error.to_string()))).collect()
    }

    /// What a value outside the pickle stands for: `('storage', class, key, device, elements, view)`, or a class with its source
    /// (`('module', class, file, text)`), or in the oldest files the number of a tensor or `(class, file, text)`.
    pub fn persistent(&mut self, id: Value) -> Result<Value, String> {
        let Some(parts) = self.list(id) else {
            let name = self.key(id)?;
            return self.tar.get(&name).copied().ok_or_else(|| format!("tensor {name} is missing"));
        };
        let (class, key, elements, view) = match (parts.first().map(|tag| self.text(*tag)), parts) {
            (Some(Some("storage")), &[_, class, key, _, elements, ref view @ ..]) => (class, key, elements, view.first().copied()),
            (Some(Some("module")), &[_, class, ..]) | (Some(None), &[class, ..]) => return Ok(class),
            _ => return Err("a storage without class, key and size".to_owned()),
        };
        let class = self.global(class).or_else(|| self.text(class)).unwrap_or_default();
        let element = Element::of_class(class.rsplit('.').next().unwrap_or_default());
        let key: Box<str> = self.key(key)?.into();
        let elements = self.size(elements)?;
        let known = self.storages.entry(key.clone()).or_insert((element.size(), elements));
        if known.0.checked_mul(known.1) != element.size().checked_mul(elements) {
            return Err(format!("storage {key} has two sizes"));
        }
        let (mut from, mut count) = (0, elements);
        if let Some(&[_, offset, size]) = view.and_then(|view| self.list(view)) {
            (from, count) = (self.size(offset)?, self.size(size)?);
            if from.checked_add(count).is_none_or(|end| end > elements) {
                return Err(format!("a view reaches beyond storage {key}"));
            }
        }
        self.add(Node::Storage(Storage { key, element, from, elements: count }))
    }

    /// A storage's key: a text, or a number in the oldest files.
    pub fn key(&self, value: Value) -> Result<String, String> {
        match value {
            Value::Int(number) => Ok(number.to_string()),
            _ => self.text(value).map(str::to_owned).ok_or_else(|| "a storage without a key".to_owned()),
        }
    }
}

/// `float32` and so on.
fn named_dtype(name: &str) -> Option<DType> {
    Some(match name {
        "float32" | "float" => DType::F32,
        "float64" | "double" => DType::F64,
        "float16" | "half" => DType::F16,
        "bfloat16" => DType::BF16,
        "int64" | "long" => DType::I64,
        "int32" | "int" => DType::I32,
        "int16" | "short" => DType::I16,
        "int8" => DType::I8,
        "uint8" => DType::U8,
        "uint16" => DType::U16,
        "uint32" => DType::U32,
        "uint64" => DType::U64,
        "bool" => DType::Bool,
        _ => return None,
    })
}
