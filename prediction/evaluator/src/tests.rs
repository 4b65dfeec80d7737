use super::*;

#[derive(clap::Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn args(arguments: &[&str]) -> Result<Args, clap::Error> {
    <Command as clap::Parser>::try_parse_from([&["evaluate"], arguments].concat()).map(|command| command.args)
}

fn output(arguments: &[&str]) -> anyhow::Result<String> {
    let mut out = Vec::new();
    write(&args(arguments)?, &mut out)?;
    Ok(String::from_utf8(out)?)
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.into_os_string().into_string().unwrap()
}

/// With 12 GiB·s per second of delay, 12 GiB cost a second of delay per second: easy to follow by hand.
const EASY: [&str; 6] = ["--wake=2s", "--warm-wake=500ms", "--bytes=12GiB", "--price=12GiB", "--work-price=6GiB", "--"];

#[test]
fn the_table_of_a_tiny_trace_is_as_reckoned_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let trace = file(&folder, "tiny.csv", "0\n1\n11\n");
    let mut arguments = EASY.to_vec();
    arguments.push(&trace);
    let text = output(&arguments).unwrap();
    let text = text.replace(folder.path().to_str().unwrap(), "");
    let head = "A cold wake takes 2s, a warm one 500ms. A resident guest holds 12.0 GiB.\n\
        A second of delay is worth 12.0 GiB for a second, a second of reloading 6.0 GiB. A cold wake costs as much as 2.5 s of \
        residency.\n\n\
        /tiny.csv: 3 events in 11s, gaps p5 1.0 s, p50 1.0 s, p95 10.0 s\n";
    assert!(text.starts_with(head), "{text}");
    // A miss costs 1.5 s of delay and 1 s of work; gaps of 1 s and 10 s.
    let rows = [
        "policy                   cost   misses    ready   wasted   resident  delay p50        p99",
        "optimum           1750.000 ms   50.0 %        0        0     9.09 %   500.0 ms  2000.0 ms", // 1 + 2.5
        "ski-rental        3000.000 ms   50.0 %        0        0    31.82 %   500.0 ms  2000.0 ms", // 1 + 2.5 + 2.5
        "immediately       2500.000 ms  100.0 %        0        0     0.00 %  2000.0 ms  2000.0 ms", // 2.5 + 2.5
        "1s                3500.000 ms  100.0 %        0        0    18.18 %  2000.0 ms  2000.0 ms", // 1 + 2.5 + 1 + 2.5
        "never             5500.000 ms    0.0 %        0        0   100.00 %   500.0 ms   500.0 ms", // 1 + 10
        "Rules in force: ski-rental 100.0 %",
    ];
    for row in rows {
        assert!(text.lines().any(|line| line == row), "{row}\n{text}");
    }
}

#[test]
fn each_guest_has_a_table_and_all_together_one_more() {
    let folder = tempfile::tempdir().unwrap();
    let trace = file(&folder, "two.csv", "timestamp,guest\n0,a\n1,b\n2,a\n4,b\n5,single\n");
    let text = output(&[&trace]).unwrap();
    for part in
        [", guest `a`: 2 events", ", guest `b`: 2 events", ", all 2 guests\n", "Left out: 1 guests with a single"]
    {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!(text.matches("with correlation").count(), 3);
}

#[test]
fn a_picture_per_guest_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let trace = file(&folder, "day.csv", "0,team/a\n60,team/a\n0,b\n1,b\n");
    let pictures = folder.path().join("out/pictures");
    output(&["--svg", pictures.to_str().unwrap(), &trace]).unwrap();
    for name in ["day.team_a.svg", "day.b.svg"] {
        let picture = std::fs::read_to_string(pictures.join(name)).unwrap();
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{picture}");
        for label in ["optimum", "predicted", "hazard", "never", "gap (s)"] {
            assert!(picture.contains(label), "{label}");
        }
    }
}

#[test]
fn pictures_stay_small_however_long_the_trace() {
    let folder = tempfile::tempdir().unwrap();
    let mut at = 0;
    let lines = (0..20_000u64).map(|n| {
        at += n * 7919 % 97;
        format!("{at}\n")
    });
    let trace = file(&folder, "long.csv", &lines.collect::<String>());
    output(&["--svg", folder.path().to_str().unwrap(), &trace]).unwrap();
    let bytes = std::fs::metadata(folder.path().join("long.svg")).unwrap().len();
    assert!(bytes < 4 << 20, "{bytes}");
}

#[test]
fn events_at_one_time_make_a_table_and_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let trace = file(&folder, "same.csv", "7\n7\n7\n");
    let text = output(&["--svg", folder.path().to_str().unwrap(), &trace]).unwrap();
    assert!(text.contains("3 events in 0s") && !text.contains("NaN"), "{text}");
}

#[test]
fn two_pictures_of_one_name_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let trace = file(&folder, "day.csv", "0\n1\n");
    let error = output(&["--svg", folder.path().to_str().unwrap(), &trace, &trace]).unwrap_err().to_string();
    assert!(error.contains("day.svg` would be written twice: rename one"), "{error}");
}

#[test]
fn a_bad_trace_is_named_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let good = file(&folder, "good.csv", "0\n1\n");
    let bad = file(&folder, "bad.csv", "0\nnoon\n");
    let mut out = Vec::new();
    let error = write(&args(&[&good, &bad]).unwrap(), &mut out).unwrap_err().to_string();
    assert!(error.contains("bad.csv`, line 2: `noon`"), "{error}");
    assert!(out.is_empty());
}

#[test]
fn a_picture_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let trace = file(&folder, "day.csv", "0\n1\n");
    let error = output(&["--svg", &trace, &trace]).unwrap_err().to_string();
    assert!(error.contains("cannot make the folder"), "{error}");
}

#[test]
fn bad_arguments_are_refused() {
    for bad in [&["--wake=soon", "x"][..], &["--wake=-1s", "x"], &["--bytes=many", "x"], &["--price=-1", "x"], &[]] {
        assert!(args(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn the_readme_shows_what_is_printed() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let trace = folder.join("traces/two-period.csv").into_os_string().into_string().unwrap();
    let text = output(&["--bytes", "200MiB", &trace]).unwrap().replace(&trace, "prediction/traces/two-period.csv");
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    assert!(readme.contains(&format!("```\n{}\n```", text.trim_end())), "`prediction/README.md` should show\n{text}");
}
