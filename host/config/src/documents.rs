//! A file of several YAML documents, cut before it is parsed, so that a broken document leaves the others alone.
//!
//! A line that begins with `---` or `...` and a blank ends a document wherever it stands: YAML forbids such lines in all
//! scalars.

/// One document with its place in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk<'a> {
    pub(crate) text: &'a str,
    /// Lines of the file before it.
    pub(crate) lines_before: usize,
}

#[derive(Default)]
struct Open {
    start: usize,
    lines_before: usize,
    marker: bool,
    content: bool,
}

/// The documents that have any content.
pub(crate) fn split(text: &str) -> Vec<Chunk<'_>> {
    let mut chunks = Vec::new();
    let mut open = Open::default();
    let mut offset = 0_usize;
    let mut close = |open: &Open, end: usize| {
        if open.content
            && let Some(text) = text.get(open.start..end)
        {
            chunks.push(Chunk { text, lines_before: open.lines_before });
        }
    };
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let end = offset.saturating_add(line.len());
        if let Some(rest) = after(line, "---") {
            if open.marker || open.content {
                close(&open, offset);
                open = Open { start: offset, lines_before: index, ..Open::default() };
            }
            open.marker = true;
            open.content |= has_content(rest);
        } else if after(line, "...").is_some() {
            close(&open, end);
            open = Open { start: end, lines_before: index.saturating_add(1), ..Open::default() };
        } else {
            // A directive belongs to the document after it.
            open.content |= has_content(line) && (open.marker || open.content || !line.starts_with('%'));
        }
        offset = end;
    }
    close(&open, offset);
    chunks
}

/// What follows a marker; None if the line is not one.
fn after<'a>(line: &'a str, marker: &str) -> Option<&'a str> {
    line.strip_prefix(marker).filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn has_content(line: &str) -> bool {
    let line = line.trim_start_matches('\u{feff}').trim();
    !line.is_empty() && !line.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<(usize, &str)> {
        split(text).into_iter().map(|chunk| (chunk.lines_before, chunk.text)).collect()
    }

    #[test]
    fn markers_separate_documents() {
        assert_eq!(parts("a: 1\n---\nb: 2\n"), [(0, "a: 1\n"), (1, "---\nb: 2\n")]);
        assert_eq!(parts("--- \na: 1\r\n---\r\nb: 2"), [(0, "--- \na: 1\r\n"), (2, "---\r\nb: 2")]);
        assert_eq!(parts("a: 1\n...\n# c\n---\nb: 2\n"), [(0, "a: 1\n...\n"), (2, "# c\n---\nb: 2\n")]);
        assert_eq!(parts("--- {a: 1}\n--- {b: 2}"), [(0, "--- {a: 1}\n"), (1, "--- {b: 2}")]);
    }

    #[test]
    fn documents_without_content_are_skipped() {
        assert_eq!(parts(""), []);
        assert_eq!(parts("\u{feff}\n# only a comment\n---\n---\n \n--- # nothing\n...\n---"), []);
        assert_eq!(parts("---\n---\na: 1\n---\n"), [(1, "---\na: 1\n")]);
    }

    #[test]
    fn a_directive_stays_with_its_document() {
        assert_eq!(parts("# c\n%YAML 1.2\n---\na: 1\n"), [(0, "# c\n%YAML 1.2\n---\na: 1\n")]);
    }

    #[test]
    fn other_dashes_are_content() {
        assert_eq!(parts("----\na: |\n  ---\n ---\n---x\n").len(), 1);
    }

    proptest::proptest! {
        #[test]
        fn nothing_with_content_is_lost(text in "([a-z#-]{0,4}|---|\\.\\.\\.| ?\\n| )*") {
            let chunks = split(&text);
            let kept: usize = chunks.iter().map(|c| c.text.lines().filter(|l| l.starts_with('a')).count()).sum();
            proptest::prop_assert_eq!(kept, text.lines().filter(|l| l.starts_with('a')).count());
            for chunk in chunks {
                proptest::prop_assert!(text.lines().nth(chunk.lines_before).unwrap_or("") == chunk.text.lines().next().unwrap_or(""));
            }
        }
    }
}
