//! `kernels/gpu-check` on the libraries that stand in for NVIDIA's: the scripts, the steps and the driver code of a run
//! on a GPU, with a kernel that faults, one that never ends and one that ends the process.

#[path = "../../src/cuda/driver/stand_in/compile.rs"]
mod compile;
mod played;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{Mutex, OnceLock},
    time::{Duration, Instant},
};

use openclaw_kernels::cuda::manifest;
use serde_json::Value;

const STEPS: &str = env!("CARGO_BIN_EXE_gpu-steps");
const KERNELS: &str = env!("CARGO_MANIFEST_DIR");
/// Kernels of canaries and of times, and what becomes of the steps that launch them.
const FAULTS: [(&str, &str, &str); 3] = [
    ("fault", "adamw", "fault: cuda:0 is lost: adamw of adamw.cu, Launch { "),
    ("hang", "logprob_gap", "hung, stopped after "),
    ("exit", "paged_decode", "ended with status 3: the process ends at the launch of paged_decode"),
];

/// The libraries, a package for them, and what each step did when nothing was wrong.
struct Stage {
    folder: PathBuf,
    traces: BTreeMap<String, Trace>,
    slowest: Duration,
}

/// What a step printed, and the kernels that it launched.
struct Trace {
    output: Output,
    launched: BTreeSet<String>,
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl Stage {
    /// Once in a process; `None` where there is no Python or no C++ compiler.
    fn get() -> Option<&'static Self> {
        static STAGE: OnceLock<Result<Stage, String>> = OnceLock::new();
        let made = STAGE.get_or_init(Self::new);
        if let Err(why) = made {
            assert!(env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{why}");
            eprintln!("skipped: {why}");
        }
        made.as_ref().ok()
    }

    fn new() -> Result<Self, String> {
        let python = Command::new("python3").arg("--version").output();
        python.map_err(|error| format!("python3 does not run: {error}"))?;
        let temporary = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let folder = temporary.join("rehearsal");
        let _ = fs::remove_dir_all(&folder);
        let kernels = temporary.join("stand-in-kernels");
        compile::compile(&folder.join("libraries"), &kernels)?;
        compile::precompile(&kernels)?;
        let package = folder.join("package");
        fs::create_dir_all(package.join("gpu_check")).expect("a temporary folder");
        fs::copy(Path::new(KERNELS).join("gpu-check"), package.join("gpu-check")).expect("it is there");
        for file in fs::read_dir(Path::new(KERNELS).join("gpu_check")).expect("it is there").flatten() {
            if file.path().is_file() {
                fs::copy(file.path(), package.join("gpu_check").join(file.file_name()))
                    .expect("it can be read");
            }
        }
        symlink(STEPS, package.join("gpu-steps")).expect("a temporary folder");
        // This binary plays those of the package: see `played`.
        for name in ["golden", "losses", "transformer"] {
            symlink(env::current_exe().expect("a test has a path"), package.join(name)).expect("as above");
        }
        let mut stage = Self { folder, traces: BTreeMap::new(), slowest: Duration::ZERO };
        stage.trace();
        Ok(stage)
    }

    fn with_stand_ins<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let libraries = self.folder.join("libraries");
        let others = env::var_os("LD_LIBRARY_PATH");
        let path = std::iter::once(libraries.clone()).chain(others.iter().flat_map(env::split_paths));
        command
            .env("OPENCLAW_CUDA_LIBRARIES", &libraries)
            .env("LD_LIBRARY_PATH", env::join_paths(path).expect("no colons"))
            .env("OPENCLAW_KERNEL_CACHE", self.folder.join("cache"))
            .env_remove("OPENCLAW_TEST_DEVICE")
    }

    /// Runs every step that launches kernels, each alone: the stand-ins compile here what is quick later.
    fn trace(&mut self) {
        let listed = Command::new(STEPS).arg("list").output().expect("it starts");
        let names: Vec<(String, String)> = text(&listed.stdout)
            .lines()
            .filter_map(|line| line.strip_prefix("name\t")?.split_once('\t'))
            .map(|(kind, name)| (kind.to_owned(), name.to_owned()))
            .collect();
        let (left, done) = (Mutex::new(names), Mutex::new((BTreeMap::new(), Duration::ZERO)));
        let work = || {
            loop {
                let Some((kind, name)) = left.lock().expect("no panic").pop() else { return };
                let mut command = Command::new(STEPS);
                command.args(["cuda:0", &kind, &name]).args((kind == "times").then_some("small"));
                self.with_stand_ins(&mut command).env("STAND_IN_TRACE", "1");
                let first = command.output().expect("it starts");
                // Compilation aside.
                let start = Instant::now();
                let output = command.output().expect("it starts");
                let took = start.elapsed();
                assert_eq!(first.status, output.status);
                let launched = text(&output.stderr)
                    .lines()
                    .filter_map(|line| Some(line.strip_prefix("launched ")?.to_owned()))
                    .collect();
                let mut done = done.lock().expect("no panic");
                done.0.insert(format!("{kind} {name}"), Trace { output, launched });
                done.1 = done.1.max(took);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(work);
            }
        });
        (self.traces, self.slowest) = done.into_inner().expect("no panic");
    }

    fn check(&self, report: &Path, arguments: &[&str], injected: &str) -> Output {
        let mut command = Command::new("python3");
        command.arg(self.folder.join("package/gpu-check")).arg("--report").arg(report).arg("--small");
        command.args(arguments);
        self.with_stand_ins(&mut command).env("STAND_IN_INJECT", injected).output().expect("python3 runs")
    }

    /// The markdown, and the results by their names.
    fn read(&self, report: &Path) -> (String, BTreeMap<String, Value>) {
        let markdown = fs::read_to_string(report.join("gpu-check.md")).expect("it was written");
        let json = fs::read_to_string(report.join("gpu-check.json")).expect("it was written");
        let json: Value = serde_json::from_str(&json).expect("it is JSON");
        let entries = json["entries"].as_object().expect("by name").clone();
        (markdown, entries.into_iter().collect())
    }
}

#[test]
fn every_kernel_has_a_canary_that_launches_it_and_agrees_with_the_cpu() {
    let Some(stage) = Stage::get() else { return };
    for kernel in manifest::specialisations().iter().map(|kernel| kernel.kernel) {
        let trace = stage.traces.get(&format!("canary {kernel}"));
        assert!(trace.is_some_and(|trace| trace.launched.contains(kernel)), "{kernel} is not launched");
    }
    for (name, Trace { output, .. }) in &stage.traces {
        let told = text(&output.stdout) + &text(&output.stderr);
        assert!(output.status.success(), "{name}: {told}");
    }
}

#[test]
fn a_fault_a_hang_and_an_exit_leave_every_other_line() {
    let Some(stage) = Stage::get() else { return };
    let report = stage.folder.join("report");

    // A first run that was asked for little.
    let some = ["--only", "compile", "--only", "canary fill_4"];
    let output = stage.check(&report, &some, "");
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    let (markdown, first) = stage.read(&report);
    assert!(
        markdown.contains("| fill_4 | ok | ") && markdown.contains("| fill_2 | not run: not asked for |")
    );

    // The second goes on, with the faults.
    let injected = FAULTS.map(|(fate, kernel, _)| format!("{fate}:{kernel}")).join(",");
    let limit = (4 * stage.slowest).max(Duration::from_secs(4)).as_secs().to_string();
    let output = stage.check(&report, &["--limit", &limit], &injected);
    let told = text(&output.stdout) + &text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("2 results are there already"), "{told}");
    let (markdown, entries) = stage.read(&report);
    for kept in ["compile all", "canary fill_4"] {
        assert_eq!(entries[kept], first[kept], "{kept} was run again");
    }

    for (name, trace) in &stage.traces {
        let line = entries[name]["lines"].to_string().replace("\\\"", "\"");
        let state = &entries[name]["state"];
        match FAULTS.iter().find(|(_, kernel, _)| trace.launched.contains(*kernel)) {
            None => assert!(state == "done" && !line.contains("**"), "{name}: {state} {line}"),
            Some((_, _, expected)) => {
                // Every canary waits for each launch; times are taken once more for the name of the kernel.
                assert!(state == "failed" && line.contains(expected), "{name}: {state} {line} {markdown}");
            }
        }
    }
    for (_, kernel, expected) in FAULTS {
        assert!(markdown.contains(&format!("| {kernel} | **{expected}")), "{kernel} in {markdown}");
    }

    // The test binaries: one whole, one that hangs and one that exits.
    assert_eq!(entries["tests golden"]["lines"][0], "- golden: 5 passed");
    let losses = entries["tests losses"].to_string();
    assert!(
        losses.contains("hung, stopped after") && losses.contains("in `played::cuda::c_hangs`"),
        "{losses}"
    );
    assert!(losses.contains("`played::cuda::c_hangs`, alone: **hung"), "{losses}");
    for passes in ["b_ends_the_process", "d_fails", "e_passes"] {
        let alone = format!("`played::cuda::{passes}`, alone: passes");
        assert_eq!(losses.contains(&alone), passes != "b_ends_the_process", "{losses}");
    }
    let transformer = entries["tests transformer"].to_string();
    assert!(transformer.contains("ended with status 3, ") || transformer.contains("ended with status 3: "));
    assert!(
        transformer.contains("`played::cuda::d_fails`, alone: **failed**: it fails as it should"),
        "{transformer}"
    );
    assert!(transformer.contains("`played::cuda::e_passes`, alone: passes"), "{transformer}");

    // What needs PyTorch and a GPU has its line and its reason.
    let others =
        entries.keys().filter(|name| ["parity", "peers", "sanitize"].iter().any(|k| name.starts_with(k)));
    for name in others {
        let what = name.split_once(' ').expect("a kind and a name").1;
        let line = entries[name]["lines"][0].as_str().expect("a line");
        assert!(markdown.contains(line) && !what.is_empty(), "{name}: {line}");
    }
    fs::remove_dir_all(&report).expect("it was made");
}
