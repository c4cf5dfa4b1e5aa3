//! A turn keeps what is new in it, and no turn loses its words.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// So many words of a small language.
fn words(rng: &mut StdRng, count: usize) -> String {
    let word = |rng: &mut StdRng| {
        let word: u32 = rng.random_range(0..2000);
        format!("{}{}", ["ka", "lo", "mi", "ten", "ur"][word as usize % 5], word / 5)
    };
    (0..count).map(|_| word(rng)).collect::<Vec<_>>().join(" ")
}

/// A session of an agent: a system prompt, tools, and turns that carry all that was said before.
struct Talk {
    rng: StdRng,
    messages: Vec<serde_json::Value>,
    tools: Arc<Vec<serde_json::Value>>,
    prompt_ids: Vec<u32>,
    chain: Vec<u64>,
    turns: u32,
    /// Bytes that were new so far: of text, ids, log-probs and names.
    new_bytes: usize,
}

impl Talk {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let tool = |n: usize| {
            let description = words(&mut rng, 60);
            json!({"type": "function", "function": {"name": format!("tool-{n}"), "description": description}})
        };
        let tools = Arc::new((0..8).map(tool).collect::<Vec<_>>());
        let new_bytes = json!(*tools).to_string().len();
        let mut talk = Self {
            rng,
            messages: Vec::new(),
            tools,
            prompt_ids: Vec::new(),
            chain: Vec::new(),
            turns: 0,
            new_bytes,
        };
        talk.say("system", 900);
        talk
    }

    fn ids(&mut self, count: usize) -> Vec<u32> {
        self.new_bytes += 4 * count;
        (0..count).map(|_| self.rng.random_range(0..150_000)).collect()
    }

    fn say(&mut self, role: &str, count: usize) {
        let text = words(&mut self.rng, count);
        let message = json!({"role": role, "content": text});
        self.new_bytes += message.to_string().len() + 8;
        self.messages.push(message);
        let ids = self.ids(count * 3 / 2);
        self.prompt_ids.extend(ids);
        self.chain.push(self.rng.random());
    }

    fn turn(&mut self, session: &str) -> Record {
        self.say("user", 60);
        self.turns += 1;
        let name = format!("{session}-{}", self.turns);
        let text = words(&mut self.rng, 100);
        let response_ids = self.ids(150);
        let rollout_logprobs: Vec<f32> = (0..150).map(|_| -self.rng.random::<f32>()).collect();
        self.new_bytes += 4 * rollout_logprobs.len() + text.len();
        let turn = Turn {
            id: id(&name),
            session: SessionId(session.into()),
            index: self.turns,
            messages: Arc::new(self.messages.clone()),
            tools: self.tools.clone(),
            completion: Completion {
                prompt_ids: self.prompt_ids.clone(),
                policy_logprobs: Some(rollout_logprobs.clone()),
                rollout_logprobs,
                response_ids: response_ids.clone(),
                text: text.clone(),
                split: Default::default(),
                ..turn("t").completion
            },
            ..turn("t")
        };
        self.messages.push(json!({"role": "assistant", "content": text}));
        self.prompt_ids.extend(response_ids);
        let chain = self.chain.as_slice().into();
        Record::TurnCompleted { turn: Arc::new(turn), mark: TurnMark { chain, ..mark(9) } }
    }
}

fn spoken(record: &Record) -> &Arc<Turn> {
    match record {
        Record::TurnCompleted { turn, .. } => turn,
        _ => panic!("no turn"),
    }
}

async fn assert_kept(journal: &Journal, record: &Record) {
    let before = spoken(record);
    let row = journal.turn(&before.id).await.expect("it can be read").expect("it is kept");
    assert_eq!((&row.turn.messages, &row.turn.tools), (&before.messages, &before.tools), "{}", before.id);
    assert_eq!(row.turn.completion, before.completion, "{}", before.id);
}

impl Journal {
    fn number(&self, sql: &str) -> u64 {
        let connection = self.shared.parts.store.writing();
        connection.query_row(sql, [], |row| row.get(0)).expect("a number")
    }

    /// Bytes of all that is kept of turns.
    fn kept_bytes(&self) -> u64 {
        self.number("SELECT (SELECT sum(bytes) FROM bodies) + (SELECT sum(bytes) FROM contents)")
    }
}

#[tokio::test]
async fn a_session_of_40_turns_takes_what_is_new_in_it_and_is_read_back_bit_for_bit() {
    let journal = Journal::in_memory();
    let mut talk = Talk::new(1);
    let mut records = Vec::new();
    let mut whole_bytes = 0;
    for _ in 0..40 {
        let record = talk.turn("s");
        journal.done(record.clone()).await;
        whole_bytes += crate::codec::encode_content(spoken(&record), &mark(9)).expect("written").len();
        records.push(record);
    }
    for record in &records {
        assert_kept(&journal, record).await;
    }
    let kept = journal.kept_bytes() as usize;
    assert!(
        kept < whole_bytes / 20 && kept < talk.new_bytes,
        "{kept} bytes for {} new ones, {whole_bytes} whole",
        talk.new_bytes
    );
    // The names of a request's prefixes, too.
    let open = journal.open_turns(SystemTime::now()).await.expect("read");
    assert_eq!((open.len(), open[39].mark.chain.len()), (40, talk.chain.len()));
    assert_eq!(*open[39].mark.chain, *talk.chain);
}

#[tokio::test]
async fn reading_a_turn_costs_no_more_the_longer_its_session_is() {
    let journal = Journal::in_memory();
    let mut talk = Talk::new(8);
    let mut last = None;
    for n in 0..110 {
        if n == 100 {
            // From here on, bytes count and not turns.
            talk.prompt_ids.extend(files::scattered(9, 200_000));
        }
        let record = talk.turn("s");
        journal.done(record.clone()).await;
        last = Some(record);
    }
    assert_kept(&journal, &last.expect("a turn")).await;
    assert_eq!(journal.number("SELECT max(depth) FROM contents"), 63);
    assert!(journal.number("SELECT max(reach) FROM contents") <= 8 << 20);
    let whole = journal.number("SELECT count(*) FROM contents WHERE base IS NULL");
    assert!((3..10).contains(&whole), "{whole} are whole");
}

#[tokio::test]
async fn side_turns_and_branches_find_the_turn_that_they_are_like() {
    let journal = Journal::in_memory();
    let (mut talk, mut side) = (Talk::new(1), Talk::new(2));
    let mut records = Vec::new();
    for n in 0..8 {
        records.push(talk.turn("s"));
        if n % 2 == 1 {
            // Of the same session: its name is all that it shares.
            let record = side.turn("s");
            let Record::TurnCompleted { turn, mark } = record else { unreachable!("it is a turn") };
            let turn = Turn { id: id(&format!("side-{n}")), kind: TurnKind::Side, ..(*turn).clone() };
            records.push(Record::TurnCompleted { turn: Arc::new(turn), mark });
        }
    }
    for record in &records {
        journal.done(record.clone()).await;
    }
    for record in &records {
        assert_kept(&journal, record).await;
    }
    let kept = journal.kept_bytes() as usize;
    assert!(kept < talk.new_bytes + side.new_bytes, "{kept}");
}

/// Whether turns leave or are killed under way, what is left is read as it was written.
#[tokio::test]
async fn no_turn_loses_its_words_to_one_that_leaves() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut talk = Talk::new(3);
    let mut run = Run::start(config(dir.path())).await;
    let mut records = Vec::new();
    for n in 0..12 {
        let record = talk.turn("s");
        run.journal.done(record.clone()).await;
        records.push(record);
        if n == 5 {
            run.kill();
            run = Run::start(config(dir.path())).await;
        }
    }
    let store = &run.journal.shared.parts.store;
    let retention = Retention { keep: Duration::ZERO, ..Retention::default() };
    let prune = || crate::retention::prune(store, &retention, SystemTime::now()).expect("it prunes").turns;
    let mut rng = StdRng::seed_from_u64(4);
    while !records.is_empty() {
        let left = records.remove(rng.random_range(0..records.len()));
        run.journal.done(dropped(&spoken(&left).id.0)).await;
        assert_eq!(prune(), 1);
        for record in &records {
            assert_kept(&run.journal, record).await;
        }
    }
    assert_eq!(
        run.journal.number("SELECT count(*) FROM contents"),
        0,
        "with the last turn goes the last word"
    );
    let problems = run.journal.number("SELECT count(*) FROM pragma_foreign_key_check");
    assert_eq!(problems, 0);
}

#[tokio::test]
async fn files_of_contents_stay_while_a_turn_needs_them() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let run = Run::start(config(dir.path())).await;
    let mut talk = Talk::new(5);
    let large = files::scattered(0, 100_000);
    talk.prompt_ids.extend(&large);
    let records = [talk.turn("s"), talk.turn("s")];
    for record in &records {
        run.journal.done(record.clone()).await;
    }
    let files = || files::blobs(dir.path()).len();
    assert_eq!(files(), 1, "the second holds only what is new");
    let bytes = run.journal.number("SELECT sum(bytes) FROM files");
    assert!(bytes > 300_000, "{bytes}");
    let retention = Retention { keep: Duration::ZERO, ..Retention::default() };
    let store = &run.journal.shared.parts.store;
    let prune = || crate::retention::prune(store, &retention, SystemTime::now()).expect("it prunes");
    run.journal.done(dropped("s-1")).await;
    assert_eq!((prune().turns, files()), (1, 1));
    assert_kept(&run.journal, &records[1]).await;
    run.journal.done(dropped("s-2")).await;
    assert_eq!((prune().turns, files()), (1, 0));
    run.stop().await;
}

#[tokio::test]
async fn a_content_that_is_torn_stands_in_nobody_elses_way() {
    let journal = Journal::in_memory();
    let (mut torn, mut whole) = (Talk::new(6), Talk::new(7));
    for record in [torn.turn("torn"), torn.turn("torn"), whole.turn("whole")] {
        let name = spoken(&record).id.clone();
        journal.done(record).await;
        journal.done(followed(&name.0)).await;
    }
    let tear = "UPDATE contents SET body = zeroblob(9) WHERE no = 1";
    journal.shared.parts.store.writing().execute(tear, []).expect("torn");
    let work = journal.evaluations(0, 10).await.expect("read");
    assert_eq!(work.iter().map(|(_, work)| &*work.turn.id.0).collect::<Vec<_>>(), ["whole-1"]);
    journal.backlog().wait_for(|backlog| backlog.dead == 2).await.expect("the journal lives");
    // What comes next in that session is kept whole.
    let next = torn.turn("torn");
    journal.done(next.clone()).await;
    assert_kept(&journal, &next).await;
}
