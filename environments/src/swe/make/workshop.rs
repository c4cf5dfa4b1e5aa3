//! Where changes are tried: a package in a sandbox, its tests as they come out without any change, and with one.
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use openclaw_sandbox::{Backend, Limits, Session, Workspace};

use super::{
    Candidate, MakeError,
    mutate::{Mutation, mutations},
    statement::statement,
};
use crate::{
    swe::{
        build::{Built, build},
        git::{self, done, script},
        log::Status,
        patch::{self, Protected},
        report::EvalType,
        row::{Check, Row, Start},
        tests_run::{self, How, Results, Tests},
    },
    terminal::Control,
    world::WorldError,
};

/// Shares of tests that have to pass without a change.
const PASSING: f64 = 0.9;
/// Longest source that is changed.
const SOURCE_MAX: usize = 256 << 10;
/// Folders whose sources are not what the package is for.
const ASIDE: [&str; 7] = ["docs", "doc", "examples", "benchmarks", "bench", "tools", "scripts"];
/// Kept of what tests write.
const OUTPUT_BYTES: usize = 16 << 20;

/// A package that was unpacked and tried.
pub(super) struct Workshop {
    package: String,
    archive: PathBuf,
    built: Built,
    control: Control,
    session: Box<dyn Session>,
    /// Tests that pass, each time.
    passing: Vec<String>,
    protected: Protected,
    /// For a run with a change.
    time: Duration,
}

/// What came of a change.
pub(super) enum Outcome {
    Row(Box<Row>),
    /// Why it makes no row.
    Rejected(&'static str),
}

impl Workshop {
    pub(super) fn open(
        package: &str,
        archive: &Path,
        time: Duration,
        backend: &dyn Backend,
    ) -> Result<Self, MakeError> {
        let refused = |why: String| MakeError::Package { package: package.to_owned(), why };
        let control = Control::new();
        let _running = control.begin();
        let limits = Limits { memory_bytes: 2 << 30, output_bytes: OUTPUT_BYTES, ..Limits::default() };
        let row = row_of(package, archive);
        let built = build(&row, None, &limits, backend, &control)?;
        let spec = built.spec(Workspace::Snapshot(built.snapshot.clone()), limits, &row);
        let mut session = control.open(backend, &spec)?;
        let began = Instant::now();
        let mut baseline = || match tests_run::run(session.as_mut(), &control, &built, &[], How::Plain, time)?
        {
            Tests::Ended(results) => Ok(results),
            Tests::Broken => Err(refused("its tests do not come to their end".to_owned())),
            Tests::Late => Err(refused(format!("its tests take more than {} s", time.as_secs()))),
        };
        // Twice: what comes out now so and now so judges nobody.
        let (first, second) = (baseline()?, baseline()?);
        let took = began.elapsed() / 2;
        let all = first.statuses.0.len();
        let passes = |results: &Results, name: &str| results.statuses.0.get(name) == Some(&Status::Passed);
        let mut passing: Vec<String> = first.statuses.0.keys().cloned().collect();
        passing.retain(|name| passes(&first, name) && passes(&second, name));
        let skipped = first.statuses.0.values().filter(|status| **status == Status::Skipped).count();
        if passing.is_empty() || (passing.len() as f64) < PASSING * (all - skipped) as f64 {
            let failing = first.statuses.0.iter().find(|(_, status)| status.fails());
            let failing = failing.map_or(String::new(), |(name, _)| {
                let why = first.messages.get(name).and_then(|why| why.lines().next()).unwrap_or_default();
                format!(", as {name}: {why}")
            });
            return Err(refused(format!(
                "{} of its {all} tests pass without a change{failing}",
                passing.len()
            )));
        }
        let changes = git::changes(session.as_mut(), &control, &built.base)?;
        if let Some(path) = changes.paths.first() {
            return Err(refused(format!("its tests leave files behind, as {path}")));
        }
        let protected = Protected::of(&passing, "");
        Ok(Self {
            package: package.to_owned(),
            archive: archive.to_owned(),
            built,
            session,
            passing,
            protected,
            // A change that lets a test run on is no task that can be judged.
            time: (took * 5).max(Duration::from_secs(20)).min(time),
            control,
        })
    }

    pub(super) fn tests(&self) -> usize {
        self.passing.len()
    }

    /// All changes that can be made in what the tests are about.
    pub(super) fn candidates(&mut self) -> Result<Vec<Candidate>, WorldError> {
        let _running = self.control.begin();
        let ran = script(self.session.as_mut(), &self.control, "cd /workspace && safe ls-files -z", &[], [])?;
        let listed = done(ran, "the sources cannot be listed")?.stdout.text().into_owned();
        let mut found = Vec::new();
        for path in listed.split('\0').filter(|path| path.ends_with(".py")) {
            let first = path.split('/').next().unwrap_or(path);
            let name = path.rsplit('/').next().unwrap_or(path);
            if self.protected.has(path)
                || ASIDE.contains(&first)
                || matches!(name, "setup.py" | "versioneer.py" | "_version.py")
            {
                continue;
            }
            let text = self.read(path)?;
            // Of lines with other ends a patch is not the one that was tried.
            if text.len() <= SOURCE_MAX && !text.contains('\r') {
                found.extend(mutations(&text).into_iter().map(|mutation| (path.to_owned(), mutation)));
            }
        }
        Ok(found)
    }

    fn read(&self, path: &str) -> Result<String, WorldError> {
        Ok(String::from_utf8_lossy(&self.session.read_file(Path::new(path))?).into_owned())
    }

    /// Makes a change, and sees which tests fail.
    pub(super) fn attempt(&mut self, path: &str, mutation: &Mutation) -> Result<Outcome, WorldError> {
        let _running = self.control.begin();
        self.session.reset(&self.built.snapshot)?;
        let sound = self.read(path)?;
        let mut lines: Vec<String> = sound.split('\n').map(str::to_owned).collect();
        let good = lines[mutation.line].clone();
        let Some(wrong) = mutation.of(&good) else { return Ok(Outcome::Rejected("not one line")) };
        lines[mutation.line].clone_from(&wrong);
        let text = lines.join("\n");
        self.session.write_file(Path::new(path), text.as_bytes())?;
        let results = match self.run(&[], How::Plain)? {
            Tests::Ended(results) => results,
            Tests::Broken => return Ok(Outcome::Rejected("ends its tests")),
            Tests::Late => return Ok(Outcome::Rejected("takes too long")),
        };
        if self.passing.iter().any(|name| !results.statuses.0.contains_key(name)) {
            return Ok(Outcome::Rejected("tests are missing"));
        }
        let fails = |name: &&String| results.statuses.0.get(*name).is_some_and(|status| status.fails());
        let (fail_to_pass, pass_to_pass): (Vec<&String>, Vec<&String>) = self.passing.iter().partition(fails);
        if fail_to_pass.is_empty() {
            return Ok(Outcome::Rejected("no test fails"));
        }
        if pass_to_pass.is_empty() {
            return Ok(Outcome::Rejected("all tests fail"));
        }
        let cloned = |names: Vec<&String>| names.into_iter().cloned().collect::<Vec<String>>();
        let (fail_to_pass, pass_to_pass) = (cloned(fail_to_pass), cloned(pass_to_pass));
        let why = match self.run(&fail_to_pass, How::Told)? {
            Tests::Ended(results) => results.messages,
            Tests::Broken | Tests::Late => return Ok(Outcome::Rejected("fails now so and now so")),
        };
        if fail_to_pass.iter().any(|name| !why.contains_key(name)) {
            return Ok(Outcome::Rejected("fails now so and now so"));
        }
        let mut row = row_of(&self.package, &self.archive);
        row.id = format!("{}.{}__{}", self.package, mutation.kind, name_of(path, mutation));
        row.problem = statement(&self.package, &fail_to_pass, &why);
        row.patch = patch::of_line(path, &text, mutation.line, &good);
        row.mutation = Some(mutation.kind.to_owned());
        (row.fail_to_pass, row.pass_to_pass) = (fail_to_pass, pass_to_pass);
        Ok(Outcome::Row(Box::new(row)))
    }

    fn run(&mut self, which: &[String], how: How) -> Result<Tests, WorldError> {
        match tests_run::run(self.session.as_mut(), &self.control, &self.built, which, how, self.time) {
            // A change that breaks what pytest begins with is one that cannot be used.
            Err(WorldError::Invalid(_)) => Ok(Tests::Broken),
            run => run,
        }
    }
}

/// Eight digits for a change.
fn name_of(path: &str, mutation: &Mutation) -> String {
    let text = format!("{path}:{}:{}:{}:{}", mutation.line, mutation.at, mutation.length, mutation.to);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:08x}", hash >> 32)
}

/// A row without a change.
fn row_of(package: &str, archive: &Path) -> Row {
    Row {
        id: package.to_owned(),
        repo: package.to_owned(),
        base_commit: None,
        problem: String::new(),
        patch: String::new(),
        makes_bug: false,
        test_patch: String::new(),
        fail_to_pass: Vec::new(),
        pass_to_pass: Vec::new(),
        eval_type: EvalType::PassAndFail,
        start: Start::Local(archive.to_owned()),
        check: Check::Pytest(Vec::new()),
        mutation: None,
    }
}
