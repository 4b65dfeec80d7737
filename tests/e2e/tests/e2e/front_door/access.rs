//! Who is let in, and what of a request and an answer passes.

use harness::programs::{Objects, answers};
use harness::{Result, audience_token, programs, service_account_token, test};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::json;

use super::{Stage, serving};

#[test]
fn tokens_that_are_not_for_the_front_door_are_refused() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let stage = Stage::new(space, [serving("server", "server", &namespace)]).await?;
        stage.until_code("/guests/server/", 200).await?;
        let admin = space.client();
        // It may call, as itself and by every other token of its own.
        let api = service_account_token(&admin, &namespace, "caller").await?;
        let other = audience_token(&admin, &namespace, "caller", "https://example.com").await?;
        let gone = stage.token("gone").await?;
        stage.grant("gone", &["get"], &[]).await?;
        let accounts: Api<ServiceAccount> = Api::namespaced(admin, &namespace);
        accounts.delete("gone", &DeleteParams::default()).await?;
        let good = stage.token("caller").await?;
        let (head, signature) = good.rsplit_once('.').unwrap();
        let forged = format!("{head}.{}", signature.chars().rev().collect::<String>());
        let plain = harness::HttpClient::plain(stage.address);
        let bearer = |token: &str| format!("Bearer {token}");
        for (case, authorization) in [
            ("none", None),
            ("for the API server", Some(bearer(&api))),
            ("for someone else", Some(bearer(&other))),
            ("of an account that is gone", Some(bearer(&gone))),
            ("forged", Some(bearer(&forged))),
            ("garbage", Some(bearer("garbage"))),
            ("long", Some(bearer(&"x".repeat(10_000)))),
            ("empty", Some("Bearer ".to_owned())),
            ("basic", Some("Basic YTpi".to_owned())),
        ] {
            let client =
                authorization.iter().fold(plain.clone(), |client, value| client.header("authorization", value));
            let answer = client.get("/guests/server/").await?;
            assert_eq!(answer.status, 401, "{case}: {}", answer.text());
            assert!(answer.header("www-authenticate").starts_with("Bearer"), "{case}");
            assert_eq!(answer.json()?["reason"], json!("Unauthorized"), "{case}");
        }
        let twice = plain.clone().bearer(&good).bearer(&good);
        assert_eq!(twice.get("/guests/server/").await?.status, 401);
        let answer = plain.bearer(&good).get("/guests/server/").await?;
        assert_eq!(answer.status, 200, "{}", answer.text());
        for line in stage.host.log().lines(|_| true) {
            assert!(
                ![&api, &good, &gone].iter().any(|token| line.text().contains(token.as_str())),
                "a token is in the log"
            );
        }
        Ok(())
    })
}

#[test]
fn a_caller_needs_the_right_to_the_verb_and_the_name() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guests = ["server", "other"].map(|name| serving(name, "server", &namespace));
        let stage = Stage::new(space, guests.into_iter().chain([serving("silent", "probe", &namespace)])).await?;
        let nobody = harness::HttpClient::plain(stage.address).bearer(&stage.token("nobody").await?);
        // What there is, is not for everybody to know.
        for guest in ["server", "silent", "missing"] {
            let answer = nobody.get(&format!("/guests/{guest}/")).await?;
            assert_eq!(answer.status, 403, "{guest}: {}", answer.text());
            assert!(
                answer.text().contains(&format!(
                    "`get` resource `guests/proxy` in API group `wasm-operator.dev` with the name `{guest}`"
                )),
                "{}",
                answer.text()
            );
        }
        let reader = harness::HttpClient::plain(stage.address).bearer(&stage.token("reader").await?);
        stage.grant("reader", &["get"], &["server"]).await?;
        harness::eventually("the right is known", async || {
            harness::ensure!(reader.get("/guests/server/").await?.status == 200);
            Ok(())
        })
        .await?;
        assert_eq!(reader.send("HEAD", "/guests/server/", &[], Vec::new()).await?.status, 200);
        for method in ["POST", "PUT", "PATCH", "DELETE"] {
            assert_eq!(reader.send(method, "/guests/server/", &[], Vec::new()).await?.status, 403, "{method}");
            assert_eq!(stage.client.send(method, "/guests/server/", &[], Vec::new()).await?.status, 200, "{method}");
        }
        let overridden = [("x-http-method-override", "DELETE")];
        let answer = reader.send("GET", "/guests/server/", &overridden, Vec::new()).await?;
        assert!(!answer.text().contains("override"), "{}", answer.text());
        for method in ["OPTIONS", "TRACE", "PROPFIND"] {
            assert_eq!(stage.client.send(method, "/guests/server/", &[], Vec::new()).await?.status, 405, "{method}");
        }
        assert_eq!(reader.get("/guests/other/").await?.status, 403);
        assert_eq!(stage.client.get("/guests/missing/").await?.status, 404);
        let silent = stage.client.get("/guests/silent/").await?;
        assert_eq!((silent.status, silent.text().contains("serves no requests")), (404, true), "{}", silent.text());
        Ok(())
    })
}

#[test]
fn a_path_leads_to_the_guest_that_it_names_exactly_or_nowhere() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let stage = Stage::new(space, [serving("server", "server", &namespace)]).await?;
        stage.until_code("/guests/server", 200).await?;
        for (path, seen) in [
            ("/guests/server/a%2Fb/%C3%A4?q=%2e%2e", "/a%2Fb/%C3%A4?q=%2e%2e"),
            ("/guests/server//a//", "//a//"),
            ("/guests/server/guests/other/", "/guests/other/"),
            ("/guests/server?x", "/?x"),
        ] {
            assert_eq!(stage.client.get(path).await?.json()?["path"], json!(seen), "{path}");
        }
        for (path, code) in [
            ("/", 404),
            ("/guests", 404),
            ("/guests/", 404),
            ("/guests//server/", 404),
            ("//guests/server/", 404),
            ("/guests/Server/", 404),
            ("/guests/s%65rver/", 404),
            ("/guests/server%2F/", 404),
            ("/guests/server%00/", 404),
            ("/guests/x/../server/", 400),
            ("/guests/../guests/server/", 404),
            ("/guests/server/../other/", 400),
            ("/guests/server/%2e%2E/other/", 400),
            ("/guests/server/a%2f..%2f..%2fother/", 400),
            ("/guests/server/./", 400),
            ("/api/v1/secrets", 404),
        ] {
            let answer = stage.client.get(path).await?;
            assert_eq!(answer.status, code, "{path}: {}", answer.text());
        }
        Ok(())
    })
}

#[test]
fn neither_identity_nor_credentials_nor_cookies_pass() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let stage = Stage::new(space, [serving("server", "server", &namespace)]).await?;
        stage.until_code("/guests/server/", 200).await?;
        let claims = [
            ("x-wasm-operator-user", "root"),
            ("x-wasm-operator-uid", "0"),
            ("X-Wasm-Operator-Group", "system:masters"),
            ("x_wasm_operator_user", "root"),
            ("x-remote-user", "root"),
            ("impersonate-user", "root"),
            ("x-forwarded-for", "127.0.0.1"),
            ("forwarded", "for=127.0.0.1"),
            ("cookie", "session=1"),
            ("proxy-authorization", "Basic YTpi"),
            ("connection", "x-hop"),
            ("x-hop", "secret"),
            ("x-kept", "kept"),
        ];
        let seen = stage.client.send("GET", "/guests/server/", &claims, Vec::new()).await?.json()?;
        assert_eq!(seen["caller"]["user"], json!(stage.user("caller")));
        assert!(!seen["caller"]["groups"].as_array().unwrap().contains(&json!("system:masters")));
        let mut names: Vec<&str> =
            seen["headers"].as_array().unwrap().iter().map(|header| header[0].as_str().unwrap()).collect();
        names.sort_unstable();
        names.dedup();
        let expected = [
            "x-kept",
            "x-wasm-operator-group",
            "x-wasm-operator-request-id",
            "x-wasm-operator-uid",
            "x-wasm-operator-user",
        ];
        assert_eq!(names, expected, "{seen}");
        Ok(())
    })
}

#[test]
fn an_answer_is_sandboxed_and_reaches_nothing_but_its_caller() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let stage = Stage::new(space, [serving("server", "server", &namespace)]).await?;
        stage.until_code("/guests/server/", 200).await?;
        for code in [200, 404, 500] {
            let answer = stage.client.get(&format!("/guests/server/status?code={code}")).await?;
            assert_eq!((answer.status, answer.text().as_str()), (code, "status"));
            for name in
                ["set-cookie", "alt-svc", "service-worker-allowed", "strict-transport-security", "x-wasm-operator-user"]
            {
                assert!(!answer.headers.contains_key(name), "{name}");
            }
            assert!(answer.header("content-security-policy").starts_with("sandbox"));
            assert_eq!((answer.header("x-content-type-options"), answer.header("x-custom")), ("nosniff", "kept"));
        }
        Ok(())
    })
}

// Rule 40
#[test]
fn guests_cannot_call_the_host_itself_whatever_they_are_allowed() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let mut stage = Stage::new(space, [serving("server", "server", &namespace)]).await?;
        let own = super::listener::free_address()?;
        let addresses = [stage.address.to_string(), stage.host.admin_address()?, own.to_string()];
        let requester = programs::guest("requester", "requester", &[&namespace])
            .env("ANSWERS", "log")
            .set("allowedHosts", addresses.iter().map(|address| format!("http://{address}")).collect::<Vec<_>>());
        let listener = json!({"address": own.to_string(), "sources": ["127.0.0.0/8"], "user": "legacy"});
        let server = serving("server", "server", &namespace).set("serve", json!({"listener": listener}));
        stage.host.configure(&[server, requester]).await?;
        super::listens(&stage.host, "a listener of its own").await?;
        let requests: Vec<_> =
            addresses.iter().map(|address| json!({"scheme": "http", "authority": address, "path": "/"})).collect();
        let objects = Objects::new(space, &namespace, "requester");
        let answers = answers(stage.host.log(), "requester", &objects, "one", &requests).await?;
        for answer in answers {
            let error = format!("{answer:?}");
            assert!(error.contains("DestinationIpProhibited"), "{error}");
        }
        Ok(())
    })
}
