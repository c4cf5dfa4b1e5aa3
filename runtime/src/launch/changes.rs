//! What differs between a topology and the one that its run was last launched with.

use std::{collections::BTreeSet, fs};

use toml::{Table, Value};

use crate::topology::{RESOLVED_FILE, Topology};

/// Keys whose change says nothing of how the run learns: where it listens, and how many threads it has.
const ELSEWHERE: [&str; 2] = ["nodes.", "actors.gateway.listen"];

/// Each key that differs, with what it was and what it is; nothing for a run that begins.
pub fn since_the_last_launch(topology: &Topology) -> Vec<String> {
    let kept = fs::read_to_string(topology.run.dir.join(RESOLVED_FILE)).ok();
    let kept = kept.and_then(|text| text.parse::<Table>().ok());
    let now = topology.to_toml().parse::<Table>().expect("a resolved topology reads back");
    let mut told = Vec::new();
    if let Some(kept) = kept {
        tables("", &kept, &now, &mut told);
    }
    told
}

fn tables(key: &str, before: &Table, now: &Table, told: &mut Vec<String>) {
    let names: BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    for name in names {
        let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
        values(&key, before.get(name), now.get(name), told);
    }
}

fn values(key: &str, before: Option<&Value>, now: Option<&Value>, told: &mut Vec<String>) {
    if before == now || ELSEWHERE.iter().any(|other| key.starts_with(other)) {
        return;
    }
    match (before, now) {
        (Some(Value::Table(before)), Some(Value::Table(now))) => tables(key, before, now, told),
        // Groups of simulated users: one by one.
        (Some(Value::Array(before)), Some(Value::Array(now)))
            if before.iter().chain(now).any(Value::is_table) =>
        {
            for i in 0..before.len().max(now.len()) {
                values(&format!("{key}[{i}]"), before.get(i), now.get(i), told);
            }
        }
        (before, now) => told.push(format!("{key} was {}, is {}", short(before), short(now))),
    }
}

fn short(value: Option<&Value>) -> String {
    match value {
        None => "not set".to_owned(),
        Some(Value::Table(_)) => "set".to_owned(),
        Some(Value::Array(array)) if array.is_empty() => "empty".to_owned(),
        Some(value) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn shipped(sets: &[&str], dir: &Path) -> Topology {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/quickstart.toml");
        let dir = format!("run.dir={}", dir.display());
        let sets = [dir.as_str()].into_iter().chain(sets.iter().copied());
        Topology::load(&file, &sets.map(|set| set.parse().unwrap()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn keys_that_differ_are_told_with_both_values_and_ports_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let first = shipped(&[], dir.path());
        assert!(since_the_last_launch(&first).is_empty(), "a run that begins");
        first.write_resolved().unwrap();
        assert!(since_the_last_launch(&first).is_empty());
        let sets = ["optimizer.learning_rate=1e-4", "actors.rollout=[]", "nodes.local.admin=127.0.0.1:0"];
        let told = since_the_last_launch(&shipped(&sets, dir.path()));
        assert!(told.contains(&"optimizer.learning_rate was 0.0002, is 0.0001".to_owned()), "{told:?}");
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0], "actors.rollout[0] was set, is not set");
    }
}
