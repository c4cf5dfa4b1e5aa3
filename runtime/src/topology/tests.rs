//! What a topology file may say, and what is said about it when it may not.

use std::path::Path;

use openclaw_actors::methods::{Bucket, MethodKind, Single};

use super::*;

/// The file of the design, with the optional keys it shows.
const WHOLE: &str = r#"
[run]
name = "personal-agent"
dir  = "runs/personal-agent"
seed = 17

[nodes.local]
metrics = "127.0.0.1:9300"
admin   = "127.0.0.1:7300"
device  = "auto"
serve_threads = 1
train_threads = 1

[models.policy]
path  = "configs/models/nano"
dtype = "f32"

[method]
kind       = "hybrid"
weight_rl  = 1.0
weight_opd = 1.0
clip_low   = 0.2
clip_high  = 0.28
kl         = { kind = "low_var", coef = 0.01 }
hints      = 3
top_k      = 4
diff_clip  = 1.0

[optimizer]
learning_rate = 1e-4
betas         = [0.9, 0.98]
weight_decay  = 0.1
grad_clip     = 1.0

[actors.gateway]
listen        = "127.0.0.1:30000"
served_model  = "policy"
api_key_env   = "OPENCLAW_TEST_KEY_THAT_NOBODY_SETS"
max_in_flight = 64

[actors.policy]
model = "policy"
replicas = 1
max_batch_tokens = 4096

[actors.judge]
model = "policy"
replicas = 1
votes = 3
temperature = 0.6
max_new_tokens = 64
deadline_secs = 30

[actors.teacher]
model = "policy"
replicas = 1

[actors.sessions]
idle_timeout_secs = 1800
default_turn_type = "auto"

[actors.optimizer]
batch_samples  = 16
max_staleness  = 4
max_wait_secs  = 120
checkpoint_every_steps = 1
keep_versions  = 20

[environments.users]
kind     = "persona"
personas = ["student", "ta", "teacher"]

[[actors.rollout]]
environment = "users"
workers     = 3
"#;

fn parse(text: &str, sets: &[&str]) -> Result<Topology, Vec<String>> {
    let overrides: Vec<Override> = sets.iter().map(|set| set.parse().expect("the test's override")).collect();
    Topology::parse(text, Path::new("t.toml"), &overrides).map_err(|error| told(&error))
}

fn told(error: &TopologyError) -> Vec<String> {
    error.to_string().lines().map(str::to_owned).collect()
}

/// What is said when this key of the whole file is set to this.
fn with(set: &str) -> Vec<String> {
    parse(WHOLE, &[set]).expect_err("the override is wrong")
}

#[test]
fn the_whole_file_is_read_and_its_resolved_copy_reads_back_to_the_same() {
    let topology = parse(WHOLE, &[]).unwrap();
    assert_eq!(topology.method.kind, MethodKind::Hybrid);
    assert_eq!(topology.actors.gateway.queue_depth, 256, "a default");
    let resolved = topology.to_toml();
    assert_eq!(parse(&resolved, &[]).unwrap(), topology, "{resolved}");
    assert!(resolved.contains("clip_high = 0.28\n"), "numbers are written as they were: {resolved}");
}

#[test]
fn every_method_reads_back_from_its_resolved_copy() {
    for kind in ["binary_rl", "opd", "combine", "hybrid", "topk_distill", "grpo", "step_wise"] {
        let topology = parse(WHOLE, &[&format!("method={{ kind = \"{kind}\" }}")]).unwrap();
        assert_eq!(parse(&topology.to_toml(), &[]).unwrap(), topology, "{kind}");
    }
}

#[test]
fn all_problems_are_told_at_once_each_with_its_key_and_line() {
    let text = WHOLE
        .replace("votes = 3", "voets = 3")
        .replace("seed = 17", "seed = \"seventeen\"")
        .replace("max_wait_secs  = 120", "")
        .replace("[actors.teacher]\nmodel = \"policy\"", "[actors.teacher]\nmodel = \"polcy\"")
        .replace("dtype = \"f32\"", "dtype = \"f33\"")
        .replace("metrics = \"127.0.0.1:9300\"", "metrics = \"127.0.0.1:30000\"");
    let line =
        |needle: &str| 1 + text.lines().position(|line| line.starts_with(needle)).expect("it is there");
    let expected = [
        format!(
            "t.toml:{}: run.seed: expected a whole number from 0, found the string \"seventeen\"",
            line("seed")
        ),
        format!(
            "t.toml:{}: nodes.local.metrics: 127.0.0.1:30000 is already taken by actors.gateway.listen",
            line("metrics")
        ),
        format!(
            "t.toml:{}: models.policy.dtype: \"f33\" is not one of f32, bf16 (did you mean \"f32\"?)",
            line("dtype")
        ),
        format!("t.toml:{}: actors.judge.voets: unknown key (did you mean \"votes\"?)", line("voets")),
        format!(
            "t.toml:{}: actors.teacher.model: no model named \"polcy\" under [models] (did you mean \"policy\"?)",
            line("model = \"polcy\"")
        ),
        format!("t.toml:{}: actors.optimizer.max_wait_secs: missing", line("[actors.optimizer]")),
    ];
    assert_eq!(parse(&text, &[]).unwrap_err(), expected);
}

#[test]
fn every_syntax_error_is_told_with_its_line() {
    let told = parse("[run]\nname = \nseed = 1\ndir = 'x\n", &[]).unwrap_err();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("t.toml:2: ") && told[1].starts_with("t.toml:4: "), "{told:?}");
}

#[test]
fn an_empty_file_is_told_its_sections_and_no_more() {
    let sections = ["run", "nodes", "models", "method", "optimizer", "actors"];
    assert_eq!(parse("", &[]).unwrap_err(), sections.map(|name| format!("t.toml: {name}: missing")));
}

/// Every key of a table and of those in it, arrays of tables included.
fn keys_of(value: &toml::Value, key: &str, found: &mut Vec<String>) {
    match value {
        toml::Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
                found.push(key.clone());
                keys_of(value, &key, found);
            }
        }
        toml::Value::Array(array) => {
            array.iter().enumerate().for_each(|(i, value)| keys_of(value, &format!("{key}[{i}]"), found));
        }
        _ => {}
    }
}

/// The whole file with every optional key written out, and the engine of a judge in place of its model.
fn resolved() -> [toml::Value; 2] {
    let engine = r#"actors.judge={ engine = { kind = "openai", url = "http://h/v1", model = "m" }, votes = 3,
        temperature = 0.6, max_new_tokens = 64, deadline_secs = 30 }"#;
    let sets: [&[&str]; 2] = [
        &[
            "actors.teacher.refresh_every=50",
            "actors.teacher.deadline_secs=45",
            "actors.gateway.listen=0.0.0.0:30000",
        ],
        &[engine, "actors.policy.max_new_tokens=2000"],
    ];
    sets.map(|sets| parse(WHOLE, sets).unwrap().to_toml().parse::<toml::Table>().unwrap().into())
}

/// Replaces what is at `key`: its name, or its value.
fn replaced(whole: &toml::Value, key: &str, change: impl Fn(&mut toml::Table, &str)) -> String {
    let mut whole = whole.clone();
    let (above, name) = key.rsplit_once('.').unwrap_or(("", key));
    let mut place = &mut whole;
    for step in above.split('.').filter(|step| !step.is_empty()) {
        place = match step.split_once('[') {
            Some((name, index)) => &mut place[name][index.trim_end_matches(']').parse::<usize>().unwrap()],
            None => &mut place[step],
        };
    }
    change(place.as_table_mut().unwrap(), name);
    toml::to_string(&whole).unwrap()
}

#[test]
fn a_misspelt_key_or_section_is_one_problem_and_nothing_follows_from_it() {
    // These are names that a user gives.
    let free = ["nodes.local", "models.policy", "environments.users"];
    for whole in resolved() {
        let mut keys = Vec::new();
        keys_of(&whole, "", &mut keys);
        assert!(keys.len() > 80, "{keys:?}");
        for key in keys.iter().filter(|key| !free.contains(&key.as_str())) {
            let text = replaced(&whole, key, |table, name| {
                let value = table.remove(name).unwrap();
                table.insert(format!("{name}z"), value);
            });
            let told = parse(&text, &[]).unwrap_err();
            let name = key.rsplit('.').next().unwrap();
            let expected = format!("{key}z: unknown key (did you mean \"{name}\"?)");
            assert!(told.len() == 1 && told[0].ends_with(&expected), "{key}: {told:#?}");
        }
    }
}

#[test]
fn a_value_of_another_kind_is_one_problem_and_nothing_follows_from_it() {
    for whole in resolved() {
        let mut keys = Vec::new();
        keys_of(&whole, "", &mut keys);
        for key in &keys {
            let time = toml::Value::Datetime("1979-05-27".parse().unwrap());
            let text = replaced(&whole, key, |table, name| drop(table.insert(name.to_owned(), time.clone())));
            let told = parse(&text, &[]).unwrap_err();
            let expected = format!("{key}: expected ");
            assert!(told.len() == 1 && told[0].contains(&expected), "{key}: {told:#?}");
        }
    }
}

#[test]
fn a_missing_section_is_one_problem() {
    for section in ["run", "nodes", "models", "method", "optimizer"] {
        let [whole, _] = resolved();
        let text = replaced(&whole, section, |table, name| drop(table.remove(name)));
        assert_eq!(parse(&text, &[]).unwrap_err(), [format!("t.toml: {section}: missing")]);
    }
}

#[test]
fn a_misspelt_key_beside_the_right_one_hides_nothing() {
    let told = parse(&WHOLE.replace("votes = 3", "votes = 0\nvoets = 3"), &[]).unwrap_err();
    assert_eq!(told.len(), 2, "{told:?}");
}

#[test]
fn a_key_that_is_there_twice_and_a_number_that_nothing_can_hold_are_named() {
    let twice = parse(&WHOLE.replace("votes = 3", "votes = 3\nvotes = 4"), &[]).unwrap_err();
    let line = 2 + WHOLE.lines().position(|line| line == "votes = 3").unwrap();
    assert_eq!(twice, [format!("t.toml:{line}: votes is there twice")]);
    let table = parse(&format!("{WHOLE}\n[actors.judge]\nvotes = 3\n"), &[]).unwrap_err();
    assert!(table[0].ends_with(": judge is there twice"), "{table:?}");

    let large = WHOLE
        .replace("seed = 17", "seed = 99999999999999999999")
        .replace("hints      = 3", "hints = 0x1_0000_0000_0000_0000");
    let told = parse(&large, &[]).unwrap_err();
    assert!(
        told[0].contains("run.seed: 99999999999999999999 is beyond what a number of TOML can be"),
        "{told:?}"
    );
    assert!(told.len() == 2 && told[1].contains(": method.hints: "), "{told:?}");
}

#[test]
fn impossible_values_are_refused_by_key() {
    let cases = [
        ("actors.judge.votes=0", "actors.judge.votes: 0 is not from 1 to 64"),
        ("actors.judge.votes=scores", "actors.judge.votes: expected a whole number, or \"score\""),
        ("actors.judge.score_margin=-1", "actors.judge.score_margin: -1 is not from 0 to 100"),
        ("actors.judge.temperature=0", "actors.judge.temperature: is 0: every vote would be the same"),
        ("actors.teacher.deadline_secs=0", "actors.teacher.deadline_secs: 0 is not from 1 to 604800"),
        (
            "actors.judge.replicas=1.5",
            "actors.judge.replicas: expected a whole number from 0, found the number 1.5",
        ),
        ("actors.judge.engine={}", "actors.judge.engine: stands beside a model: only one of them can judge"),
        (
            "actors.policy.temperature=nan",
            "actors.policy.temperature: expected a finite number, found the number NaN",
        ),
        (
            "actors.policy.replicas=-1",
            "actors.policy.replicas: expected a whole number from 0, found the number -1",
        ),
        ("optimizer.betas=[0.9, 1.0]", "optimizer.betas: 1 is not from 0 to below 1"),
        ("optimizer.betas=[0.9]", "optimizer.betas: expected two numbers, found an array"),
        (
            "method.kind=reinforce",
            "method.kind: \"reinforce\" is not one of binary_rl, opd, combine, hybrid, topk_distill, grpo, step_wise",
        ),
        ("method.kl.coef=-1", "method.kl.coef: -1 is not at least 0"),
        ("method.top_k=0", "method.top_k: 0 is not at least 1"),
        (
            "environments.users.personas=[\"ta\", \"ta\"]",
            "environments.users.personas: \"ta\" is there twice",
        ),
        (
            "actors.rollout[0].environment=user",
            "actors.rollout[0].environment: \"user\" is not under [environments] (did you mean \"users\"?)",
        ),
        ("nodes.local.admin=0.0.0.0:7300", "nodes.local.admin: 0.0.0.0:7300 is not a loopback address"),
        ("nodes.local.device=gpu", "nodes.local.device: \"gpu\" is not one of auto, cpu, cuda:0, cuda:1, .."),
        ("actors.gateway=7", "actors.gateway: expected a table, found the number 7"),
        ("run.seed.x=7", "run.seed.x: cannot be set: the integer there has no keys"),
    ];
    for (set, expected) in cases {
        let told = with(set);
        assert!(told.contains(&format!("--set: {expected}")), "{set}: {told:?}");
    }
}

#[test]
fn users_of_tasks_with_tools_are_refused() {
    let told = parse(WHOLE, &["environments.users={kind=\"calculator\"}"]).unwrap_err();
    let expected = "actors.rollout[0].environment: its tasks have tools, which users have not: act in it by [[actors.agent]]";
    assert!(told.len() == 1 && told[0].ends_with(expected), "{told:?}");
}

#[test]
fn an_option_of_another_method_is_refused() {
    let told = parse(WHOLE, &["method.kind=binary_rl"]).unwrap_err();
    assert!(told.contains(&"t.toml:26: method.top_k: binary_rl has no such option".to_owned()), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("clip_low")), "{told:?}");
}

#[test]
fn how_a_group_is_compared_is_read_and_told_apart_from_other_methods() {
    let set = "method={ kind = \"step_wise\", group = { bucket = \"state\", single = \"raw\", step_weight = 0.5 } }";
    let group = parse(WHOLE, &[set]).unwrap().method.group;
    assert_eq!((group.bucket, group.single, group.step_weight), (Bucket::State, Single::Raw, Some(0.5)));
    assert_eq!((group.normalize, group.outcome_weight), (true, 1.0));
    let told = |set: &str| parse(WHOLE, &[set]).unwrap_err();
    let misspelt = told("method={ kind = \"grpo\", group = { bukcet = \"state\" } }");
    assert!(misspelt[0].contains("method.group.bukcet: unknown key"), "{misspelt:?}");
    let other = told("method={ kind = \"opd\", group = { single = \"raw\" } }");
    assert!(other[0].contains("method.group: opd has no such option"), "{other:?}");
}

#[test]
fn a_method_with_hints_needs_a_teacher_and_binary_rl_does_not() {
    let text = WHOLE.replace("[actors.teacher]\nmodel = \"policy\"\nreplicas = 1\n", "");
    assert_eq!(
        parse(&text, &["method={ kind = \"opd\" }"]).unwrap_err(),
        ["t.toml:35: actors.teacher: missing: opd learns from a teacher"]
    );
    parse(&text, &["method={ kind = \"binary_rl\" }"]).unwrap();
}

#[test]
fn a_gateway_open_to_others_needs_a_key() {
    let open = "actors.gateway.listen=0.0.0.0:30000";
    parse(WHOLE, &[open]).unwrap();
    let without = WHOLE.replace("api_key_env   = \"OPENCLAW_TEST_KEY_THAT_NOBODY_SETS\"", "");
    let told = parse(&without, &[open]).unwrap_err();
    assert!(told[0].starts_with("--set: actors.gateway.listen: 0.0.0.0:30000 is open to others"), "{told:?}");
}

#[test]
fn a_judge_behind_an_address_is_read_and_a_password_in_it_refused() {
    let engine = |url: &str| {
        let text = WHOLE.replace("[actors.judge]\nmodel = \"policy\"", "[actors.judge]");
        let set = format!("actors.judge.engine={{ kind = \"openai\", url = \"{url}\", model = \"m\" }}");
        parse(&text, &[&set])
    };
    assert_eq!(engine("https://host/v1").unwrap().actors.judge.engine.unwrap().model, "m");
    assert!(engine("https://me:secret@host/v1").unwrap_err()[0].contains("holds a password"));
    assert!(engine("ftp://host").unwrap_err()[0].contains("not an http:// or https:// address"));
}

#[test]
fn a_launch_looks_for_the_files_and_variables_it_will_need() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("t.toml");
    let model = folder.path().join("model");
    let run = folder.path().join("run");
    std::fs::write(&file, WHOLE).unwrap();
    std::fs::create_dir(&model).unwrap();
    std::fs::write(model.join("config.json"), "{}").unwrap();
    std::fs::write(&run, "a file").unwrap();
    let set = |text: String| text.parse::<Override>().expect("the test's override");
    let overrides = [
        set(format!("models.policy.path={}", model.display())),
        set(format!("run.dir={}", run.display())),
        set("nodes.local.device=cuda:0".to_owned()),
    ];
    let told = told(&Topology::load_for_launch(&file, &overrides).unwrap_err()).join("\n");
    for expected in [
        "models.policy.path: ",
        "config.json: `model_type` is missing",
        "tokenizer.json: No such file",
        "has neither chat_template.jinja nor",
        "has neither model.safetensors nor",
        "actors.gateway.api_key_env: the environment variable OPENCLAW_TEST_KEY_THAT_NOBODY_SETS is not set",
        "run.dir: ",
        "nodes.local.device: ",
    ] {
        assert!(told.contains(expected), "{expected}: {told}");
    }
    Topology::load(&file, &overrides).expect("reading alone looks at nothing else");
}

#[test]
fn the_resolved_copy_names_the_variable_and_not_the_secret() {
    let folder = tempfile::tempdir().unwrap();
    let dir = format!("run.dir={}", folder.path().join("run").display());
    let topology = parse(WHOLE, &[&dir, "actors.gateway.api_key_env=PATH"]).unwrap();
    let written = std::fs::read_to_string(topology.write_resolved().unwrap()).unwrap();
    assert!(written.contains("api_key_env = \"PATH\""));
    assert!(!written.contains(&std::env::var("PATH").unwrap()));
    assert_eq!(parse(&written, &[]).unwrap(), topology);
}

#[test]
fn what_is_trained_of_a_model_is_a_word_or_a_table() {
    let parsed = |value: &str| {
        let set = format!("models.policy.adapter={value}");
        parse(WHOLE, &[&set]).map(|topology| topology.models["policy"].adapter.clone())
    };
    assert_eq!(parse(WHOLE, &[]).unwrap().models["policy"].adapter, Adapting::Auto);
    assert_eq!((parsed("auto"), parsed("none")), (Ok(Adapting::Auto), Ok(Adapting::No)));
    let adapter = parsed("{ rank = 4 }").unwrap().of(1).expect("an adapter");
    assert_eq!((adapter.rank, adapter.alpha, adapter.targets.len()), (4, 32.0, 7));
    let adapter = parsed("{ targets = [\"v_proj\", \"q_proj\"] }").unwrap();
    assert_eq!(adapter.of(1).map(|adapter| adapter.targets.len()), Some(2));
    let set = "models.policy.adapter={ targets = [\"v_proj\"], alpha = 8.0 }";
    let topology = parse(WHOLE, &[set]).unwrap();
    assert_eq!(parse(&topology.to_toml(), &[]).unwrap(), topology, "it is written as it is read");
    for (value, part) in [
        ("full", "models.policy.adapter: expected \"auto\", \"none\" or a table"),
        ("{ rank = 0 }", "models.policy.adapter.rank: 0 is not from 1 to 512"),
        ("{ alpha = -1.0 }", "models.policy.adapter.alpha: -1 is not above 0"),
        ("{ targets = [] }", "models.policy.adapter.targets: no matrix is named"),
        ("{ targets = [\"q_prj\"] }", "no matrix is named \"q_prj\" (did you mean \"q_proj\"?)"),
        ("{ rnk = 4 }", "models.policy.adapter.rnk: unknown key (did you mean \"rank\"?)"),
    ] {
        let told = parsed(value).unwrap_err();
        assert!(told[0].contains(part), "{value}: {told:#?}");
    }
    assert_eq!(Adapting::Auto.of(50_000_000), None);
    assert_eq!(Adapting::Auto.of(596_000_000).map(|adapter| adapter.rank), Some(16));
}
