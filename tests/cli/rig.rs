//! A tiny data set, tiny configurations, and the program as a user starts it.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use swav_wgpu::data::rng::Stream;

/// Where the program is.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_swav-wgpu");

const PRETRAIN: &str = r#"
kind = "pretrain"
seed = 3
[data]
path = "DATA"
workers = 2
[model]
blocks = [1, 1, 1, 1]
block = "basic"
width = 8
zero_init_residual = false
hidden = 32
feat_dim = 16
prototypes = 8
[crops]
num = [2, 2]
size = [32, 16]
scale = [[0.5, 1.0], [0.3, 0.6]]
[augment]
jitter = [0.2, 0.2, 0.2, 0.0]
grayscale = 0.0
blur_probability = 0.0
[loss]
epsilon = 0.03
[queue]
length = 0
[optimizer]
kind = "larc"
lr = 1.0
[schedule]
min_lr = 0.001
warmup_epochs = 0
[train]
epochs = 2
batch = 8
freeze_prototypes_steps = 2
"#;

const LINEAR: &str = r#"
kind = "linear"
[data]
path = "DATA"
workers = 2
[image]
size = 32
resize = 0
[augment]
enabled = false
[optimizer]
lr = 0.3
[train]
epochs = 8
batch = 16
[model]
blocks = [1, 1, 1, 1]
block = "basic"
width = 8
"#;

/// Class names and colours.
pub const CLASSES: [(&str, [u8; 3]); 3] = [("blue", [40, 60, 200]), ("green", [50, 190, 60]), ("red", [210, 50, 40])];
/// Images of a class in the training part: 36 in all, so 4 steps of 8 an epoch.
pub const TRAIN: usize = 12;
/// Images of a class in the validation part.
pub const VAL: usize = 4;

/// A folder with `data/`, `pretrain.toml` and `linear.toml`.
pub struct Rig {
    dir: tempfile::TempDir,
}

/// What a run of the program said.
pub struct Ran {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self
    }

    /// Fails with this exit code, and says each of `words`.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, Some(code), "{}{}", self.out, self.err);
        assert!(self.err.starts_with("error: ") || self.err.contains("\nerror: "), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "`{word}` is not in: {}", self.err);
        }
        self
    }

    /// The only line of standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.out.lines().count(), 1, "{}", self.out);
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }
}

impl Rig {
    /// Noisy images of one colour a class.
    pub fn new() -> Self {
        let rig = Self { dir: tempfile::tempdir().unwrap() };
        for (part, count) in [("train", TRAIN), ("val", VAL)] {
            for (class, (name, color)) in CLASSES.iter().enumerate() {
                let folder = rig.path(&format!("data/{part}/{name}"));
                std::fs::create_dir_all(&folder).unwrap();
                for i in 0..count {
                    let mut stream = Stream::new(5, class as u64, i as u64, u32::from(part == "val"));
                    let image = image::RgbImage::from_fn(32, 32, |_, _| image::Rgb(color.map(|v| (f64::from(v) + stream.range(-40.0, 40.0)) as u8)));
                    image.save(folder.join(format!("{i:02}.png"))).unwrap();
                }
            }
        }
        let data = rig.text("data");
        rig.write("pretrain.toml", PRETRAIN.replace("DATA", &data));
        rig.write("linear.toml", LINEAR.replace("DATA", &data));
        rig
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    /// The program, started in the folder. `line` is cut at spaces.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .args(line.split_whitespace())
            .current_dir(self.dir.path())
            .env("NO_COLOR", "1")
            .env_remove("RUST_LOG")
            .env_remove(swav_wgpu::fault::VARIABLE);
        // The user's own measurements must not decide what tests compute.
        command.env("SWAV_WGPU_CACHE", self.path("cache"));
        command
    }

    pub fn run(&self, line: &str) -> Ran {
        finished(self.command(line))
    }

    /// The program with `fault` provoked in it (src/fault.rs).
    pub fn faulty(&self, fault: &str, line: &str) -> Ran {
        let mut command = self.command(line);
        command.env(swav_wgpu::fault::VARIABLE, fault);
        finished(command)
    }

    /// Trains into `out` with the tiny configuration.
    #[track_caller]
    pub fn train(&self, out: &str, more: &str) -> Value {
        self.run(&format!("train --config pretrain.toml --out {out} --json -q {more}")).ok().json()
    }

    /// `key` of every line of a run's metrics, as written, so that equality is equality of every digit.
    pub fn metric(&self, out: &str, key: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path(out).join("metrics.jsonl")).unwrap_or_default();
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()[key].to_string()).collect()
    }

    /// How many steps a run has told of so far.
    pub fn steps(&self, out: &str) -> usize {
        lines(&self.path(out).join("metrics.jsonl"))
    }

    pub fn checkpoints(&self, out: &str) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(self.path(out).join("checkpoints"));
        let mut files: Vec<PathBuf> = entries.into_iter().flatten().map(|e| e.unwrap().path()).collect();
        files.sort();
        files
    }

    /// Starts a long run and waits until it has done `steps` steps.
    pub fn start(&self, out: &str, steps: usize, more: &str) -> Child {
        let line = format!("train --config pretrain.toml --out {out} -q --set train.epochs=5000 {more}");
        let mut child = self.command(&line).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let end = Instant::now() + Duration::from_secs(60);
        while self.steps(out) < steps {
            assert!(child.try_wait().unwrap().is_none(), "the run ended early");
            assert!(Instant::now() < end, "no {steps} steps in a minute");
            std::thread::sleep(Duration::from_millis(10));
        }
        child
    }
}

fn lines(path: &Path) -> usize {
    std::fs::read(path).map_or(0, |bytes| bytes.iter().filter(|b| **b == b'\n').count())
}

pub fn finished(command: Command) -> Ran {
    let output = assert_cmd::Command::from_std(command).timeout(Duration::from_secs(120)).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// A file of the repository.
pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
