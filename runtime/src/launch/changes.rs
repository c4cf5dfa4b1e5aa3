//! What differs between a topology and the one that its run was last launched with.

use std::{collections::BTreeMap, fs};

use toml::Value;

use crate::topology::Topology;

/// Keys whose change says nothing of how the run learns: where it listens, and how many threads it has.
const ELSEWHERE: [&str; 2] = ["nodes.", "actors.gateway.listen"];

/// Each key that differs, with what it was and what it is; nothing for a run that begins.
pub fn since_the_last_launch(topology: &Topology) -> Vec<String> {
    let kept = fs::read_to_string(topology.run.dir.join("topology.toml")).ok();
    let kept = kept.and_then(|text| text.parse::<toml::Table>().ok());
    let now = topology.to_toml().parse::<toml::Table>().expect("a resolved topology reads back");
    kept.map_or_else(Vec::new, |kept| differences(&kept.into(), &now.into()))
}

fn differences(before: &Value, now: &Value) -> Vec<String> {
    let (before, now) = (leaves(before), leaves(now));
    let keys: std::collections::BTreeSet<&String> = before.keys().chain(now.keys()).collect();
    let told = |value: Option<&String>| value.map_or_else(|| "not set".to_owned(), Clone::clone);
    let differs = keys.into_iter().filter(|key| before.get(*key) != now.get(*key));
    let learns = differs.filter(|key| !ELSEWHERE.iter().any(|other| key.starts_with(other)));
    learns.map(|key| format!("{key} was {}, is {}", told(before.get(key)), told(now.get(key)))).collect()
}

/// Every key that holds no table, with what it holds.
fn leaves(value: &Value) -> BTreeMap<String, String> {
    fn walk(value: &Value, key: &str, found: &mut BTreeMap<String, String>) {
        match value {
            Value::Table(table) => {
                for (name, value) in table {
                    let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                    walk(value, &key, found);
                }
            }
            Value::Array(array) if array.iter().any(Value::is_table) => {
                let items = array.iter().enumerate();
                items.for_each(|(i, value)| walk(value, &format!("{key}[{i}]"), found));
            }
            value => drop(found.insert(key.to_owned(), value.to_string())),
        }
    }
    let mut found = BTreeMap::new();
    walk(value, "", &mut found);
    found
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
        assert!(told.contains(&"optimizer.learning_rate was 0.0004, is 0.0001".to_owned()), "{told:?}");
        assert!(told.iter().any(|line| line.starts_with("actors.rollout[0].personas was ")), "{told:?}");
        assert!(!told.iter().any(|line| line.contains("nodes.local")), "{told:?}");
    }
}
