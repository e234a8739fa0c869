//! The files that browsers load.

use crate::app::{Answer, TestApp};

async fn get_if_none_match(app: &TestApp, path: &str, tags: &str) -> Answer {
    TestApp::read(app.request("GET", path).header("if-none-match", tags)).await
}

#[actix_web::test]
async fn the_javascript_client_is_served_to_anyone_with_an_etag() {
    let app = TestApp::start().await;
    for (path, content_type) in [
        ("/client/mobius-mdm.js", "text/javascript; charset=utf-8"),
        (
            "/client/mobius-mdm.d.ts",
            "application/typescript; charset=utf-8",
        ),
    ] {
        let answer = app.call("GET", path, None, None).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.text.contains("EventStream"));
        assert_eq!(answer.headers["content-type"], content_type);
        assert_eq!(answer.headers["cache-control"], "no-cache");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        let etag = &answer.headers["etag"];
        for known in [
            etag.clone(),
            format!("\"other\", {etag}"),
            format!("W/{etag}"),
            "*".to_owned(),
        ] {
            let again = get_if_none_match(&app, path, &known).await;
            assert_eq!((again.status, again.text.as_str()), (304, ""), "{known}");
            assert_eq!(&again.headers["etag"], etag);
        }
        for unknown in ["\"other\"", "other", ""] {
            let again = get_if_none_match(&app, path, unknown).await;
            assert_eq!(
                (again.status, &again.text),
                (200, &answer.text),
                "{unknown}"
            );
        }
        let head = app.call("HEAD", path, None, None).await;
        assert_eq!((head.status, head.text.as_str()), (200, ""));
        assert_eq!(&head.headers["etag"], etag);
    }
}

#[actix_web::test]
async fn there_is_nothing_else_beside_the_client() {
    let app = TestApp::start().await;
    for path in [
        "/client/",
        "/client/package.json",
        "/client/..%2fexamples%2flive.html",
    ] {
        let answer = app.call("GET", path, None, None).await;
        answer.expect_problem(404, "NO_SUCH_ROUTE");
    }
    let answer = app.call("POST", "/client/mobius-mdm.js", None, None).await;
    answer.expect_problem(404, "NO_SUCH_ROUTE");
}

#[actix_web::test]
async fn the_example_is_served_only_where_the_server_is_tried_out_and_may_load_nothing_else() {
    let app = TestApp::start().await;
    let files = [
        "/examples/live.html",
        "/examples/live.css",
        "/examples/live.js",
    ];
    for path in files {
        let answer = app.call("GET", path, None, None).await;
        answer.expect_problem(404, "NO_SUCH_ROUTE");
    }
    app.show_examples();
    for path in files {
        let answer = app.call("GET", path, None, None).await;
        assert_eq!(answer.status, 200, "{path}");
        let policy = &answer.headers["content-security-policy"];
        for part in [
            "default-src 'none'",
            "script-src 'self'",
            "connect-src 'self' ws: wss:",
        ] {
            assert!(policy.split("; ").any(|p| p == part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
    }
}
