//! Episodes on the page.

use openclaw_actors::pictures::Pictures;
use openclaw_journal::{Episode, EpisodeId, Group, Outcome};

use sha2::{Digest, Sha256};

use super::*;

impl House {
    async fn began(&self, id: &str, session: &str, group: Option<Group>) {
        let episode = Episode {
            id: EpisodeId(id.into()),
            session: SessionId(session.into()),
            environment: "tools".into(),
            task: SECRET.into(),
            seed: Some(7),
            group,
            judged: true,
        };
        self.record(Record::EpisodeBegan { episode }).await;
    }

    async fn came_out(&self, id: &str, reward: f32) {
        let numbers = [("tests".to_owned(), 3.0)].into();
        let outcome = Outcome { reward, success: Some(reward > 0.0), numbers };
        self.record(Record::EpisodeEnded { episode: EpisodeId(id.into()), outcome }).await;
    }
}

#[tokio::test]
async fn an_episode_is_told_step_by_step_with_its_verdicts_and_its_outcome() {
    let house = House::open().await;
    house.began("e", "own:e", Some(Group { name: "g".into(), of: 2 })).await;
    let ruled = house.answered("own:e", 1).await;
    let next_state = NextState {
        kind: NextStateKind::Tool,
        text: format!("4, {SECRET}"),
        rating: Some(-1),
        is_error: true,
        by_rule: Some("not the sum that was asked".to_owned()),
        screen: None,
    };
    house.record(Record::NextStateSeen { turn: ruled, next_state, provisional: false }).await;
    house.judged("own:e", 2, 1).await;
    let mut later = house.turn("own:e", 3);
    later.completion.policy_version = 4;
    house.record(Record::TurnCompleted { turn: Arc::new(later), mark: TurnMark::default() }).await;
    let open = house.seen("/page/episodes").await;
    assert_eq!(
        (&open["episodes"][0]["state"], &open["episodes"][0]["reward"]),
        (&json!("open"), &Value::Null)
    );
    house.came_out("e", -0.5).await;

    let shown = house.seen("/page/episode?id=e&limit=2").await;
    let episode = &shown["episode"];
    assert_eq!(episode["task"]["text"], SECRET);
    assert_eq!((&episode["state"], &episode["reward"]), (&json!("ended"), &json!(-0.5)));
    assert_eq!((&episode["success"], &episode["version"]), (&json!(false), &json!(0)));
    assert_eq!(episode["numbers"], json!([["tests", 3.0]]));
    assert_eq!(episode["group"], json!({"name": {"text": "g", "chars": 1}, "of": 2}));
    let steps = shown["steps"].as_array().expect("a list");
    assert_eq!((steps.len(), &shown["next"]), (2, &json!(2)));
    let first = &steps[0]["shown"];
    assert_eq!((&steps[0]["number"], &first["reply"]["words"]["text"]), (&json!(1), &json!(REPLY)));
    assert_eq!(first["next_state"]["by_rule"]["text"], "not the sum that was asked");
    assert_eq!(
        (&first["next_state"]["rating"], &first["next_state"]["is_error"]),
        (&json!(-1), &json!(true))
    );
    assert_eq!((&steps[1]["score"], &steps[1]["shown"]["verdict"]["reward"]), (&json!(1.0), &json!(1)));
    assert_eq!(steps[1]["shown"]["tokens"]["text"], json!([]));
    let rest = house.seen("/page/episode?id=e&after=2").await;
    assert_eq!((&rest["steps"][0]["number"], &rest["next"]), (&json!(3), &Value::Null));

    let session = house.seen("/page/session?id=own:e").await;
    assert_eq!(session["episode"]["episode"], "e");
    house.answered("s", 1).await;
    assert_eq!(house.seen("/page/session?id=s").await["episode"], Value::Null);
    assert_eq!(house.look("/page/episode?id=nobody").await.0, 404);
    assert_eq!(house.look("/page/episode").await.0, 400);
}

#[tokio::test]
async fn a_film_is_what_the_screen_showed_step_by_step() {
    let house = House::open().await;
    house.began("a:1/2", "own:f", None).await;
    house.began("f", "own:f2", None).await;
    house.began("outside", "someone", None).await;
    let png = [b"\x89PNG\r\n\x1a\n".as_slice(), SECRET.as_bytes()].concat();
    let name: String = Sha256::digest(&png).iter().map(|byte| format!("{byte:02x}")).collect();
    Pictures::new(house.dir.path().join("images"), 1 << 20).keep(&name, &png).expect("kept");
    for episode in ["f", "outside"] {
        let folder = house.dir.path().join("episodes").join(episode);
        std::fs::create_dir_all(&folder).expect("made");
        let first = json!({"step": 0, "image": name, "width": 4, "height": 3, "point": null, "rule": null});
        let rule = json!({"score": -1, "reason": SECRET});
        let then =
            json!({"step": 1, "image": "gone", "width": 4, "height": 3, "point": [0.5, 1.0], "rule": rule});
        std::fs::write(folder.join("film.jsonl"), format!("{first}\n{then}\n{{\"step\": 2, \"im"))
            .expect("written");
    }
    let film = house.seen("/page/film?id=f").await;
    let frames = film["frames"].as_array().expect("a list");
    assert_eq!(frames.len(), 2, "the line that was cut off is none");
    assert_eq!((&frames[0]["step"], &frames[0]["point"]), (&json!(0), &Value::Null));
    assert_eq!((&frames[1]["point"], &frames[1]["score"]), (&json!([0.5, 1.0]), &json!(-1)));
    assert_eq!(frames[1]["reason"]["text"], SECRET);
    // A name of somebody else's may be a path.
    for id in ["outside", "a:1/2"] {
        assert_eq!(house.seen(&format!("/page/film?id={id}")).await, json!({"frames": []}), "{id}");
    }
    assert_eq!(house.look("/page/film?id=nobody").await.0, 404);

    let path = house.url(&format!("/page/image?sha256={name}"));
    assert_eq!(house.http.get(&path).send().await.expect("it answers").status(), 401, "it takes the token");
    let image = house.http.get(&path).bearer_auth(house.token()).send().await.expect("it answers");
    assert_eq!(
        (image.status().as_u16(), &image.headers()["content-type"]),
        (200, &"image/png".parse().unwrap())
    );
    assert_eq!(image.bytes().await.expect("bytes"), png);
    for other in ["gone", "../token", "..%2Ftoken"] {
        assert_eq!(house.look(&format!("/page/image?sha256={other}")).await.0, 404, "{other}");
    }
}

#[tokio::test]
async fn what_a_held_out_step_saw_is_what_the_next_one_was_told() {
    let house = House::open().await;
    house.began("h", "own:h", None).await;
    for index in 1..3 {
        let mut turn = house.turn("own:h", index);
        turn.trainable = false;
        house.record(Record::TurnCompleted { turn: Arc::new(turn), mark: TurnMark::default() }).await;
    }
    let shown = house.seen("/page/episode?id=h").await;
    assert_eq!(shown["steps"][0]["told"][0]["text"]["text"], SECRET);
    assert_eq!(shown["steps"][1]["told"], json!([]));
    let words = "not trained on: a step of a held-out task";
    assert_eq!(shown["steps"][0]["shown"]["fate"]["words"], words);
    for number in 0..3 {
        house.began(&format!("more-{number}"), &format!("own:more-{number}"), None).await;
    }
    house
        .record(Record::EpisodeAbandoned { episode: EpisodeId("more-2".into()), reason: SECRET.to_owned() })
        .await;
    let first = house.seen("/page/episodes?limit=3").await;
    let of = |page: &Value, at: usize| page["episodes"][at]["episode"].clone();
    assert_eq!((of(&first, 0), of(&first, 2)), (json!("more-2"), json!("more-0")));
    assert_eq!(first["episodes"][0]["reason"]["text"], SECRET);
    let rest = house.seen(&format!("/page/episodes?before={}", first["next"])).await;
    assert_eq!((of(&rest, 0), &rest["next"]), (json!("h"), &Value::Null));
}

#[tokio::test]
async fn an_outcome_is_seen_by_whoever_looks_again() {
    let house = House::open().await;
    house.began("e", "own:e", None).await;
    let look = async |mark: &str| {
        let request = house.http.get(house.url("/page/episodes")).bearer_auth(house.token());
        let response = request.header("if-none-match", mark).send().await.expect("it answers");
        let mark = response.headers().get("etag").map(|mark| mark.to_str().unwrap().to_owned());
        (response.status().as_u16(), mark.unwrap_or_default())
    };
    let (_, mark) = look("").await;
    assert_eq!(look(&mark).await.0, 304);
    house.came_out("e", 1.0).await;
    assert_eq!(look(&mark).await.0, 200);
}
