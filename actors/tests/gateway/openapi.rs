//! `/openapi.json` says what is so: every answer is one that it describes, and every field that it names is read.

use boon::{Compiler, SchemaIndex, Schemas};
use serde_json::{Map, Value, json};

use crate::house::{House, ask, user, with};

const ROOT: &str = "http://openapi.example/openapi.json";

struct Document {
    value: Value,
    schemas: Schemas,
    compiler: Compiler,
}

impl Document {
    async fn of(house: &House) -> Self {
        let response = house.client.get(house.url("/openapi.json")).send().await.expect("an answer");
        let value: Value = response.json().await.expect("JSON");
        let mut compiler = Compiler::new();
        compiler.add_resource(ROOT, value.clone()).expect("a document");
        Self { value, schemas: Schemas::new(), compiler }
    }

    fn schema(&mut self, pointer: &str) -> SchemaIndex {
        let place = format!("{ROOT}#{pointer}");
        self.compiler.compile(&place, &mut self.schemas).unwrap_or_else(|error| panic!("{place}: {error}"))
    }

    /// An answer is as it is described for its status.
    fn check(&mut self, path: &str, method: &str, status: u16, body: &Value) {
        let described = &self.value["paths"][path][method]["responses"];
        let range = format!("{}XX", status / 100);
        let answer = described.get(status.to_string()).or_else(|| described.get(&range));
        let answer =
            answer.unwrap_or_else(|| panic!("{method} {path} answered {status}, which is not described"));
        let answer = match answer["$ref"].as_str() {
            Some(place) => self.value.pointer(place.trim_start_matches('#')).expect("it is there"),
            None => answer,
        };
        let schema = answer["content"]["application/json"]["schema"].clone();
        let place = schema["$ref"].as_str().map(|place| place.trim_start_matches('#').to_owned());
        let Some(place) = place else { return };
        let schema = self.schema(&place);
        if let Err(error) = self.schemas.validate(body, schema) {
            panic!("{method} {path} {status}: {error}\n{body}");
        }
    }

    fn request(&self, path: &str) -> Option<&Map<String, Value>> {
        let schema =
            self.value["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]["$ref"]
                .as_str()?;
        self.value.pointer(schema.strip_prefix('#')?)?.get("properties")?.as_object()
    }
}

fn fine(path: &str, ids: &[u32]) -> Value {
    match path {
        "/v1/chat/completions" => ask("hi"),
        "/v1/responses" => json!({"input": "hi"}),
        "/v1/messages" => json!({"max_tokens": 9, "messages": [user("hi")]}),
        "/v1/messages/count_tokens" => json!({"messages": [user("hi")]}),
        "/v1/completions" | "/v1/tokenize" => json!({"prompt": "hi"}),
        "/v1/detokenize" => json!({"tokens": ids}),
        "/inference/v1/generate" => json!({"token_ids": ids}),
        "/v1/feedback" => json!({"id": "nobody", "rating": 1}),
        "/v1/sessions/end" => json!({"session_id": "s"}),
        "/v1/episodes/begin" => json!({"session_id": "s", "task": "t"}),
        "/v1/episodes/end" => json!({"session_id": "s", "reward": 1}),
        other => panic!("{other} has no example"),
    }
}

#[tokio::test]
async fn every_answer_is_described() {
    let house = House::new().await;
    let mut document = Document::of(&house).await;
    let ids = house.tokenizer.encode("hi").expect("it encodes");
    let paths = document.value["paths"].as_object().expect("an object").clone();
    let response = house.post("/v1/responses", &fine("/v1/responses", &ids)).await;
    let stored: Value = response.json().await.expect("JSON");
    for (path, methods) in &paths {
        for method in methods.as_object().expect("an object").keys() {
            let id = if path.contains("models") { json!("policy") } else { stored["id"].clone() };
            let real = path.replace("{id}", id.as_str().expect("a name"));
            let url = house.url(&real);
            let request = match method.as_str() {
                "get" => house.client.get(url),
                _ => house.client.post(url).json(&fine(path, &ids)),
            };
            let response = request.send().await.expect("an answer");
            let status = response.status().as_u16();
            assert!(status == 200 || path == "/v1/feedback" && status == 404, "{path} {status}");
            document.check(path, method, status, &response.json().await.expect("JSON"));
            // In another way than that.
            let wrong = house.client.delete(house.url(&real)).send().await.expect("an answer");
            document.check(path, method, 405, &wrong.json().await.expect("JSON"));
            if method == "post" && path != "/v1/sessions/end" {
                let broken = house.client.post(house.url(&real)).header("content-type", "application/json");
                let broken = broken.body("{").send().await.expect("an answer");
                assert_eq!(broken.status(), 400, "{path}");
                document.check(path, method, 400, &broken.json().await.expect("JSON"));
            }
        }
    }
}

#[tokio::test]
async fn every_field_that_has_a_type_is_read() {
    let house = House::new().await;
    let document = Document::of(&house).await;
    let ids = house.tokenizer.encode("hi").expect("it encodes");
    let mut fields = 0;
    for path in document.value["paths"].as_object().expect("an object").keys() {
        let Some(properties) = document.request(path).filter(|_| path != "/v1/sessions/end") else {
            continue;
        };
        for (name, schema) in properties {
            let typed = ["type", "anyOf", "enum"].iter().any(|key| schema.get(key).is_some());
            if !typed || (path.as_str(), name.as_str()) == ("/v1/tokenize", "messages") {
                continue;
            }
            fields += 1;
            // No field may be an array of objects with a number each, nor a string that says so.
            let body = with(fine(path, &ids), name, json!([{"wrong": 1}]));
            let response = house.post(path, &body).await;
            let status = response.status();
            let error: Value = response.json().await.expect("JSON");
            assert_eq!(status, 400, "{path} takes {name} for what it is not: {error}");
            if !path.starts_with("/v1/messages") {
                let param = error["error"]["param"].as_str().unwrap_or_default();
                assert!(param.starts_with(name.as_str()), "{path} {name}: {error}");
            }
        }
    }
    assert!(fields > 80, "{fields}");
}
