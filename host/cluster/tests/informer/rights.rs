//! What a subscription hears when rights come and go.

use anyhow::{Result, ensure};
use harness::Proxy;
use wasm_operator_cluster::client;
use wasm_operator_cluster::gateway::Caches as _;
use wasm_operator_cluster::informer::{ParkReason, Scope, SubscriptionState};
use wasm_operator_cluster::rights::Rights;
use wasm_operator_core::permission::Right;
use wasm_operator_core::request::Verb;

use crate::stage::{Heard, Recorder, Stage, host, quick};

fn is_parked(reason: ParkReason) -> impl Fn(&Heard) -> bool {
    move |heard| matches!(heard.states.last(), Some(SubscriptionState::Parked { reason: last, .. }) if *last == reason)
}

/// Cuts the connection until the server refuses the watch: it does not end one whose right is gone, but refuses the next.
async fn until_refused(proxy: &Proxy, heard: &Recorder) -> Result<()> {
    loop {
        let before = heard.heard().states.len();
        proxy.cut();
        let is_parked = |state: &SubscriptionState| {
            matches!(state, SubscriptionState::Parked { reason: ParkReason::HostForbidden, .. })
        };
        let answered = |state: &SubscriptionState| *state == SubscriptionState::Synced || is_parked(state);
        let states = heard.until("an answer", |heard| heard.states.iter().skip(before).any(answered)).await?.states;
        if states.iter().skip(before).any(is_parked) {
            return Ok(());
        }
    }
}

#[tokio::test]
async fn a_guest_without_the_right_hears_nothing_until_it_has_it() -> Result<()> {
    let stage = Stage::new("rights-guest").await?;
    stage.put("a", "1").await?;
    let host = stage.host();
    let (_all, everything) = host.subscribe(&stage.scope())?;
    everything.synced().await?;
    let user = stage.user("guest");
    let (subscription, heard) = host.subscribe_as(&stage.scope(), Some(user.clone()))?;
    heard.until("parked", is_parked(ParkReason::GuestForbidden)).await?;
    stage.put("b", "1").await?;
    everything.word("+b").await?;
    ensure!(heard.heard().words.is_empty());
    ensure!(subscription.list().is_empty() && !subscription.is_synced());
    stage.grant(&user, Some(&stage.namespace)).await?;
    ensure!(heard.synced().await?.sorted() == ["*a", "*b"]);
    Ok(())
}

#[tokio::test]
async fn a_right_that_ends_ends_the_subscription_and_is_no_deletion() -> Result<()> {
    let stage = Stage::new("rights-ends").await?;
    for name in ["deleted", "kept", "replaced"] {
        stage.put(name, "1").await?;
    }
    let host = stage.host();
    let (_all, everything) = host.subscribe(&stage.scope())?;
    let user = stage.user("guest");
    stage.grant(&user, Some(&stage.namespace)).await?;
    let (subscription, heard) = host.subscribe_as(&stage.scope(), Some(user.clone()))?;
    heard.synced().await?;

    stage.revoke(&user, Some(&stage.namespace)).await?;
    let before = heard.until("parked", is_parked(ParkReason::GuestForbidden)).await?;
    ensure!(before.sorted() == ["*deleted", "*kept", "*replaced"], "{:?}", before.words);
    ensure!(subscription.list().is_empty());
    stage.delete("deleted").await?;
    stage.delete("replaced").await?;
    stage.put("replaced", "2").await?;
    everything.word("+replaced").await?;
    ensure!(heard.heard().words.len() == 3, "{:?}", heard.heard().words);

    stage.grant(&user, Some(&stage.namespace)).await?;
    let all = heard.until("synced", |heard| heard.words.len() >= 7 && heard.is_synced()).await?;
    let mut later: Vec<_> = all.words.iter().skip(3).cloned().collect();
    later.sort();
    ensure!(later == ["*kept", "*replaced", "-deleted", "-replaced"], "what vanished meanwhile is told: {later:?}");
    Ok(())
}

#[tokio::test]
async fn a_right_to_one_namespace_gives_nothing_of_another() -> Result<()> {
    let stage = Stage::new("rights-namespace").await?;
    stage.put("a", "1").await?;
    let host = stage.host();
    let user = stage.user("guest");
    stage.grant(&user, Some(&stage.namespace)).await?;
    let (_own, own) = host.subscribe_as(&stage.scope(), Some(user.clone()))?;
    own.synced().await?;
    for namespaces in [vec![], vec![stage.namespace.clone(), "default".to_owned()]] {
        let wider = Scope { namespaces, ..stage.scope() };
        let (_subscription, heard) = host.subscribe_as(&wider, Some(user.clone()))?;
        ensure!(heard.until("parked", is_parked(ParkReason::GuestForbidden)).await?.words.is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn the_end_of_the_hosts_own_right_is_no_deletion_either() -> Result<()> {
    let stage = Stage::new("rights-host").await?;
    stage.put("deleted", "1").await?;
    stage.put("kept", "1").await?;
    let user = stage.user("host");
    stage.grant(&user, Some(&stage.namespace)).await?;
    let account = stage.account("host").await?;
    let (host, proxy) = stage.behind_proxy(account, quick()).await?;
    let (_subscription, heard) = host.subscribe(&stage.scope())?;
    heard.synced().await?;
    stage.revoke(&user, Some(&stage.namespace)).await?;
    until_refused(&proxy, &heard).await?;
    stage.delete("deleted").await?;
    ensure!(heard.heard().words.len() == 2);
    stage.grant(&user, Some(&stage.namespace)).await?;
    let all = heard.until("synced again", |heard| heard.has("-deleted") && heard.is_synced()).await?;
    ensure!(all.words.len() == 3, "{:?}", all.words);
    Ok(())
}

#[tokio::test]
async fn a_host_that_loses_the_wide_right_goes_on_with_the_narrow_one() -> Result<()> {
    let stage = Stage::new("rights-narrower").await?;
    stage.put("deleted", "1").await?;
    stage.put("kept", "1").await?;
    let user = stage.user("host");
    stage.grant(&user, None).await?;
    let account = stage.account("host").await?;
    let (host, proxy) = stage.behind_proxy(account, quick()).await?;
    let (_subscription, heard) = host.subscribe(&stage.scope())?;
    heard.synced().await?;
    stage.grant(&user, Some(&stage.namespace)).await?;
    stage.revoke(&user, None).await?;
    until_refused(&proxy, &heard).await?;
    stage.delete("deleted").await?;
    stage.put("new", "1").await?;
    let all = heard.until("synced again", |heard| heard.has("-deleted") && heard.is_synced()).await?;
    ensure!(!all.has("-kept"), "{:?}", all.words);
    heard.until("the new object", |heard| heard.has("+new") || heard.has("*new")).await?;
    Ok(())
}

#[tokio::test]
async fn secrets_are_not_shared_between_identities() -> Result<()> {
    let stage = Stage::new("rights-secrets").await?;
    let host = stage.host();
    let secrets = wasm_operator_core::watch::Resource {
        group: String::new(),
        version: "v1".into(),
        kind: "Secret".into(),
        plural: "secrets".into(),
    };
    let scope = Scope { resource: secrets.clone(), ..stage.scope() };
    let users = ["a", "b"].map(|name| stage.user(name));
    for user in &users {
        stage.grant(user, Some(&stage.namespace)).await?;
    }
    let subscriptions: Vec<_> =
        users.iter().map(|user| host.subscribe_as(&scope, Some(user.clone()))).collect::<Result<_>>()?;
    for (_, heard) in &subscriptions {
        heard.synced().await?;
    }
    ensure!(host.metrics.watch_streams.get_or_create(&crate::stage::label(&secrets)).get() == 2);
    for user in &users {
        ensure!(host.informers.caches(user, "", "secrets").len() == 1, "`{user}` is answered from its own cache only");
    }
    ensure!(host.informers.caches("somebody", "", "secrets").is_empty());
    Ok(())
}

#[tokio::test]
async fn rights_are_those_of_the_identity_and_its_groups() -> Result<()> {
    let stage = Stage::new("rights-review").await?;
    let rights = Rights::new(stage.admin.clone());
    let may = |verb| Right {
        verb,
        group: "",
        plural: "configmaps",
        subresource: None,
        namespace: Some("rights-review"),
        name: None,
    };
    ensure!(rights.allowed(None, &may(Verb::List)).await?);
    let user = stage.user("guest");
    ensure!(!rights.allowed(Some(&user), &may(Verb::List)).await?);
    // Bound by group: a review must not forget the groups that the server gives a ServiceAccount.
    let group = serde_json::json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": { "name": "by-group" },
        "subjects": [{ "kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:serviceaccounts:rights-review" }],
        "roleRef": { "kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": "system:aggregate-to-view" },
    });
    let bindings: kube::Api<k8s_openapi::api::rbac::v1::RoleBinding> =
        kube::Api::namespaced(stage.admin.clone(), &stage.namespace);
    bindings.create(&kube::api::PostParams::default(), &serde_json::from_value(group)?).await?;
    harness::eventually("the right by group counts", async || {
        // A fresh client has no remembered answers.
        ensure!(Rights::new(stage.admin.clone()).allowed(Some(&user), &may(Verb::List)).await?);
        Ok(())
    })
    .await?;
    ensure!(!rights.allowed(Some(&user), &may(Verb::List)).await?, "an answer is remembered");
    ensure!(!Rights::new(stage.admin.clone()).allowed(Some(&user), &may(Verb::Delete)).await?);
    Ok(())
}

#[tokio::test]
async fn a_question_without_an_answer_is_no_right() -> Result<()> {
    let stage = Stage::new("rights-unanswered").await?;
    let mut config = stage.config.clone();
    config.cluster_url = "https://127.0.0.1:1".parse()?;
    let rights = Rights::new(client::from_config(config.clone())?);
    let right =
        Right { verb: Verb::List, group: "", plural: "configmaps", subresource: None, namespace: None, name: None };
    ensure!(rights.allowed(Some("anybody"), &right).await.is_err());
    let host = host(client::from_config(config)?, quick());
    let (subscription, heard) = host.subscribe_as(&stage.scope(), Some(stage.user("guest")))?;
    ensure!(!subscription.is_synced() && heard.heard().words.is_empty());
    Ok(())
}
