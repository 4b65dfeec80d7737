//! The commands other than `run`: they need no cluster.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use harness::programs;
use harness::ring::{self, Ring};
use harness::{
    Context as _, Output, Result, cache_arguments, command, component, ensure, logs_directory, output, test,
};
use k8s_openapi::api::authorization::v1::ResourceAttributes;
use serde_json::{Value, json};

/// A directory with the files of one test.
fn directory(test: &str) -> Result<PathBuf> {
    let directory = logs_directory()?.join(test);
    std::fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// Runs a command in a directory, with the cache that the hosts of this run share.
fn run(directory: &Path, arguments: &[&str]) -> Result<Output> {
    let mut command = command(arguments)?;
    command.current_dir(directory);
    if ["validate", "inspect", "rbac"].contains(&arguments.first().copied().unwrap_or_default()) {
        command.args(cache_arguments(&logs_directory()?.join("cache")));
    }
    output(command)
}

#[test]
fn validate_shows_the_place_of_each_mistake_and_what_was_meant() -> Result<()> {
    let directory = directory("validate-mistakes")?;
    std::fs::copy(component("recorder")?, directory.join("a.wasm"))?;
    let text = "name: good\nwasm: ./a.wasm\n---\nname: bad\nwasm: ./a.wasm\npremissions:\n  - apiGroups: [\"\"]\nlimits:\n  memoryByte: 1\nconcurrency: none\n---\nname: Upper\nwasm: ./missing.wasm\n";
    std::fs::write(directory.join("wasm_config.yaml"), text)?;
    let output = run(&directory, &["validate"])?;
    assert_eq!(output.code, 1, "{output:?}");
    for (place, words) in [
        ("wasm_config.yaml:6:1", &["`premissions`", "`permissions`"][..]),
        ("wasm_config.yaml:9:3", &["`memoryByte`", "`memoryBytes`"]),
        ("wasm_config.yaml:10:14", &["none"]),
        ("wasm_config.yaml:12:7", &["`Upper`", "`upper`"]),
    ] {
        let message = output.stderr.split("\n\n").find(|message| message.contains(place));
        let message = message.with_context(|| format!("no message for {place} in:\n{}", output.stderr))?;
        assert!(words.iter().all(|word| message.contains(word)), "{words:?} are not all in:\n{message}");
    }
    assert!(output.stdout.contains("3 guests, 4 errors"), "{}", output.stdout);
    Ok(())
}

#[test]
fn validate_names_what_a_component_asks_for_and_is_not_granted() -> Result<()> {
    let directory = directory("validate-permissions")?;
    let guest = |name: &str, permissions: Value| {
        let recorder = component("recorder")?;
        Ok(json!({ "name": name, "wasm": recorder, "env": [{ "name": "NAMESPACES", "value": "a" }], "permissions": permissions }).to_string())
    };
    let rule = |verbs: &[&str]| json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": verbs, "namespaces": ["a"] }]);
    let documents: Vec<String> = [
        guest("all", rule(&["get", "list", "watch", "create", "update", "patch", "delete"])),
        guest("requested", json!("as-requested")),
        guest("some", rule(&["get", "list", "watch"])),
        guest("none", json!([])),
    ]
    .into_iter()
    .collect::<Result<_>>()?;
    std::fs::write(directory.join("wasm_config.yaml"), documents.join("\n---\n"))?;
    let output = run(&directory, &["validate"])?;
    // Fewer permissions than asked for are the administrator's right, and no error.
    assert_eq!(output.code, 0, "{output:?}");
    let at = |line: usize| {
        output
            .stderr
            .split("\n\n")
            .filter(move |message| message.contains(&format!("wasm_config.yaml:{line}:")))
            .collect::<Vec<_>>()
    };
    assert!(at(1).is_empty(), "{}", output.stderr);
    assert!(
        at(5).iter().any(|message| message.contains("\"create\"") && !message.contains("\"list\"")),
        "{}",
        output.stderr
    );
    assert!(at(7).iter().any(|message| message.contains("will not hear of changes")), "{}", output.stderr);
    Ok(())
}

#[test]
fn validate_names_the_file_of_authorities_that_cannot_be_used() -> Result<()> {
    let directory = directory("validate-authorities")?;
    std::fs::write(directory.join("ca.pem"), "not a certificate")?;
    let text = "name: a\nwasm: ./a.wasm\ncertificateAuthorities: ca.pem\n---\nname: b\nwasm: ./a.wasm\ncertificateAuthorities: missing.pem\n";
    std::fs::write(directory.join("wasm_config.yaml"), text)?;
    let output = run(&directory, &["validate", "--no-components"])?;
    assert_eq!(output.code, 1, "{output:?}");
    for words in [
        &["wasm_config.yaml:3:", "`certificateAuthorities`", "ca.pem", "no certificate"],
        &["wasm_config.yaml:7:", "`certificateAuthorities`", "missing.pem", "No such file"],
    ] {
        let found = output.stderr.split("\n\n").any(|message| words.iter().all(|word| message.contains(word)));
        ensure!(found, "no message with {words:?} in:\n{}", output.stderr);
    }
    Ok(())
}

#[test]
fn validate_needs_no_component_when_told_so() -> Result<()> {
    let directory = directory("validate-no-components")?;
    std::fs::write(directory.join("wasm_config.yaml"), "name: a\nwasm: ./missing.wasm\n")?;
    let with = run(&directory, &["validate"])?;
    assert_eq!(with.code, 1);
    assert!(with.stderr.contains("wasm_config.yaml:2:7") && with.stderr.contains("missing.wasm"), "{}", with.stderr);
    assert_eq!(run(&directory, &["validate", "--no-components"])?.code, 0);
    Ok(())
}

#[test]
fn inspect_shows_controllers_watches_imports_and_permissions() -> Result<()> {
    let directory = directory("inspect")?;
    let ring = component("ring")?;
    let ring = ring.to_str().context("a path that is no text")?;
    let environment = ["--env", "IN_NAMESPACE=here", "--env", "OUT_NAMESPACE=there"];
    let text = run(&directory, &[&["inspect", ring][..], &environment].concat())?.success()?;
    for word in [
        "controller ring",
        "testresources.ring.wasm-operator.dev/v1 (TestResource)",
        "in here",
        "generation",
        "wasi:http/outgoing-handler",
        "update",
        "there",
    ] {
        assert!(text.contains(word), "no `{word}` in:\n{text}");
    }
    let json = run(&directory, &[&["inspect", ring, "-o", "json"][..], &environment].concat())?.success()?;
    let json: Value = serde_json::from_str(&json)?;
    assert_eq!(json.pointer("/controllers/0/primary/of/plural"), Some(&json!("testresources")));
    assert!(
        json["digest"].as_str().is_some_and(|digest| digest.starts_with("sha256:") && digest.len() == 71),
        "{}",
        json["digest"]
    );

    // Without its environment it says what is missing.
    let lost = run(&directory, &["inspect", ring])?;
    assert!(lost.code == 1 && lost.stderr.contains("IN_NAMESPACE"), "{lost:?}");
    Ok(())
}

#[test]
fn commands_say_what_is_wrong_with_a_component() -> Result<()> {
    let directory = directory("broken-components")?;
    std::fs::write(directory.join("garbage.wasm"), b"garbage")?;
    std::fs::write(directory.join("module.wasm"), b"\0asm\x01\0\0\0")?;
    let recorder = std::fs::read(component("recorder")?)?;
    std::fs::write(directory.join("cut.wasm"), recorder.split_at(recorder.len() / 2).0)?;
    let (no_exports, wrong_version, looping) =
        (component("no_exports")?, component("wrong_version")?, component("endless_loop_in_describe")?);
    for (file, word) in [
        (Path::new("missing.wasm"), "missing.wasm"),
        (Path::new("garbage.wasm"), "garbage.wasm` is not a WebAssembly component: it is a text file"),
        (Path::new("module.wasm"), "wasm32-wasip2"),
        (Path::new("cut.wasm"), "cut off"),
        (&no_exports, "export"),
        (&wrong_version, "9.9.0"),
        (&looping, "describe"),
    ] {
        let output = run(&directory, &["inspect", file.to_str().unwrap_or_default()])?;
        assert!(output.code == 1 && output.stderr.contains(word), "{}: {output:?}", file.display());
    }
    // `compile` has no engine between the file and the parser.
    for file in ["garbage.wasm", "module.wasm", "cut.wasm"] {
        let output = run(&directory, &["compile", file, "-o", "out.cwasm"])?;
        let sentence = format!("error: `{file}` is not a WebAssembly component: ");
        assert!(output.code == 1 && output.stderr.starts_with(&sentence), "{output:?}");
        assert_eq!(output.stderr.lines().count(), 1, "{}", output.stderr);
        std::fs::write(directory.join("wasm_config.yaml"), format!("name: a\nwasm: ./{file}\n"))?;
        let validated = run(&directory, &["validate"])?;
        assert!(validated.stderr.contains("is not a WebAssembly component: "), "{validated:?}");
    }
    Ok(())
}

#[test]
fn compile_writes_code_that_is_not_taken_for_a_component() -> Result<()> {
    let directory = directory("compile")?;
    let recorder = component("recorder")?;
    let recorder = recorder.to_str().context("a path that is no text")?;
    run(&directory, &["compile", recorder, "-o", "out.cwasm"])?.success()?;
    let code = std::fs::read(directory.join("out.cwasm"))?;
    ensure!(code.starts_with(b"\x7fELF"), "no compiled code");
    run(&directory, &["compile", recorder, "again.cwasm"])?.success()?;
    assert!(code == std::fs::read(directory.join("again.cwasm"))?, "the same component gives the same code");

    let wrong = run(&directory, &["compile", recorder, "wrong.cwasm", &"0".repeat(64)])?;
    assert!(wrong.code == 1 && !directory.join("wrong.cwasm").exists(), "{wrong:?}");
    let code = run(&directory, &["inspect", "out.cwasm"])?;
    assert!(code.code == 1 && code.stderr.contains("it is compiled code"), "{code:?}");
    Ok(())
}

/// The component with a custom section of its own: another component, which does the same.
fn variant(component: &[u8], letter: u8) -> Vec<u8> {
    [component, &[0, 2, 1, letter]].concat()
}

#[test]
fn commands_that_look_at_many_components_evict_none_of_them_for_another() -> Result<()> {
    let directory = directory("cache-budget")?;
    let recorder = std::fs::read(component("recorder")?)?;
    let configure = |letters: &str| {
        let documents = letters.bytes().map(|letter| {
            let name = char::from(letter);
            std::fs::write(directory.join(format!("{name}.wasm")), variant(&recorder, letter))?;
            Ok(json!({ "name": name, "wasm": format!("./{name}.wasm"), "env": [{ "name": "NAMESPACES", "value": "a" }] }).to_string())
        });
        let documents: Vec<String> = documents.collect::<Result<_>>()?;
        Ok::<_, harness::Error>(std::fs::write(directory.join("wasm_config.yaml"), documents.join("\n---\n"))?)
    };
    let cache = directory.join("own-cache");
    let compiled = || {
        let entries = std::fs::read_dir(&cache)?.map(|entry| {
            let entry = entry?;
            Ok((entry.path(), entry.metadata()?.modified()?))
        });
        let files: BTreeMap<PathBuf, SystemTime> = entries.collect::<Result<_>>()?;
        Ok::<_, harness::Error>(
            files.into_iter().filter(|(path, _)| path.extension() == Some("cwasm".as_ref())).collect(),
        )
    };
    let look = |subcommand: &str| {
        let mut command = command(&[subcommand, "--cache-budget", "1", "--cache-dir"])?;
        command.arg(&cache).current_dir(&directory);
        output(command)?.success()
    };

    configure("bcd")?;
    look("rbac")?;
    let first: BTreeMap<_, _> = compiled()?;
    ensure!(first.len() == 3, "{first:?}");

    // The new one comes first, so it is compiled before the others are looked at.
    for (letters, subcommand) in [("abcd", "rbac"), ("9abcd", "validate")] {
        configure(letters)?;
        look(subcommand)?;
        let now: BTreeMap<_, _> = compiled()?;
        ensure!(
            now.len() == letters.len() && first.iter().all(|file| now.get(file.0) == Some(file.1)),
            "{first:?}\n{now:?}"
        );
    }

    // What no guest uses any more goes.
    configure("e")?;
    look("rbac")?;
    let last: BTreeMap<_, _> = compiled()?;
    ensure!(last.len() == 1, "{last:?}");
    Ok(())
}

#[test]
fn a_wrong_command_line_is_explained() -> Result<()> {
    let directory = directory("usage")?;
    for (arguments, word) in [
        (&["ran"][..], "run"),
        (&["run", "--admin-listen", "8080"], "address and a port"),
        (&["rbac", "--host-namespace", "No"], "lower-case"),
        (&[], "Usage"),
    ] {
        let output = run(&directory, arguments)?;
        assert!(output.code == 2 && output.stderr.contains(word), "{arguments:?}: {output:?}");
    }
    let version = run(&directory, &["--version"])?.success()?;
    assert!(version.starts_with("wasm-operator "), "{version}");
    Ok(())
}

#[test]
fn run_does_not_start_without_a_configuration_or_a_cluster() -> Result<()> {
    let directory = directory("run-errors")?;
    let missing = run(&directory, &["run", "missing.yaml", "--admin-listen", "off", "--cache-dir", "cache"])?;
    assert!(missing.code == 1 && missing.stderr.contains("missing.yaml"), "{missing:?}");
    std::fs::write(directory.join("wasm_config.yaml"), "")?;
    let nowhere = run(&directory, &["run", "--admin-listen", "off", "--cache-dir", "cache"])?;
    assert!(nowhere.code == 1 && nowhere.stderr.to_lowercase().contains("kubeconfig"), "{nowhere:?}");
    Ok(())
}

/// May this user do this?
async fn may(
    space: &harness::Space,
    user: &str,
    verb: &str,
    group: &str,
    resource: &str,
    namespace: &str,
) -> Result<bool> {
    let what = ResourceAttributes {
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        namespace: Some(namespace.to_owned()),
        ..ResourceAttributes::default()
    };
    harness::may(space.client(), user, what).await
}

#[test]
fn the_rights_that_rbac_prints_are_enough_for_a_ring_and_no_more() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 2).await?;
        // Every host of these tests has the rights that `rbac` prints, and nothing else.
        let host = space.host().guests(ring.guests()).start().await?;
        ring.lap(1).await?;
        let [first, second] = ring.namespaces() else { harness::bail!("not two") };
        let guest = host.user_of("ring-0");
        for (user, verb, resource, namespace, expected) in [
            (&*guest, "update", ring::RESOURCE, second, true),
            (&*guest, "watch", ring::RESOURCE, first, true),
            (&*guest, "update", ring::RESOURCE, first, false),
            (&*guest, "delete", ring::RESOURCE, second, false),
            (host.user(), "watch", ring::RESOURCE, first, true),
            (host.user(), "update", ring::RESOURCE, second, false),
        ] {
            assert_eq!(
                may(space, user, verb, ring::GROUP, resource, namespace).await?,
                expected,
                "{user} {verb} {resource} in {namespace}"
            );
        }
        for resource in ["secrets", "configmaps", "pods", "serviceaccounts"] {
            for verb in ["get", "list", "create", "impersonate"] {
                assert!(!may(space, host.user(), verb, "", resource, first).await?, "the host may {verb} {resource}");
            }
        }
        Ok(())
    })
}

#[test]
fn hosts_with_guests_of_the_same_name_keep_their_rights() -> Result<()> {
    test(async |space| {
        let namespace = space.namespace("a").await?;
        let guest = |program: &str| programs::guest("guest", program, &[&namespace]);
        let first = space.host().named("first").guest(guest("probe")).start().await?;
        let objects = programs::Objects::new(space, &namespace, "probe");
        objects.round_trip("object", "1").await?;
        let second = space.host().named("second").guest(guest("recorder")).start().await?;
        second.until_ready().await?;
        for host in [&first, &second] {
            for user in [host.user_of("guest"), host.user().to_owned()] {
                assert!(may(space, &user, "watch", "", "configmaps", &namespace).await?, "{user}");
            }
        }
        objects.round_trip("object", "2").await?;
        Ok(())
    })
}

#[test]
fn rbac_prints_constrained_impersonation_with_which_a_ring_runs_too() -> Result<()> {
    test(async |space| {
        let ring = Ring::new(space, 2).await?;
        let host = space.host().guests(ring.guests()).rbac_argument("--impersonate=constrained").start().await?;
        ring.lap(1).await?;
        assert!(!may(space, host.user(), "impersonate", "", "serviceaccounts", host.namespace()).await?);
        ring.lap(2).await?;
        Ok(())
    })
}
