//! A launch that is refused, at whichever stage, says why and leaves the file system as it was.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
};

use openclaw_tests::Launch;

const TOPOLOGY: &str = "configs/personal-agent.toml";

/// What `path` names and all below it, files with their bytes.
fn tree(path: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let Ok(kind) = fs::symlink_metadata(path) else { return found };
    found.insert(path.to_owned(), kind.is_file().then(|| fs::read(path).expect("it can be read")));
    for entry in kind.is_dir().then(|| fs::read_dir(path).expect("it can be listed")).into_iter().flatten() {
        found.append(&mut tree(&entry.expect("an entry").path()));
    }
    found
}

/// Launches it twice, `--fresh` the second time; it is refused with `why`, and all below `within` is what it was.
fn refused(launch: &Launch, why: &str, within: &Path) {
    for launch in [launch.clone(), launch.clone().option("--fresh")] {
        refused_as_it_is(&launch, why, within);
    }
}

fn refused_as_it_is(launch: &Launch, why: &str, within: &Path) {
    let before = tree(within);
    let log = launch.try_start().expect_err(why);
    assert!(log.contains(why), "{why}: {log}");
    let after = tree(within);
    let names = |tree: &BTreeMap<PathBuf, _>| tree.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before), "{why}: {log}");
    let changed: Vec<&PathBuf> = after.keys().filter(|path| after[*path] != before[*path]).collect();
    assert!(changed.is_empty(), "{why}: {changed:?} {log}");
}

/// A copy of the embedded model's folder.
fn copied_model(to: &Path) -> PathBuf {
    let nano = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/models/nano");
    fs::create_dir(to).expect("a folder");
    for entry in fs::read_dir(nano).expect("it is in the tree") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("a copy");
    }
    to.to_owned()
}

/// Every stage that can refuse, whatever lies at `run`: what is set for it, and what is then said.
fn stages(run: &Path, scratch: &Path, taken: &TcpListener) -> Vec<(Launch, String)> {
    let launch = || Launch::new(TOPOLOGY, run);
    let silent = copied_model(&scratch.join("without-template"));
    fs::remove_file(silent.join("chat_template.jinja")).expect("it is there");
    let torn = copied_model(&scratch.join("torn"));
    let weights = File::options().write(true).open(torn.join("model.safetensors")).expect("it is there");
    weights.set_len(1 << 20).expect("it is cut");
    let model = |path: &Path| launch().set(&format!("models.policy.path={}", path.display()));
    let mut stages = vec![
        (launch().set("run.nonsense=1"), "run.nonsense".to_owned()),
        (launch().set("actors.judge.votes=0"), "actors.judge.votes".to_owned()),
        (
            launch().set("actors.gateway.api_key_env=NOBODY_SETS_THIS"),
            "actors.gateway.api_key_env".to_owned(),
        ),
        (model(&scratch.join("nowhere")), "models.policy.path".to_owned()),
        (model(&silent), "models.policy.path".to_owned()),
        (model(&torn), "models.policy.path".to_owned()),
        (launch().option("--node=nobody"), "no node named".to_owned()),
        (launch().set("actors.policy.kv_tokens=1073741824"), "actors.policy.kv_tokens".to_owned()),
    ];
    let address = taken.local_addr().expect("it has one");
    for key in ["actors.gateway.listen", "nodes.local.metrics", "nodes.local.admin"] {
        stages.push((launch().set(&format!("{key}={address}")), key.to_owned()));
    }
    stages
}

/// The folder is made, and its journal does not fit onto the disk.
fn full_disk(run: &Path) -> Launch {
    Launch::new(TOPOLOGY, run).with_files_up_to(8)
}

#[test]
fn of_a_run_that_would_begin_nothing_is_made() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let (within, scratch) = (dir.path().join("within"), dir.path().join("scratch"));
    fs::create_dir(&within).and_then(|()| fs::create_dir(&scratch)).expect("folders");
    // Two folders above it are missing, too.
    for (launch, why) in stages(&within.join("some/where/run"), &scratch, &taken) {
        refused(&launch, &why, &within);
    }
    refused(&full_disk(&within.join("some/where/run")), "journal.db", &within);
    fs::write(within.join("file"), "no folder").expect("a file");
    refused(&Launch::new(TOPOLOGY, &within.join("file/run")), "run.dir", &within);
    refused_as_it_is(&Launch::new(TOPOLOGY, &within.join("file")), "run.dir", &within);
}

#[test]
fn a_folder_that_is_there_keeps_what_it_holds_and_gets_nothing() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    fs::create_dir(&run).expect("a folder");
    fs::write(run.join("notes.txt"), "mine").expect("a file");
    let launch = Launch::new(TOPOLOGY, &run);
    refused(&full_disk(&run), "journal.db", dir.path());

    let lock = File::create(run.join("lock")).expect("a file");
    lock.try_lock().expect("nobody has it");
    refused(&launch, "is in use", dir.path());
    drop(lock);
    fs::remove_file(run.join("lock")).expect("it is there");

    fs::write(run.join("journal.db"), "no database, though it is called one").expect("a file");
    refused_as_it_is(&launch, "journal.db", dir.path());
    fs::remove_file(run.join("journal.db")).expect("it is there");

    // Found when the journal is open.
    fs::create_dir_all(run.join("versions/7")).expect("a folder");
    refused_as_it_is(&launch, "versions/7", dir.path());
    fs::remove_dir_all(run.join("versions")).expect("it is there");

    // Found when the topology is written, and the first actor starts.
    fs::create_dir(run.join("admin.token")).expect("a folder");
    refused_as_it_is(&launch, "admin.token", dir.path());
}

#[test]
fn a_run_that_would_go_on_is_what_it_was() {
    let dir = tempfile::tempdir().expect("a folder can be made");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let (within, scratch) = (dir.path().join("within"), dir.path().join("scratch"));
    fs::create_dir(&within).and_then(|()| fs::create_dir(&scratch)).expect("folders");
    let run = within.join("run");
    let launch = Launch::new(TOPOLOGY, &run);
    assert_eq!(launch.start().stop().code(), Some(0));
    for (launch, why) in stages(&run, &scratch, &taken) {
        refused(&launch.set("actors.judge.temperature=0.5"), &why, &within);
    }
    // SQLite may leave an empty log beside a journal that is there, so that only a fresh run is tried.
    refused_as_it_is(&full_disk(&run).option("--fresh"), "journal.db", &within);
    // What only a run that goes on is refused for; a fresh one would be another.
    let other = copied_model(&scratch.join("other"));
    let template = other.join("chat_template.jinja");
    let text = fs::read_to_string(&template).expect("it is there");
    fs::write(&template, format!("{{# another #}}{text}")).expect("it is written");
    let path = format!("models.policy.path={}", other.display());
    refused_as_it_is(&launch.clone().set(&path), "chat_template.jinja", &within);
    fs::create_dir_all(run.join("versions/7")).expect("a folder");
    // Found by the open journal, which has looked for what a process that died had under way: it alone is rewritten.
    let others = || {
        let mut tree = tree(&within);
        tree.insert(run.join("journal.db"), None).flatten().expect("it is there");
        tree
    };
    let before = others();
    let log = launch.try_start().expect_err("the folder is another run's");
    assert!(log.contains("versions/7") && others() == before, "{log}");
    fs::remove_dir_all(run.join("versions/7")).expect("it is there");
    assert_eq!(launch.start().stop().code(), Some(0), "and goes on");
}
