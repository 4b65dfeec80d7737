use super::*;

async fn lines(chunks: &[&str]) -> Vec<Result<Option<String>, String>> {
    let chunks: Vec<std::io::Result<Vec<u8>>> = chunks.iter().map(|chunk| Ok(chunk.as_bytes().to_vec())).collect();
    let mut body = pin!(futures::TryStreamExt::into_async_read(futures::stream::iter(chunks)));
    let mut all = Vec::new();
    loop {
        let mut line = Vec::new();
        match read_line(&mut body, &mut line).await {
            Ok(true) => all.push(Ok(Some(String::from_utf8(line).unwrap()))),
            Ok(false) => {
                all.push(Ok(None));
                return all;
            }
            Err(end) => {
                all.push(Err(end.to_string()));
                return all;
            }
        }
    }
}

#[tokio::test]
async fn lines_come_whole_however_they_are_cut_on_the_way() {
    let line = |text: &str| Ok(Some(text.to_owned()));
    assert_eq!(lines(&["a\nb", "c\n\n", "\nd", "\n"]).await, [line("a"), line("bc"), line("d"), Ok(None)]);
}

#[tokio::test]
async fn a_line_without_its_end_is_not_read() {
    assert_eq!(lines(&["a\n{\"type\":"]).await, [Ok(Some("a".to_owned())), Ok(None)]);
}

#[tokio::test]
async fn a_line_without_end_is_given_up() {
    let megabyte = "x".repeat(1 << 20);
    let chunks: Vec<&str> = (0..40).map(|_| megabyte.as_str()).collect();
    assert!(lines(&chunks).await.first().is_some_and(Result::is_err));
}
