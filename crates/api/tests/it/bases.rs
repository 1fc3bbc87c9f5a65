//! Images that were built here as bases of other builds.

use serde_json::{Value, json};

use crate::support::{Client, World, id};

/// Builds on a tag and returns the log.
async fn log_on_tag(client: &Client, more: &Value) -> String {
    let mut ask = json!({"dockerfile": "FROM rev/base:1\nRUN cat /who\n", "no_cache": true});
    ask.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let build = client.submit(&ask).await;
    let ended = client.wait(&build).await;
    let log = client.get(&format!("/api/v1/builds/{build}/logs?format=text")).await.is(200).text();
    format!("{}\n{log}\n{}", ended["state"].as_str().unwrap(), ended["failure"])
}

async fn tag(client: &Client, who: &str) -> Value {
    let text = format!("FROM base\nRUN echo {who} > /who\n");
    client.built(&json!({"dockerfile": text, "tags": ["rev/base:1"]})).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_is_a_base_of_its_tenant_only() {
    let world = World::new().await;
    let (one, two) = (world.tenant("one", "owner").await, world.tenant("two", "owner").await);
    tag(&one, "the-image-of-one").await;
    let log = log_on_tag(&one, &json!({})).await;
    assert!(log.starts_with("succeeded") && log.contains("the-image-of-one"), "{log}");
    // A name with another word for the same, in a stage and as a base of steps.
    let text = "FROM docker.io/rev/base:1 AS a\nFROM rev/base:1\nCOPY --from=a /who /again\n";
    one.built(&json!({"dockerfile": text})).await;
    let steps = json!([{"action": "run", "command": "cat /who"}]);
    one.built(&json!({"base": "rev/base:1", "steps": steps})).await;

    let log = log_on_tag(&two, &json!({})).await;
    assert!(log.starts_with("failed") && !log.contains("the-image-of-one"), "{log}");
    tag(&two, "the-image-of-two").await;
    let log = log_on_tag(&two, &json!({})).await;
    assert!(log.starts_with("succeeded") && log.contains("the-image-of-two"), "{log}");
    let log = log_on_tag(&one, &json!({"pull": true})).await;
    assert!(log.starts_with("failed"), "a registry is asked: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tag_whose_image_is_gone_is_no_name_of_somebody_elses() {
    let world = World::new().await;
    let client = &world.admin;
    let build = tag(client, "me").await;
    client.delete(&format!("/api/v1/builds/{}/artifacts/image", id(&build))).await.is(200);
    let log = log_on_tag(client, &json!({})).await;
    assert!(log.starts_with("failed") && log.contains("your tag 'rev/base:1' leads"), "{log}");
    client.delete("/api/v1/tags/rev%2Fbase:1").await.is(204);
    let log = log_on_tag(client, &json!({})).await;
    assert!(log.starts_with("failed") && !log.contains("your tag"), "a registry is asked: {log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_has_the_base_that_the_build_had() {
    let world = World::new().await;
    let client = &world.admin;
    tag(client, "the-first").await;
    let ask = json!({"dockerfile": "FROM rev/base:1\nRUN cat /who\n", "no_cache": true});
    let build = id(&client.built(&ask).await).to_owned();
    tag(client, "the-second").await;
    for (newest, who) in [(false, "the-first"), (true, "the-second")] {
        let how = json!({"newest": newest, "no_cache": true});
        let again = client.post(&format!("/api/v1/builds/{build}/retry"), &how).await.is(201);
        let again = id(&again.json()).to_owned();
        assert_eq!(client.wait(&again).await["state"], "succeeded");
        let log = client.get(&format!("/api/v1/builds/{again}/logs?format=text")).await.text();
        assert!(log.contains(who), "{newest}: {log}");
    }
}
