//! Agents of the node's own, in sandboxes: the node, a worker, the judge and the sandboxes themselves are killed at random
//! moments. No finished step is lost, none is trained twice, and nothing of a sandbox is left.
//!
//! `OPENCLAW_KILLS` says how often; 10, unless given. The seed of a failed run is in its message.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use openclaw_environments::dice::Dice;
use openclaw_tests::{Launch, Ledger};

/// Long enough for a busy machine; a wait that needs it has failed.
const PATIENCE: Duration = Duration::from_secs(180);

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < until, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Folders of sandboxes, and processes in them, whose maker is `pid`.
fn left_of(pid: u32) -> usize {
    let prefix = format!("openclaw-sandbox-{pid}-");
    let folders = fs::read_dir(std::env::temp_dir()).expect("it is there").flatten();
    let folders = folders.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count();
    folders + sandboxes_of(pid).len()
}

/// Processes of sandboxes that `pid` has made.
fn sandboxes_of(pid: u32) -> Vec<u32> {
    let marker = format!("openclaw-sandbox-{pid}-");
    let pids = fs::read_dir("/proc").expect("it is there").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_one = |pid: &u32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&marker)
    };
    pids.filter(is_one).collect()
}

fn order(run: &Path, words: &[&str]) {
    let mut command = Command::new(openclaw_tests::binary());
    let output = command.args(words).env("OPENCLAW_RUN", run).output().expect("it runs");
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn kills_of_anything_lose_no_step_train_none_twice_and_leave_no_sandbox() {
    let missing = openclaw_sandbox::missing();
    if !missing.is_empty() {
        assert!(std::env::var_os("OPENCLAW_REQUIRE_ALL").is_none(), "{missing:?}");
        eprintln!("skipped, no sandbox can be made here: {missing:?}");
        return;
    }
    let number = |variable: &str| std::env::var(variable).ok().map(|text| text.parse().expect("a number"));
    let kills: u64 = number("OPENCLAW_KILLS").unwrap_or(10);
    let seed = number("OPENCLAW_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let mut dice = Dice::new(seed);
    let dir = tempfile::tempdir().expect("a folder can be made");
    let run = dir.path().join("run");
    let launch = || {
        Launch::new("configs/terminal.toml", &run)
            .set("actors.agent[0].group=4")
            .set("actors.agent[0].held_out=4")
            .set("actors.agent[0].held_out_every=4")
            .set("actors.agent[0].max_new_tokens=48")
            .set("actors.agent[0].wait_for_learning=false")
            // What fails throughout its group is trained on, too: the model hardly acts yet.
            .set("method.group={ constant = \"keep\", single = \"constant\" }")
            .set("actors.optimizer.batch_samples=4")
            .set("actors.optimizer.max_wait_secs=1")
            .set("actors.optimizer.max_staleness=1000000")
            .set("breaker.max_drift=1000.0")
    };
    let mut node = launch().start();
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let steps = || {
        let steps = Ledger::open(&run).episode_steps();
        steps.values().map(|steps| steps.len() as u64).sum::<u64>()
    };
    for kill in 0..kills {
        let enough = steps() + dice.between(1, 12) as u64;
        eventually("further steps", || steps() >= enough);
        let pid = node.pid();
        match dice.pick(&["node", "agent.0", "judge.0", "sandbox"]) {
            "node" => {
                node.kill();
                eventually("its sandboxes go with it", || sandboxes_of(pid).is_empty());
                node = launch().start();
                eventually("the next one clears away", || left_of(pid) == 0);
            }
            "sandbox" => {
                let pids: Vec<String> = sandboxes_of(pid).iter().map(u32::to_string).collect();
                // Some of them end meanwhile.
                let _ = Command::new("kill").arg("-9").args(&pids).output();
            }
            actor => order(&run, &["kill", actor]),
        }
        let now = Ledger::open(&run).episode_steps();
        for (episode, before) in &seen {
            let after = now.get(episode).map_or(&[][..], Vec::as_slice);
            // Those of an abandoned one are dropped, and said to be.
            assert!(
                after.starts_with(before) || after.is_empty(),
                "seed {seed}, kill {kill}: {episode} had {before:?} and has {after:?}"
            );
        }
        seen = now;
    }
    let ended = || Ledger::open(&run).episodes().get("ended").copied().unwrap_or(0);
    let enough = ended() + 8;
    eventually("episodes end after all of it", || ended() >= enough);
    eventually("steps are learnt from", || Ledger::open(&run).steps().len() >= 8);
    let pid = node.pid();
    node.stop();
    eventually("nothing is left", || left_of(pid) == 0);
    let ledger = Ledger::open(&run);
    for (episode, steps) in ledger.episode_steps() {
        assert_eq!(steps, (0..steps.len() as u64).collect::<Vec<_>>(), "seed {seed}: {episode}");
    }
    ledger.assert_trained_once();
    eprintln!("{kills} kills, seed {seed}: {:?}, turns {:?}", ledger.episodes(), ledger.states());
}
