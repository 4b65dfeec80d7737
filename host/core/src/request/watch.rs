//! What a watch asks for, as the API server reads it.

use super::{ResourceRequest, Verb};
use crate::object::ResourceVersion;

/// Where a watch is to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WatchFrom {
    /// With the objects that are there, in a state that is at least as new as this, if a version is given.
    Objects(Option<ResourceVersion>),
    /// After this version.
    Version(ResourceVersion),
}

/// The options of a watch that need not be the API server's to serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchOptions {
    /// Where it begins.
    pub from: WatchFrom,
    /// The end of the objects that are there is marked by a bookmark.
    pub marks_initial_end: bool,
    /// The client takes bookmarks.
    pub bookmarks: bool,
    /// How long it lasts at most. None: as long as the server likes.
    pub timeout_seconds: Option<u64>,
}

impl WatchOptions {
    /// None: not a watch of a collection, or one that only the API server can serve or refuse.
    pub fn of(request: &ResourceRequest) -> Option<Self> {
        let query = &request.query;
        let is_plain = request.verb == Verb::Watch
            && request.subresource.is_none()
            && query.continue_token.is_none()
            && query.limit.is_none();
        if !is_plain {
            return None;
        }
        let version = query.resource_version.as_deref().filter(|version| !matches!(*version, "" | "0"));
        let version = version.map(ResourceVersion::new);
        let at_least = query.resource_version_match.as_deref();
        let from = match (query.send_initial_events, at_least, version) {
            (Some(true), Some("NotOlderThan"), version) => WatchFrom::Objects(version),
            (None, None, None) => WatchFrom::Objects(None),
            (None, None, Some(version)) | (Some(false), Some("NotOlderThan"), Some(version)) => {
                WatchFrom::Version(version)
            }
            _ => return None,
        };
        let bookmarks = query.allow_watch_bookmarks.unwrap_or(false);
        Some(Self {
            from,
            marks_initial_end: bookmarks && query.send_initial_events == Some(true),
            bookmarks,
            timeout_seconds: query.timeout_seconds.filter(|seconds| *seconds > 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ApiRequest;
    use super::*;

    fn options(query: &str) -> Option<WatchOptions> {
        let path = format!("/api/v1/namespaces/n/configmaps?watch=1{query}");
        let Ok(ApiRequest::Resource(request)) = ApiRequest::parse("GET", &path) else { panic!("{path}") };
        WatchOptions::of(&request)
    }

    #[test]
    fn a_watch_begins_where_its_options_say() {
        let version = || ResourceVersion::new("7");
        for (query, from) in [
            ("", WatchFrom::Objects(None)),
            ("&resourceVersion=", WatchFrom::Objects(None)),
            ("&resourceVersion=0", WatchFrom::Objects(None)),
            ("&resourceVersion=7", WatchFrom::Version(version())),
            ("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan", WatchFrom::Objects(None)),
            ("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=0", WatchFrom::Objects(None)),
            (
                "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&resourceVersion=7",
                WatchFrom::Objects(Some(version())),
            ),
            (
                "&sendInitialEvents=false&resourceVersionMatch=NotOlderThan&resourceVersion=7",
                WatchFrom::Version(version()),
            ),
        ] {
            assert_eq!(options(query).map(|options| options.from), Some(from), "{query}");
        }
    }

    #[test]
    fn what_only_the_server_can_serve_or_refuse_is_left_to_it() {
        for query in [
            "&resourceVersionMatch=NotOlderThan&resourceVersion=7",
            "&sendInitialEvents=true",
            "&sendInitialEvents=true&resourceVersionMatch=Exact&resourceVersion=7",
            "&sendInitialEvents=false&resourceVersionMatch=NotOlderThan",
            "&limit=5",
            "&continue=x",
        ] {
            assert_eq!(options(query), None, "{query}");
        }
        let Ok(ApiRequest::Resource(list)) = ApiRequest::parse("GET", "/api/v1/configmaps") else { panic!() };
        assert_eq!(WatchOptions::of(&list), None);
    }

    #[test]
    fn the_end_of_the_beginning_is_marked_for_those_who_take_bookmarks() {
        let streaming = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan";
        let marks = |query: &str| options(query).map(|options| (options.bookmarks, options.marks_initial_end));
        assert_eq!(marks(&format!("{streaming}&allowWatchBookmarks=true")), Some((true, true)));
        assert_eq!(marks(streaming), Some((false, false)));
        assert_eq!(marks("&allowWatchBookmarks=true"), Some((true, false)));
    }

    #[test]
    fn a_time_of_zero_is_none() {
        let timeout = |query: &str| options(query).and_then(|options| options.timeout_seconds);
        assert_eq!((timeout("&timeoutSeconds=0"), timeout("&timeoutSeconds=9"), timeout("")), (None, Some(9), None));
    }
}
