//! What a hostile guest sends, and what of it arrives.

use std::net::{Ipv4Addr, SocketAddr};

use harness::programs::{self, Answer, Objects, answers};
use harness::{Guest, Host, LogLine, Result, Rule, Space, ensure, eventually, test};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A guest that sends what tests ask it to, and may only read the ConfigMaps of its namespace.
struct Requester<'a> {
    space: &'a Space,
    host: Host,
    namespace: String,
}

impl<'a> Requester<'a> {
    async fn new(space: &'a Space) -> Result<Self> {
        let namespace = space.namespace("a").await?;
        let guest = Self::guest(&namespace).grant(Rule::read("", "configmaps").namespace(&namespace));
        let host = space.host().guest(guest).start().await?;
        Ok(Self { space, host, namespace })
    }

    fn guest(namespace: &str) -> Guest {
        programs::talkative(Guest::new("requester", "requester").env("NAMESPACES", namespace).env("ANSWERS", "log"))
    }

    async fn ask(&self, requests: &[Value]) -> Result<Vec<Answer>> {
        let objects = Objects::new(self.space, &self.namespace, "requester");
        answers(self.host.log(), "requester", &objects, "ask", requests).await
    }

    /// What arrived at the API server in the guest's name, other than the reads of ConfigMaps that it may send.
    async fn arrived(&self) -> Result<Vec<String>> {
        // Requests of one connection are logged in order, but there are several: this one is the last that the host sent.
        let probe = json!({ "path": format!("/api/v1/namespaces/{}/configmaps/the-last", self.namespace) });
        self.ask(&[probe]).await?;
        let user = self.host.user_of("requester");
        let all = eventually("the last request is in the audit log", async || {
            let all = self.space.audit().events(|event| event.acting_user() == user)?;
            ensure!(all.iter().any(|event| event.request_uri.contains("the-last")), "{} requests", all.len());
            Ok(all)
        })
        .await?;
        let own_check = |resource: &str| ["selfsubjectaccessreviews", "selfsubjectreviews"].contains(&resource);
        let others = all.iter().filter(|event| !own_check(event.resource()) && !event.request_uri.contains("the-last"));
        Ok(others.map(|event| format!("{} {}", event.verb, event.request_uri)).collect())
    }
}

#[test]
fn each_verb_is_refused_without_its_permission_and_never_sent() -> Result<()> {
    test(async |space| {
        let guest = Requester::new(space).await?;
        let (namespace, other) = (&guest.namespace, space.namespace("b").await?);
        let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
        let map =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "x", "namespace": namespace } });
        let typed = |content_type: &str| json!([["content-type", content_type]]);
        let cases = [
            (
                "create",
                "configmaps",
                json!({ "method": "POST", "path": maps, "headers": typed("application/json"), "body": map }),
            ),
            (
                "update",
                "configmaps",
                json!({ "method": "PUT", "path": format!("{maps}/ask"), "headers": typed("application/json"), "body": map }),
            ),
            (
                "patch",
                "configmaps",
                json!({ "method": "PATCH", "path": format!("{maps}/ask"), "headers": typed("application/merge-patch+json"), "body": {} }),
            ),
            (
                "patch",
                "configmaps",
                json!({ "method": "PATCH", "path": format!("{maps}/x?force=true"), "headers": typed("application/apply-patch+yaml"), "body": map }),
            ),
            ("delete", "configmaps", json!({ "method": "DELETE", "path": format!("{maps}/ask") })),
            ("deletecollection", "configmaps", json!({ "method": "DELETE", "path": maps })),
            ("get", "secrets", json!({ "path": format!("/api/v1/namespaces/{namespace}/secrets/x") })),
            ("list", "secrets", json!({ "path": format!("/api/v1/namespaces/{namespace}/secrets") })),
            ("watch", "secrets", json!({ "path": format!("/api/v1/namespaces/{namespace}/secrets?watch=true") })),
            ("watch", "secrets", json!({ "path": format!("/api/v1/namespaces/{namespace}/secrets?%77atch=no") })),
            ("get", "configmaps", json!({ "path": format!("/api/v1/namespaces/{other}/configmaps/x") })),
            ("list", "configmaps", json!({ "path": "/api/v1/configmaps" })),
            ("list", "configmaps", json!({ "path": "/api/v1/configmaps?resourceVersion=0" })),
            ("watch", "configmaps", json!({ "path": "/api/v1/configmaps?watch=1" })),
            ("get", "namespaces", json!({ "path": format!("/api/v1/namespaces/{namespace}") })),
            ("get", "deployments", json!({ "path": format!("/apis/apps/v1/namespaces/{namespace}/deployments/x") })),
        ];
        let requests: Vec<Value> = cases.iter().map(|(_, _, request)| request.clone()).collect();
        for ((verb, resource, request), answer) in cases.iter().zip(guest.ask(&requests).await?) {
            assert_eq!(answer.status, 403, "{request}: {answer:?}");
            let status = answer.json();
            assert_eq!(
                (&status["kind"], &status["reason"], &status["code"]),
                (&json!("Status"), &json!("Forbidden"), &json!(403)),
                "{request}"
            );
            let message = answer.message();
            for word in ["`requester`", &format!("`{verb}`"), &format!("`{resource}`")] {
                assert!(message.contains(word), "no {word} in `{message}`");
            }
        }
        assert_eq!(guest.arrived().await?, [""; 0]);
        let denied = guest.host.metrics().await?.sum("wasm_operator_api_denied_total", &[("guest", "requester")]);
        assert_eq!(denied, cases.len() as f64);
        Ok(())
    })
}

#[test]
fn odd_spellings_of_paths_and_queries_are_refused_and_never_sent() -> Result<()> {
    test(async |space| {
        let guest = Requester::new(space).await?;
        let (namespace, other) = (&guest.namespace, space.namespace("b").await?);
        let maps = format!("/api/v1/namespaces/{namespace}/configmaps");
        let paths = [
            format!("{maps}/../secrets"),
            format!("{maps}/../../{other}/configmaps"),
            format!("/api/v1/namespaces/{namespace}/./configmaps"),
            format!("{maps}/%2e%2e/secrets/x"),
            format!("{maps}/%2E%2e/%2E%2e/{other}/configmaps"),
            format!("/api/v1/namespaces/{namespace}%2fsecrets"),
            format!("/api/v1/namespaces/{namespace}%2Fconfigmaps%2Fask"),
            format!("{maps}%2Fask"),
            format!("{maps}/ask%2f..%2fx"),
            format!("{maps}/%252e%252e/secrets"),
            format!("/api/v1//namespaces/{namespace}/configmaps"),
            format!("//api/v1/namespaces/{namespace}/configmaps"),
            format!("{maps}//ask"),
            format!("{maps}/"),
            format!("{maps}/ask/"),
            format!("{maps}/%2F"),
            format!("/API/v1/namespaces/{namespace}/configmaps"),
            format!("/api/V1/namespaces/{namespace}/configmaps"),
            format!("/api/v1/namespaces/{namespace}/ConfigMaps"),
            format!("/api/v1/Namespaces/{namespace}/configmaps"),
            format!("/api/v1/namespaces/{}/configmaps", namespace.to_uppercase()),
            format!("/%61pi/v1/namespaces/{namespace}/configmaps"),
            format!("/api/v1/watch/namespaces/{namespace}/configmaps"),
            format!("/api/v1/proxy/namespaces/{namespace}/services/x"),
            format!("/api/v1/namespaces/{namespace}/configmaps;a=b"),
            format!("{maps}?watch=false&watch=true"),
            format!("{maps}?limit=1&limit=2"),
            format!("{maps}?a;watch=true"),
            format!("{maps}?watch=%zz"),
            format!("{maps}?unknown=1"),
            "/".to_owned(),
            "/metrics".to_owned(),
            "/healthz".to_owned(),
            "/logs/".to_owned(),
            "/apis/authentication.k8s.io/v1/selfsubjectreviews/".to_owned(),
        ];
        let requests: Vec<Value> = paths.iter().map(|path| json!({ "path": path })).collect();
        for (path, answer) in paths.iter().zip(guest.ask(&requests).await?) {
            assert!([400, 403, 404, 405].contains(&answer.status), "{path}: {answer:?}");
            assert_eq!(answer.json()["kind"], "Status", "{path}: {answer:?}");
            assert!(!answer.message().is_empty(), "{path}");
        }
        let methods = ["HEAD", "OPTIONS", "CONNECT", "TRACE", "get", "LINK"];
        let requests: Vec<Value> =
            methods.iter().map(|method| json!({ "method": method, "path": format!("{maps}/ask") })).collect();
        for (method, answer) in methods.iter().zip(guest.ask(&requests).await?) {
            assert!(answer.status == 405 || !answer.error.is_empty(), "{method}: {answer:?}");
        }
        assert_eq!(guest.arrived().await?, [""; 0]);
        Ok(())
    })
}

#[test]
fn a_body_does_not_change_what_a_delete_means() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let rule = Rule::new("", &["configmaps"], &["get", "list", "watch", "delete", "deletecollection"])
            .namespace(&namespace);
        let host = space.host().guest(Requester::guest(&namespace).grant(rule)).start().await?;
        let guest = Requester { space, host, namespace };
        let objects = Objects::new(space, &guest.namespace, "victim");
        objects.write_value("victim", "1").await?;
        let path = format!("/api/v1/namespaces/{}/configmaps/victim", guest.namespace);
        let options = json!({ "apiVersion": "v1", "kind": "DeleteOptions" });
        let json_body = json!([["content-type", "application/json"]]);
        let requests = [
            json!({ "method": "DELETE", "path": format!("{path}?dryRun=All"), "headers": json_body, "body": options }),
            json!({ "method": "DELETE", "path": format!("/api/v1/namespaces/{}/configmaps/", guest.namespace) }),
        ];
        for (request, answer) in requests.iter().zip(guest.ask(&requests).await?) {
            assert_eq!(answer.status, 400, "{request}: {answer:?}");
        }
        assert!(objects.api().get_opt("victim").await?.is_some(), "it was deleted");
        let dry = json!({ "method": "DELETE", "path": path, "headers": json_body, "body": { "apiVersion": "v1", "kind": "DeleteOptions", "dryRun": ["All"] } });
        assert_eq!(guest.ask(&[dry]).await?[0].status, 200);
        assert!(objects.api().get_opt("victim").await?.is_some(), "a dry run deleted it");
        Ok(())
    })
}

#[test]
fn headers_that_carry_an_identity_never_arrive() -> Result<()> {
    test(async |space| {
        let guest = Requester::new(space).await?;
        let path = format!("/api/v1/namespaces/{}/configmaps/ask", guest.namespace);
        let headers = [
            ["Authorization", "Bearer of-bad-news"],
            ["Impersonate-User", "admin"],
            ["Impersonate-User", ""],
            ["impersonate-group", "system:masters"],
            ["Impersonate-Uid", "0"],
            ["Impersonate-Extra-Scopes", "everything"],
            ["X-Remote-User", "admin"],
            ["X-Remote-Group", "system:masters"],
            ["X-Forwarded-For", "10.0.0.1"],
            ["Cookie", "session=1"],
            ["User-Agent", "somebody-else/1.0"],
            ["Host", "somewhere-else"],
            ["Connection", "upgrade"],
            ["Upgrade", "SPDY/3.1"],
            ["Transfer-Encoding", "chunked"],
        ];
        let mut requests: Vec<Value> =
            headers.iter().map(|header| json!({ "path": path, "headers": [header] })).collect();
        requests.push(json!({ "path": path, "headers": headers }));
        for (request, answer) in requests.iter().zip(guest.ask(&requests).await?) {
            // Some cannot even be set. Those that can change nothing.
            assert!(answer.status == 200 || !answer.error.is_empty(), "{request}: {answer:?}");
        }

        let user = guest.host.user_of("requester");
        guest.arrived().await?;
        let gets = space
            .audit()
            .events(|event| event.user.username == guest.host.user() && event.request_uri.starts_with(&path))?;
        assert!(!gets.is_empty());
        for get in gets {
            let acting = get.impersonated_user.clone().map(|user| (user.username, user.groups));
            let (name, mut groups) = acting.unwrap_or_default();
            groups.sort();
            let own = format!("system:serviceaccounts:{}", guest.host.namespace());
            assert_eq!(
                (name, groups),
                (user.clone(), vec!["system:authenticated".to_owned(), "system:serviceaccounts".to_owned(), own]),
                "{get:?}"
            );
            assert!(!get.user_agent.contains("somebody-else"), "{get:?}");
            assert!(get.user_agent.contains("requester"), "the host says whose request it is: {get:?}");
        }
        Ok(())
    })
}

#[test]
fn what_may_not_be_granted_is_refused_whatever_the_rules_say() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let everything = Rule::new("*", &["*"], &["*"]);
        let host = space.host().guest(Requester::guest(&namespace).grant(everything)).start().await?;
        let guest = Requester { space, host, namespace };
        let own = guest.host.namespace();
        let pods = format!("/api/v1/namespaces/{}/pods/x", guest.namespace);
        let requests = [
            json!({ "path": format!("{pods}/exec?command=sh") }),
            json!({ "method": "POST", "path": format!("{pods}/exec") }),
            json!({ "path": format!("{pods}/attach") }),
            json!({ "method": "POST", "path": format!("{pods}/portforward") }),
            json!({ "path": format!("{pods}/proxy") }),
            json!({ "method": "POST", "path": format!("{pods}/binding") }),
            json!({ "method": "PATCH", "path": format!("{pods}/ephemeralcontainers"), "headers": [["content-type", "application/merge-patch+json"]], "body": {} }),
            json!({ "method": "POST", "path": format!("/api/v1/namespaces/{}/serviceaccounts/default/token", guest.namespace) }),
            json!({ "path": format!("/api/v1/namespaces/{own}/secrets") }),
            json!({ "path": format!("/api/v1/namespaces/{own}/configmaps?resourceVersion=0") }),
            json!({ "method": "DELETE", "path": format!("/api/v1/namespaces/{own}") }),
            json!({ "path": "/api/v1/nodes/x/proxy/metrics" }),
        ];
        for (request, answer) in requests.iter().zip(guest.ask(&requests).await?) {
            assert!([400, 403, 404, 405].contains(&answer.status), "{request}: {answer:?}");
            assert_eq!(answer.json()["kind"], "Status", "{request}");
        }
        assert_eq!(guest.arrived().await?, [""; 0]);
        Ok(())
    })
}

/// Answers every request, and says how often.
async fn web_server() -> Result<(SocketAddr, std::sync::Arc<std::sync::atomic::AtomicUsize>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let (address, count) = (listener.local_addr()?, std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let counter = count.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut buffer = [0; 4_096];
            let _ = stream.read(&mut buffer).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello").await;
        }
    });
    Ok((address, count))
}

#[test]
fn only_listed_hosts_are_reached() -> Result<()> {
    test(async |space| {
        let (listed, asked) = web_server().await?;
        let (unlisted, never_asked) = web_server().await?;
        let namespace = space.namespace("a").await?;
        let rule = Rule::read("", "configmaps").namespace(&namespace);
        let guest = Requester::guest(&namespace).grant(rule).set("allowedHosts", vec![format!("http://{listed}")]);
        let host = space.host().guest(guest).start().await?;
        let guest = Requester { space, host, namespace };

        let to = |scheme: &str, authority: String| json!({ "scheme": scheme, "authority": authority, "path": "/" });
        let allowed = guest.ask(&[to("http", listed.to_string())]).await?;
        assert_eq!((allowed[0].status, allowed[0].body.as_str()), (200, "hello"), "{allowed:?}");
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);

        let port = listed.port();
        let refused = [
            to("http", unlisted.to_string()),
            to("https", listed.to_string()),
            to("http", format!("localhost:{port}")),
            to("http", format!("127.0.0.2:{port}")),
            to("http", format!("[::ffff:127.0.0.1]:{port}")),
            to("http", format!("2130706433:{port}")),
            to("http", format!("user@{listed}")),
            to("https", space.cluster().server()?.to_string()),
            to("https", "user@kubernetes.default.svc".to_owned()),
            to("https", "kubernetes.default.svc@127.0.0.1".to_owned()),
            to("https", "kubernetes.default.svc.".to_owned()),
            to("https", "kubernetes.default.svc.example.com".to_owned()),
            to("http", "kubernetes.default.svc".to_owned()),
            to("http", "169.254.169.254".to_owned()),
            to("ftp", listed.to_string()),
        ];
        for (request, answer) in refused.iter().zip(guest.ask(&refused).await?) {
            assert!(answer.status == 0 || answer.status == 403, "{request}: {answer:?}");
        }
        assert_eq!(asked.load(std::sync::atomic::Ordering::SeqCst), 1);
        assert_eq!(never_asked.load(std::sync::atomic::Ordering::SeqCst), 0);
        Ok(())
    })
}

#[test]
fn a_guest_without_an_identity_of_its_own_does_not_start() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = programs::guest("recorder", "recorder", &[&namespace]);
        // No right at all, that to impersonate included.
        let host = space.host().guest(guest).without_rights().start().await?;
        let about_identity = |line: &LogLine| line.is_of("recorder") && line.text().contains("impersonat");
        host.log().wait("the missing right is named", about_identity).await?;
        Objects::new(space, &namespace, "recorder").write_value("one", "1").await?;
        assert!(programs::reconciles(host.log(), "recorder").is_empty());
        let as_host =
            space.audit().events(|event| event.user.username == host.user() && event.impersonated_user.is_none())?;
        assert!(as_host.iter().all(|event| event.resource() != "configmaps" || event.code() == 403), "{as_host:?}");
        Ok(())
    })
}
