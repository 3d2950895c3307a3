//! The page at `/`: a person pastes a prompt and responses and watches the judge write.
//!
//! Hand-written files, embedded as they are. The browser loads nothing from elsewhere
//! and runs no script but these: the content security policy says so, and a test holds
//! the files to it.

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::router::Routes;

/// Path, type and text of every file.
const FILES: [(&str, &str, &str); 7] = [
    ("/", "text/html; charset=utf-8", include_str!("../page/index.html")),
    ("/page/style.css", "text/css; charset=utf-8", include_str!("../page/style.css")),
    ("/page/main.js", SCRIPT, include_str!("../page/main.js")),
    ("/page/sections.js", SCRIPT, include_str!("../page/sections.js")),
    ("/page/sse.js", SCRIPT, include_str!("../page/sse.js")),
    ("/page/stats.js", SCRIPT, include_str!("../page/stats.js")),
    ("/page/view.js", SCRIPT, include_str!("../page/view.js")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Nothing but this server's own files and routes; no frames, no forms.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
    connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// Adds the page.
pub(crate) fn add(routes: Routes) -> Routes {
    FILES.iter().fold(routes, |routes, &(path, kind, text)| {
        routes.plain(path, get(move || async move { file(kind, text) }))
    })
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let mut response = text.into_response();
    for (name, value) in [
        (header::CONTENT_TYPE, kind),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // The files change with the program, under the same names.
        (header::CACHE_CONTROL, "no-cache"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_served(path: &str) -> bool {
        path == "data:," || path.starts_with('#') || FILES.iter().any(|(known, ..)| *known == path)
    }

    /// What stands between `before` and the next quotation mark, wherever it occurs.
    fn quoted<'a>(text: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
        text.split(before).skip(1).filter_map(|rest| rest.split('"').next())
    }

    #[test]
    fn everything_the_page_loads_is_served_here() {
        let html = FILES[0].2;
        for attribute in ["src=\"", "href=\""] {
            for path in quoted(html, attribute) {
                assert!(is_served(path), "{path} is not served");
            }
        }
        for (name, _, script) in FILES.iter().filter(|(_, kind, _)| *kind == SCRIPT) {
            for path in quoted(script, " from \"") {
                assert!(is_served(path), "{name} imports {path}, which is not served");
            }
        }
        for (name, _, text) in FILES {
            let text = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!text.contains("http:") && !text.contains("https:"), "{name} goes elsewhere");
        }
    }

    #[test]
    fn text_never_becomes_markup_or_code() {
        for (name, _, text) in FILES {
            for danger in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Function(",
            ] {
                assert!(!text.contains(danger), "{name} uses {danger}");
            }
        }
        let html = FILES[0].2;
        for inline in ["<style", " style=", " onclick=", "javascript:"] {
            assert!(!html.contains(inline), "the policy forbids {inline}");
        }
    }

    #[test]
    fn nothing_is_stored_in_the_browser() {
        for (name, _, text) in FILES {
            for store in ["localStorage", "sessionStorage", "document.cookie", "indexedDB"] {
                assert!(!text.contains(store), "{name} uses {store}");
            }
        }
    }

    #[test]
    fn files_carry_the_policy() {
        let response = file(FILES[0].1, FILES[0].2);
        let policy = response.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    }
}
