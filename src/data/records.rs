//! Sets of raw pixels in records of one size: CIFAR-10, CIFAR-100 and STL-10 in their binary versions.
//!
//! A set is told by the names of its files and held against their sizes. CIFAR: a label byte (in CIFAR-100 a coarse one before it) and 32 x 32 pixels, plane by
//! plane, row by row (www.cs.toronto.edu/~kriz/cifar.html). STL-10: 96 x 96 pixels, plane by plane, *column* by column, labels from 1 in files of their own
//! (cs.stanford.edu/~acoates/stl10). Class names are lines of a file beside them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::decode::Rgb8;
use crate::error::{Error, Result};

/// Side of CIFAR's images in pixels.
const CIFAR: usize = 32;

/// Side of STL-10's.
const STL: usize = 96;

/// Largest file of class names, in bytes.
const NAMES_BYTES: u64 = 1 << 20;

/// A file of records.
#[derive(Clone, Debug)]
pub(super) struct Records {
    /// Where it lies.
    pub path: PathBuf,
    /// Label bytes before the pixels.
    head: usize,
    /// Pixels of a side.
    side: usize,
    /// Whether a plane is written column by column.
    by_columns: bool,
    /// Label of each record; empty where there are none.
    pub labels: Vec<u8>,
    /// Number of records.
    pub count: usize,
}

/// A set of such files.
#[derive(Clone, Debug)]
pub(super) struct RecordSet {
    /// `CIFAR-10`, `CIFAR-100`, `STL-10`.
    pub kind: &'static str,
    /// Files to train on, to validate with, and without labels.
    pub parts: [Vec<Records>; 3],
    /// Names of the classes; labels are indices into them.
    pub classes: Vec<String>,
    /// Names of what else lies in its folder.
    pub passed_over: Vec<String>,
}

/// Names of the folders that the archives unpack to.
const FOLDERS: [&str; 3] = ["cifar-10-batches-bin", "cifar-100-binary", "stl10_binary"];

/// Names of the folders of the Python versions.
const PYTHON_FOLDERS: [&str; 2] = ["cifar-10-batches-py", "cifar-100-python"];

/// Finds such a set in a folder, or in the one that its archive unpacks to there; `None` where there is none. `key` chooses among labels: `coarse` or
/// `coarse_label` takes CIFAR-100's 20 coarse ones. The pickled versions are refused with the way to the binary ones.
pub(super) fn open(folder: &Path, key: Option<&str>) -> Result<Option<RecordSet>> {
    for name in std::iter::once("").chain(FOLDERS) {
        let place = if name.is_empty() { folder.to_owned() } else { folder.join(name) };
        if let Some(set) = open_in(&place, key)? {
            return Ok(Some(set));
        }
    }
    for name in std::iter::once("").chain(PYTHON_FOLDERS) {
        refuse_pickles(&folder.join(name))?;
    }
    Ok(None)
}

fn is_file(path: &Path) -> bool {
    path.is_file()
}

fn open_in(folder: &Path, key: Option<&str>) -> Result<Option<RecordSet>> {
    let file = |name: &str| folder.join(name);
    let batches: Vec<PathBuf> = (1..=5).map(|n| file(&format!("data_batch_{n}.bin"))).collect();
    if batches.iter().any(|path| is_file(path)) {
        if let Some(path) = batches.iter().find(|path| !is_file(path)) {
            return Err(Error::data(path, "is missing: CIFAR-10 has five files data_batch_1.bin to data_batch_5.bin"));
        }
        let classes = names(&file("batches.meta.txt"), 10)?;
        let labels = Labels { head: 1, at: 0, classes: classes.len() };
        let train = batches.iter().map(|path| records(path, CIFAR, false, &labels)).collect::<Result<_>>()?;
        let val = optional(&file("test_batch.bin"), |path| records(path, CIFAR, false, &labels))?;
        let mut used: Vec<String> = (1..=5).map(|n| format!("data_batch_{n}.bin")).collect();
        used.extend(["test_batch.bin", "batches.meta.txt"].map(str::to_owned));
        let passed_over = beside(folder, &used.iter().map(String::as_str).collect::<Vec<_>>());
        return Ok(Some(RecordSet { kind: "CIFAR-10", parts: [train, val, Vec::new()], classes, passed_over }));
    }
    let (train, fine) = (file("train.bin"), file("fine_label_names.txt"));
    if is_file(&train) && (is_file(&fine) || whole_records(&train, 2 + 3 * CIFAR * CIFAR)) {
        let coarse = match key {
            None | Some("fine" | "fine_label") => false,
            Some("coarse" | "coarse_label") => true,
            Some(other) => {
                return Err(Error::data(folder, format!("is CIFAR-100, whose labels are fine_label and coarse_label; there is no {other}")));
            }
        };
        let classes = if coarse { names(&file("coarse_label_names.txt"), 20)? } else { names(&fine, 100)? };
        let labels = Labels { head: 2, at: usize::from(!coarse), classes: classes.len() };
        let val = optional(&file("test.bin"), |path| records(path, CIFAR, false, &labels))?;
        let parts = [vec![records(&train, CIFAR, false, &labels)?], val, Vec::new()];
        let passed_over = beside(folder, &["train.bin", "test.bin", "fine_label_names.txt", "coarse_label_names.txt"]);
        return Ok(Some(RecordSet { kind: "CIFAR-100", parts, classes, passed_over }));
    }
    let [train, test, unlabelled] = ["train_X.bin", "test_X.bin", "unlabeled_X.bin"].map(file);
    if [&train, &test, &unlabelled].iter().any(|path| is_file(path)) {
        let classes = names(&file("class_names.txt"), 10)?;
        let labelled = |images: &Path, labels: &str| stl(images, &file(labels), classes.len());
        let parts = [
            optional(&train, |path| labelled(path, "train_y.bin"))?,
            optional(&test, |path| labelled(path, "test_y.bin"))?,
            optional(&unlabelled, |path| records(path, STL, true, &Labels { head: 0, at: 0, classes: 0 }))?,
        ];
        let used = ["train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "unlabeled_X.bin", "class_names.txt"];
        let passed_over = beside(folder, &used);
        return Ok(Some(RecordSet { kind: "STL-10", parts, classes, passed_over }));
    }
    Ok(None)
}

/// What lies in a folder beside the files that are used.
fn beside(folder: &Path, used: &[&str]) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.') && !used.contains(&name.as_str()));
    names.sort();
    names
}

fn optional(path: &Path, open: impl Fn(&Path) -> Result<Records>) -> Result<Vec<Records>> {
    if is_file(path) { Ok(vec![open(path)?]) } else { Ok(Vec::new()) }
}

fn whole_records(path: &Path, size: usize) -> bool {
    path.metadata().is_ok_and(|about| about.len() > 0 && about.len().is_multiple_of(size as u64))
}

/// Where a record's label is.
struct Labels {
    /// Bytes before the pixels.
    head: usize,
    /// Which of them counts.
    at: usize,
    classes: usize,
}

fn records(path: &Path, side: usize, by_columns: bool, labels: &Labels) -> Result<Records> {
    let failed = |e: std::io::Error| Error::data(path, format!("cannot be read: {e}"));
    let mut file = File::open(path).map_err(failed)?;
    let (length, size) = (file.metadata().map_err(failed)?.len(), labels.head + 3 * side * side);
    if length == 0 || !length.is_multiple_of(size as u64) {
        let left = length % size as u64;
        let message = format!("has {length} bytes, which are not records of {size} bytes ({left} are left over): it is cut off, or something else");
        return Err(Error::data(path, message));
    }
    let count = (length / size as u64) as usize;
    let mut found = Vec::new();
    if labels.head > 0 {
        // Many records at a time: one by one would be a system call each.
        let mut piece = vec![0; size * 256.min(count)];
        while found.len() < count {
            let records = 256.min(count - found.len());
            let piece = &mut piece[..records * size];
            file.read_exact(piece).map_err(failed)?;
            found.extend(piece.chunks_exact(size).map(|record| record[labels.at]));
        }
        check(path, &found, labels.classes)?;
    }
    Ok(Records { path: path.to_owned(), head: labels.head, side, by_columns, labels: found, count })
}

fn check(path: &Path, labels: &[u8], classes: usize) -> Result<()> {
    match labels.iter().position(|label| usize::from(*label) >= classes) {
        Some(at) => Err(Error::data(path, format!("label {} of record {at} is above {}, the last class", labels[at], classes - 1))),
        None => Ok(()),
    }
}

/// Images of STL-10 with their labels, which count from 1.
fn stl(images: &Path, labels: &Path, classes: usize) -> Result<Records> {
    let mut found = records(images, STL, true, &Labels { head: 0, at: 0, classes: 0 })?;
    let failed = |e: std::io::Error| Error::data(labels, format!("cannot be read: {e}"));
    let length = labels.metadata().map_err(failed)?.len();
    if length != found.count as u64 {
        return Err(Error::data(labels, format!("has {length} labels, {} has {} images", images.display(), found.count)));
    }
    let bytes = std::fs::read(labels).map_err(failed)?;
    if let Some(at) = bytes.iter().position(|label| *label == 0) {
        return Err(Error::data(labels, format!("label {at} is 0: STL-10 counts its classes from 1")));
    }
    check(labels, &bytes, classes + 1)?;
    found.labels = bytes.into_iter().map(|label| label - 1).collect();
    Ok(found)
}

/// Class names, one a line; numbers where there is no file.
fn names(path: &Path, usual: usize) -> Result<Vec<String>> {
    if !is_file(path) {
        return Ok((0..usual).map(|n| n.to_string()).collect());
    }
    let names: Vec<String> =
        super::labels::read(path, NAMES_BYTES)?.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect();
    if names.len() != usual {
        return Err(Error::data(path, format!("has {} class names, expected {usual}", names.len())));
    }
    Ok(names)
}

/// Refuses a folder of CIFAR for Python.
fn refuse_pickles(folder: &Path) -> Result<()> {
    let pickle = |name: &str| {
        let mut first = [0; 1];
        File::open(folder.join(name)).and_then(|mut file| file.read_exact(&mut first)).is_ok() && first == [0x80]
    };
    let found = [("data_batch_1", "cifar-10"), ("train", "cifar-100")].into_iter().find(|(name, _)| is_file(&folder.join(name)) && pickle(name));
    match found {
        Some((name, set)) => Err(Error::data(
            folder.join(name),
            format!(
                "is the Python version of {}, which is pickled; get the binary version, {set}-binary.tar.gz, from the same page",
                set.to_uppercase()
            ),
        )),
        None => Ok(()),
    }
}

impl Records {
    /// The name of record `i` in the file, so that names are sorted as records are.
    pub fn name(i: usize) -> String {
        format!("{i:06}")
    }

    /// Reads record `i`; any number of threads may do so at once.
    pub fn read(&self, i: usize) -> std::io::Result<Rgb8> {
        let plane = self.side * self.side;
        let mut bytes = vec![0; 3 * plane];
        let at = i as u64 * (self.head + 3 * plane) as u64 + self.head as u64;
        let mut file = File::open(&self.path)?;
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(at))?;
        file.read_exact(&mut bytes)?;
        Ok(Rgb8 { width: self.side, height: self.side, pixels: interleaved(&bytes, self.side, self.by_columns) })
    }
}

/// Planes of red, green and blue as pixels.
fn interleaved(planes: &[u8], side: usize, by_columns: bool) -> Vec<u8> {
    let plane = side * side;
    let mut pixels = vec![0; 3 * plane];
    for (at, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let from = if by_columns { (at % side) * side + at / side } else { at };
        (0..3).for_each(|c| pixel[c] = planes[c * plane + from]);
    }
    pixels
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(dir: &Path, name: &str, bytes: &[u8]) {
        std::fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        std::fs::write(dir.join(name), bytes).unwrap();
    }

    /// Records with these label bytes; every pixel says its plane, row and column.
    fn cifar(labels: &[&[u8]]) -> Vec<u8> {
        let plane = |c: usize| (0..CIFAR * CIFAR).map(move |at| (c * 64 + at / CIFAR + (at % CIFAR) * 2) as u8);
        labels.iter().flat_map(|head| head.iter().copied().chain((0..3).flat_map(plane))).collect()
    }

    fn error(dir: &Path) -> String {
        open(dir, None).unwrap_err().to_string()
    }

    #[test]
    fn cifar10() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        for n in 1..=5 {
            put(dir, &format!("data_batch_{n}.bin"), &cifar(&[&[n], &[0]]));
        }
        put(dir, "test_batch.bin", &cifar(&[&[9]]));
        let set = open(dir, None).unwrap().unwrap();
        assert_eq!((set.kind, set.parts[0].len(), set.classes[9].as_str()), ("CIFAR-10", 5, "9"));
        assert_eq!((set.parts[0][2].labels.as_slice(), set.parts[1][0].labels.as_slice()), (&[3, 0][..], &[9][..]));
        let image = set.parts[0][4].read(1).unwrap();
        assert_eq!((image.width, image.height), (32, 32));
        // Row 1, column 2.
        assert_eq!(image.pixels[(32 + 2) * 3..][..3], [5, 69, 133]);
        put(dir, "batches.meta.txt", b"a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n\n");
        assert_eq!(open(dir.parent().unwrap(), None).unwrap().map(|set| set.kind), None);
        assert_eq!(open(dir, None).unwrap().unwrap().classes[9], "j");
        put(dir, "batches.meta.txt", b"a\nb\n");
        assert!(error(dir).contains("has 2 class names, expected 10"));
        std::fs::remove_file(dir.join("batches.meta.txt")).unwrap();
        put(dir, "data_batch_2.bin", &cifar(&[&[1], &[10]]));
        assert!(error(dir).contains("label 10 of record 1 is above 9, the last class"));
        put(dir, "data_batch_2.bin", &cifar(&[&[1], &[1]])[..4000]);
        assert!(error(dir).contains("data_batch_2.bin") && error(dir).contains("927 are left over"), "{}", error(dir));
        put(dir, "data_batch_2.bin", b"");
        assert!(error(dir).contains("has 0 bytes"));
        std::fs::remove_file(dir.join("data_batch_2.bin")).unwrap();
        assert!(error(dir).contains("data_batch_2.bin: is missing"));
    }

    #[test]
    fn cifar100() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "cifar-100-binary/train.bin", &cifar(&[&[3, 70], &[19, 99]]));
        put(dir.path(), "cifar-100-binary/test.bin", &cifar(&[&[4, 7]]));
        let set = open(dir.path(), None).unwrap().unwrap();
        assert_eq!((set.kind, set.parts[0][0].labels.as_slice(), set.classes.len()), ("CIFAR-100", &[70, 99][..], 100));
        assert_eq!(set.parts[1][0].read(0).unwrap().pixels[..3], [0, 64, 128]);
        let coarse = open(dir.path(), Some("coarse_label")).unwrap().unwrap();
        assert_eq!((coarse.parts[0][0].labels.as_slice(), coarse.classes.len()), (&[3, 19][..], 20));
        assert!(open(dir.path(), Some("breed")).unwrap_err().to_string().contains("there is no breed"));
        // A file of that name and another size is something else.
        let other = tempfile::tempdir().unwrap();
        put(other.path(), "train.bin", b"tokens");
        assert!(open(other.path(), None).unwrap().is_none());
    }

    #[test]
    fn stl10() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let plane = |c: usize| (0..STL * STL).map(move |at| (c + at / STL + (at % STL) * 2) as u8);
        let images: Vec<u8> = (0..2).flat_map(|_| (0..3).flat_map(plane)).collect();
        put(dir, "train_X.bin", &images);
        put(dir, "train_y.bin", &[1, 10]);
        put(dir, "unlabeled_X.bin", &images);
        let set = open(dir, None).unwrap().unwrap();
        assert_eq!((set.kind, set.parts[0][0].labels.as_slice(), set.parts[2][0].count), ("STL-10", &[0, 9][..], 2));
        assert!(set.parts[1].is_empty() && set.parts[2][0].labels.is_empty());
        // The second pixel of the file is the first column's second row.
        let image = set.parts[0][0].read(1).unwrap();
        assert_eq!((image.pixels[0], image.pixels[3], image.pixels[96 * 3]), (0, 1, 2));
        put(dir, "train_y.bin", &[1]);
        assert!(error(dir).contains("has 1 labels"));
        put(dir, "train_y.bin", &[0, 1]);
        assert!(error(dir).contains("counts its classes from 1"));
        put(dir, "train_y.bin", &[1, 11]);
        assert!(error(dir).contains("label 11 of record 1 is above 10"));
        std::fs::remove_file(dir.join("train_y.bin")).unwrap();
        assert!(error(dir).contains("train_y.bin: cannot be read"));
    }

    #[test]
    fn pickles_are_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "cifar-10-batches-py/data_batch_1", &[0x80, 2, b'}']);
        assert!(error(dir.path()).contains("cifar-10-binary.tar.gz"));
        // A folder or a text of that name is neither.
        let dir = tempfile::tempdir().unwrap();
        put(dir.path(), "train/cat/x", b"");
        put(dir.path(), "data_batch_1", b"text");
        assert!(open(dir.path(), None).unwrap().is_none());
    }
}
